"""Where a store may be: an address that fsspec takes, looked at before any work."""

import os
from pathlib import Path
from typing import Any

from xailib.errors import InputError, UnavailableError, first_line, near_matches

ALLOWED = "give a folder, file:///FOLDER, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "oss", "oci")
_READ_ONLY = ("http", "https", "data")


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system behind an address of a store, and the place in it.

    Nothing is written, and no bucket is asked for.

    Parameters
    ----------
    url : str
        See `xailib.report.run.store.Store`.

    Raises
    ------
    InputError
        For an address that is none, or cannot be a store: the address, and what is allowed.
    UnavailableError
        If a package for it is missing, or its machine does not answer.
    """
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import available_protocols
    except ImportError as error:
        raise UnavailableError("store: pip install 'xailib[cluster]'") from error
    if problem := _problem(url, available_protocols()):
        raise InputError(f"store: {url!r} {problem}; {ALLOWED}")
    try:
        system, place = url_to_fs(url)
    except ImportError as error:
        why = error if any(error.args) else "its package is not installed"
        raise UnavailableError(f"store: {url!r} cannot be used: {why}; or {ALLOWED}") from error
    except OSError as error:
        raise UnavailableError(f"store: {url!r} cannot be used: {first_line(error)}") from error
    except Exception as error:  # whatever a protocol's own package raises
        raise InputError(f"store: {url!r}: {first_line(error)}; {ALLOWED}") from error
    if getattr(system, "local_file", False):
        _check_folder(url, Path(place))
        system.auto_mkdir = True
    return system, place.rstrip("/")


def _check_folder(url: str, place: Path) -> None:
    """Raise if a folder cannot be there, or not be written to."""
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    if not there.is_dir():
        what = "is a file" if there == place else f"lies below {str(there)!r}, which is a file"
        raise InputError(f"store: {url!r} {what}; {ALLOWED}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"store: {url!r}: {str(there)!r} cannot be written to; {ALLOWED}")


def _problem(url: str, known: list[str]) -> str:
    """Return what is wrong with an address by its words alone, or nothing."""
    address = url.rpartition("::")[2]  # behind what fsspec puts before it, as simplecache::
    protocol, sign, rest = address.partition("://")
    if not sign:
        word, colon, _ = address.partition(":")
        return f"has no // behind {word}:" if colon and word in known else ""
    if protocol not in known:
        close = near_matches(protocol, known)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        return f"has no protocol that fsspec knows{hint}"
    if protocol in _READ_ONLY:
        return "cannot be written to"
    bare = protocol in _BUCKETS and not rest.split("/")[0]
    return "names no bucket or folder" if bare or not rest.strip("/") else ""
