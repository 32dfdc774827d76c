"""``xailib run`` and ``report`` as jobs: the plan of a dry run, and the engines that do it."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xailib.errors import InputError
from xailib.project import cores, project_root
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
    from xailib.report.run.costs import Cost, Pace
    from xailib.report.run.plan import Job, Outcome


_LONG = 300.0  # seconds, above which what takes longest is told, and what would make it shorter
_SHORTER: dict[str, dict[str, Any]] = {  # by task: what decides its time, and a short value
    "1_clip_dissect": {"crops": 0, "control": False},
    "2_lime": {"num_samples": 200},
    "3_cam": {"methods": ["gradcam"]},
    "5_faithfulness": {"road_percentiles": [], "steps": 16},
    "7_sanity": {"first": 2, "sparse": []},
    "9_stability": {"pool": 2000, "sizes": [100, 200, 500]},
}
_COLUMNS: dict[str, tuple[str, Callable[[list[float]], float], Callable[[int], str], str]] = {
    "time": ("seconds", sum, duration, "no estimate"),
    "memory": ("memory", max, size, "no estimate"),
    "disk": ("disk", sum, size, "no estimate"),
    "took last": ("took", sum, duration, "not known"),
}
_PAUSE = 10.0  # seconds between two messages on what remains
_PARTS = ("seconds", "memory", "disk")  # of a cost
_LINES = 20  # of images that cannot be used, more are counted; and of what is left


@dataclass(frozen=True)
class Options:
    """Where and how a profile's jobs are done, as given on the command line."""

    dry_run: bool = False
    workers: int | None = None
    scheduler: str | None = None
    threads: int | None = None
    shard: int | None = None
    store: str | None = None
    pages: bool = True
    whole: bool = False  # a task is one job, also where there are several workers
    out: bool = False  # results go to a folder that the user names

    @property
    def photographs(self) -> int | None:
        """How many of them a job has; None for all."""
        from xailib.report.run.plan import SHARD

        sharded = (self.workers or self.scheduler) and not self.whole
        return self.shard or (SHARD if sharded else None)


def sweep(
    profile: "Profile", only: Sequence[str], force: bool, options: Options, as_json: bool
) -> tuple[dict[str, str], int]:
    """Do a profile's jobs, or print them.

    Returned are those that are not finished now, with why, and the command's exit status: 2 where
    wrong values are all that went wrong, whether the command or a notebook found them.
    """
    from xailib.report.run.costs import estimates, longest_first
    from xailib.report.run.plan import plan
    from xailib.report.run.preflight import check_images, check_out
    from xailib.report.run.scheduler import Engine, run_plan
    from xailib.report.run.staleness import unfinished

    workers = options.workers
    engine = Engine(workers, options.scheduler, options.threads, options.store or "")
    if options.store:
        from xailib.report.run.store import Store

        Store(options.store, project_root() / "results")  # refuses what cannot be one
    if (options.store or options.scheduler) and Path(profile.beside).is_absolute():
        raise InputError("out: a store or a cluster takes only what is below results/")
    jobs = plan(profile, only, shard=options.photographs, pages=options.pages)
    left = unfinished(profile, jobs, force=force)
    if options.out and not force:
        check_out(profile, left)
    if not options.scheduler:  # whose workers may see others
        check_images(profile, {job.task for job in left})
    if workers and options.whole:  # a last notebook has all cores
        workers = min(workers, len(left) or 1)
    paces, barred = ({}, {}) if options.scheduler else _paces(profile, left, workers or 1, options)
    if options.dry_run:
        _show(profile, jobs, left, options.workers or 1, as_json, paces)
        warn_of_lacks(profile, (job.task for job in left))
        for task, line in barred.items():
            click.echo(f"Will fail: {task}: {line}", err=True)
        _show_unusable(profile, left)
        return {}, 0
    barred |= warn_of_lacks(profile, (job.task for job in left)) if left else {}
    if options.scheduler or options.store:
        barred = {}  # other machines may have it, or have finished what needs it
    seconds = _seconds(left, estimates(profile, left, paces))
    will_run = [job for job in left if job.task not in barred]
    _warn_of_time(profile, will_run, seconds, workers or 1)
    if workers:
        left = longest_first(left, seconds)
    failed: dict[str, str] = {}
    reasons = set()  # why jobs failed: whether it was a wrong value
    reused = 0
    folders = {job.name: job.folder(profile) for job in jobs}
    engine = replace(engine, workers=workers)
    outcomes = run_plan(profile, jobs, left, engine, force=force, barred=barred, bar=live())
    for outcome in _telling(outcomes, left, seconds, 1 if options.scheduler else workers):
        if outcome.state in ("failed", "skipped"):
            failed[outcome.task] = outcome.message
        if outcome.state == "failed":
            reasons.add(outcome.message.startswith(f"{InputError.__name__}: "))
        if outcome.state == "reused" and "." in outcome.task and not as_json:
            reused += 1
        else:
            show_outcome(outcome, folders[outcome.task], as_json)
    if reused:
        click.echo(f"{reused} finished jobs were used again")
    return failed, (2 if reasons == {True} else 1) if failed else 0


