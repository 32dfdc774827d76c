"""What a piece of work takes: time, processor time and memory, noted beside its result."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xailib.files import write_atomic

if TYPE_CHECKING:
    import psutil

COST = "cost.json"
_POLL = 0.2  # seconds between two looks at the memory in use
_MORE = 1.01  # times the most so far, from which on it is looked at closely


@contextlib.contextmanager
def metered(folder: Path, name: str) -> Iterator[None]:
    """Measure a block that finishes the result in a folder; leave what it took as ``cost.json``.

    That is, with the work's name: seconds, those of all processors, bytes of memory at most, and of
    the files that the result's manifest names. Of a block that fails nothing is noted.
    """
    start, before = time.monotonic(), _processor()
    with _Peak() as peak:
        yield
    cost = {
        "job": name,
        "seconds": round(time.monotonic() - start, 2),
        "processor": round(_processor() - before, 2),
        "memory": peak.bytes,
        "disk": _disk(folder),
    }
    write_atomic(folder / COST, json.dumps(cost, indent=1))


def _processor() -> float:
    """Return the processor time of this process and of those of its children that have ended."""
    return sum(os.times()[:4])


def _disk(folder: Path) -> int:
    names = json.loads((folder / "manifest.json").read_text())["outputs"]
    return sum((folder / name).stat().st_size for name in names)


class _Peak:
    """The most memory that this process and its children held while the block ran."""

    def __init__(self) -> None:
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        most = 0.0
        while True:
            processes = [own, *own.children(recursive=True)]
            resident = sum(_bytes(process, _resident) for process in processes)
            # What is shared counts once, which Linux has to walk through all pages for, and the
            # process waits: only where more is held than ever before.
            if resident > _MORE * most:
                most = resident
                total = sum(_bytes(process, _unshared) for process in processes)
                self.bytes = max(self.bytes, total)
            if self._end.wait(_POLL):
                return


def _bytes(process: "psutil.Process", measure: Callable[["psutil.Process"], int]) -> int:
    import psutil

    try:
        return measure(process)
    except psutil.Error:  # it has just ended
        return 0


def _resident(process: "psutil.Process") -> int:
    return int(process.memory_info().rss)


def _unshared(process: "psutil.Process") -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", info.uss))
