"""Time and peak memory of two ways to do the same, in turn, and the machine they ran on."""

import ctypes
import gc
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xailib.project import cores
from xailib.versions import git_commit

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PACKAGES = ("torch", "lime", "grad-cam", "timm", "numpy", "openvino")


@dataclass
class Times:
    """What one way took, run by run.

    Attributes
    ----------
    seconds : list of float
        Wall time.
    processor : list of float
        Processor time of all threads: what a busy machine distorts least, if OMP_NUM_THREADS=1
        (threads that wait for each other count as busy).
    megabytes : list of float
        How far the process's memory rose above where it was; NaN where Linux does not tell.
    result : object
        What the last run returned.
    """

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    result: Any = None

    def run(self, function: Callable[[], Any]) -> None:
        """Run once and take note."""
        gc.collect()
        _give_back()
        before = _memory("VmRSS", reset=True)
        started, busy = time.perf_counter(), time.process_time()
        self.result = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - started)
        self.processor.append(time.process_time() - busy)
        self.megabytes.append(_memory("VmHWM") - before)

    @property
    def median(self) -> float:
        """Median seconds."""
        return float(np.median(self.seconds))

    @property
    def peak(self) -> float:
        """Largest rise of memory, megabytes."""
        return max(self.megabytes)


@dataclass
class Passes:
    """Forward passes of one batch and nothing else: what no explanation by passes can beat.

    Attributes
    ----------
    run : callable
        From a batch to scores.
    batch : tensor
        What is sent through.
    seconds, processor : list of float
        What one picture took, batch by batch.
    """

    run: Callable[[torch.Tensor], Any]
    batch: torch.Tensor
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def some(self, count: int = 5) -> None:
        """Send the batch through so many times, one after another, and take note."""
        with torch.inference_mode():
            self.run(self.batch)  # whatever ran before has left its own memory and clock rate
            for _ in range(count):
                started, busy = time.perf_counter(), time.process_time()
                self.run(self.batch)
                if self.batch.is_cuda:
                    torch.cuda.synchronize()
                self.seconds.append((time.perf_counter() - started) / len(self.batch))
                self.processor.append((time.process_time() - busy) / len(self.batch))


class Elsewhere:
    """How busy the machine was with other things since this was made."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        try:
            words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return float("nan"), 0.0, 0.0
        ticks = [int(word) for word in words]
        busy = sum(ticks) - ticks[3] - ticks[4]  # all but idle and waiting for a disk
        return busy / os.sysconf("SC_CLK_TCK"), time.process_time(), time.perf_counter()

    def cores(self) -> float:
        """Return the number of cores that others used on average; NaN where Linux is not."""
        busy, own, clock = (now - then for now, then in zip(self._now(), self._start, strict=True))
        return max(0.0, busy - own) / max(clock, 1e-9)


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the figures."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
    installed = [p for p in _PACKAGES if p in ("grad-cam",) or importlib.util.find_spec(p)]
    return {
        "processor": model or platform.processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in installed},
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
    }


def _memory(entry: str, *, reset: bool = False) -> float:
    """Return an entry of this process's memory in megabytes, and forget the peak if told to."""
    try:
        if reset:
            _CLEAR.write_text("5")
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def _give_back() -> None:
    """Let the C library return free memory, so that a peak is not hidden in its reserves."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