def _paces(
    profile: "Profile", left: Sequence["Job"], workers: int, options: Options
) -> tuple[dict[str, "Pace"], dict[str, str]]:
    """Time the networks of tasks that have not run here with them, as `paces_of`."""
    from xailib.report.run.costs import estimates
    from xailib.report.run.job import limited

    before = estimates(profile, left)
    known = {job.name for job in left if (cost := before[job.name]) and cost.here}
    tasks = [job.task for job in left if job.name not in known and not job.gathers]
    if not any("model" in profile.values(task) for task in tasks):
        return {}, {}
    from xailib.report.cli.timing import paces_of  # which brings torch

    threads = options.threads or (max(1, cores() // workers) if options.workers else None)
    with limited(threads):
        return paces_of(profile, list(dict.fromkeys(tasks)))


def _warn_of_time(
    profile: "Profile", jobs: Sequence["Job"], seconds: Mapping[str, float], workers: int
) -> None:
    """Say what will take long, and what would make it shorter."""
    from xailib.report.run.costs import wall

    known = [job for job in jobs if job.name in seconds]
    total = wall(known, seconds, workers)
    if total < _LONG:
        return
    each: dict[str, float] = {}
    for job in known:
        each[job.task] = each.get(job.task, 0.0) + seconds[job.name]
    longest = sorted(each, key=lambda task: -each[task])[:3]
    parts = ", ".join(f"{task} {duration(each[task])}" for task in longest)
    ways = [way for task in longest if (way := _shorter(task, profile.values(task)))]
    shorter = ", ".join(["fewer images", *ways])
    click.echo(f"About {duration(total)}: {parts}. Shorter: {shorter}.", err=True)


def _shorter(task: str, values: Mapping[str, Any]) -> str:
    """Return the changes of values that make a task shorter, as words of the command."""
    words = []
    for name, few in _SHORTER.get(task, {}).items():
        own = values.get(name)
        if type(own) is type(few) and _count(own) > _count(few):
            words.append(f"-p {name}={json.dumps(few, separators=(',', ':'))}".replace('"', ""))
    return " ".join(words)


def _count(value: Any) -> float:
    return float(len(value) if isinstance(value, list) else value)


def _telling(
    outcomes: Iterable["Outcome"],
    jobs: Sequence["Job"],
    seconds: Mapping[str, float],
    workers: int | None,
) -> Iterator["Outcome"]:
    """Yield outcomes; say in a terminal how many jobs remain, and how long they may take."""
    left, due = {job.name: job for job in jobs}, 0.0

    def say() -> None:
        """Say it, but of many short jobs not each time: the time left takes a moment to find."""
        nonlocal due
        if live() and (len(jobs) <= _LINES or time.monotonic() >= due or not left):
            done = len(jobs) - len(left)
            said = f"{done} of {len(jobs)} jobs"
            if left and not workers:  # one after the other, in this process
                said = f"{next(iter(left))}: {done + 1} of {len(jobs)}"
            click.echo(f"{said}{_time_left(left.values(), seconds, workers or 1)}", err=True)
            due = time.monotonic() + _PAUSE

    if left:
        say()
    for outcome in outcomes:
        yield outcome
        if left.pop(outcome.task, None):
            say()


def _time_left(jobs: Collection["Job"], seconds: Mapping[str, float], workers: int) -> str:
    from xailib.report.run.costs import wall

    known = [job for job in jobs if job.name in seconds]
    more = "" if len(known) == len(jobs) else " or more"
    return f", about {duration(wall(known, seconds, workers))}{more} left" if known else ""


def _seconds(jobs: Sequence["Job"], costs: Mapping[str, "Cost | None"]) -> dict[str, float]:
    """Return what those jobs take whose costs are known; gathering shards takes a moment."""
    found = {job.name: 0.0 for job in jobs if job.gathers}
    return found | {job.name: cost.seconds for job in jobs if (cost := costs[job.name])}


def _show_unusable(profile: "Profile", left: Sequence["Job"]) -> None:
    """Say which photographs the jobs will leave out."""
    from xailib.report.run.preflight import unusable_photographs

    lines, rest = unusable_photographs(profile, left)
    for line in lines[:_LINES]:
        click.echo(f"Will be skipped: {line}", err=True)
    if len(lines) > _LINES:
        click.echo(f"Will be skipped: {len(lines) - _LINES} more", err=True)
    if rest:
        click.echo(f"Not looked at: {rest} more photographs", err=True)


def _show(
    profile: "Profile",
    jobs: Sequence["Job"],
    left: Sequence["Job"],
    workers: int,
    as_json: bool,
    paces: Mapping[str, "Pace"],
) -> None:
    """Print the plan: a line for each job, alike jobs together, and what is left to do."""
    from xailib.report.run.costs import MACHINE, NETWORK, estimates, longest_first, noted, wall

    to_do = {job.name for job in left}
    costs = estimates(profile, jobs, paces)
    rows = [
        {
            "job": job.name,
            "state": "to do" if job.name in to_do else "finished",
            "needs": list(job.needs),
            **{name: getattr(costs[job.name], name, None) for name in _PARTS},
            "took": next((one["seconds"] for one in noted([job.folder(profile)])), None),
        }
        for job in jobs
    ]
    if as_json:
        show_json(rows)
        return
    show_table(_together(rows))
    seconds = {job.name: 0.0 for job in left} | _seconds(left, costs)
    known = [cost for job in left if (cost := costs[job.name])]
    without = ", ".join(dict.fromkeys(job.task for job in left if not costs[job.name]))
    unknown = f" (no estimate: {without}, not counted)" if without else ""
    click.echo(
        f"To do: {len(left)} of {len(jobs)} jobs{unknown}; about "
        f"{duration(wall(longest_first(left, seconds), seconds, workers))} with {workers} at a "
        f"time, {size(int(sum(cost.disk for cost in known)))} of disk, "
        f"{size(int(max((cost.memory for cost in known), default=0)))} of memory a worker."
    )
    if here := sum(cost.here for cost in known):
        click.echo(f"{here} times are what such jobs took here last time.")
    new = [
        job for job in left if (cost := costs[job.name]) and not cost.here and job.task not in paces
    ]
    if new:
        click.echo(
            f"{len(new)} times are of one processor, as measured on {MACHINE}; this machine has "
            f"{cores()}, and a job that uses several takes less."
        )
    timed = {
        str(profile.values(task)["model"]): f"{1e3 * pace.fast:.0f} ms an image"
        for task, pace in paces.items()
    }
    for name, said in timed.items():
        click.echo(f"Timed here: {name}, {said}.")
    networks = {str(profile.values(job.task).get("model", "")) for job in new} - {"", NETWORK}
    if others := ", ".join(sorted(networks - timed.keys())):
        click.echo(f"Not timed; may take many times as much: {others}.")


def _together(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Return rows for people: more than three alike shards in a row are one line."""
    shown: list[dict[str, object]] = []
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        task, _, number = row["job"].partition(".")
        key = (task, row["state"]) if number.isdigit() else (row["job"], "")
        groups.setdefault(key, []).append(row)
    for group in groups.values():
        for part in [group] if len(group) > 3 else [[row] for row in group]:
            first, last = part[0], part[-1]
            name = first["job"] if len(part) == 1 else f"{first['job']} to {last['job']}"
            needs = first["needs"] if len(first["needs"]) < 4 else f"{len(first['needs'])} jobs"
            line = {"job": name, "state": first["state"], "needs": needs}
            for heading, (column, of, say, nothing) in _COLUMNS.items():
                values = [row[column] for row in part]
                line[heading] = nothing if None in values else say(int(of(values)))
            shown.append(line)
    return shown
