"""How many images networks were shown: counted where they are shown, reported in a run's manifest.

A pass is one image shown to a network, or to the part of it behind a layer. Not counted are the
images by which a network is loaded, a method is tried, an engine or a shortcut is chosen and
checked, and the memory of a pass is measured (`xailib.networks.memory.fitting_batch`, one image
where many follow). A run counts from its start: the order in which layers are used is looked up
before (`xailib.evaluate.randomisation`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Passes:
    """Numbers of passes.

    Attributes
    ----------
    made : int
        By this process.
    kept : int
        When what this process reuses was computed.
    """

    made: int = 0
    kept: int = 0

    def __sub__(self, before: "Passes") -> "Passes":
        return Passes(self.made - before.made, self.kept - before.kept)

    @property
    def all(self) -> int:
        """What a result has cost, whenever it was made."""
        return self.made + self.kept


_lock = threading.Lock()
_here = threading.local()
_total = [Passes()]


def passed(images: int, *, kept: bool = False) -> None:
    """Count images that a network was shown; from any thread.

    Parameters
    ----------
    images : int
        How many.
    kept : bool
        Whether that was earlier, and the cached result is reused.
    """
    if getattr(_here, "uncounted", False):
        return
    with _lock:
        now = _total[0]
        made, before = (0, images) if kept else (images, 0)
        _total[0] = Passes(now.made + made, now.kept + before)


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
    return _total[0]
