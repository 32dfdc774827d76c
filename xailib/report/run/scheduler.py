"""Doing the jobs of a plan: in the order that their needs allow, again where that may help."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from types import MappingProxyType

from xailib.report.params.profiles import Profile
from xailib.report.run.executors import Executor, WorkerDiedError
from xailib.report.run.job import Job, Result, packed
from xailib.report.run.notebook import Outcome

RETRIES = 2
_NONE: Mapping[str, str] = MappingProxyType({})


def run_plan(
    profile: Profile,
    jobs: Sequence[Job],
    left: Sequence[Job],
    executor: Executor,
    *,
    force: bool = False,
    retries: int = RETRIES,
    barred: Mapping[str, str] = _NONE,
) -> Iterator[Outcome]:
    """Do the jobs that are left, each once those it needs are done; yield what became of each.

    A job that fails does not stop those that do not need it. One whose worker dies, or that
    fails by something that may pass, is tried again.

    Parameters
    ----------
    profile, jobs, left
        See `plan` and `unfinished`.
    executor : Executor
        Where jobs are done.
    force : bool
        Do also what is finished.
    retries : int
        Further attempts at a job.
    barred : mapping
        From tasks that can only fail to why: their jobs are not begun.

    Raises
    ------
    UnavailableError
        If the scheduler of a cluster is gone. What is finished stays so.
    """
    names = {job.name for job in left}
    for job in jobs:
        if job.name not in names:
            yield Outcome(job.name, "reused")
    waiting = {job.name: job for job in left}
    attempts = dict.fromkeys(waiting, 0)
    running: dict[Future[Result], Job] = {}
    # What gathers finished shards shows nothing to the network.
    broken = {j.name for j in left if j.task in barred and j.kind not in ("table", "label")}
    for job in left:
        if job.name in broken:
            del waiting[job.name]
            yield Outcome(job.name, "failed", message=barred[job.task])
    while waiting or running:
        for job in [job for job in waiting.values() if not broken.isdisjoint(job.needs)]:
            del waiting[job.name]
            broken.add(job.name)
            missing = sorted(broken.intersection(job.needs))
            yield Outcome(job.name, "skipped", message=f"needs {_few(missing)}")
        busy = {job.name for job in running.values()} | waiting.keys()
        for job in [job for job in waiting.values() if busy.isdisjoint(job.needs)]:
            if len(running) >= executor.room:
                break
            del waiting[job.name]
            attempts[job.name] += 1
            running[executor.submit(packed(profile, job, force=force))] = job
        if not running:
            continue
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job = running.pop(future)
            result = _result(future, executor)
            if result.state == "failed" and result.again and attempts[job.name] <= retries:
                waiting[job.name] = job
                yield Outcome(job.name, "again", result.seconds, result.message)
                continue
            if result.state == "failed":
                broken.add(job.name)
            yield Outcome(job.name, result.state, result.seconds, result.message)


def _result(future: "Future[Result]", executor: Executor) -> Result:
    """Return a job's result; a worker's death is one that another attempt may better."""
    try:
        return future.result()
    except (WorkerDiedError, CancelledError) as error:
        executor.check()
        return Result("failed", message=str(error) or "was cancelled", again=True)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
