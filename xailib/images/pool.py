"""Crops of probe images, decoded ahead by processes: a card that waits for one core is idle.

Processes and not threads: half of what reading a small JPEG file takes holds Python's lock.
"""

import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from xailib.errors import InputError, UnavailableError
from xailib.images.probe import ProbeSet
from xailib.project import cores

Cropping = Callable[[UInt8[np.ndarray, "_ _ 3"]], UInt8[np.ndarray, "_ _ 3"]]
# Crops, in a list where they differ in size, and why there are no more, or "".
Chunk = tuple[UInt8[Tensor, "crops height width 3"] | list[UInt8[Tensor, "height width 3"]], str]

_CHUNK = 16  # images a task: what passing them on costs is then a tenth of what reading them does
_AHEAD = 2  # finished chunks of each process that wait
_MOST = 32  # processes
_SHARED = Path("/dev/shm")  # noqa: S108  # where processes hand crops over


@dataclass(frozen=True)
class Crop:
    """A probe image as a network sees it: resized and cropped, still as 8-bit RGB."""

    id: str
    pixels: UInt8[np.ndarray, "height width 3"]


def workers_for(device: torch.device) -> int:
    """Return how many processes should decode for a network on this device.

    All usable cores but one where a GPU computes; none on a CPU, whose cores the network itself
    needs, nor in a process that may have no children.
    """
    able = "fork" in multiprocessing.get_all_start_methods()
    if device.type != "cuda" or not able or multiprocessing.current_process().daemon:
        return 0
    return min(cores() - 1, _MOST)


def crops(
    probe: ProbeSet, crop: Cropping, device: torch.device, workers: int | None = None
) -> Iterator[Crop]:
    """Yield probe images as a network on a device sees them, in their order.

    The same to the last bit for any number of processes (`workers`, by default `workers_for` the
    device; 0: this one), which have two chunks each in waiting and never more than half of the
    memory that processes share. ``crop`` is a network's ``preprocessing.crop``. `InputError` is
    raised if a file has changed or gone since the set was made, after the images before it;
    `UnavailableError` if a process is ended from outside, such as for want of memory.
    """
    if workers is None:
        workers = workers_for(device)
    if not workers or not len(probe):
        for photograph in probe.photographs():
            yield Crop(photograph.id, crop(photograph.pixels))
        return
    first = crop(next(probe.photographs()).pixels)
    free = shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else 0
    chunk = min(_CHUNK, free // (2 * (1 + _AHEAD) * workers * first.nbytes))
    chunk = max(1, min(chunk, -(-len(probe) // workers)))
    place = 0
    for pixels, reason in _loaded(_Chunks(probe, crop, chunk), workers):
        for one in pixels:
            yield Crop(probe.images[place].id, one.numpy())
            place += 1
        if reason:
            raise InputError(reason)


@dataclass(frozen=True)
class _Chunks(Dataset[Chunk]):
    """Crops of images that follow one another, `size` at a time."""

    probe: ProbeSet
    crop: Cropping
    size: int

    def __len__(self) -> int:
        return -(-len(self.probe) // self.size)

    def __getitem__(self, index: int) -> Chunk:
        begin = index * self.size
        found, reason = [], ""
        try:
            for photograph in self.probe.part(begin, begin + self.size).photographs():
                found.append(self.crop(photograph.pixels))
        except InputError as error:  # as a value: torch would wrap a traceback around it
            reason = str(error)
        if len({one.shape for one in found}) == 1:
            return torch.from_numpy(np.stack(found)), reason
        return list(map(torch.from_numpy, found)), reason


def _loaded(chunks: _Chunks, workers: int) -> Iterator[Chunk]:
    """Yield all chunks in order, made by processes."""
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=min(workers, len(chunks)),
        prefetch_factor=_AHEAD,
        multiprocessing_context="fork",
    )
    # Python warns of forks beside threads; these children use neither threads nor the card.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        iterator = iter(loader)
    try:
        yield from iterator
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UnavailableError(f"probe: a process that decodes images ended: {reason}") from error
