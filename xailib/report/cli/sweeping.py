"""``xailib run`` and ``report`` as jobs: the plan of a dry run, and the engines that do it."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from xailib.errors import InputError
from xailib.report.cli.common import (
    duration,
    live,
    show_json,
    show_outcome,
    show_table,
    size,
    warn_of_lacks,
)

if TYPE_CHECKING:
    from xailib.report.params.profiles import Profile
    from xailib.report.run.costs import Cost
    from xailib.report.run.executors import Executor
    from xailib.report.run.job import Job
    from xailib.report.run.notebook import Outcome


_PAUSE = 10.0  # seconds between two words on what is left
_LINES = 20  # of photographs that cannot be used; more are counted


@dataclass(frozen=True)
class Engine:
    """Where and how a profile's jobs are done, as given on the command line."""

    dry_run: bool = False
    workers: int | None = None
    scheduler: str | None = None
    threads: int | None = None
    shard: int | None = None
    store: str | None = None
    pages: bool = True
    whole: bool = False  # a task is one job, also where there are several workers

    @property
    def asked(self) -> bool:
        """Whether any of it was given."""
        return self != Engine(whole=self.whole)

    @property
    def photographs(self) -> int | None:
        """How many of them a job has; None for all."""
        from xailib.report.run.plan import SHARD

        shared_out = (self.workers or self.scheduler) and not self.whole
        return self.shard or (SHARD if shared_out else None)


