"""How many images a pass holds: as many as bring something, and as the free memory takes."""

import contextlib
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from xailib.networks.layers import hookable, hooked

# Images a pass beyond which more bring nothing, by device: measured with ResNet-50 at 224 pixels.
_ENOUGH = {"cpu": 16, "cuda": 256}
_SHARE = 0.5  # of the free memory: the rest is for what is not counted, and for others
_SHOWN = 8  # images by which a GPU's memory is measured
measuring = threading.Lock()  # held by whoever allocates on a GPU beside a thread that measures
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def enough(device: torch.device) -> int:
    """Return how many images a pass should hold where memory is plenty."""
    return _ENOUGH.get(device.type, _ENOUGH["cpu"])


def fitting_batch(
    module: nn.Module, example: Tensor, most: int, things: dict[Hashable, Any], part: Hashable
) -> int:
    """Return how many images a pass may hold: `most`, or fewer where memory is short.

    A CPU's memory has to be looked at before: Linux ends a process that takes too much. The module
    is run once with the first image of `example`, without gradients; the memory of an image is
    cached in `things` (`xailib.networks.engines.cache_of`), by the network's `part`.
    """
    free = free_memory(example.device)
    if free is None:
        return most
    known = things.setdefault("bytes of a pass", {})
    key = (part, example.dtype, *example.shape[1:])
    if example.device.type == "cpu" or key not in known:
        known[key] = bytes_of_pass(module, example[:1])
    fitting = max(1, int(_SHARE * free / max(1, known[key])))
    if example.is_cuda:  # not another size, to be compiled again, whenever a little more is free
        fitting = 1 << (fitting.bit_length() - 1)
    return min(most, fitting)


def bytes_of_pass(module: nn.Module, image: Tensor) -> int:
    """Return the bytes that one image of a pass takes.

    Of a GPU's memory that is the most that its allocator hands out. On a CPU it is the input and
    all that a network's leaves return, more than is alive at any time without gradients.
    """
    if image.is_cuda:
        return _bytes_on_cuda(module, image)
    total = image.nbytes

    def add(_name: str, output: object) -> None:
        nonlocal total
        total += sum(one.nbytes for one in tree_leaves(output) if isinstance(one, Tensor))

    leaves = {
        n: part for n, part in hookable(module).items() if next(part.children(), None) is None
    }
    with torch.no_grad(), hooked(leaves, add):
        module(image)
    return total


def _bytes_on_cuda(module: nn.Module, image: Tensor) -> int:
    with torch.no_grad(), measuring:
        before = torch.cuda.memory_allocated(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        batch = image.expand(_SHOWN, *image.shape[1:]).contiguous(
            memory_format=torch.channels_last if image.ndim == 4 else torch.contiguous_format
        )
        module(batch)
        return (torch.cuda.max_memory_allocated(image.device) - before) // _SHOWN


def upload(
    array: Shaped[np.ndarray, "*shape"], device: torch.device | str
) -> Shaped[Tensor, "*shape"]:
    """Return an array as a tensor on a device; a GPU takes it without being waited for."""
    found = torch.from_numpy(np.ascontiguousarray(array))
    if torch.device(device).type != "cuda":
        return found.to(device)
    return found.pin_memory().to(device, non_blocking=True)


def download(*tensors: Shaped[Tensor, "..."]) -> Callable[[], list[Shaped[np.ndarray, "..."]]]:
    """Start to copy tensors to the host; the function returned waits for them alone."""
    if not tensors[0].is_cuda:
        return lambda: [tensor.detach().cpu().numpy() for tensor in tensors]
    hosts = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for host, tensor in zip(hosts, tensors, strict=True):
        host.copy_(tensor.detach(), non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def wait() -> list[np.ndarray]:
        done.synchronize()
        return [host.numpy() for host in hosts]

    return wait


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process may still take of a device's memory; None: unknown.

    Of a CPU's that is Linux's own estimate, or what is left below the limit of a container.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
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
