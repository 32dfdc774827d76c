"""Doing one job: in this process, or on a worker of a cluster for a client elsewhere."""

import contextlib
import logging
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from xailib.errors import InputError, StorageError, UnavailableError, XailibError, first_line
from xailib.files import lock_folder
from xailib.project import project_root
from xailib.report.params.profiles import Profile
from xailib.report.run.costs import note_cost
from xailib.report.run.notebook import execute, left_out
from xailib.report.run.plan import LOCK, LOG, Job, Outcome
from xailib.report.run.results import damaged, read_manifest
from xailib.report.run.staleness import gather, is_better, is_current, matches, request
from xailib.report.run.store import Store, as_bytes

log = logging.getLogger(__name__)

# What the libraries below torch, numpy and the notebooks' kernels ask for the number of threads.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class PassingError(Exception):
    """A job failed by what the user did not do wrong: another attempt may go better."""


def run_job(
    profile: Profile,
    job: Job,
    *,
    force: bool = False,
    bar: bool = False,
    store: Store | None = None,
    session: str = "",
) -> Outcome:
    """Do a job unless it is current; one process at a time, the others wait for it.

    With a store, what the job needs comes from there first, and the job's own result if somebody
    has finished it; what it gives is put there. What the run named `session` has finished already,
    on a worker that died before it could say so, is "done", and not "reused".

    `PassingError` is raised, in one line, if another attempt may go better.
    """
    folder, start = job.folder(profile), time.monotonic()
    try:
        lock = lock_folder(folder, LOCK, patience=-1.0)
    except StorageError as error:
        return Outcome(job.name, "failed", message=str(error))
    try:
        if store:
            for need in job.reads():
                store.pull(need.folder(profile), partial(is_better, profile, job, need))
            if not force and not is_current(profile, job):
                store.pull(folder, partial(matches, profile, job))
        if not force and is_current(profile, job):
            outcome = Outcome(job.name, "done" if _begun_by(session, folder) else "reused")
        else:
            with contextlib.suppress(InputError):  # there is no result
                if names := damaged(folder, read_manifest(folder)):
                    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                    log.warning("results: %s of %s is damaged; made again", listed, folder)
            start = time.monotonic()
            begun = f"{job.name} on {platform.node()}, process {os.getpid()}, {_now()} {session}"
            (folder / LOG).write_text(f"{begun.rstrip()}\n")
            _do(profile, job, bar)
            note_cost(profile, job, time.monotonic() - start)
            _log(folder, f"done, {_now()}\n")
            message = left_out(profile, job.task) if job.kind == "notebook" else ""
            outcome = Outcome(job.name, "done", time.monotonic() - start, message)
        if store:
            store.push(folder)
    except Exception as error:
        if folder.is_dir():  # of input that was refused at once, nothing is left
            _log(folder, traceback.format_exc())
        line = str(error) if isinstance(error, XailibError) else first_line(error)
        if isinstance(error, XailibError) and not isinstance(error, UnavailableError):
            return Outcome(job.name, "failed", time.monotonic() - start, line)
        # What could not be fetched, or a full disk, may pass; a user's mistake stays one.
        raise PassingError(line) from error
    finally:
        lock.release()
    return outcome


def _do(profile: Profile, job: Job, bar: bool) -> None:
    if job.kind == "notebook":
        execute(profile, job.task, request(profile, job), bar=bar)
    elif job.kind == "table":
        gather(profile, job)
    else:
        from xailib.report.run import shards  # only for these: it brings the networks along

        do = {"explain": shards.explain, "record": shards.record, "label": shards.label}
        do[job.kind](profile, job)


def _begun_by(session: str, folder: Path) -> bool:
    """Return whether a job's last attempt was one of this run."""
    with contextlib.suppress(OSError), (folder / LOG).open(errors="replace") as file:
        return session != "" and session in file.readline()
    return False


def _log(folder: Path, text: str) -> None:
    with contextlib.suppress(OSError), (folder / LOG).open("a") as file:
        file.write(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def skipped(job: Job, missing: Sequence[str]) -> Outcome:
    """Return the outcome of a job that is not done, for lack of those that it needs."""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return Outcome(job.name, "skipped", message=f"needs {', '.join(sorted(missing)[:3])}{more}")


@dataclass(frozen=True)
class Task:
    """What all jobs of a run have in common, and a worker has to know."""

    root: str  #: the project's folder, on the client
    session: str  #: the run's own name
    profile: Profile
    force: bool = False  #: do also what is finished
    store: str = ""  #: through which results go, if any

    def open_store(self) -> Store | None:
        """Return the store of the project in whose folder this is called, if there is one."""
        return Store(self.store, project_root() / "results") if self.store else None

    @property
    def mark(self) -> Path:
        """A file by which a worker knows that it sees the client's own folder; one of each run."""
        return Path(self.root, "results", f".seen-{self.session}")

    def is_seen(self) -> bool:
        """Return whether this machine has the client's folder, and not only one of its name."""
        return self.mark.exists()


@dataclass(frozen=True)
class Parcel:
    """What a worker sends: the outcome and, where no disk or store is shared, the files."""

    outcome: Outcome
    files: Mapping[str, bytes] = field(default_factory=dict)


_one_at_a_time = threading.Lock()  # of one process: jobs have its folder and its output
_session = ""


def perform(task: Task, job: Job, threads: int | None, wire: bool, *needs: Parcel) -> Parcel:
    """Do a job on a worker, once what it needs is done."""
    global _session
    missing = [n.outcome.task for n in needs if n.outcome.state in ("failed", "skipped")]
    if missing:
        return Parcel(skipped(job, missing))
    with _one_at_a_time, limited(threads), contextlib.ExitStack() as stack:
        _session = task.session
        seen = task.is_seen()
        if not (seen or task.store or wire):
            raise PassingError(f"this worker does not see the folder {task.root!r}")
        stack.enter_context(contextlib.chdir(task.root if seen else project_root()))
        store, results = task.open_store(), project_root() / "results"
        by_wire = not (store or seen)
        if by_wire:
            given = {name: content for need in needs for name, content in need.files.items()}
            store = Store("", results, given)
        stack.enter_context(_printing_to(job.folder(task.profile) / LOG))
        outcome = run_job(task.profile, job, force=task.force, store=store, session=task.session)
        sent = by_wire and outcome.state != "failed"
        return Parcel(outcome, as_bytes(job.folder(task.profile), results) if sent else {})


def is_anothers(session: str) -> bool:
    """Return whether this worker has done jobs of another run."""
    return _session not in ("", session)


@contextlib.contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Let numerical libraries here, and kernels that are started, use so many threads."""
    if not threads:
        yield
        return
    torch, before = sys.modules.get("torch"), dict(os.environ)
    count = torch.get_num_threads() if torch else 0
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        with threadpool_limits(threads):
            if torch:
                torch.set_num_threads(threads)
            yield
    finally:
        if torch:
            torch.set_num_threads(count)
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _printing_to(file: Path) -> Iterator[None]:
    """Send what this process and its children print to the end of a file."""
    with contextlib.suppress(OSError):  # the job itself says what is wrong with its folder
        file.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(1), os.dup(2)
    try:
        with contextlib.suppress(OSError), file.open("ab") as opened:
            os.dup2(opened.fileno(), 1)
            os.dup2(opened.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in enumerate(kept, start=1):
            os.dup2(saved, number)
            os.close(saved)
