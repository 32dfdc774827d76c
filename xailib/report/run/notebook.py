"""The report's tasks in order: which are up to date, and how one is executed."""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from xailib.errors import InputError, UnavailableError, XailibError, unknown_name
from xailib.files import sha256_of, storage, take_away, write_atomic
from xailib.locks import lock_folder
from xailib.project import project_root
from xailib.report.params.profiles import TASKS, Profile, notebook, upstream
from xailib.report.run.inputs import inputs_now
from xailib.report.run.metering import metered
from xailib.report.run.results import (
    MANIFEST,
    code_of,
    damaged,
    fingerprint,
    intact,
    read_manifest,
)

log = logging.getLogger(__name__)

_NONE: Mapping[str, str] = MappingProxyType({})
_LOCK = ".task.lock"


@dataclass(frozen=True)
class Outcome:
    """What became of a task: ``"reused"``, ``"done"``, ``"failed"`` or ``"skipped"``."""

    task: str
    state: str
    seconds: float = 0.0
    message: str = ""


def pending(profile: Profile, only: str | None = None, *, force: bool = False) -> list[str]:
    """Return the tasks that would run: not up to date, or after one of these.

    Raises
    ------
    InputError
        If `only` names no task.
    """
    if only is not None and only not in TASKS:
        raise unknown_name("task", only, TASKS)
    found: list[str] = []
    for task in (only,) if only else TASKS:
        if force or _after(task, found) or not up_to_date(profile, task):
            found.append(task)
    return found


def run_profile(
    profile: Profile,
    only: str | None = None,
    *,
    force: bool = False,
    plan: Collection[str] | None = None,
    barred: Mapping[str, str] = _NONE,
    begin: Callable[[str], object] = str,
    bar: bool = False,
) -> Iterator[Outcome]:
    """Execute the tasks that are not up to date, in order; yield what became of each.

    A task that fails does not stop those that do not need it.

    Parameters
    ----------
    profile : Profile
        What to run.
    only : str, optional
        One task.
    force : bool
        Run also what is up to date.
    plan : collection of str, optional
        What `pending` has found with these arguments, so that it is not looked at twice.
    barred : mapping
        From tasks that can only fail to why: these are not begun.
    begin : callable
        Told of each task that is about to run.
    bar : bool
        Draw each notebook's progress.

    Raises
    ------
    InputError
        If `only` names no task.
    """
    if plan is None:
        plan = pending(profile, only, force=force)
    broken: set[str] = set()
    for task in (only,) if only else TASKS:
        missing = broken.intersection(upstream(task).values())
        if missing:
            broken.add(task)
            yield Outcome(task, "skipped", message=f"needs {', '.join(sorted(missing))}")
            continue
        # What ran before it may have given the same results as last time.
        again = not force and _after(task, plan) and up_to_date(profile, task)
        if task not in plan or again:
            yield Outcome(task, "reused")
            continue
        if task in barred:
            broken.add(task)
            yield Outcome(task, "failed", message=barred[task])
            continue
        begin(task)
        start = time.monotonic()
        try:
            execute(profile, task, bar=bar)
        except XailibError as error:
            broken.add(task)
            yield Outcome(task, "failed", time.monotonic() - start, str(error))
        else:
            yield Outcome(task, "done", time.monotonic() - start, left_out(profile, task))


def left_out(profile: Profile, task: str) -> str:
    """Return which photographs a finished run could not use, in one line; empty if none."""
    failures = read_manifest(profile.folder(task)).get("failures", [])
    if not failures:
        return ""
    first = f"{failures[0]['source']} ({failures[0]['reason']})"
    more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"not explained: {first}{more}"


def _after(task: str, others: Collection[str]) -> bool:
    """Tell whether a task reads the run of one of these."""
    return not set(others).isdisjoint(upstream(task).values())


def finished_run(profile: Profile, task: str) -> bool:
    """Tell whether a task has a finished run, up to date or not."""
    try:
        return bool(read_manifest(profile.folder(task)))
    except InputError:
        return False


def last_seconds(profile: Profile, task: str) -> float | None:
    """Return how long a task's last finished run took, if it is known."""
    try:
        return float(read_manifest(profile.folder(task))["seconds"])
    except (XailibError, KeyError, TypeError, ValueError):
        return None


def up_to_date(profile: Profile, task: str) -> bool:
    """Tell whether a task's stored run is what executing it now would give."""
    folder = profile.folder(task)
    try:
        manifest = read_manifest(folder)
    except XailibError:
        return False
    return as_now(profile, task, manifest) and intact(folder, manifest)


