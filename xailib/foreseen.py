"""What would fail in a job, as far as it can be told at once and without doing anything."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice

from xailib.decode import look
from xailib.errors import InputError, XailibError
from xailib.images import places_of
from xailib.jobs import Job
from xailib.plan import listing, probe_listing
from xailib.profiles import Profile, declared
from xailib.project import project_root

MOST = 2000  # photographs that are opened; a published probe set has tens of thousands


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
        parameters = {**declared(job.task), **profile.share(job.task)}
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
