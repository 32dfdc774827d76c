"""Files from the network: kept once, checked by hash, gone on with where they broke off.

A file whose publisher states its SHA-256 must have it. Of one without, the SHA-256 is noted in
``hashes.txt`` of the cache folder when it first comes, and another content later is refused.
The folder that ``XAILIB_MIRROR`` names is looked in first: there a file lies as HOST/PATH of its
address, or under its name alone.
"""

import shutil
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pooch

from xailib.downloads.web import host_of, in_mirror, open_address, reason, through
from xailib.errors import UnavailableError
from xailib.files import sha256_of
from xailib.locks import alone

MOST = 20 * 2**30  # bytes; nothing that is fetched here comes near
_TRIES = 4  # connections, each going on where the last one broke off
_CHUNK = 1 << 20
_SCHEMES = ("http", "https")

Watch = Callable[[int, int], object]  # told the bytes there are and, where announced, will be


class GoneError(UnavailableError):
    """The server has no file of that name."""


def cache_folder() -> Path:
    """Return where fetched files are kept."""
    return Path(pooch.os_cache("xailib"))


def kept(address: str) -> Path:
    """Return where a file lies that has no place of its own."""
    return cache_folder() / pooch.utils.unique_file_name(address)


def fetch(
    address: str,
    file: Path | None = None,
    *,
    sha256: str | None = None,
    checked: bool = False,
    most: int = MOST,
    watch: Watch | None = None,
) -> Path:
    """Return a file, fetching it if it is not there; once, if several ask for it at a time.

    Parameters
    ----------
    address : str
        Where it comes from, ``http`` or ``https``.
    file : Path, optional
        Where it is kept; by default `kept`.
    sha256 : str, optional
        As its publisher states it. One that is in place but different is fetched again.
    checked : bool
        The caller looks into the file itself, and calls `note` if it is whole.
    most : int
        Bytes; a larger file is refused.
    watch : callable, optional
        Told of the progress.

    Raises
    ------
    UnavailableError
        In one line: the host, and why the file cannot be had from it or is not what it was.
    """
    file = file or kept(address)
    known = sha256 or _noted(address)
    pooch.get_logger().setLevel("WARNING")

    def get(url: str, output: str, _: object) -> None:
        part = file.with_name(file.name + ".part")
        download(url, part, checked=checked or known is not None, most=most, watch=watch)
        part.replace(output)

    try:
        if not (file.is_file() and known in (None, sha256_of(file))):
            with alone(file):  # and if another process has just fetched it, it is taken
                pooch.retrieve(address, known, file.name, file.parent, downloader=get)
    except ValueError as error:  # of pooch: another hash
        whose = "its publisher states" if sha256 else f"noted at first use in {_notes()}"
        raise UnavailableError(
            f"{host_of(address)}: {Path(urlsplit(address).path).name} has another SHA-256 than "
            f"{whose} ({str(known)[:12]}...); it is not used"
        ) from error
    except OSError as error:
        if isinstance(error, UnavailableError):
            raise
        raise UnavailableError(f"{host_of(address)}: {reason(error)}") from error
    if known is None and not checked:
        note(address, file)
    return file


def download(
    address: str, part: Path, *, checked: bool = False, most: int = MOST, watch: Watch | None = None
) -> None:
    """Fetch a file to `part`, going on behind what earlier attempts have left there.

    Parameters
    ----------
    address : str
        Where it comes from.
    part : Path
        Where it grows; beside it, ``.tag`` holds the server's name for this version.
    checked : bool
        Whether the whole is compared with a hash afterwards: then a part is gone on with even if
        the server names no versions.
    most : int
        Bytes; a larger file is refused.
    watch : callable, optional
        Told of the progress.

    Raises
    ------
    UnavailableError
        With the host and the reason; what has come is kept.
    """
    if urlsplit(address).scheme not in _SCHEMES:
        raise UnavailableError(f"{address}: only http and https addresses are fetched")
    mirrored = in_mirror(address)
    if mirrored is not None:
        shutil.copyfile(mirrored, part)
        return
    for attempt in range(1, _TRIES + 1):
        before = _size(part)
        try:
            _go_on(address, part, checked, most, watch)
        except (OSError, HTTPException) as error:
            if isinstance(error, UnavailableError):
                raise
            if isinstance(error, HTTPError) or _size(part) <= before or attempt == _TRIES:
                kind = GoneError if isinstance(error, HTTPError) and error.code == 404 else None
                line = f"{host_of(address)}: {reason(error)}{through(address)}"
                raise (kind or UnavailableError)(line) from error
        else:
            _tag(part).unlink(missing_ok=True)
            return


def _go_on(address: str, part: Path, checked: bool, most: int, watch: Watch | None) -> None:
    """Ask for what is missing of a file, and write what comes."""
    have, tag = _size(part), _tag(part)
    headers = {}
    if have and (tag.is_file() or checked):
        headers["Range"] = f"bytes={have}-"
        if tag.is_file():
            headers["If-Range"] = tag.read_text(encoding="utf-8")
    try:
        with open_address(address, headers) as answer:
            resumed = answer.status == 206
            have = have if resumed else 0
            announced = answer.headers.get("Content-Length")
            total = have + int(announced) if announced else 0
            _check_room(part, total, have, most)
            _remember(tag, answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
            with part.open("ab" if resumed else "wb") as out:
                while chunk := answer.read(_CHUNK):
                    have += len(chunk)
                    if have > most:
                        raise UnavailableError(f"{part.stem}: at most {most} are taken")
                    out.write(chunk)
                    if watch:
                        watch(have, total)
    except HTTPError as error:
        if error.code != 416 or not headers:  # 416: nothing is left to send
            raise
        return
    if total and have != total:
        raise ConnectionError(f"broke off after {have} of {total} bytes")


def _check_room(part: Path, total: int, have: int, most: int) -> None:
    if total > most:
        raise UnavailableError(f"{part.stem}: announced as {total} bytes; at most {most} are taken")
    free = shutil.disk_usage(part.parent).free
    if total - have > free:
        raise UnavailableError(
            f"{part.stem}: needs {(total - have) / 1e6:.0f} MB in {str(part.parent)!r}, "
            f"where {free / 1e6:.0f} MB are free"
        )


def _remember(tag: Path, etag: str | None, modified: str | None) -> None:
    """Note what the server calls this version, by which a later attempt can ask for the rest."""
    name = etag if etag and not etag.startswith("W/") else modified
    if name:
        tag.write_text(name, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)


def _notes() -> Path:
    return cache_folder() / "hashes.txt"


def _noted(address: str) -> str | None:
    """Return the hash that was noted when a file first came."""
    try:
        lines = _notes().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    return next((line.split()[0] for line in lines if line.endswith(f" {address}")), None)


def note(address: str, file: Path) -> None:
    """Note the hash of a file that came from an address, unless one is noted already."""
    if _noted(address):
        return
    _notes().parent.mkdir(parents=True, exist_ok=True)
    with _notes().open("a", encoding="utf-8") as lines:  # one write: others may add theirs
        lines.write(f"{sha256_of(file)} {address}\n")


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
