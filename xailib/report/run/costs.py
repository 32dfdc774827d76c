"""What jobs cost: noted as they run, and estimated from what they took last time.

Where nothing like it has run here, the short table ``costs.csv`` says what a job of its kind took
elsewhere: a fixed part, and one for each unit of work. What networks take is timed here
(`xailib.report.cli.timing`): explanations by the passes that they make, the rest in proportion.
"""

import contextlib
import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xailib.files import write_atomic
from xailib.project import project_root
from xailib.report.params.profiles import Profile
from xailib.report.run.plan import COST, SHARDS, Job, explained, probe_size
from xailib.report.run.results import peak_memory, read_manifest

TABLE = Path(__file__).with_name("costs.csv")  # no result depends on it
NETWORK = "tf_efficientnet_lite0"  # that the table is of,
MACHINE = "one of 2 cores of an AMD EPYC"  # and where;
PASS = 0.0096  # seconds that a pass of it takes there
_BY_PASSES = ("5_faithfulness", "7_sanity", "9_stability")
_SEGMENTED = 0.5  # seconds to find a photograph's superpixels, and to fit LIME's model


@dataclass(frozen=True)
class Cost:
    """Of one job: seconds, bytes of memory at most, bytes of disk.

    Seconds are a clock's for what ran or was timed here, and those of one processor for the rest.
    """

    seconds: float
    memory: float
    disk: float
    here: bool = False


@dataclass(frozen=True)
class Pace:
    """What one image costs a network here, in seconds, as if nothing else ran on the machine."""

    eager: float  #: of a pass by the network itself
    fast: float  #: of a pass by the engine that makes many
    #: of what AblationCAM computes for a channel (what follows the layer); 0 by a closed form
    tail: float = 0.0
    channels: int = 0  #: of the layer; so many passes ScoreCAM makes, or AblationCAM of the tail

    def heatmap(self, method: str) -> float:
        """Return the seconds of one heatmap."""
        if method == "scorecam":
            return self.channels * self.fast
        if method == "ablationcam":
            return self.eager + self.channels * self.tail
        return 3 * self.eager  # backwards takes twice as long as forwards


def estimates(
    profile: Profile, jobs: Iterable[Job], paces: Mapping[str, Pace] = MappingProxyType({})
) -> dict[str, Cost | None]:
    """Return the estimated cost of jobs, by name; None for a task that was never measured.

    A job takes as long as last time, or, a part of a task, as long as the other parts did: seconds
    and disk in proportion to the units of work. What has not run with this network is looked up in
    the table; what the network takes follows from the task's pace, where that is known.
    """
    found: dict[str, Cost | None] = {}
    parts = cache(lambda folder, *of: noted(folder.glob("*"), *of))
    with contextlib.chdir(project_root()):  # where the notebooks' own paths start
        for job in jobs:
            of, folder = (kind_of(job), network_of(profile, job)), job.folder(profile)
            last = noted([folder], *of)
            if not last and folder.parent.name == "jobs":
                last = parts(folder.parent, *of)
            if last:
                found[job.name] = _as_before(last, units(profile, job))
            else:
                found[job.name] = _look_up(profile, job, paces.get(job.task))
    return found


def _as_before(last: Sequence[Mapping[str, Any]], count: int) -> Cost:
    before = sum(one["units"] for one in last)
    times = count / before if before and count else 1 / len(last)  # some work has no images
    seconds, disk = (times * sum(one[name] for one in last) for name in ("seconds", "disk"))
    return Cost(seconds, max(one["memory"] for one in last), disk, here=True)


def _look_up(profile: Profile, job: Job, pace: Pace | None) -> Cost | None:
    parts = [job]
    if job.task in SHARDS and kind_of(job).endswith("notebook"):  # its parts and its page
        parts = [replace(job, kind=SHARDS[job.task]), replace(job, needs=(f"{job.task}.0",))]
    costs = []
    for part in parts:
        if (row := _table().get(kind_of(part))) is None:
            return None
        count = units(profile, part)
        each = {name: row[f"{name}_each"] * count for name in ("seconds", "memory", "disk")}
        if pace:
            each["seconds"] = _timed(profile, part, each["seconds"], count, pace)
        costs.append([row[name] + each[name] for name in each])
    seconds, memory, disk = zip(*costs, strict=True)
    return Cost(sum(seconds), max(memory), sum(disk))