def as_now(profile: Profile, task: str, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a run's manifest is that of executing its task now, wherever its files are."""
    try:
        current = _expected(profile, task)
        with contextlib.chdir(project_root()):  # where the notebook's own paths start
            inputs = inputs_now(manifest)
        request = dict(manifest["request"])
    except (XailibError, OSError, KeyError, TypeError, ValueError):
        return False
    same = all(request.get(key) == value for key, value in current.items())
    return same and manifest.get("inputs") == inputs


def execute(profile: Profile, task: str, *, bar: bool = False) -> None:
    """Execute a task's notebook through papermill into its run folder.

    If another process is doing that, this one waits, and takes what it has made.

    Raises
    ------
    XailibError
        With the one line in which the notebook failed; its partial output stays beside, but for
        input that was refused before anything was made: then no folder is left, unless a job of
        an engine has begun a log in it.
    """
    folder = profile.folder(task)
    before = _finished_at(folder)
    lock = lock_folder(folder, _LOCK, patience=-1.0)
    try:
        if _finished_at(folder) == before or not up_to_date(profile, task):
            _tell_damage(folder)
            with metered(folder, task):
                _execute(profile, task, bar)
    finally:
        lock.release()


def _finished_at(folder: Path) -> str:
    """Return when a folder's run was finished, empty if there is none."""
    try:
        return str(read_manifest(folder).get("finished", ""))
    except InputError:
        return ""


def _tell_damage(folder: Path) -> None:
    try:
        names = damaged(folder, read_manifest(folder))
    except InputError:
        return
    if names:
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        log.warning("results: %s of %s is damaged; made again", listed, folder)


def _execute(profile: Profile, task: str, bar: bool) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError

    folder = profile.folder(task)
    expected = _expected(profile, task)
    target, partial = folder / f"{task}.ipynb", folder / f".{task}.partial.ipynb"
    try:
        papermill.execute_notebook(
            str(_notebook(task)),
            str(partial),
            parameters=_parameters(profile, task),
            progress_bar=bar,
            cwd=str(project_root()),
            extra_arguments=["--log-level=ERROR"],  # it warns of every local connection
        )
    except papermill.PapermillExecutionError as error:
        message = (str(error.evalue).strip().splitlines() or [""])[0]
        refused = error.ename == InputError.__name__ and take_away(folder, {_LOCK, partial.name})
        more = "" if refused else f" (see {_relative(partial)})"
        raise XailibError(f"{error.ename}: {message}{more}") from error
    except DeadKernelError as error:
        raise UnavailableError("the notebook's kernel died (out of memory?)") from error
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnavailableError(f"the notebook could not be executed: {reason}") from error
    with storage(target):
        partial.replace(target)
    manifest = read_manifest(folder)
    manifest["request"] = expected
    manifest["outputs"][target.name] = sha256_of(target)
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))


def _expected(profile: Profile, task: str) -> dict[str, Any]:
    cells = [_essence(cell) for cell in json.loads(_notebook(task).read_bytes())["cells"]]
    notebook = hashlib.sha256(json.dumps(cells).encode()).hexdigest()
    return {**fingerprint(_parameters(profile, task), code_of(task)), "notebook": notebook}


def _essence(cell: Mapping[str, Any]) -> list[Any]:
    """Return what of a cell decides what it does: not its outputs or number."""
    tags = cell["metadata"].get("tags", [])
    return [cell["cell_type"], tags, "".join(cell["source"]).strip()]


def _parameters(profile: Profile, task: str) -> dict[str, Any]:
    """Return what is passed to a task's notebook: its share of the profile, and its folders."""
    chosen = profile.share(task)
    chosen["out_dir"] = _relative(profile.folder(task))
    for parameter, other in upstream(task).items():
        chosen[parameter] = _relative(profile.folder(other))
    return chosen


def _notebook(task: str) -> Path:
    path = notebook(task)
    _check_pair(path)
    return path


@cache
def _check_pair(path: Path) -> None:
    """Raise if a notebook differs from its reviewed source, so that neither runs unnoticed."""
    import jupytext

    source = path.with_suffix(".py")
    if source.is_file():
        pair = [jupytext.read(half)["cells"] for half in (path, source)]
        if [_essence(cell) for cell in pair[0]] != [_essence(cell) for cell in pair[1]]:
            raise InputError(f"notebook: {path.name} and {source.name} differ; run 'make pair'")


def _relative(folder: Path) -> str:
    return os.path.relpath(folder, project_root())
