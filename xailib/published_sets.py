"""Sets of probe images that their publishers offer as an archive: fetched, checked, kept.

A download that breaks off is taken up where it stopped. Neither publisher states a hash, so
what is checked is the length announced, the CRC of each file, and how many images there are.
"""

import csv
import io
import shutil
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pooch

from xailib.errors import InputError, UnavailableError, unknown_name
from xailib.images import SUFFIXES


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
    """

    addresses: tuple[str, ...]
    images: int
    index: str | None = None


_BRODEN = "http://netdissect.csail.mit.edu/data/broden1_227.zip"
ARCHIVES = {
    # Bau et al., CVPR 2017. Their server has been seen to be down; the copy is the archive's.
    "broden": Archive(
        (_BRODEN, f"https://web.archive.org/web/20240418040425id_/{_BRODEN}"),
        63_305,
        "broden1_227/index.csv",
    ),
    "imagenet-sample": Archive(
        ("https://github.com/EliSchwartz/imagenet-sample-images/archive/refs/heads/master.zip",),
        1000,
    ),
}


def fetch_images(name: str, folder: Path | None = None) -> Path:
    """Return the folder with a published set's photographs, fetching it the first time.

    Parameters
    ----------
    name : str
        A key of `ARCHIVES`.
    folder : Path, optional
        Where sets are kept; the user's cache folder by default.

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
    folder = folder or Path(pooch.os_cache("xailib"))
    images = folder / name
    if images.is_dir():  # renamed into place only when complete
        return images
    file = folder / f"{name}.zip"
    reasons = []
    for address in archive.addresses:
        try:
            if not file.is_file():
                download(address, file)
            unpack(file, archive, images)
        except (OSError, HTTPException) as error:  # UnavailableError is one
            reasons.append(f"{address} ({error})")
        else:
            file.unlink()
            return images
    raise UnavailableError(
        f"probe: could not fetch {name}: {'; '.join(reasons)}; run again to go on, "
        f"or put the archive at {file}, or give the folder with the images as probe"
    )


def download(address: str, file: Path) -> None:
    """Fetch a file, going on behind what an earlier attempt left as ``FILE.part``.

    Raises
    ------
    OSError
        If the server does not answer, or stops before the length it announced.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        # The addresses are the constants above, never a user's.
        with urlopen(Request(address, headers=headers), timeout=60) as answer:  # noqa: S310
            resumed = answer.status == 206
            announced = int(answer.headers.get("Content-Length") or -1)
            with part.open("ab" if resumed else "wb") as out:
                shutil.copyfileobj(answer, out, 1 << 20)
    except HTTPError as error:
        if error.code != 416:  # nothing is left to send: the part is the whole
            raise
        announced, resumed = -1, True
    length = part.stat().st_size
    expected = announced + (have if resumed else 0)
    if announced >= 0 and length != expected:
        raise UnavailableError(f"broke off after {length} of {expected} bytes")
    part.replace(file)


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
            for name in names:
                opened.extract(name, staging)
    except (zipfile.BadZipFile, KeyError, InputError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        file.unlink()
        raise UnavailableError(f"the archive is damaged: {error}") from error
    staging.replace(folder)


def _photographs(opened: zipfile.ZipFile, archive: Archive) -> list[str]:
    if archive.index is None:
        return [name for name in opened.namelist() if Path(name).suffix.lower() in SUFFIXES]
    root = Path(archive.index).parent.as_posix()
    with io.TextIOWrapper(opened.open(archive.index), encoding="utf-8") as lines:
        return [f"{root}/images/{row['image']}" for row in csv.DictReader(lines)]
