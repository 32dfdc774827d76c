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
    """Return the bytes that a device has free, or that this process may still take; None: unknown.

    On a CPU that is Linux's own estimate, or what is left below the limit of a container.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        limit, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        found.append(max(0, int(limit) - int(used)))
    return min(found, default=None)


def _tensors(found: object) -> Iterable[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, tuple | list):
        for part in found:
            yield from _tensors(part)
