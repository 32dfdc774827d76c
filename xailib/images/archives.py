"""Sets of probe images that their publishers offer as an archive: fetched, checked, kept.

Neither publisher states a hash, so what is checked is the CRC of each file and how many images
there are; then the archive's hash is noted, and another archive later is refused.
"""

import csv
import io
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from xailib.downloads import fetch as downloads
from xailib.errors import InputError, UnavailableError, unknown_name
from xailib.images.load import SUFFIXES
from xailib.locks import alone


@dataclass(frozen=True)
class Archive:
    """A zip file of photographs.

    Attributes
    ----------
    addresses : tuple of str
        Tried in this order.
    images : int
        How many photographs it holds.
    index : str or None
        A CSV file inside whose column ``image`` names the photographs below ``images/``, where
        other pictures, such as masks, lie beside them.
    licence : str
        As its publisher states it.
    stated : int or None
        Bytes, as its publisher states them.
    most : int
        Bytes that its photographs may unpack to.
    """

    addresses: tuple[str, ...]
    images: int
    index: str | None = None
    licence: str = "none stated"
    stated: int | None = None
    most: int = 8 * 2**30


_BRODEN = "http://netdissect.csail.mit.edu/data/broden1_227.zip"
ARCHIVES = {
    # Bau et al., CVPR 2017. Their server has been seen to be down; the copy is the archive's.
    "broden": Archive(
        (_BRODEN, f"https://web.archive.org/web/20240418040425id_/{_BRODEN}"),
        63_305,
        "broden1_227/index.csv",
        "none stated (code: MIT); images are ADE20K's, OpenSurfaces', Pascal's, DTD's",
        10**9,
    ),
    "imagenet-sample": Archive(
        ("https://github.com/EliSchwartz/imagenet-sample-images/archive/refs/heads/master.zip",),
        1000,
        licence="none stated; ImageNet's terms: non-commercial research and education",
    ),
}


def fetch_images(
    name: str, folder: Path | None = None, watch: downloads.Watch | None = None
) -> Path:
    """Return the folder with a published set's photographs, fetching it the first time.

    Parameters
    ----------
    name : str
        A key of `ARCHIVES`.
    folder : Path, optional
        Where sets are kept; the user's cache folder by default.
    watch : callable, optional
        Told of the progress, as by `xailib.downloads.fetch.fetch`.

    Raises
    ------
    InputError
        For an unknown name.
    UnavailableError
        If it cannot be fetched, or what came is damaged: run again to go on, or supply it.
    """
    if name not in ARCHIVES:
        raise unknown_name("probe", name, ARCHIVES)
    archive = ARCHIVES[name]
    folder = folder or downloads.cache_folder()
    images = folder / name
    if images.is_dir():  # renamed into place only when complete
        return images
    file = folder / f"{name}.zip"
    reasons = []
    with alone(images):
        if images.is_dir():  # by another process, meanwhile
            return images
        for address in archive.addresses:
            try:
                downloads.fetch(address, file, checked=True, watch=watch)
                unpack(file, archive, images)
            except OSError as error:  # UnavailableError is one
                reasons.append(f"{address} ({error})")
            else:
                downloads.note(address, file)
                file.unlink()
                return images
    raise UnavailableError(
        f"probe: could not fetch {name}: {'; '.join(reasons)}; run again to go on, "
        f"or put the archive at {file}, or give the folder with the images as probe"
    )


def unpack(file: Path, archive: Archive, folder: Path) -> None:
    """Extract the photographs, each checked against its CRC; all of them or no folder.

    Raises
    ------
    UnavailableError
        If the archive is damaged (it is then deleted) or holds another number of photographs.
    """
    staging = folder.with_name(folder.name + ".unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as opened:
            names = _photographs(opened, archive)
            if len(names) != archive.images:
                raise InputError(f"holds {len(names)} photographs, not {archive.images}")
            _check_members(opened, names, staging, archive.most)
            for name in names:
                opened.extract(name, staging)
    except (zipfile.BadZipFile, KeyError, InputError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        file.unlink()
        raise UnavailableError(f"the archive is damaged: {error}") from error
    staging.replace(folder)


def _check_members(opened: zipfile.ZipFile, names: list[str], folder: Path, most: int) -> None:
    """Raise if a file would lie outside the folder, or all of them are too large."""
    root = folder.resolve()
    for name in names:
        if not (root / name).resolve().is_relative_to(root):
            raise InputError(f"{name!r} lies outside its folder")
    size = sum(opened.getinfo(name).file_size for name in names)
    if size > most:
        raise InputError(f"unpacks to {size} bytes; at most {most} are taken")


def _photographs(opened: zipfile.ZipFile, archive: Archive) -> list[str]:
    if archive.index is None:
        return [name for name in opened.namelist() if Path(name).suffix.lower() in SUFFIXES]
    root = Path(archive.index).parent.as_posix()
    with io.TextIOWrapper(opened.open(archive.index), encoding="utf-8") as lines:
        return [f"{root}/images/{row['image']}" for row in csv.DictReader(lines)]
