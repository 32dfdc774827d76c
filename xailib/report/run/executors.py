"""Where jobs are done: in this process or by a pool of processes; `cluster` for Dask."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from xailib.errors import InputError
from xailib.report.run.job import Result, run_packed
from xailib.report.run.workers import Worker, WorkerDiedError

__all__ = ["Executor", "Here", "Pool", "WorkerDiedError"]

# What the libraries below torch, numpy and the notebooks' kernels ask for the number of threads.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@runtime_checkable
class Executor(Protocol):
    """Takes jobs and does them; a ``with`` block, whose end stops what is still running.

    Attributes
    ----------
    room : int
        How many jobs to give it at a time.
    """

    room: int

    def submit(self, spec: Mapping[str, Any]) -> "Future[Result]":
        """Take a job, see `packed`. A worker's death is raised as `WorkerDiedError`."""

    def check(self) -> None:
        """Raise if it can take no more jobs."""

    def __enter__(self) -> "Executor":
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what is still running."""


class Here:
    """The process itself, one job after the other.

    Parameters
    ----------
    threads : int, optional
        Of this process and of the notebooks' kernels, as long as the block lasts.

    Raises
    ------
    InputError
        For less than one thread.
    """

    room = 1

    def __init__(self, threads: int | None = None) -> None:
        self._environment = {} if threads is None else environments(1, threads)[0]
        self._count = threads
        self._before = contextlib.ExitStack()

    def submit(self, spec: Mapping[str, Any]) -> "Future[Result]":
        """Do a job at once."""
        future: Future[Result] = Future()
        future.set_result(run_packed(spec))
        return future

    def check(self) -> None:
        """Do nothing: there is nothing to lose here."""

    def __enter__(self) -> "Here":
        if self._count is not None:
            import torch

            self._before.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(self._count)
            for name, value in self._environment.items():
                self._before.callback(_set, name, os.environ.get(name))
                _set(name, value)
        return self

    def __exit__(self, *_: object) -> None:
        self._before.close()


class Pool:
    """Processes on this machine, each with its share of the cores, or with a GPU of its own.

    Parameters
    ----------
    workers : int
        Processes, at least 1.
    threads : int, optional
        Of each; by default the cores divided by the workers.

    Raises
    ------
    InputError
        For less than one worker or thread.
    """

    def __init__(self, workers: int, threads: int | None = None) -> None:
        if workers < 1:
            raise InputError(f"workers: {workers} is not at least 1")
        self.room = workers
        self._workers = [Worker(one) for one in environments(workers, threads, visible_gpus())]
        self._idle = list(self._workers)
        self._threads = ThreadPoolExecutor(workers)

    def submit(self, spec: Mapping[str, Any]) -> "Future[Result]":
        """Give a job to an idle worker."""
        return self._threads.submit(self._run, spec)

    def _run(self, spec: Mapping[str, Any]) -> Result:
        worker = self._idle.pop()
        try:
            return worker.run(spec)
        finally:
            self._idle.append(worker)

    def check(self) -> None:
        """Do nothing: a dead worker is started again with its next job."""

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()


def environments(
    workers: int, threads: int | None, gpus: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return what each worker's environment differs by, so that together they use all and no more.

    Raises
    ------
    InputError
        For less than one thread.
    """
    each = threads if threads is not None else max(1, len(os.sched_getaffinity(0)) // workers)
    if each < 1:
        raise InputError(f"threads: {each} is not at least 1")
    found = [limited(each) for _ in range(workers)]
    for environment, gpu in zip(found, cycle(gpus), strict=False):
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return found


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def limited(threads: int) -> dict[str, str]:
    """Return the environment in which numerical libraries use so many threads."""
    return dict.fromkeys(_THREADS, str(threads))


def visible_gpus(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Return the names of the GPUs that this process may use, without loading CUDA for it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    return [str(number) for number, _ in enumerate(folder.glob("*"))]
