"""What jobs will cost, from constants that ``benchmarks/scale.py constants`` has measured."""

import contextlib
import heapq
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from xailib.project import project_root
from xailib.report.params.profiles import Profile
from xailib.report.run.job import Job
from xailib.report.run.metering import COST
from xailib.report.run.plan import SHARDS, explained, probe_size

CONSTANTS = Path(__file__).with_name("costs.json")  # not in data/: no result depends on it


@dataclass(frozen=True)
class Cost:
    """Of one job: seconds of one processor, bytes of memory and of disk."""

    seconds: float
    memory: float
    disk: float


def estimate(profile: Profile, job: Job) -> Cost | None:
    """Return what a job is expected to cost; None for a task that was never measured.

    Each cost is a line in the number of the job's units: the pictures that pass through the
    network where that is what takes the time, else the photographs that are explained. The slope
    is that of the network named in the constants; another network's is larger by as much as its
    passes are. What else the passes of a task depend on tells `xailib.report.run.expected`.
    """
    parts = [_part(profile, one) for one in _measured_as(job)]
    if any(part is None for part in parts):
        return None
    seconds, memory, disk = zip(*(astuple(part) for part in parts if part), strict=True)
    return Cost(sum(seconds), max(memory), sum(disk))


def _measured_as(job: Job) -> list[Job]:
    """Return the jobs that were measured instead: a whole task is its shards and its page."""
    if kind_of(job) in constants()["jobs"] or job.kind != "notebook" or job.task not in SHARDS:
        return [job]
    return [replace(job, kind=SHARDS[job.task]), replace(job, needs=(f"{job.task}.0",))]


def _part(profile: Profile, job: Job) -> Cost | None:
    jobs = constants()["jobs"]
    # A page that was never measured costs at most what the whole task does.
    lines = jobs.get(kind_of(job)) or jobs.get(f"{job.task} {job.kind}")
    if lines is None:
        return None
    with contextlib.chdir(project_root()):  # where the notebooks' own paths start
        count = units(profile, job)
    return Cost(*(lines[n]["fixed"] + lines[n]["each"] * count for n in Cost.__annotations__))


def kind_of(job: Job) -> str:
    """Return under which name a job's constants stand: a page that finds all explained is one."""
    return f"{job.task} {'page' if job.kind == 'notebook' and _shares(job) else job.kind}"


def _shares(job: Job) -> bool:
    return any(need.startswith(f"{job.task}.") for need in job.needs)


def units(profile: Profile, job: Job) -> int:
    """Return how many units of work a job has, see `estimate`."""
    parameters = profile.values(job.task)
    if job.kind == "table":
        return len(job.needs)
    if job.task == "1_clip_dissect":
        networks = 1 + bool(parameters["compare"]) + bool(parameters["control"])
        photographs = len(job.photographs) or probe_size(parameters)
        return networks * photographs * (1 + int(parameters["crops"]))
    count = len(job.photographs) or explained(parameters)
    if kind_of(job).endswith("page"):
        return count
    if job.task == "2_lime":
        samples = parameters["max_samples" if parameters["until_stable"] else "num_samples"]
        return count * int(samples)
    if job.task == "3_cam":
        return count * len(parameters["methods"])
    return count


def unmeasured(profile: Profile, jobs: Iterable[Job]) -> list[str]:
    """Return the networks of jobs that the constants are not of: the estimate may be far off."""
    given = (profile.values(task) for task in {job.task for job in jobs})
    networks = {str(parameters.get("model", "")) for parameters in given}
    return sorted(networks - {"", *constants().get("networks", networks)})


def wall(jobs: Sequence[Job], seconds: Mapping[str, float], workers: int) -> float:
    """Return how long jobs take on some workers, each begun as soon as it can be.

    Parameters
    ----------
    jobs : sequence of Job
        In the order of a plan; needs that are not among them are finished.
    seconds : mapping
        Of each of these jobs, by its name.
    workers : int
        At least 1.
    """
    left = {job.name: set(job.needs) & seconds.keys() for job in jobs}
    running: list[tuple[float, str]] = []  # a heap by the time of their ends
    now = 0.0
    while left or running:
        ready = [name for name, needs in left.items() if not needs]
        for name in ready[: workers - len(running)]:
            del left[name]
            heapq.heappush(running, (now + seconds[name], name))
        now, ended = heapq.heappop(running)
        for needs in left.values():
            needs.discard(ended)
    return now


def longest_first(jobs: Sequence[Job], seconds: Mapping[str, float]) -> list[Job]:
    """Return jobs so that what keeps others waiting longest comes first: none is left to the end.

    Parameters
    ----------
    jobs : sequence of Job
        In the order of a plan, which those that are alike keep.
    seconds : mapping
        Of each of these jobs, by its name; what is not in it may take any time.
    """
    ahead: dict[str, float] = {}  # from the beginning of a job until nothing waits for it
    behind: dict[str, float] = {}
    for job in reversed(jobs):
        ahead[job.name] = behind.get(job.name, 0.0) + seconds.get(job.name, math.inf)
        for need in job.needs:
            behind[need] = max(behind.get(need, 0.0), ahead[job.name])
    return sorted(jobs, key=lambda job: -ahead[job.name])


def measured(profile: Profile, job: Job) -> Cost | None:
    """Return what a finished job did cost; None if that is not known."""
    try:
        found = json.loads((job.folder(profile) / COST).read_text())
        return Cost(*(float(found[name]) for name in ("processor", "memory", "disk")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@cache
def constants() -> dict[str, Any]:
    """Return the measured constants, with the machine and the network that they are of."""
    found: dict[str, Any] = json.loads(CONSTANTS.read_text())
    return found
