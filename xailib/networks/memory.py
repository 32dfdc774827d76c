"""How many pictures of a pass fit into the memory that is free."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

_SHARE = 0.5  # of the free memory: the rest is for what is not counted, and for others
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def fitting_batch(module: nn.Module, example: Tensor, most: int) -> int:
    """Return how many pictures a pass may hold: `most`, or fewer where memory is short.

    A CPU's memory has to be looked at before: there, Linux ends a process that takes too much,
    and no error is raised after which the batch could be halved.

    Parameters
    ----------
    module : torch.nn.Module
        Run once with the first picture of `example`, without gradients.
    example : (pictures, ...)
        Its input, on its device.
    most : int
        At least 1.
    """
    free = free_memory(example.device)
    if free is None:
        return most
    return max(1, min(most, int(_SHARE * free / max(1, bytes_of_pass(module, example[:1])))))


def bytes_of_pass(module: nn.Module, picture: Tensor) -> int:
    """Return the bytes of the input and of all that a network's leaves return in one pass.

    More than is alive at any time without gradients: the leaves' results follow one another.
    """
    total = picture.nbytes

    def add(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        total += sum(part.nbytes for part in _tensors(output))

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for part in module.modules():
            if next(part.children(), None) is None:
                hooks.callback(part.register_forward_hook(add).remove)
        module(picture)
    return total


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process may still take of a CPU's memory; None: unknown.

    That is Linux's own estimate, or what is left below the limit of a container. Of a GPU nothing
    is said: there, a batch that is too large raises an error and is halved.
    """
    if device.type != "cpu":
        return None
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used + _reclaimable()))
    return min(found, default=None)


def _reclaimable() -> int:
    """Return the bytes of a container's memory that hold copies of files, and give way."""
    with contextlib.suppress(OSError, ValueError):
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return 0


def _tensors(found: object) -> Iterable[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, tuple | list):
        for part in found:
            yield from _tensors(part)
