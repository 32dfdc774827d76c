"""What would fail in a job, as far as it can be told at once and without doing anything."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from xailib.errors import InputError, XailibError
from xailib.images.decode import look
from xailib.images.load import PUBLISHED, Failure, iter_images, none_usable, places_of
from xailib.project import project_root
from xailib.report.params.profiles import TASKS, Profile, upstream
from xailib.report.run.job import Job
from xailib.report.run.notebook import finished_run
from xailib.report.run.plan import listing, probe_listing

FEW = 100  # photographs that are decoded in search of one that can be used
MOST = 2000  # photographs that are opened; a published probe set has tens of thousands


def check_runs(profile: Profile, tasks: Collection[str]) -> None:
    """Raise if a task reads a run that is neither finished nor to be made before it.

    Parameters
    ----------
    profile : Profile
        Whose results are read.
    tasks : collection of str
        Whose notebooks are to be executed.

    Raises
    ------
    InputError
        With what to run first, in order: also what that reads in its turn.
    """
    missing: set[str] = set()
    reader = ""
    for task in reversed(TASKS):  # each before those that it reads
        if task not in tasks and task not in missing:
            continue
        absent = {
            other
            for other in upstream(task).values()
            if other not in tasks and not finished_run(profile, other)
        }
        missing |= absent
        reader = task if absent and task in tasks else reader
    if missing:
        first = [task for task in TASKS if task in missing]
        folders = dict.fromkeys(profile.folder(task).parent for task in first)
        where = " and ".join(str(folder.relative_to(project_root())) for folder in folders)
        told = [f"{task} with the same -p" if task in profile.reached else task for task in first]
        raise InputError(
            f"only: {reader} reads runs that are not in {where}; run first: "
            f"{', '.join(told)} (or leave --only away)"
        )


def check_images(profile: Profile, tasks: Collection[str]) -> None:
    """Raise if a task could use none of its photographs.

    The first one that can be decoded ends the search. Where `FEW` cannot, or a set is still to be
    fetched, the notebook has to tell.

    Raises
    ------
    InputError
        As from `xailib.images.load.load_images`.
    """
    lists = [profile.values(task).get("images", ()) for task in tasks]
    with contextlib.chdir(project_root()):  # where the notebooks' own paths start
        for names in dict.fromkeys(map(tuple, lists)):
            if names and PUBLISHED not in names:
                _check_usable(names)


def _check_usable(names: Sequence[str]) -> None:
    reasons: list[str] = []
    for found in islice(iter_images(names), FEW):
        if not isinstance(found, Failure):
            return
        reasons.append(found.reason)
    if len(reasons) < FEW:
        raise none_usable(reasons)


def unusable(profile: Profile, jobs: Sequence[Job]) -> tuple[list[str], int]:
    """Return why photographs cannot be used, one line each, by their headers alone.

    Parameters
    ----------
    profile : Profile
        Whose parameters hold.
    jobs : sequence of Job
        What is to be done; a photograph of several is looked at once.

    Returns
    -------
    lines : list of str
        Of the first `MOST` photographs.
    rest : int
        How many more there are, which were not looked at.
    """
    with contextlib.chdir(project_root()):  # where the notebooks' own paths start
        names = dict.fromkeys(name for job in jobs for name in _photographs(profile, job))
        lines = [line for name in islice(names, MOST) if (line := _problem(name))]
    return lines, max(0, len(names) - MOST)


def _photographs(profile: Profile, job: Job) -> Iterator[str]:
    """Yield the names of what a job reads, or, without shards, its whole task."""
    found = list(job.photographs)
    if job.kind == "notebook" and not found:
        parameters = profile.values(job.task)
        if parameters.get("images"):
            found += listing(parameters["images"])
        if parameters.get("probe") and not parameters.get("descriptions"):
            with contextlib.suppress(InputError):  # still to be fetched, which is said elsewhere
                found += probe_listing(parameters)
    yield from (name for _, name in found)


def _problem(name: str) -> str | None:
    try:
        for place in places_of(name):
            look(place.path, place.source)
    except (XailibError, OSError, RuntimeError) as error:
        return str(error)
    return None
