"""The photographs that come with installed packages, by names to remember."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xailib.files import package_folder

# foolbox names its photographs by number and ImageNet class; these are names to remember.
_FOOLBOX = {
    "bull-mastiff": "imagenet_00_243.jpg",
    "folding-chair": "imagenet_01_559.jpg",
    "beaker": "imagenet_02_438.jpg",
    "buckeye": "imagenet_03_990.jpg",
    "strawberry": "imagenet_04_949.jpg",
    "thatch": "imagenet_05_853.jpg",
    "jeep-sepia": "imagenet_06_609.jpg",
    "jeep-blue": "imagenet_07_609.jpg",
    "yurt": "imagenet_08_915.jpg",
    "bottlecap": "imagenet_09_455.jpg",
    "drum": "imagenet_10_541.jpg",
    "loafer": "imagenet_11_630.jpg",
    "prayer-rug": "imagenet_12_741.jpg",
    "cannon": "imagenet_13_471.jpg",
    "spoonbill": "imagenet_14_129.jpg",
    "goose": "imagenet_15_99.jpg",
    "dalmatian": "imagenet_16_251.jpg",
    "bald-eagle": "imagenet_17_22.jpg",
    "leafhopper": "imagenet_18_317.jpg",
    "dung-beetle": "imagenet_19_305.jpg",
}
_SKIMAGE = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}
_SKLEARN = {"china": "china.jpg", "flower": "flower.jpg"}
PACKAGES = {
    "foolbox": ("foolbox", "data", _FOOLBOX),
    "scikit-image": ("skimage", "data", _SKIMAGE),
    "scikit-learn": ("sklearn", "datasets/images", _SKLEARN),
}


@dataclass(frozen=True)
class Place:
    """The path of one photograph, before it is read."""

    id: str
    path: Path
    source: str
    class_index: int | None = None


def packaged_names() -> dict[str, tuple[str, ...]]:
    """Return the names of the packaged photographs, by the installed package they come in."""
    places = packaged()
    names = {package: tuple(own) for package, (_, _, own) in PACKAGES.items()}
    return {package: own for package, own in names.items() if own[0] in places}


@cache
def packaged() -> dict[str, Place]:
    """Return the path of every packaged photograph, by name; no package is imported."""
    places = {}
    for package, (module, folder, names) in PACKAGES.items():
        root = package_folder(module)
        if root is None:
            continue
        for name, file in names.items():
            class_index = int(Path(file).stem.split("_")[-1]) if package == "foolbox" else None
            places[name] = Place(name, root / folder / file, f"{package}:{name}", class_index)
    return places
