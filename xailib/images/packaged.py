"""The photographs that come with installed packages, by names to remember."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xailib.files import package_folder

# foolbox names its photographs by number and ImageNet class; these are names to remember.
_CLASSES = {
    "bull-mastiff": 243, "folding-chair": 559, "beaker": 438, "buckeye": 990, "strawberry": 949,
    "thatch": 853, "jeep-sepia": 609, "jeep-blue": 609, "yurt": 915, "bottlecap": 455, "drum": 541,
    "loafer": 630, "prayer-rug": 741, "cannon": 471, "spoonbill": 129, "goose": 99,
    "dalmatian": 251, "bald-eagle": 22, "leafhopper": 317, "dung-beetle": 305,
}  # fmt: skip
_FOOLBOX = {
    name: f"imagenet_{number:02d}_{index}.jpg"
    for number, (name, index) in enumerate(_CLASSES.items())
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
            path, source = root / folder / file, f"{package}:{name}"
            places[name] = Place(name, path, source, _CLASSES.get(name))
    return places
