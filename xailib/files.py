"""Files that are whole or absent, and hashes that tell what they hold."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from xailib.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name only when all of it is on the disk.

    If the block fails, or the machine does, `path` is as it was before.

    Raises
    ------
    StorageError
        If the disk is full, or may not be written to.
    """
    with storage(path), _whole(path) as file:
        yield file


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn what the disk says in this block into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *_REFUSED):
            raise
        full = "make room and" if error.errno in _FULL else "make it writable and"
        raise StorageError(
            f"disk: cannot write {str(path)!r}: {error.strerror}; "
            f"{full} run again to go on, what is finished is kept"
        ) from error


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file, or leave the old one."""
    with atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def take_away(folder: Path, names: Collection[str]) -> bool:
    """Delete a folder if it holds these files and nothing else; return whether that is so.

    So is the folder above, if that is empty then.
    """
    if {path.name for path in folder.iterdir()} != set(names):
        return False
    with contextlib.suppress(OSError):  # another process may be waiting for its turn in it
        for name in names:
            (folder / name).unlink()
        folder.rmdir()
        folder.parent.rmdir()
    return True


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
