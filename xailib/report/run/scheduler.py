"""Doing the jobs of a plan: in a plain loop here, or by workers of `dask.distributed`.

With workers, a job is a future that depends on those that it needs. Dask starts jobs, retries them,
restarts workers that die, and shows all of it. It remembers nothing that matters: what
is finished says the disk (`xailib.report.run.staleness`), whoever is killed.
"""

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from xailib.errors import InputError, UnavailableError, check_least, first_line
from xailib.project import cores, project_root
from xailib.report.params.profiles import Profile
from xailib.report.run.job import (
    THREADS,
    Parcel,
    PassingError,
    Task,
    is_anothers,
    limited,
    perform,
    run_job,
    skipped,
)
from xailib.report.run.plan import Job, Outcome
from xailib.report.run.store import Store, as_bytes

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

RETRIES = 2  # further attempts at a job whose worker died, or that failed by what may pass
_NONE: Mapping[str, str] = MappingProxyType({})
_LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")
_SETTINGS = {  # of Dask
    "logging": dict.fromkeys(_LOGGERS, "critical"),  # what matters, we say in one line
    "distributed.scheduler.allowed-failures": RETRIES,
    "distributed.scheduler.worker-saturation": 1.0,  # no job waits at a worker that may die
    # A worker that died comes back, on a busy machine after minutes; Dask would have given it up
    # after 15 s, and the run would wait for ever.
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.nanny.pre-spawn-environ": {},  # what it has slows large allocations down
}


@dataclass(frozen=True)
class Engine:
    """Where jobs are done, and how."""

    #: so many processes on this machine, each with a share of the cores, or a GPU of its own
    workers: int | None = None
    #: the address of a Dask scheduler, ``tcp://10.0.0.1:8786``, which has its own workers
    scheduler: str | None = None
    #: of a job; by default the cores divided by the workers, or what a cluster's worker has
    threads: int | None = None
    store: str = ""  #: an address for `xailib.report.run.store.Store`, through which results go

    def __post_init__(self) -> None:
        if self.workers and self.scheduler:
            raise InputError("workers: not together with scheduler; a cluster has its own workers")
        check_least("workers", self.workers)
        check_least("threads", self.threads)
        if self.store and "://" not in self.store:  # as it means the same in any folder
            object.__setattr__(self, "store", str(Path(self.store).expanduser().absolute()))


def run_plan(
    profile: Profile,
    jobs: Sequence[Job],
    left: Sequence[Job],
    engine: Engine = Engine(),
    *,
    force: bool = False,
    barred: Mapping[str, str] = _NONE,
    bar: bool = False,
) -> Iterator[Outcome]:
    """Do the remaining jobs, each once those it needs are done; yield the outcome of each.

    A job that fails does not stop those that do not need it. By workers, one whose worker dies,
    or that fails by something that may pass, is tried again.

    Parameters
    ----------
    profile, jobs, left
        See `xailib.report.run.plan.plan` and `xailib.report.run.staleness.unfinished`.
    engine : Engine
        Where jobs are done.
    force : bool
        Do also what is finished.
    barred : mapping
        From tasks that can only fail to why: their jobs are not begun.
    bar : bool
        Whether to draw the progress of notebooks that are executed in this process.

    Raises
    ------
    InputError, UnavailableError
        If there can be no such store, or it does not answer; if no scheduler answers, or it is
        gone. What is finished stays so.
    """
    task = Task(str(project_root()), uuid.uuid4().hex, profile, force, engine.store)
    broken: set[str] = set()
    begun: list[Job] = []
    by_workers = engine.workers or engine.scheduler
    to_do = {job.name for job in left}
    needed = {name for job in left for name in job.needs}
    store = task.open_store()
    with limited(None if by_workers else engine.threads):
        for job in jobs if not by_workers else [*(j for j in jobs if j.name not in to_do), *left]:
            if job.name not in to_do:
                outcome = Outcome(job.name, "reused")
                if store:  # read there, and mended, only if a job is about to take it from there
                    with contextlib.suppress(InputError):  # a finished notebook misses no shard
                        store.push(job.folder(profile), quick=job.name not in needed)
            elif job.task in barred and not job.gathers:
                outcome = Outcome(job.name, "failed", message=barred[job.task])
            elif missing := [name for name in job.needs if name in broken]:
                outcome = skipped(job, missing)
            elif by_workers:
                begun.append(job)
                continue
            else:
                start = time.monotonic()
                try:
                    outcome = run_job(profile, job, force=force, bar=bar, store=store)
                except PassingError as error:
                    outcome = Outcome(job.name, "failed", time.monotonic() - start, str(error))
            broken |= {job.name} if outcome.state in ("failed", "skipped") else set()
            yield outcome
    if begun:
        with _client(engine, task.session) as client:
            yield from _by_dask(task, begun, client, engine)


def _by_dask(
    task: Task, begun: Sequence[Job], client: "Client", engine: Engine
) -> Iterator[Outcome]:
    """Yield the outcomes of jobs as Dask's workers do them."""
    from distributed import as_completed

    task.mark.parent.mkdir(parents=True, exist_ok=True)
    task.mark.touch()
    try:
        wire = not task.store and not all(client.run(task.is_seen).values())
        futures = _submitted(task, begun, client, engine, wire)
        jobs = {futures[job.name]: job for job in begun}
        broken: set[str] = set()
        for future in as_completed(list(jobs), loop=client.loop):
            job = jobs.pop(future)
            needs = {name: futures[name].status for name in job.needs if name in futures}
            missing = [n for n in job.needs if n in broken or needs.get(n) == "error"]
            outcome = _outcome(task, job, future, missing, engine)
            future.release()  # its files are here
            broken |= {job.name} if outcome.state in ("failed", "skipped") else set()
            yield outcome
    finally:
        task.mark.unlink(missing_ok=True)


