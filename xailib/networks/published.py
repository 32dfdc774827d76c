"""Weights that others publish for a network: where they come from, and where they are stored."""

from functools import partial
from pathlib import Path

from xailib.downloads import hub
from xailib.downloads.fetch import Watch, cached_path
from xailib.downloads.registry import Artefact, artefacts
from xailib.errors import InputError, UnavailableError
from xailib.networks.names import PLACES365, torchvision_networks

# Where each is stated: book/_data/weights.csv.
_OF_TORCHVISION = "none of their own stated (code: BSD-3-Clause); perhaps the training data's"
_OF_SWAG = "CC BY-NC 4.0"


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
        files = tuple(hub.place(config.hf_hub_id, name) for name in names)
        if theirs := hub.in_their_cache(config.hf_hub_id, names):
            files, get = (theirs,), partial(_as_it_is, theirs)
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


def _as_it_is(file: Path, _watch: Watch | None) -> Path:
    return file