def _timed(profile: Profile, job: Job, seconds: float, count: int, pace: Pace) -> float:
    """Return what the units of a job take at a network's pace, of the table's seconds for them."""
    parameters = profile.values(job.task)
    images = len(job.photographs) or explained(parameters)
    if kind_of(job).endswith("page"):
        return seconds  # to draw
    if job.task == "2_lime":
        return count * pace.fast + images * _SEGMENTED
    if job.task == "1_clip_dissect":  # most of it is the encoder's
        return seconds + count * (pace.fast - PASS)
    if job.task == "10_explore":  # LIME's samples are scored again
        return seconds + images * profile.values("2_lime")["num_samples"] * pace.fast
    if job.task == "3_cam":
        return images * math.fsum(map(pace.heatmap, parameters["methods"]))
    return seconds * pace.fast / PASS if job.task in _BY_PASSES else seconds


def network_of(profile: Profile, job: Job) -> str:
    """Return the words by which a job's network is loaded; empty for a job without one."""
    parameters = profile.values(job.task)
    return " ".join(str(parameters[n]) for n in ("model", "weights") if parameters.get(n))


def kind_of(job: Job) -> str:
    """Return the name of a job's costs; a page whose images are all explained has its own."""
    page = job.kind == "notebook" and any(need.startswith(f"{job.task}.") for need in job.needs)
    return f"{job.task} {'page' if page else job.kind}"


def units(profile: Profile, job: Job) -> int:
    """Return how many units of work a job has: images shown to networks, heatmaps, or images."""
    parameters = profile.values(job.task)
    if job.gathers:
        return len(job.needs)
    if job.task == "1_clip_dissect":
        networks = 1 + bool(parameters.get("compare")) + bool(parameters.get("control"))
        images = len(job.photographs) or probe_size(parameters)
        return int(networks * images * (1 + int(parameters.get("crops", 0))))
    count = len(job.photographs) or explained(parameters)
    if job.task == "9_stability":  # LIME's samples: the first long run is twice as long as others
        pool, designs = parameters["pool"], len(parameters["designs"]) * parameters["design_pool"]
        return int(pool / 2 + count * (pool / 2 + designs + 2 * parameters["cut_samples"]))
    if job.task == "2_lime" and not kind_of(job).endswith("page"):
        most = "max_samples" if parameters.get("until_stable") else "num_samples"
        count *= int(parameters.get(most, 1))
    if job.task == "3_cam" and not kind_of(job).endswith("page"):
        count *= len(parameters.get("methods", "1"))
    return count


def wall(jobs: Sequence[Job], seconds: Mapping[str, float], workers: int) -> float:
    """Return how long jobs take on some workers at least: their share, or the longest chain.

    They are in the order of a plan, and needs that are not among them are finished; ``seconds`` has
    each by its name.
    """
    total = math.fsum(seconds[job.name] for job in jobs)
    return max([total / workers, *_ahead(jobs, seconds).values()])


def longest_first(jobs: Sequence[Job], seconds: Mapping[str, float]) -> list[Job]:
    """Return jobs with the one that blocks others longest first: none remains for the end.

    Those that are alike keep the order of the plan; what has no ``seconds`` may take any time.
    """
    ahead = _ahead(jobs, seconds)
    return sorted(jobs, key=lambda job: -ahead[job.name])


def _ahead(jobs: Sequence[Job], seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the time from the beginning of each job until nothing waits for it."""
    ahead: dict[str, float] = {}
    behind: dict[str, float] = {}
    for job in reversed(jobs):
        ahead[job.name] = behind.get(job.name, 0.0) + seconds.get(job.name, math.inf)
        for need in job.needs:
            behind[need] = max(behind.get(need, 0.0), ahead[job.name])
    return ahead


@cache
def _table() -> dict[str, dict[str, float]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row.pop("kind"): {name: float(value) for name, value in row.items()} for row in rows}


def noted(
    folders: Iterable[Path], kind: str | None = None, network: str | None = None
) -> list[dict[str, Any]]:
    """Return what `note_cost` has stored in folders, if wanted of this kind and network only.

    What is absent or of another form is left out.
    """
    found = []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            cost = json.loads((folder / COST).read_text())
            numbers = {name: float(cost[name]) for name in ("seconds", "memory", "disk", "units")}
            if kind in (None, cost["kind"]) and network in (None, cost["network"]):
                found.append(numbers)
    return found


def note_cost(profile: Profile, job: Job, seconds: float) -> None:
    """Store what a finished job took beside its result, as ``cost.json``.

    That is, with the kind of the job, its network and its units: seconds, bytes of memory at most
    (of the notebook's own process, or of this one so far), and of the files that the manifest
    names.
    """
    folder = job.folder(profile)
    manifest = read_manifest(folder)
    cost = {
        "job": job.name,
        "kind": kind_of(job),
        "network": network_of(profile, job),
        "units": units(profile, job),
        "seconds": round(seconds, 2),
        "memory": manifest.get("memory") or peak_memory(),
        "disk": sum((folder / name).stat().st_size for name in manifest["outputs"]),
    }
    write_atomic(folder / COST, json.dumps(cost, indent=1))
