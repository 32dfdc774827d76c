"""A folder, or a file, that one process at a time writes to.

The lock is the operating system's, on a file in the folder: it ends with its process, however
that ends, so that a run that was killed leaves nothing to clear away.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from xailib.errors import InputError
from xailib.files import storage

log = logging.getLogger(__name__)

SOON = 30.0  # seconds; the kernel of a killed run notices within a few


def lock_folder(folder: Path, name: str, *, patience: float = SOON) -> FileLock:
    """Return a lock on a folder, held until it is released or the process ends.

    Within one process it may be taken again, as a cell of a notebook is run again.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    name : str
        Of the lock file.
    patience : float
        How many seconds to wait while another process holds it; -1 for as long as it takes.

    Raises
    ------
    InputError
        If another process still holds it then.
    StorageError
        If the folder cannot be written to.
    """
    path = folder / name
    with storage(path):
        lock = FileLock(path, is_singleton=True, thread_local=False)
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _acquire(lock, folder, patience)
                path.write_text(f"{os.getpid()}\n")
            except FileNotFoundError:  # its holder has made nothing, and taken the folder away
                lock.release()
            else:
                return lock


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Let one at a time, of all processes and threads, fetch a file; the others wait.

    Raises
    ------
    StorageError
        If its folder cannot be written to.
    """
    path = file.with_name(f".{file.name}.lock")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("downloads: %s is being fetched by %s; waiting", file, _holder(lock))
            lock.acquire()
        path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path, patience: float) -> None:
    with suppress(Timeout):
        lock.acquire(timeout=0)
        return
    log.warning("results: %s is in use by %s; waiting", folder, _holder(lock))
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise InputError(
            f"results: {str(folder)!r} is in use by {_holder(lock)}; "
            "wait until it ends (or stop its kernel), or name another folder"
        ) from error


def _holder(lock: FileLock) -> str:
    number = ""
    with suppress(OSError):  # it has just gone
        number = Path(lock.lock_file).read_text().strip()
    return f"process {number}" if number else "another process"
