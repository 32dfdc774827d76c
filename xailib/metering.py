"""What a piece of work takes: time, processor time and memory, noted beside its result."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from xailib.files import write_atomic

COST = "cost.json"
_POLL = 0.2  # seconds between two looks at the memory in use


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
        while True:
            total = 0
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):  # it has just ended
                    info = process.memory_full_info()
                    total += getattr(info, "pss", info.uss)  # what is shared, counted once
            self.bytes = max(self.bytes, total)
            if self._end.wait(_POLL):
                return
