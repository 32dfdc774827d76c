"""Files from the network: fetched once by pooch, checked by hash, cached.

A file whose publisher states its SHA-256 must have it. Of one without, the SHA-256 is noted in
``hashes.txt`` of the cache folder when it first comes, and another content later is refused.
The folder that ``XAILIB_MIRROR`` names is looked in first: there a file lies as HOST/PATH of its
address, or under its name alone.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import pooch
import requests

from xailib.errors import UnavailableError
from xailib.files import alone, sha256_of, storage

MIRROR = "XAILIB_MIRROR"  # names a folder with files as HOST/PATH of their address, or by name
MOST = 20 * 2**30  # bytes; nothing that is fetched here comes near
TIMEOUT = 10.0  # seconds to connect, and between two answers
_PLAIN = {"Accept-Encoding": "identity"}  # so that the announced size is that of the file

Watch = Callable[[int, int], object]  # given the bytes there are and, where announced, will be


def cache_folder() -> Path:
    """Return where downloads are cached."""
    return Path(pooch.os_cache("xailib"))


def cached_path(address: str) -> Path:
    """Return where a download without a place of its own is cached."""
    return cache_folder() / pooch.utils.unique_file_name(address)


def fetch(
    address: str,
    file: Path | None = None,
    *,
    sha256: str = "",
    check: Callable[[Path], object] | None = None,
    watch: Watch | None = None,
) -> Path:
    """Return a file, fetching it if it is not there; once, if several ask for it at a time.

    Parameters
    ----------
    address : str
        Where it comes from, ``http`` or ``https``.
    file : Path, optional
        Where it is stored; by default `cached_path`.
    sha256 : str, optional
        As its publisher states it, all or the start of it. A file in place that has another is
        fetched again.
    check : callable, optional
        Given the file before its hash is noted; raises if it is not whole.
    watch : callable, optional
        Called with the progress.

    Raises
    ------
    UnavailableError
        In one line: the host, and why the file is not available from it or is not what it was.
    StorageError
        If it cannot be written.
    """
    file = file or cached_path(address)
    known = sha256 or _noted(address)
    if not _is(file, known):
        with alone(file), storage(file):
            if not _is(file, known):  # nor has another process fetched it meanwhile
                part = file.with_name(f"{file.name}.part")
                try:
                    download(address, part, watch=watch)
                    if not _is(part, known):
                        raise UnavailableError(_another(address, known, stated=bool(sha256)))
                    if check:
                        check(part)
                    part.replace(file)
                finally:
                    part.unlink(missing_ok=True)
    elif check:
        check(file)
    if not known:
        _notes().parent.mkdir(parents=True, exist_ok=True)
        with storage(_notes()), _notes().open("a", encoding="utf-8") as lines:
            lines.write(f"{sha256_of(file)} {address}\n")  # one write: others may add theirs
    return file


def download(address: str, part: Path, *, most: int = MOST, watch: Watch | None = None) -> None:
    """Copy a file from the mirror folder or the network, from its start; nothing is checked.

    A file of more than `most` bytes is refused; `watch` is called with the progress.
    `UnavailableError` says the host and the reason.
    """
    mirrored = in_mirror(address)
    if mirrored:
        shutil.copyfile(mirrored, part)
        return
    get = pooch.HTTPDownloader(
        progressbar=_Progress(part, most, watch),
        chunk_size=1 << 20,
        timeout=TIMEOUT,
        headers=_PLAIN,
    )
    try:
        get(address, str(part), None)
    except requests.RequestException as error:
        raise UnavailableError(f"{host_of(address)}: {_reason(error, address)}") from error


class _Progress:
    """What pooch takes for a progress bar: passes the progress on, and ends what is too large."""

    total = 0

    def __init__(self, part: Path, most: int, watch: Watch | None) -> None:
        self.have, self.part, self.most, self.watch = 0, part, most, watch

    def update(self, count: int) -> None:
        self.have += count
        if max(self.part.stat().st_size, self.total) > self.most:
            raise UnavailableError(f"{self.part.stem}: at most {self.most} bytes are taken")
        if self.watch:
            self.watch(min(self.have, self.total or self.have), self.total)

    def reset(self) -> None:
        self.have = 0

    def close(self) -> None:
        pass


def in_mirror(address: str) -> Path | None:
    """Return the file that stands for an address in the mirror folder, if there is one."""
    folder = os.environ.get(MIRROR)
    if not folder:
        return None
    root = Path(folder).expanduser().resolve()
    parts = urlsplit(address)
    path = unquote(parts.path).lstrip("/")
    for place in (root / parts.netloc / path, root / Path(path).name):
        found = place.resolve()
        if found.is_relative_to(root) and found.is_file():
            return found
    return None


def problem_with(address: str) -> str | None:
    """Return why a file cannot be fetched, in a few words, or None if its host offers it."""
    if in_mirror(address):
        return None
    try:
        _head(address)
    except OSError as error:
        reason = _reason(error, address)
        return None if reason == "HTTP 405" else reason  # 405: it refuses to be asked
    return None


def size_of(address: str) -> int | None:
    """Return how large a file is, as its server or the mirror folder says; None if neither does."""
    mirrored = in_mirror(address)
    try:
        return mirrored.stat().st_size if mirrored else int(_head(address)["Content-Length"])
    except (OSError, KeyError, ValueError):
        return None


def host_of(address: str) -> str:
    """Return the host, and port if there is one."""
    return urlsplit(address).netloc


def _head(address: str) -> requests.structures.CaseInsensitiveDict[str]:
    """Return a server's headers for a file without its content."""
    answer = requests.head(address, timeout=TIMEOUT / 2, allow_redirects=True, headers=_PLAIN)
    answer.raise_for_status()
    return answer.headers


def _reason(error: BaseException, address: str) -> str:
    """Return what went wrong in a few words: the socket's error, without what wraps it."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    wrapped = (error.__cause__, *error.args)
    inner = next((one for one in wrapped if isinstance(one, BaseException)), None)
    if inner:
        return _reason(inner, address)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    proxy = getproxies().get(urlsplit(address).scheme)
    if not proxy or proxy_bypass(urlsplit(address).hostname or ""):
        return str(text)
    return f"{text}, through the proxy {urlsplit(proxy).netloc.rpartition('@')[2] or proxy}"


def _is(file: Path, known: str) -> bool:
    return file.is_file() and (not known or sha256_of(file).startswith(known))


def _another(address: str, known: str, *, stated: bool) -> str:
    whose = "its publisher states" if stated else f"noted at first use in {_notes()}"
    name = Path(urlsplit(address).path).name
    return (
        f"{host_of(address)}: {name} has another SHA-256 than {whose} "
        f"({known[:12]}...); it is not used"
    )


def _notes() -> Path:
    return cache_folder() / "hashes.txt"


def _noted(address: str) -> str:
    """Return the hash that was noted when a file first came."""
    try:
        lines = _notes().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.split()[0] for line in lines if line.endswith(f" {address}")), "")
