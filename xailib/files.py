"""Files that are whole or absent, hashes of their content, and locks.

A lock is the operating system's, on a file in the folder: it ends with its process, however that
ends, so that a run that was killed leaves nothing to clear away.
"""

import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from xailib.errors import InputError, StorageError

log = logging.getLogger(__name__)

SOON = 30.0  # seconds to wait for a lock; the kernel of a killed run notices within a few

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name only when all of it is on the disk.

    If the block fails, or the machine does, `path` is as it was before.
    """
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn the disk's errors in this block into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *_REFUSED):
            raise
        full = "make room and" if error.errno in _FULL else "make it writable and"
        raise StorageError(
            f"disk: cannot write {str(path)!r}: {error.strerror}; "
            f"{full} run again to resume, finished results are stored"
        ) from error


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file, or leave the old one."""
    with atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def delete_if_only(folder: Path, names: Collection[str]) -> bool:
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


def package_folder(module: str) -> Path | None:
    """Return the folder of an installed package, which is not imported; None without it."""
    spec = find_spec(module)
    found = spec.submodule_search_locations if spec else None
    return Path(found[0]) if found else None


def lock_folder(folder: Path, name: str, *, patience: float = SOON) -> FileLock:
    """Return a lock on a folder, held until it is released or the process ends.

    Within one process it may be taken again, as a cell of a notebook is run again. `InputError` is
    raised if another process still holds it after `patience` seconds (-1: as long as it takes).
    """
    path = folder / name
    with storage(path):
        lock = FileLock(path, is_singleton=True, thread_local=False)
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _acquire(lock, "results: %s is in use by %s; waiting", folder, patience)
                path.write_text(f"{os.getpid()}\n")
            except FileNotFoundError:  # its holder has made nothing, and taken the folder away
                lock.release()
            except Timeout as error:
                raise InputError(
                    f"results: {str(folder)!r} is in use by {_holder(lock)}; "
                    "wait until it ends (or stop its kernel), or name another folder"
                ) from error
            else:
                return lock


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Let one at a time, of all processes and threads, fetch a file; the others wait."""
    path = file.with_name(f".{file.name}.lock")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        _acquire(lock, "downloads: %s is being fetched by %s; waiting", file)
        path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, told: str, what: Path, patience: float = -1) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning(told, what, _holder(lock))
        lock.acquire(timeout=patience)


def _holder(lock: FileLock) -> str:
    number = ""
    with contextlib.suppress(OSError):  # it has just gone
        number = Path(lock.lock_file).read_text().strip()
    return f"process {number}" if number else "another process"