def _submitted(
    task: Task, begun: Sequence[Job], client: "Client", engine: Engine, wire: bool
) -> dict[str, "Future"]:
    """Give all jobs to Dask, with what each needs; return their futures by name."""
    futures: dict[str, Future] = {}
    threads = engine.threads if engine.scheduler else None  # our own workers have theirs
    for number, job in enumerate(begun):
        needs = [need.name for need in job.reads()] if wire else job.needs
        for need in job.reads() if wire else ():
            if need.name not in futures:
                # What was finished here before goes to where a job needs it.
                files = as_bytes(need.folder(task.profile), project_root() / "results")
                sent = Outcome(need.name, "reused"), files
                futures[need.name] = client.submit(Parcel, *sent, pure=False)
        given = [futures[name] for name in needs if name in futures]
        # Without a priority, the last of the jobs that came within 0.1 s may be begun first.
        options: dict[str, Any] = {"priority": -number, "retries": RETRIES, "pure": False}
        options["key"] = f"{job.name}-{task.session}"
        futures[job.name] = client.submit(perform, task, job, threads, wire, *given, **options)
    return futures


def _outcome(
    task: Task, job: Job, future: "Future", missing: Sequence[str], engine: Engine
) -> Outcome:
    """Return the outcome of a job, whose result is here then."""
    from distributed import KilledWorker

    try:
        parcel = future.result()
    except CancelledError as error:
        raise _gone(engine.scheduler) from error
    except Exception as error:  # noqa: BLE001  whatever a job raised is its outcome
        line = str(error) if isinstance(error, PassingError) else first_line(error)
        if isinstance(error, KilledWorker):
            line = f"its worker died {RETRIES + 1} times (out of memory?)"
        return skipped(job, missing) if missing else Outcome(job.name, "failed", 0.0, line)
    outcome: Outcome = parcel.outcome
    if outcome.state in ("done", "reused"):
        results = project_root() / "results"
        store = Store("", results, parcel.files) if parcel.files else task.open_store()
        if store and not store.pull(job.folder(task.profile)):
            said = f"its result is not in the store {store.url!r}"
            return Outcome(job.name, "failed", outcome.seconds, said)
    return outcome


def _gone(address: str | None) -> UnavailableError:
    return UnavailableError(
        f"scheduler: no answer from {address!r}; start it (dask scheduler) and run the "
        "same command again: finished jobs are stored"
    )


@contextlib.contextmanager
def _client(engine: Engine, session: str) -> Iterator["Client"]:
    """Connect to a cluster, or to workers of this machine, which end with the block."""
    import dask

    dask.config.set(_SETTINGS)  # before the first import of what reads them
    from distributed import Client

    with contextlib.ExitStack() as stack:
        address: Any = engine.scheduler
        if not address:
            address = stack.enter_context(_local(engine.workers or 1, engine.threads))
        try:
            client = Client(address, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise _gone(engine.scheduler) from error
        stack.callback(_close, client)
        if engine.scheduler or find_spec("bokeh"):
            log.warning("Dashboard: %s", client.dashboard_link)
        if engine.scheduler:
            client.wait_for_workers(1)
            _renew(client, session)
        yield client


def _renew(client: "Client", session: str) -> None:
    """Start workers again that have done another run's jobs: code and weights may have changed."""
    try:
        used = [name for name, other in client.run(is_anothers, session).items() if other]
        if used:
            client.restart_workers(used, timeout=60)
    except Exception as error:
        said = first_line(error)
        raise UnavailableError(f"scheduler: its workers cannot be used: {said}") from error


def _close(client: "Client") -> None:
    """Leave a cluster; where jobs of ours are still running, end them with their workers."""
    with contextlib.suppress(Exception):  # of a scheduler that is gone
        if client.status == "running":
            ours = set(client.futures)
            busy = [name for name, keys in client.processing().items() if not ours.isdisjoint(keys)]
            client.cancel(list(client.futures.values()), force=True)
            if busy:
                client.restart_workers(busy, timeout=20)
    with contextlib.suppress(Exception):
        client.close(timeout=5)


@contextlib.contextmanager
def _local(workers: int, threads: int | None) -> Iterator[Any]:
    """Start workers on this machine, which together use all of it and no more."""
    from distributed import Nanny, Scheduler, SpecCluster

    show = find_spec("bokeh") is not None
    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "dashboard": False}
    options |= {"host": "127.0.0.1", "silence_logs": logging.CRITICAL}
    environments = shares(workers, threads)
    specs = {
        number: {"cls": Nanny, "options": {**options, "env": environment}}
        for number, environment in enumerate(environments)
    }
    place = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0", "dashboard": show}
    cluster = partial(SpecCluster, specs, {"cls": Scheduler, "options": place}, silence_logs=False)
    with limited(int(environments[0][THREADS[0]])), cluster() as local:  # for their first import
        yield local


def shares(workers: int, threads: int | None) -> list[dict[str, str]]:
    """Return each worker's environment: its share of the cores, and one GPU where there are any."""
    each = threads or max(1, cores() // workers)
    found = [dict.fromkeys(THREADS, str(each)) for _ in range(workers)]
    for environment, gpu in zip(found, cycle(visible_gpus()), strict=False):
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return found


def visible_gpus(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Return the names of the GPUs that this process may use, without loading CUDA for it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    return [str(number) for number, _ in enumerate(folder.glob("*"))]
