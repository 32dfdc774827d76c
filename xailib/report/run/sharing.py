"""Jobs of machines without a common disk: what one has finished, the others take from a store."""

import contextlib
import os
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from xailib.errors import InputError, XailibError
from xailib.locks import lock_folder
from xailib.project import project_root
from xailib.report.params.profiles import Profile, upstream
from xailib.report.run.job import LOG, STORE, Job, Result, as_now, failure, finished, run_job
from xailib.report.run.notebook import Outcome
from xailib.report.run.plan import SHARDS
from xailib.report.run.results import intact, read_manifest
from xailib.report.run.store import Store


def open_store(url: str) -> Store:
    """Return the store of this project's results at an address, see `Store`."""
    return Store(url, project_root() / "results")


def run_shared(profile: Profile, job: Job, url: str, *, force: bool = False) -> Result:
    """Do a job as `xailib.report.run.job.run_job` does, with what a store has, and for the store.

    First comes what the job needs, from there. If the job itself is finished there, it is not
    done again. What it gives is put there, its manifest last.

    Parameters
    ----------
    profile, job, force
        See `xailib.report.run.job.run_job`.
    url : str
        Of the store.
    """
    folder = job.folder(profile)
    lock = contextlib.ExitStack()
    try:
        store = open_store(url)
        lock.callback(lock_folder(folder, ".job.lock", patience=-1.0).release)
        for need in _needed(job):
            store.pull(need.folder(profile), partial(_better, profile, job, need))
        if not force and not finished(profile, job):
            store.pull(folder, partial(as_now, profile, job))
        result = run_job(profile, job, force=force)
        if result.state != "failed":
            store.push(folder)
        return result
    except Exception as error:  # noqa: BLE001  as of a job: whatever it is is told to the client
        if not isinstance(error, XailibError):
            with contextlib.suppress(OSError), (folder / LOG).open("a") as file:
                traceback.print_exc(file=file)
        return failure(error)
    finally:
        lock.close()


@contextlib.contextmanager
def shared(
    url: str | None, profile: Profile, jobs: Sequence[Job], left: Collection[Job]
) -> Iterator[Callable[[Outcome], Outcome]]:
    """Share a plan's jobs by a store while the block runs.

    Parameters
    ----------
    url : str or None
        Of the store; without one, nothing is shared.
    profile, jobs, left
        See `xailib.report.run.scheduler.run_plan`.

    Yields
    ------
    callable
        To be told of each outcome: what was finished here before goes to the store, and what was
        finished elsewhere comes here. It returns the outcome, which is a failure if that did not
        come.

    Raises
    ------
    InputError, UnavailableError
        If there can be no such store, at once; or if it does not answer.
    """
    if not url:
        with _environment(None):  # of a shell that shares its sweeps; this one is not shared
            yield lambda outcome: outcome
        return
    url = url if "://" in url else str(Path(url).expanduser().absolute())
    store, known, to_do = open_store(url), {job.name: job for job in jobs}, set(left)
    needed = {name for job in left for name in job.needs}

    def settle(outcome: Outcome) -> Outcome:
        job = known[outcome.task]
        folder = job.folder(profile)
        if outcome.state not in ("done", "reused"):
            return outcome
        if job in to_do:
            if not store.pull(folder):
                message = f"its result is not in the store {url!r}"
                return replace(outcome, state="failed", message=message)
        else:  # read there, and mended, only if a job is about to take it from there
            with contextlib.suppress(InputError):  # a notebook that is finished misses no shard
                store.push(folder, quick=job.name not in needed)
        return outcome

    with _environment(url):
        yield settle


@contextlib.contextmanager
def _environment(url: str | None) -> Iterator[None]:
    """Let jobs that are sent off meanwhile find this store in what they are sent, or none."""
    before = os.environ.pop(STORE, None)
    if url is not None:
        os.environ[STORE] = url
    try:
        yield
    finally:
        os.environ.pop(STORE, None)
        if before is not None:
            os.environ[STORE] = before


def _needed(job: Job) -> Iterator[Job]:
    """Yield the jobs whose results a job reads, without their photographs."""
    names = dict.fromkeys(job.needs)
    if job.kind == "notebook":
        names |= dict.fromkeys(upstream(job.task).values())
    for name in names:
        task = name.partition(".")[0]
        yield Job(name, task, "notebook" if name == task else SHARDS[task])


def _better(profile: Profile, job: Job, need: Job, stored: Mapping[str, Any]) -> bool:
    """Tell whether a stored result is to take the place of the one that is here, if there is one.

    What is finished here stays, unless the plan has meanwhile given a shard other photographs.
    """
    folder = need.folder(profile)
    try:
        here = read_manifest(folder)
    except XailibError:
        return True
    if not intact(folder, here):
        return True
    if _as_now(profile, need, here):
        other = stored.get("photographs") != here.get("photographs")
        return other and _as_now(profile, need, stored)
    # Out of date here. What the plan names was put there by its client or a worker, just now.
    return need.name in job.needs or _as_now(profile, need, stored)


def _as_now(profile: Profile, need: Job, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a manifest is that of doing a job now, of whichever photographs it names."""
    try:
        photographs = tuple((unique, name) for unique, name in manifest.get("photographs", ()))
    except (TypeError, ValueError):
        return False
    return as_now(profile, replace(need, photographs=photographs), manifest)
