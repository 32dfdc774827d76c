"""Sets of probe images that their publishers offer as an archive: downloaded, checked, cached.

Neither publisher states a hash, so what is checked is the CRC of each file and how many images
there are; then the archive's hash is noted, and another archive later is refused.
"""

import csv
import io
import shutil
import zipfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from xailib.downloads.fetch import Watch
from xailib.downloads.registry import Artefact, artefact
from xailib.errors import InputError, UnavailableError, check_name
from xailib.files import alone
from xailib.images.load import SUFFIXES, hidden


@dataclass(frozen=True)
class Archive:
    """What a zip file of photographs holds."""

    images: int  #: how many photographs
    #: a CSV file inside whose column `image` names the photographs below `images/`, where
    #: other images, such as masks, lie beside them
    index: str | None = None


MOST = 8 * 2**30  # bytes that a set may unpack to
ARCHIVES = {
    "broden": Archive(63_305, "broden1_227/index.csv"),  # Bau et al., CVPR 2017
    "imagenet-sample": Archive(1000),
}


def probe_archive(name: str) -> Artefact:
    """Return a published set of `ARCHIVES` as what is fetched: the folder with its photographs."""
    check_name("probe", name, ARCHIVES)
    zipped = artefact(name)
    folder = zipped.file.with_suffix("")
    return replace(zipped, files=(folder,), get=partial(_fetch, name, zipped, folder))


def fetch_images(name: str) -> Path:
    """Return the folder with a published set's photographs, fetching it the first time.

    Parameters
    ----------
    name : str
        A key of `ARCHIVES`.

    Raises
    ------
    InputError, UnavailableError
        For an unknown name; if it cannot be fetched, or what came is damaged: how to supply it.
    """
    return probe_archive(name).fetch()


def _fetch(name: str, zipped: Artefact, folder: Path, watch: Watch | None) -> Path:
    if folder.is_dir():  # renamed into place only when complete
        return folder
    with alone(folder):
        if not folder.is_dir():  # nor has another process unpacked it meanwhile
            unpacked = partial(unpack, archive=ARCHIVES[name], folder=folder)
            zipped.fetch(watch, unpacked).unlink()
    return folder


def unpack(file: Path, archive: Archive, folder: Path) -> None:
    """Extract the photographs, each checked against its CRC; all of them or no folder.

    A damaged archive, or one with another number of photographs, is deleted.
    """
    staging = folder.with_name(folder.name + ".unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as opened:
            names = _photographs(opened, archive)
            if len(names) != archive.images:
                raise InputError(f"holds {len(names)} photographs, not {archive.images}")
            _check_members(opened, names, staging)
            for name in names:
                opened.extract(name, staging)
    except (zipfile.BadZipFile, KeyError, InputError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        file.unlink()
        raise UnavailableError(f"the archive is damaged: {error}") from error
    staging.replace(folder)


def _check_members(opened: zipfile.ZipFile, names: list[str], folder: Path) -> None:
    """Raise if a file would lie outside the folder, or all of them are too large."""
    root = folder.resolve()
    for name in names:
        if not (root / name).resolve().is_relative_to(root):
            raise InputError(f"{name!r} lies outside its folder")
    size = sum(opened.getinfo(name).file_size for name in names)
    if size > MOST:
        raise InputError(f"unpacks to {size} bytes; at most {MOST} are taken")


def _photographs(opened: zipfile.ZipFile, archive: Archive) -> list[str]:
    if archive.index is None:
        return [
            name
            for name in opened.namelist()
            if Path(name).suffix.lower() in SUFFIXES
            and not any(hidden(part) for part in Path(name).parts if part != "..")  # refused below
        ]
    root = Path(archive.index).parent.as_posix()
    with io.TextIOWrapper(opened.open(archive.index), encoding="utf-8") as lines:
        return [f"{root}/images/{row['image']}" for row in csv.DictReader(lines)]
