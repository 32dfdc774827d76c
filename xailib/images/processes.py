"""A function of many files by all cores.

By processes and not threads: half of what reading a small JPEG file takes holds Python's lock.
"""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import TypeVar

from xailib.errors import UnavailableError
from xailib.project import cores

Item = TypeVar("Item")
Found = TypeVar("Found")

MOST = 32  # processes
_MANY = 1000  # items; of fewer, starting processes would take most of what they save
_CHUNK = 32  # items a task


def can_fork() -> bool:
    """Return whether this process may have children that share its memory."""
    able = "fork" in multiprocessing.get_all_start_methods()
    return able and not multiprocessing.current_process().daemon


def mapped(function: Callable[[Item], Found], items: Sequence[Item]) -> Iterator[Found]:
    """Yield a function of each item, in their order; of many items by one process a core.

    The function should use neither threads nor a GPU. `UnavailableError` is raised if a process
    is ended from outside, such as for want of memory.
    """
    workers = min(cores(), MOST)
    if len(items) < _MANY or workers == 1 or not can_fork():
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(workers, context, initializer=_leave_with_parent)
    try:
        # Python warns of forks beside threads; these children use none of theirs.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            found = executor.map(function, items, chunksize=_CHUNK)
        yield from found
    except BrokenProcessPool as error:
        raise UnavailableError(
            "images: a process that reads files was ended from outside"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """Let Ctrl-C be the parent's, and end this process when the parent ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for, args=(parent.sentinel,), daemon=True).start()


def _wait_for(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
