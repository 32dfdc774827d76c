"""The plan: the jobs that running a profile consists of.

A job writes into a folder of its own, below that of its task, and what it has written says
whether it has to be done again (`xailib.report.run.staleness`): nothing else remembers it. So a
run that was killed is resumed, and what somebody else has finished meanwhile is not done twice.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xailib.dissect.blocks import block_photographs
from xailib.downloads.fetch import cache_folder
from xailib.errors import InputError, XailibError, check_least, check_name
from xailib.files import sha256_of
from xailib.images.archives import ARCHIVES
from xailib.images.load import PUBLISHED, places_of, published_photographs
from xailib.images.packaged import Place, packaged, packaged_names
from xailib.project import project_root
from xailib.report.params.profiles import Profile, selected, upstream

LOG, COST, LOCK = "log.txt", "cost.json", ".job.lock"
SHARD = 10  # images of a job, where tasks are sharded
# Which kind of job does a part of a task.
SHARDS = MappingProxyType({"1_clip_dissect": "record", "2_lime": "explain", "3_cam": "explain"})


@dataclass(frozen=True)
class Job:
    """One piece of a profile's run."""

    name: str  #: unique in its plan, such as ``2_lime``, ``2_lime.0003``, ``2_lime.table``
    task: str  #: the notebook that it belongs to
    #: execute it (``"notebook"``); ``"explain"`` some of its images, and gather the rows of all of
    #: these (``"table"``); ``"record"`` some of its probe images, and ``"label"`` units from all
    kind: str = "notebook"
    needs: tuple[str, ...] = ()  #: the jobs that have to be finished before
    #: (id, name) of what it explains or records, as `xailib.images.load.load_images` reads them
    photographs: tuple[tuple[str, str], ...] = ()

    def folder(self, profile: Profile) -> Path:
        """Return the folder of its result, log and cost."""
        place = profile.folder(self.task)
        return place if self.kind == "notebook" else place / "jobs" / self.name

    @property
    def gathers(self) -> bool:
        """Whether it makes a table of what others have left, so that it needs no network."""
        return self.kind in ("table", "label")

    def reads(self) -> Iterator["Job"]:
        """Yield the jobs whose results it reads, without their images."""
        names = dict.fromkeys(self.needs)
        if self.kind == "notebook":
            names |= dict.fromkeys(upstream(self.task).values())
        for name in names:
            task = name.partition(".")[0]
            yield Job(name, task, "notebook" if name == task else SHARDS[task])


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    task: str  #: the job's name
    #: done, failed, skipped, or reused (finished before, or by another process meanwhile)
    state: str
    seconds: float = 0.0  #: without the time in which it waited for its turn
    message: str = ""  #: why it failed, or which images a notebook could not use, in one line


def plan(
    profile: Profile,
    only: str | Collection[str] | None = None,
    *,
    shard: int | None = None,
    pages: bool = True,
) -> list[Job]:
    """Return the jobs of a profile, each behind those that it needs.

    Parameters
    ----------
    profile : Profile
        What is to run.
    only : str or collection of str, optional
        Some of its tasks; those whose results they read come before them.
    shard : int, optional
        Photographs a job, at least 1; by default a task is one job. Of a probe set more, so that
        a job records whole blocks.
    pages : bool
        Whether notebooks are executed. Without them, the tasks in `SHARDS` give one tidy table
        each, in memory that does not grow with the number of photographs.

    Raises
    ------
    InputError
        If `only` names what is no task, or one without a table; if `shard` is below 1; without
        pages, for a measure that needs all activations at once, or a probe set still to fetch.
    """
    chosen = selected(only)
    if not pages:
        for task in chosen if only else ():
            check_name("task", task, SHARDS)
        chosen = tuple(task for task in chosen if task in SHARDS)
    check_least("shard", shard)
    size = shard if pages else shard or SHARD
    jobs: list[Job] = []
    for task in chosen:
        parts = _shards(profile, task, size, pages) if size and task in SHARDS else []
        names = tuple(job.name for job in parts)
        jobs += parts
        if pages:
            jobs.append(Job(task, task, needs=(*names, *upstream(task).values())))
        elif parts:
            kind = "table" if SHARDS[task] == "explain" else "label"
            jobs.append(Job(f"{task}.table", task, kind, names))
    return jobs


def listing(source: str | Path | Collection[str | Path]) -> list[tuple[str, str]]:
    """Return (id, name) of the photographs that a source names, without decoding them.

    The ids are those of `xailib.images.load.iter_images`, where every file can be read. What cannot
    be looked up is listed by its own name, so that explaining it says why.
    """
    found: dict[str, str] = {}
    for name in [source] if isinstance(source, str | Path) else source:
        try:
            places = [(place.id, _word(place)) for place in places_of(name)]
        except (XailibError, OSError, RuntimeError):  # the last for an unknown user in `~user`
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

    `InputError` is raised if a published set is still to be fetched.
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
    """Return how many photographs a probe set has: if it is unfetched, its publisher's number."""
    try:
        return len(probe_listing(parameters))
    except InputError:
        return sum(ARCHIVES[name].images for name in parameters["probe"] if name in ARCHIVES)


def explained(parameters: Mapping[str, Any]) -> int:
    """Return how many photographs a notebook explains: all, or as ``first`` or ``long_runs`` say.

    Nothing is fetched for it.
    """
    limits = [int(parameters[name]) for name in ("first", "long_runs") if name in parameters]
    names = parameters.get("images", ())
    count = len(listing([name for name in names if name != PUBLISHED]))
    if PUBLISHED in names:
        count += len(published_photographs())
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
            block = block_photographs(parameters["crops"])
            size = -(-size // block) * block
    parts = (tuple(found[start : start + size]) for start in range(0, len(found), size))
    return [
        Job(f"{task}.{number:04d}", task, SHARDS[task], photographs=part)
        for number, part in enumerate(parts)
    ]


def _probe(parameters: Mapping[str, Any], pages: bool) -> list[tuple[str, str]]:
    """Return the probe images to shard; none where the notebook has to do it alone."""
    if parameters["descriptions"]:
        return []  # published labels: no network is shown anything
    if pages:
        with contextlib.suppress(InputError):  # the notebook fetches it
            return probe_listing(parameters)
        return []
    if parameters["measure"] not in ("auto", "soft_wpmi"):
        raise InputError(
            f"measure: {parameters['measure']!r} needs all activations at once; without pages "
            "units are labelled by soft_wpmi (or name another task with only)"
        )
    return probe_listing(parameters)


def path_of(name: str) -> Path:
    """Return the file behind one of a job's images: a packaged name, or a path."""
    known = packaged()
    return known[name].path if name in known else Path(name)