_workers = click.option(
    "--workers", type=click.IntRange(1), help="So many processes on this machine."
)
_threads = click.option(
    "--threads", type=click.IntRange(1), help="Of a job; default: cores / workers."
)
_OPTIONS = (
    click.option("--dry-run", is_flag=True, help="Print the jobs and what they will cost."),
    _workers,
    click.option("--scheduler", metavar="ADDRESS", help="A Dask cluster: tcp://HOST:PORT."),
    _threads,
    click.option(
        "--shard", type=click.IntRange(1), help="Photographs a job; default with workers: 10."
    ),
    click.option(
        "--store",
        metavar="URL",
        envvar="XAILIB_STORE",
        help="Share finished jobs there: s3://BUCKET/PREFIX, gs://..., a folder.",
    ),
    click.option(
        "--tables", is_flag=True, help="No notebooks: tables of all labels and explanations."
    ),
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Engine`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def pool_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `Engine` by which this machine does several jobs at a time."""
    return _workers(_threads(command))


def sweep(
    profile: "Profile", only: str | None, force: bool, engine: Engine, as_json: bool
) -> dict[str, str]:
    """Do a profile's jobs, or print them; return those that are not finished now, with why."""
    from xailib.report.run.foreseen import check_images, check_runs
    from xailib.report.run.plan import plan, unfinished
    from xailib.report.run.sharing import open_store, shared

    if engine.workers and engine.scheduler:
        raise InputError("workers: not together with scheduler; a cluster has its own workers")
    if engine.store:
        open_store(engine.store)  # refuses what cannot be one
    jobs = plan(profile, only, shard=engine.photographs, pages=engine.pages)
    left = unfinished(profile, jobs, force=force)
    if not engine.store:  # which may hold them
        check_runs(profile, {job.task for job in left if job.kind == "notebook"})
    if not engine.scheduler:  # whose workers may see others
        check_images(profile, {job.task for job in left})
    if engine.dry_run:
        _show(profile, jobs, left, engine.workers or 1, as_json)
        warn_of_lacks(profile, (job.task for job in left))
        _foresee(profile, left)
        return {}
    from xailib.report.run.costs import estimate, longest_first
    from xailib.report.run.scheduler import run_plan

    barred = warn_of_lacks(profile, (job.task for job in left))
    seconds: dict[str, float] = {}
    if engine.workers:
        if engine.whole:  # a last notebook has all cores
            engine = replace(engine, workers=min(engine.workers, len(left) or 1))
        seconds = _seconds(left, {job.name: estimate(profile, job) for job in left})
        left = longest_first(left, seconds)
    if engine.scheduler or engine.store:
        barred = {}  # other machines may have it, or have finished what needs it
    failed: dict[str, str] = {}
    reused: list[str] = []
    rest = _Left(left, seconds, engine.workers or 1)
    with shared(engine.store, profile, jobs, left) as settle, _executor(engine) as executor:
        outcomes = run_plan(profile, jobs, left, executor, force=force, barred=barred)
        for outcome in map(settle, outcomes):
            if outcome.state in ("failed", "skipped"):
                failed[outcome.task] = outcome.message
            if outcome.state == "reused" and outcome.task.count(".") and not as_json:
                reused.append(outcome.task)
            else:
                show_outcome(outcome, as_json)
            rest.tell(outcome)
    if reused:
        click.echo(f"{len(reused)} finished jobs were used again")
    return failed


class _Left:
    """Says how many jobs are left and how long they may take, if somebody watches."""

    def __init__(self, jobs: Sequence["Job"], seconds: Mapping[str, float], workers: int) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.count, self.seconds, self.workers = len(jobs), seconds, workers
        self.next = 0.0
        if jobs:
            self._tell()

    def tell(self, outcome: "Outcome") -> None:
        """Take note of what became of a job."""
        if outcome.state != "again" and self.jobs.pop(outcome.task, None) is not None:
            self._tell()

    def _tell(self) -> None:
        """Say it, but of many short jobs not each time: the time left takes a moment to find."""
        if live() and (time.monotonic() >= self.next or not self.jobs):
            done = self.count - len(self.jobs)
            click.echo(f"{done} of {self.count} jobs{self._time()}", err=True)
            self.next = time.monotonic() + _PAUSE

    def _time(self) -> str:
        from xailib.report.run.costs import wall

        known = [job for job in self.jobs.values() if job.name in self.seconds]
        if not known:
            return ""
        seconds = {job.name: self.seconds[job.name] for job in known}
        more = "" if len(known) == len(self.jobs) else " or more"
        return f", about {duration(wall(known, seconds, self.workers))}{more} left"


def _seconds(jobs: Sequence["Job"], costs: Mapping[str, "Cost | None"]) -> dict[str, float]:
    """Return what those jobs take whose costs are known; gathering shards takes a moment."""
    found = {job.name: 0.0 for job in jobs if job.kind in ("table", "label")}
    return found | {job.name: cost.seconds for job in jobs if (cost := costs[job.name])}


def _foresee(profile: "Profile", left: Sequence["Job"]) -> None:
    """Say which photographs the jobs will leave out."""
    from xailib.report.run.foreseen import unusable

    lines, rest = unusable(profile, left)
    for line in lines[:_LINES]:
        click.echo(f"Will be left out: {line}", err=True)
    if len(lines) > _LINES:
        click.echo(f"Will be left out: {len(lines) - _LINES} more", err=True)
    if rest:
        click.echo(f"Not looked at: {rest} more photographs", err=True)


def _executor(engine: Engine) -> "Executor":
    from xailib.report.run import executors

    if engine.scheduler:
        from xailib.report.run.cluster import Cluster

        cluster = Cluster(engine.scheduler, engine.threads)
        click.echo(f"Dashboard: {cluster.dashboard}", err=True)
        return cluster
    if engine.workers:
        return executors.Pool(engine.workers, engine.threads)
    return executors.Here(engine.threads)


def _show(
    profile: "Profile", jobs: Sequence["Job"], left: Sequence["Job"], workers: int, as_json: bool
) -> None:
    """Print the plan: a line for each job, alike jobs together, and what is left to do."""
    from xailib.report.run.costs import (
        constants,
        estimate,
        longest_first,
        measured,
        unmeasured,
        wall,
    )

    to_do = {job.name for job in left}
    costs = {job.name: estimate(profile, job) for job in jobs}
    rows = [
        {
            "job": job.name,
            "state": "to do" if job.name in to_do else "finished",
            "needs": list(job.needs),
            **_parts(asdict(cost) if (cost := costs[job.name]) else {}),
            "took": took.seconds if (took := measured(profile, job)) else None,
        }
        for job in jobs
    ]
    if as_json:
        show_json(rows)
        return
    show_table(_together(rows))
    seconds = _seconds(left, costs)
    known = [cost for job in left if (cost := costs[job.name])]
    ordered = longest_first(left, seconds) if workers > 1 else left
    counted = {job.name: seconds.get(job.name, 0.0) for job in left}
    without = ", ".join(dict.fromkeys(job.task for job in left if not costs[job.name]))
    unknown = f" (no estimate: {without}, not counted)" if without else ""
    click.echo(
        f"To do: {len(left)} of {len(jobs)} jobs{unknown}; about "
        f"{duration(wall(ordered, counted, workers))} with {workers} at a time, "
        f"{size(int(sum(cost.disk for cost in known)))} of disk, "
        f"{size(int(max((cost.memory for cost in known), default=0)))} of memory a worker."
    )
    click.echo(
        f"Times are of one processor, estimated from {constants()['measured']}; this machine has "
        f"{os.cpu_count()}, and a job that uses several takes less."
    )
    if others := unmeasured(profile, left):
        click.echo(f"Of other networks, the time may be many times as much: {', '.join(others)}.")


def _parts(cost: Mapping[str, float]) -> dict[str, float | None]:
    return {name: cost.get(name) for name in ("seconds", "memory", "disk")}


def _together(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Return rows for people: more than three alike shards in a row are one line."""
    shown: list[dict[str, object]] = []
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        task, _, number = row["job"].partition(".")
        key = (task, row["state"]) if number.isdigit() else (row["job"], "")
        groups.setdefault(key, []).append(row)
    for group in groups.values():
        parts = [group] if len(group) > 3 else [[row] for row in group]
        for part in parts:
            first, last = part[0], part[-1]
            name = first["job"] if len(part) == 1 else f"{first['job']} to {last['job']}"
            needs = first["needs"]
            shown.append(
                {
                    "job": name,
                    "state": first["state"],
                    "needs": needs if len(needs) < 4 else f"{len(needs)} jobs",
                    "time": _said(part, "seconds", sum, duration, "no estimate"),
                    "memory": _said(part, "memory", max, size, "no estimate"),
                    "disk": _said(part, "disk", sum, size, "no estimate"),
                    "took last": _said(part, "took", sum, duration, "not known"),
                }
            )
    return shown


def _said(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    of: Callable[[list[float]], float],
    say: Callable[[int], str],
    nothing: str,
) -> str:
    values = [row[name] for row in rows]
    return nothing if None in values else say(int(of(values)))
