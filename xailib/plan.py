"""The plan: which jobs a profile consists of, and which of them are left to do."""

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

from xailib.errors import InputError, XailibError, unknown_name
from xailib.files import sha256_of
from xailib.images import places_of
from xailib.jobs import Job, finished, path_of
from xailib.packaged import packaged
from xailib.profiles import TASKS, Profile, declared, upstream
from xailib.project import project_root

SHARD = 10  # photographs of a job, where tasks are shared out
SHARED_OUT = ("2_lime", "3_cam")


def plan(
    profile: Profile, only: str | None = None, *, shard: int | None = None, pages: bool = True
) -> list[Job]:
    """Return the jobs of a profile, each behind those that it needs.

    Parameters
    ----------
    profile : Profile
        What is to run.
    only : str, optional
        One task.
    shard : int, optional
        Photographs a job, at least 1; by default a task is one job.
    pages : bool
        Whether notebooks are executed. Without them, the tasks that explain photographs give one
        tidy table each, in memory that does not grow with the number of photographs.

    Raises
    ------
    InputError
        If `only` names no task, or none that has a table; if `shard` is less than 1.
    """
    allowed = TASKS if pages else [task for task in TASKS if task in SHARED_OUT]
    if only is not None and only not in allowed:
        raise unknown_name("task", only, allowed)
    if shard is not None and shard < 1:
        raise InputError(f"shard: {shard} photographs are not at least 1")
    size = shard if pages else shard or SHARD
    jobs: list[Job] = []
    for task in (only,) if only else allowed:
        parts = _shards(profile, task, size) if size and task in SHARED_OUT else []
        names = tuple(job.name for job in parts)
        jobs += parts
        if pages:
            others = [one for one in upstream(task).values() if one in {job.name for job in jobs}]
            jobs.append(Job(task, task, needs=(*names, *others)))
        else:
            jobs.append(Job(f"{task}.table", task, "table", names))
    return jobs


def unfinished(profile: Profile, jobs: Sequence[Job], *, force: bool = False) -> list[Job]:
    """Return the jobs that are left to do: not finished, or behind one that is not.

    A notebook that is up to date needs none of its shards.
    """
    if force:
        return list(jobs)
    fresh = {job.name for job in jobs if job.kind == "notebook" and finished(profile, job)}
    spared = {name for job in jobs if job.name in fresh for name in job.needs}
    left: dict[str, Job] = {}
    for job in jobs:
        behind = not left.keys().isdisjoint(job.needs)
        if job.kind == "explain" and job.name in spared:
            continue
        if behind or not (job.name in fresh or (job.kind != "notebook" and finished(profile, job))):
            left[job.name] = job
    return list(left.values())


def listing(source: str | Path | Collection[str | Path]) -> list[tuple[str, str]]:
    """Return (id, name) of the photographs that a source stands for, without decoding them.

    The ids are those of `xailib.images.iter_images`, where every file can be read. What cannot
    be looked up is listed by its own name, so that explaining it says why.
    """
    found: dict[str, str] = {}
    for name in [source] if isinstance(source, str | Path) else source:
        try:
            places = [
                (place.id, place.id if place.id in packaged() else str(place.path))
                for place in places_of(name)
            ]
        except (XailibError, OSError):
            places = [(str(name), str(name))]
        for stem, file in places:
            unique = stem
            if stem in found and found[stem] != file:
                with contextlib.suppress(OSError):
                    first, second = (sha256_of(path_of(one)) for one in (found[stem], file))
                    unique = stem if first == second else f"{stem}-{second[:8]}"
            found.setdefault(unique, file)
    return list(found.items())


def _shards(profile: Profile, task: str, size: int) -> list[Job]:
    with contextlib.chdir(project_root()):  # where the notebook's own paths start
        found = listing({**declared(task), **profile.share(task)}["images"])
    return [
        Job(f"{task}.{number:04d}", task, "explain", photographs=tuple(found[start : start + size]))
        for number, start in enumerate(range(0, len(found), size))
    ]
