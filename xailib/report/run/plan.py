"""The plan: which jobs a profile consists of, and which of them are left to do."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from math import gcd
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xailib.downloads.fetch import cache_folder
from xailib.errors import InputError, XailibError, unknown_name
from xailib.files import sha256_of
from xailib.images.archives import ARCHIVES
from xailib.images.load import PUBLISHED, places_of
from xailib.images.packaged import Place, packaged, packaged_names
from xailib.project import project_root
from xailib.report.params.profiles import TASKS, Profile, upstream
from xailib.report.run.job import Job, finished, path_of

SHARD = 10  # photographs of a job, where tasks are shared out
SHARDS = MappingProxyType({"1_clip_dissect": "record", "2_lime": "explain", "3_cam": "explain"})
_PASS = 16  # `xailib.networks.classifier.BATCH`, which would bring torch with it


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
        Photographs a job, at least 1; by default a task is one job. Of a probe set a few more,
        so that a part is shown to the network in the batches in which the whole would be.
    pages : bool
        Whether notebooks are executed. Without them, the tasks in `SHARDS` give one tidy table
        each, in memory that does not grow with the number of photographs.

    Raises
    ------
    InputError
        If `only` names no task, or none that has a table; if `shard` is less than 1; without
        pages, for a measure that needs all activations at once, or a probe set still to fetch.
    """
    allowed = TASKS if pages else [task for task in TASKS if task in SHARDS]
    if only is not None and only not in allowed:
        raise unknown_name("task", only, allowed)
    if shard is not None and shard < 1:
        raise InputError(f"shard: {shard} photographs are not at least 1")
    size = shard if pages else shard or SHARD
    jobs: list[Job] = []
    for task in (only,) if only else allowed:
        parts = _shards(profile, task, size, pages) if size and task in SHARDS else []
        names = tuple(job.name for job in parts)
        jobs += parts
        if pages:
            others = [one for one in upstream(task).values() if one in {job.name for job in jobs}]
            jobs.append(Job(task, task, needs=(*names, *others)))
        elif parts:
            kind = "table" if SHARDS[task] == "explain" else "label"
            jobs.append(Job(f"{task}.table", task, kind, names))
    return jobs


def unfinished(profile: Profile, jobs: Sequence[Job], *, force: bool = False) -> list[Job]:
    """Return the jobs that are left to do: not finished, or behind one that is not.

    A notebook that is up to date needs none of its shards.
    """
    if force:
        return list(jobs)
    with contextlib.chdir(project_root()):  # where the jobs' own paths start
        return _unfinished(profile, jobs)


def _unfinished(profile: Profile, jobs: Sequence[Job]) -> list[Job]:
    fresh = {job.name for job in jobs if job.kind == "notebook" and finished(profile, job)}
    spared = {name for job in jobs if job.name in fresh for name in job.needs}
    left: dict[str, Job] = {}
    for job in jobs:
        behind = not left.keys().isdisjoint(job.needs)
        if job.kind in SHARDS.values() and job.name in spared:
            continue
        if behind or not (job.name in fresh or (job.kind != "notebook" and finished(profile, job))):
            left[job.name] = job
    return list(left.values())


def listing(source: str | Path | Collection[str | Path]) -> list[tuple[str, str]]:
    """Return (id, name) of the photographs that a source stands for, without decoding them.

    The ids are those of `xailib.images.load.iter_images`, where every file can be read. What cannot
    be looked up is listed by its own name, so that explaining it says why.
    """
    found: dict[str, str] = {}
    for name in [source] if isinstance(source, str | Path) else source:
        try:
            places = [(place.id, _word(place)) for place in places_of(name)]
        except (XailibError, OSError, RuntimeError):  # the last of a home of nobody's
            places = [(str(name), str(name))]
        for stem, file in places:
            unique = stem
            if stem in found and found[stem] != file:
                with contextlib.suppress(OSError):
                    first, second = (sha256_of(path_of(one)) for one in (found[stem], file))
                    unique = stem if first == second else f"{stem}-{second[:8]}"
            found.setdefault(unique, file)
    return list(found.items())


def probe_listing(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (id, name) of the photographs of a notebook's probe set, see `listing`.

    Raises
    ------
    InputError
        If a published set is still to be fetched.
    """
    places: list[str] = []
    for name in parameters["probe"]:
        if name == "packaged":
            places += packaged_names()
        elif name in ARCHIVES:
            folder = cache_folder() / name
            if not folder.is_dir():
                raise InputError(f"probe: {name} is still to be fetched: xailib fetch {name}")
            places.append(str(folder))
        else:
            places.append(name)
    return listing(places)


def probe_size(parameters: Mapping[str, Any]) -> int:
    """Return how many photographs a notebook's probe set has: its publisher's number if unfetched.

    Parameters
    ----------
    parameters : mapping
        Of the notebook.
    """
    try:
        return len(probe_listing(parameters))
    except InputError:
        return sum(ARCHIVES[name].images for name in parameters["probe"] if name in ARCHIVES)


def explained(parameters: Mapping[str, Any]) -> int:
    """Return how many photographs a notebook explains: all, or the first ones.

    Nothing is fetched for it.

    Parameters
    ----------
    parameters : mapping
        Of the notebook; ``first`` or ``long_runs`` say how many, where it has one of these.
    """
    limits = [int(parameters[name]) for name in ("first", "long_runs") if name in parameters]
    names = parameters.get("images", ())
    count = len(listing([name for name in names if name != PUBLISHED]))
    if PUBLISHED in names:
        from xailib.report.replication.published import photographs  # only here: it brings pandas

        count += len(photographs())
    return min([count, *limits])


def _word(place: Place) -> str:
    """Return what names a place for `places_of`, also where a file has a packaged one's name."""
    if packaged().get(place.id) == place:
        return place.id
    return f"./{place.path}" if str(place.path) in packaged() else str(place.path)


def _shards(profile: Profile, task: str, size: int, pages: bool) -> list[Job]:
    parameters = profile.values(task)
    with contextlib.chdir(project_root()):  # where the notebook's own paths start
        if SHARDS[task] == "explain":
            found = listing(parameters["images"])
        else:
            found = _probe(parameters, pages)
            images = 1 + parameters["crops"]  # of each photograph
            whole = _PASS // gcd(_PASS, images)  # photographs that fill batches to the last
            size = -(-size // whole) * whole
    return [
        Job(
            f"{task}.{number:04d}",
            task,
            SHARDS[task],
            photographs=tuple(found[start : start + size]),
        )
        for number, start in enumerate(range(0, len(found), size))
    ]


def _probe(parameters: Mapping[str, Any], pages: bool) -> list[tuple[str, str]]:
    """Return the probe photographs to share out; none where the notebook has to do it alone."""
    if parameters["descriptions"]:
        return []  # published labels: no network is shown anything
    if pages:
        with contextlib.suppress(InputError):  # the notebook fetches it
            return probe_listing(parameters)
        return []
    if parameters["measure"] != "soft_wpmi":
        raise InputError(
            f"measure: {parameters['measure']!r} needs all activations at once; without pages "
            "units are labelled by soft_wpmi (or name another task with only)"
        )
    return probe_listing(parameters)
