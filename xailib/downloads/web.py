"""Web addresses: asked in seconds, and why not in a few words; or found in a mirror folder."""

import os
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, build_opener, getproxies, proxy_bypass

MIRROR = "XAILIB_MIRROR"  # names a folder with files as HOST/PATH of their address, or by name
TIMEOUT = 10.0  # seconds to connect, and between two answers


def open_address(
    address: str, headers: dict[str, str], method: str = "GET", *, timeout: float = TIMEOUT
) -> Any:
    """Send a request; proxies are those that the environment names now."""
    request = Request(address, headers=headers, method=method)  # noqa: S310  ours, http or https
    return build_opener().open(request, timeout=timeout)


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
        with open_address(address, {}, "HEAD", timeout=TIMEOUT / 2):
            return None
    except HTTPError as error:
        return None if error.code == 405 else f"HTTP {error.code}"  # 405: it refuses to be asked
    except (OSError, HTTPException) as error:
        return reason(error) + through(address)


def size_of(address: str) -> int | None:
    """Return how large a file is, as its server or the mirror folder says; None if neither does."""
    mirrored = in_mirror(address)
    if mirrored:
        return mirrored.stat().st_size
    try:
        with open_address(address, {}, "HEAD", timeout=TIMEOUT / 2) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, HTTPException, TypeError, ValueError):
        return None


def reason(error: BaseException) -> str:
    """Return what went wrong with a connection, in a few words."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code}"
    inner = getattr(error, "reason", error)
    text = getattr(inner, "strerror", None) or str(inner)
    return (str(text).splitlines() or [type(error).__name__])[0]


def through(address: str) -> str:
    """Return which proxy was asked, without its password, or nothing."""
    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ""):
        return ""
    return f", through the proxy {urlsplit(proxy).netloc.rpartition('@')[2] or proxy}"


def host_of(address: str) -> str:
    """Return the host, and port if there is one."""
    return urlsplit(address).netloc
