"""Jobs: the pieces that running a profile consists of, each done once, wherever it is done.

A job writes into a folder of its own, below that of its task, and what it has written says
whether it has to be done again: nothing else remembers it. So a run that was killed goes on where
it was, and a job which somebody else has finished in the meantime is not done a second time.
"""

import contextlib
import os
import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xailib.errors import StorageError, UnavailableError, XailibError
from xailib.images.packaged import packaged
from xailib.locks import lock_folder
from xailib.project import project_root
from xailib.report.params.profiles import Profile
from xailib.report.run import notebook as pipeline
from xailib.report.run.metering import metered
from xailib.report.run.notebook import execute
from xailib.report.run.results import intact, read_manifest

LOG = "log.txt"
STORE = "XAILIB_STORE"  # the environment's word for where finished results are shared


@dataclass(frozen=True)
class Job:
    """One piece of a profile's run.

    Attributes
    ----------
    name : str
        Unique in its plan: ``2_lime``, ``2_lime.0003``, ``2_lime.table``.
    task : str
        The notebook that it belongs to.
    kind : {"notebook", "explain", "table", "record", "label"}
        Execute the notebook; explain some of its photographs, and gather the rows of all of
        these; or record some of its probe images, and label units from all of these.
    needs : tuple of str
        The jobs that have to be finished before.
    photographs : tuple of (id, name)
        For ``"explain"`` and ``"record"``: what `xailib.images.load.load_images` reads, and the ids
        they get.
    """

    name: str
    task: str
    kind: str = "notebook"
    needs: tuple[str, ...] = ()
    photographs: tuple[tuple[str, str], ...] = ()

    def folder(self, profile: Profile) -> Path:
        """Return where its result, log and cost lie."""
        place = profile.folder(self.task)
        return place if self.kind == "notebook" else place / "jobs" / self.name


@dataclass(frozen=True)
class Result:
    """What became of a job.

    Attributes
    ----------
    state : {"done", "reused", "failed"}
        Reused is what somebody else has finished meanwhile.
    seconds : float
        Without the time in which it waited for its turn.
    message : str
        Why it failed, or which photographs a notebook could not use, in one line.
    again : bool
        Whether another attempt may go better: nothing that the user gave was wrong.
    """

    state: str
    seconds: float = 0.0
    message: str = ""
    again: bool = False


def finished(profile: Profile, job: Job) -> bool:
    """Tell whether what a job has left is what doing it now would give."""
    folder = job.folder(profile)
    try:
        manifest = read_manifest(folder)
    except XailibError:
        return False
    return as_now(profile, job, manifest) and intact(folder, manifest)


def as_now(profile: Profile, job: Job, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a manifest is that of doing the job now, wherever its files are."""
    if job.kind == "notebook":
        return pipeline.as_now(profile, job.task, manifest)
    from xailib.report.run import shards

    check = shards.gathered if job.kind in ("table", "label") else shards.as_now
    return check(profile, job, manifest)


def run_job(profile: Profile, job: Job, *, force: bool = False) -> Result:
    """Do a job unless it is finished; one process at a time, the others wait for it.

    What it took is left in ``cost.json``: seconds, those of all processors, bytes of memory at
    most and of disk.
    """
    folder = job.folder(profile)
    try:
        lock = lock_folder(folder, ".job.lock", patience=-1.0)
    except StorageError as error:
        return Result("failed", message=str(error))
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        if not force and finished(profile, job):
            return Result("reused")
        return _attempt(profile, job, folder)


def _attempt(profile: Profile, job: Job, folder: Path) -> Result:
    log, start = folder / LOG, time.monotonic()
    log.write_text(f"{job.name} on {platform.node()}, process {os.getpid()}, {_now()}\n")
    metering: contextlib.AbstractContextManager[None] = metered(folder, job.name)
    if job.kind == "notebook":  # metered where it is executed, whoever asks for that
        metering = contextlib.nullcontext()
    try:
        with metering:
            _do(profile, job)
    except Exception as error:  # noqa: BLE001  whatever a job raises is told to the client
        with log.open("a") as file:
            traceback.print_exc(file=file)
        return failure(error, time.monotonic() - start)
    with log.open("a") as file:
        print(f"done, {_now()}", file=file)
    told = pipeline.left_out(profile, job.task) if job.kind == "notebook" else ""
    return Result("done", time.monotonic() - start, told)


def failure(error: Exception, seconds: float = 0.0) -> Result:
    """Return what an error makes of a job, and whether trying again may help."""
    line = (str(error).splitlines() or [""])[0]
    if not isinstance(error, XailibError):
        return Result("failed", seconds, f"{type(error).__name__}: {line}", again=True)
    # A user's mistake stays one; what could not be fetched, or a full disk, may pass.
    return Result("failed", seconds, line, again=isinstance(error, UnavailableError))


def _do(profile: Profile, job: Job) -> None:
    # Imported only where it is needed: most of these bring the networks with them.
    if job.kind == "notebook":
        execute(profile, job.task)
    elif job.kind == "table":
        from xailib.report.run.shards import gather

        gather(profile, job)
    elif job.kind == "explain":
        from xailib.report.run.explaining import explain

        explain(profile, job)
    else:
        from xailib.report.run import probing

        {"record": probing.record, "label": probing.label}[job.kind](profile, job)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def path_of(name: str) -> Path:
    """Return the file behind one of a job's photographs: a packaged name, or a path."""
    known = packaged()
    return known[name].path if name in known else Path(name)


# A job travels as JSON: what a worker is sent can be read, and is not executed.


def packed(profile: Profile, job: Job, *, force: bool = False) -> dict[str, Any]:
    """Return a job as JSON values, for `run_packed` in another process."""
    return {
        "root": str(project_root()),
        "profile": asdict(profile),
        "job": asdict(job),
        "force": force,
        "store": os.environ.get(STORE, ""),
    }


def run_packed(spec: Mapping[str, Any]) -> Result:
    """Do what `packed` describes, in the project's folder, which must be at the same path.

    With a store, a worker that does not have that folder uses the project that it was started in.
    """
    root = _root(spec)
    if not root.is_dir():
        return Result("failed", message=f"this worker does not see the folder {str(root)!r}")
    found = dict(spec["job"])
    found["needs"] = tuple(found["needs"])
    found["photographs"] = tuple((name, source) for name, source in found["photographs"])
    os.chdir(root)
    profile, job = Profile(**spec["profile"]), Job(**found)
    if url := spec.get("store"):
        from xailib.report.run.sharing import run_shared  # only here: it stands above this module

        return run_shared(profile, job, url, force=spec["force"])
    return run_job(profile, job, force=spec["force"])


def _root(spec: Mapping[str, Any]) -> Path:
    root = Path(spec["root"])
    return project_root() if spec.get("store") and not root.is_dir() else root


def log_of(spec: Mapping[str, Any]) -> Path:
    """Return the file in which a packed job's output is kept."""
    job, profile = Job(**spec["job"]), Profile(**spec["profile"])
    with contextlib.chdir(_root(spec)):
        return job.folder(profile) / LOG
