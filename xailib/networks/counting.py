"""How many images networks were shown: counted where they are shown, reported in a run's manifest.

A pass is one image shown to a network, or to the part of it behind a layer. Not counted are the
images by which a network is loaded, a method tried, an engine or a shortcut chosen and checked, and
the memory of a pass measured.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Passes:
    """Numbers of passes."""

    made: int = 0  #: by this process
    kept: int = 0  #: when what this process reuses was computed

    def __sub__(self, before: "Passes") -> "Passes":
        return Passes(self.made - before.made, self.kept - before.kept)


_lock = threading.Lock()
_here = threading.local()
_total = {"made": 0, "kept": 0}


def passed(images: int, *, kept: bool = False) -> None:
    """Count images that a network was shown, from any thread; ``kept``: earlier, and reused."""
    if not getattr(_here, "uncounted", False):
        with _lock:
            _total["kept" if kept else "made"] += images


@contextmanager
def uncounted() -> Iterator[None]:
    """Let a thread show a network images that are not counted."""
    before, _here.uncounted = getattr(_here, "uncounted", False), True
    try:
        yield
    finally:
        _here.uncounted = before


def passes() -> Passes:
    """Return what this process has counted so far; a difference of two counts what lies between."""
    with _lock:
        return Passes(**_total)
