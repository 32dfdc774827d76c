"""Jobs done by the workers of a Dask scheduler."""

import contextlib
import logging
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any

from xailib.errors import UnavailableError
from xailib.report.run.executors import limited
from xailib.report.run.job import Result
from xailib.report.run.workers import Worker, WorkerDiedError


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
        self._environment = limited(threads) if threads else {}
        self._session = uuid.uuid4().hex
        self._executor = self._client.get_executor(pure=False, retries=0)
        self._sent = 0

    @property
    def dashboard(self) -> str:
        """The address of the scheduler's pages about what its workers do."""
        return str(self._client.dashboard_link)

    def submit(self, spec: Mapping[str, Any]) -> "Future[Result]":
        """Send a job to the scheduler, which begins this client's in the order they came in."""
        self.check()
        self._sent += 1
        words = (dict(spec), self._session, self._environment)
        # Without a priority, the last of the jobs that came within 0.1 s may be begun first.
        return _renamed(self._executor.submit(_on_worker, *words, priority=-self._sent))

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
