"""Where jobs are done: in this process, by a pool of processes, or on a Dask cluster."""

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from xailib.errors import InputError, UnavailableError
from xailib.jobs import Result, run_packed
from xailib.workers import Worker, WorkerDiedError

__all__ = ["Cluster", "Executor", "Here", "Pool", "WorkerDiedError"]

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
        """Take a job, see `xailib.jobs.packed`. A worker's death is raised as `WorkerDiedError`."""

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


class Cluster:
    """The workers of a Dask scheduler, each of which sees the project's folder at one path.

    Parameters
    ----------
    address : str
        Such as ``tcp://10.0.0.1:8786``.
    threads : int, optional
        Of each job; by default what the worker's own environment says.

    Raises
    ------
    UnavailableError
        If Dask is not installed, or no scheduler answers.
    """

    room = 1_000_000  # the scheduler has the queue

    def __init__(self, address: str, threads: int | None = None) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise UnavailableError("scheduler: pip install 'xailib[cluster]'") from error
        self._address = address
        self._silence = contextlib.ExitStack()
        self._silence.enter_context(_silenced("distributed", "tornado", "asyncio"))
        try:
            self._client = Client(address, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            self._silence.close()
            raise self._gone() from error
        self._environment = _limited(threads) if threads else {}
        self._session = uuid.uuid4().hex
        self._executor = self._client.get_executor(pure=False, retries=0)

    @property
    def dashboard(self) -> str:
        """The address of the scheduler's pages about what its workers do."""
        return str(self._client.dashboard_link)

    def submit(self, spec: Mapping[str, Any]) -> "Future[Result]":
        """Send a job to the scheduler."""
        self.check()
        return _renamed(
            self._executor.submit(_on_worker, dict(spec), self._session, self._environment)
        )

    def check(self) -> None:
        """Raise if the scheduler is gone."""
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> UnavailableError:
        return UnavailableError(
            f"scheduler: no answer from {self._address!r}; start it (dask scheduler) and run the "
            "same command again: finished jobs are kept"
        )

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._client.run(_stop, self._session)
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)
        self._silence.close()


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
    found = [_limited(each) for _ in range(workers)]
    for environment, gpu in zip(found, cycle(gpus), strict=False):
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return found


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _limited(threads: int) -> dict[str, str]:
    return dict.fromkeys(_THREADS, str(threads))


def visible_gpus(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Return the names of the GPUs that this process may use, without loading CUDA for it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    return [str(number) for number, _ in enumerate(folder.glob("*"))]


@contextlib.contextmanager
def _silenced(*packages: str) -> Iterator[None]:
    """Keep packages' logs from the terminal: what matters of them, we say in one line."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in packages]
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _renamed(future: "Future[Result]") -> "Future[Result]":
    """Return a future that raises Dask's word for a worker's death as ours."""
    from distributed import KilledWorker

    mine: Future[Result] = Future()

    def tell(done: "Future[Result]") -> None:
        try:
            mine.set_result(done.result())
        except KilledWorker as error:
            mine.set_exception(WorkerDiedError(str(error)))
        except CancelledError:
            mine.set_exception(WorkerDiedError("the cluster has lost it"))
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            mine.set_exception(error)

    future.add_done_callback(tell)
    return mine


_own = threading.local()  # the process behind each thread of a Dask worker
_children: dict[str, list[Worker]] = {}  # by session


def _on_worker(spec: dict[str, Any], session: str, environment: dict[str, str]) -> Result:
    """Do a job in a process of its own beside the Dask worker, which stays free to answer.

    Another session gets another process: code and weights may have changed since.
    """
    if getattr(_own, "session", None) != session:
        if hasattr(_own, "worker"):
            _own.worker.close()
        _own.worker, _own.session = Worker(environment), session
        _children.setdefault(session, []).append(_own.worker)
    worker: Worker = _own.worker
    return worker.run(spec)


def _stop(session: str) -> None:
    """End a session's processes on this Dask worker, whatever they do."""
    for worker in _children.pop(session, []):
        worker.close()
