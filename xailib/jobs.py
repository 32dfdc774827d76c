"""Jobs: the pieces that running a profile consists of, each done once, wherever it is done.

A job writes into a folder of its own, below that of its task, and what it has written says
whether it has to be done again: nothing else remembers it. So a run that was killed goes on where
it was, and a job which somebody else has finished in the meantime is not done a second time.
"""

import contextlib
import json
import os
import platform
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xailib.errors import StorageError, UnavailableError, XailibError
from xailib.files import write_atomic
from xailib.locks import lock_folder
from xailib.packaged import packaged
from xailib.pipeline import execute, up_to_date
from xailib.profiles import Profile
from xailib.project import project_root

LOG = "log.txt"
COST = "cost.json"
_POLL = 0.2  # seconds between two looks at the memory in use


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
        For ``"explain"`` and ``"record"``: what `xailib.images.load_images` reads, and the ids
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
        Why it failed, in one line.
    again : bool
        Whether another attempt may go better: nothing that the user gave was wrong.
    """

    state: str
    seconds: float = 0.0
    message: str = ""
    again: bool = False


def finished(profile: Profile, job: Job) -> bool:
    """Tell whether what a job has left is what doing it now would give."""
    if job.kind == "notebook":
        return up_to_date(profile, job.task)
    from xailib import shards

    check = shards.gathered if job.kind in ("table", "label") else shards.finished
    return check(profile, job)


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
    log, start, before = folder / LOG, time.monotonic(), _processor()
    log.write_text(f"{job.name} on {platform.node()}, process {os.getpid()}, {_now()}\n")
    try:
        with _Peak() as peak:
            _do(profile, job)
    except Exception as error:  # noqa: BLE001  whatever a job raises is told to the client
        with log.open("a") as file:
            traceback.print_exc(file=file)
        return _failure(error, time.monotonic() - start)
    cost = {
        "job": job.name,
        "seconds": round(time.monotonic() - start, 2),
        "processor": round(_processor() - before, 2),
        "memory": peak.bytes,
        "disk": _disk(profile, job),
    }
    with log.open("a") as file:
        print(f"done, {_now()}", file=file)
    write_atomic(folder / COST, json.dumps(cost, indent=1))
    return Result("done", time.monotonic() - start)


def _failure(error: Exception, seconds: float) -> Result:
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
        from xailib.shards import gather

        gather(profile, job)
    elif job.kind == "explain":
        from xailib.explaining import explain

        explain(profile, job)
    else:
        from xailib import probing

        {"record": probing.record, "label": probing.label}[job.kind](profile, job)


def _processor() -> float:
    """Return the processor time of this process and of those of its children that have ended."""
    return sum(os.times()[:4])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _disk(profile: Profile, job: Job) -> int:
    """Return the bytes of the files that a finished job's manifest names."""
    folder = job.folder(profile)
    names = json.loads((folder / "manifest.json").read_text())["outputs"]
    return sum((folder / name).stat().st_size for name in names)


class _Peak:
    """The most memory that this process and its children held while the block ran."""

    def __init__(self) -> None:
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        own = psutil.Process()
        while True:
            total = 0
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):  # it has just ended
                    info = process.memory_full_info()
                    total += getattr(info, "pss", info.uss)  # what is shared, counted once
            self.bytes = max(self.bytes, total)
            if self._end.wait(_POLL):
                return


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
    }


def run_packed(spec: Mapping[str, Any]) -> Result:
    """Do what `packed` describes, in the project's folder, which must be at the same path."""
    root = Path(spec["root"])
    if not root.is_dir():
        return Result("failed", message=f"this worker does not see the folder {str(root)!r}")
    found = dict(spec["job"])
    found["needs"] = tuple(found["needs"])
    found["photographs"] = tuple((name, source) for name, source in found["photographs"])
    os.chdir(root)
    return run_job(Profile(**spec["profile"]), Job(**found), force=spec["force"])


def log_of(spec: Mapping[str, Any]) -> Path:
    """Return the file in which a packed job's output is kept."""
    job, profile = Job(**spec["job"]), Profile(**spec["profile"])
    with contextlib.chdir(spec["root"]):
        return job.folder(profile) / LOG
