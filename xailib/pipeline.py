"""The report's tasks in order: which are up to date, and how one is executed.

A profile is a flat file of notebook parameters, usable by ``papermill -f`` as it is; each
notebook takes those that its own parameters cell declares.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from xailib.errors import InputError, UnavailableError, XailibError, unknown_name
from xailib.files import sha256_of, write_atomic
from xailib.images import Failure, iter_images
from xailib.results import (
    MANIFEST,
    fingerprint,
    intact,
    project_root,
    read_manifest,
    run_digest,
)

TASKS = (
    "1_clip_dissect", "2_lime", "3_cam", "4_agreement", "5_faithfulness", "6_replication",
    "7_sanity", "8_findings", "10_explore",
)  # fmt: skip
# Which parameter of a task names the run of which other task.
_UPSTREAM: dict[str, dict[str, str]] = {
    "4_agreement": {"lime_run": "2_lime", "cam_run": "3_cam"},
    "5_faithfulness": {"lime_run": "2_lime", "cam_run": "3_cam"},
    "8_findings": {
        "dissect_run": "1_clip_dissect",
        "cam_run": "3_cam",
        "agreement_run": "4_agreement",
        "faithfulness_run": "5_faithfulness",
    },
    "10_explore": {
        "lime_run": "2_lime",
        "cam_run": "3_cam",
        "agreement_run": "4_agreement",
        "faithfulness_run": "5_faithfulness",
    },
}


@dataclass(frozen=True)
class Profile:
    """A named set of parameters for all notebooks, and of those that only one task gets."""

    name: str
    parameters: dict[str, Any]
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def folder(self, task: str) -> Path:
        """Return the folder of a task's run."""
        return project_root() / "results" / self.name / task


@dataclass(frozen=True)
class Outcome:
    """What became of a task: ``"reused"``, ``"done"``, ``"failed"`` or ``"skipped"``."""

    task: str
    state: str
    seconds: float = 0.0
    message: str = ""


def load_profile(path: str | Path, changes: Mapping[str, Any] | None = None) -> Profile:
    """Read a profile and check its parameters' names, with `changes` on top.

    Raises
    ------
    InputError
        If the file is missing or no mapping, or no notebook has a parameter of that name.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        near = project_root() / "params" / f"{path.name.removesuffix('.yaml')}.yaml"
        if not near.is_file():
            names = sorted(f.stem for f in (project_root() / "params").glob("*.yaml"))
            raise unknown_name("profile", str(path), names)
        path = near
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"profile: {str(path)!r} is not YAML: {reason}") from error
    if not isinstance(found, dict):
        raise InputError(f"profile: {str(path)!r} must be 'parameter: value' lines")
    tasks = _of_tasks(found.pop("tasks", None) or {})
    parameters = {**found, **(changes or {})}
    # A change by hand holds for every task that has the parameter.
    tasks = {
        task: {name: value for name, value in own.items() if name not in (changes or {})}
        for task, own in tasks.items()
    }
    allowed = {name for task in TASKS for name in _declared(task)} - _managed()
    for name in parameters:
        if name not in allowed:
            raise unknown_name("parameter", name, sorted(allowed))
    return Profile(path.name.removesuffix(".yaml"), parameters, tasks)


def _of_tasks(found: Any) -> dict[str, dict[str, Any]]:
    """Return a profile's ``tasks:``, from a task to parameters of its own, checked by name."""
    if not isinstance(found, dict) or not all(isinstance(own, dict) for own in found.values()):
        raise InputError("tasks: must be 'task:' lines with 'parameter: value' lines below each")
    for task, own in found.items():
        if task not in TASKS:
            raise unknown_name("tasks", str(task), TASKS)
        allowed = set(_declared(task)) - _managed()
        for name in own:
            if name not in allowed:
                raise unknown_name(f"parameter of {task}", str(name), sorted(allowed))
    return found


def run_profile(
    profile: Profile, only: str | None = None, *, force: bool = False
) -> Iterator[Outcome]:
    """Execute the tasks that are not up to date, in order; yield what became of each.

    A task that fails does not stop those that do not need it.

    Raises
    ------
    InputError
        If `only` names no task.
    """
    if only is not None and only not in TASKS:
        raise unknown_name("task", only, TASKS)
    broken: set[str] = set()
    for task in (only,) if only else TASKS:
        missing = broken.intersection(_UPSTREAM.get(task, {}).values())
        if missing:
            broken.add(task)
            yield Outcome(task, "skipped", message=f"needs {', '.join(sorted(missing))}")
            continue
        if not force and up_to_date(profile, task):
            yield Outcome(task, "reused")
            continue
        start = time.monotonic()
        try:
            execute(profile, task)
        except XailibError as error:
            broken.add(task)
            yield Outcome(task, "failed", time.monotonic() - start, str(error))
        else:
            yield Outcome(task, "done", time.monotonic() - start)


def up_to_date(profile: Profile, task: str) -> bool:
    """Tell whether a task's stored run is what executing it now would give."""
    folder = profile.folder(task)
    try:
        manifest = read_manifest(folder)
        current = _expected(profile, task)
        with contextlib.chdir(project_root()):  # where the notebook's own paths start
            inputs = _inputs_now(manifest)
    except (XailibError, OSError, KeyError, TypeError):
        return False
    same = all(manifest.get("request", {}).get(key) == value for key, value in current.items())
    return same and manifest.get("inputs") == inputs and intact(folder, manifest)


def execute(profile: Profile, task: str) -> None:
    """Execute a task's notebook through papermill into its run folder.

    Raises
    ------
    XailibError
        With the one line in which the notebook failed; its partial output stays beside.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    folder = profile.folder(task)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"results: cannot write to {str(folder)!r}: {error.strerror}") from error
    expected = _expected(profile, task)
    target, partial = folder / f"{task}.ipynb", folder / f".{task}.partial.ipynb"
    try:
        papermill.execute_notebook(
            str(_notebook(task)),
            str(partial),
            parameters=_parameters(profile, task),
            progress_bar=False,
            cwd=str(project_root()),
            extra_arguments=["--log-level=ERROR"],  # it warns of every local connection
        )
    except papermill.PapermillExecutionError as error:
        message = (str(error.evalue).strip().splitlines() or [""])[0]
        raise XailibError(f"{error.ename}: {message} (see {_relative(partial)})") from error
    except DeadKernelError as error:
        raise UnavailableError("the notebook's kernel died (out of memory?)") from error
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnavailableError(f"the notebook could not be executed: {reason}") from error
    partial.replace(target)
    manifest = read_manifest(folder)
    manifest["request"] = expected
    manifest["outputs"][target.name] = sha256_of(target)
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))


def _expected(profile: Profile, task: str) -> dict[str, Any]:
    cells = [_essence(cell) for cell in json.loads(_notebook(task).read_bytes())["cells"]]
    notebook = hashlib.sha256(json.dumps(cells).encode()).hexdigest()
    return {**fingerprint(_parameters(profile, task)), "notebook": notebook}


def _essence(cell: Mapping[str, Any]) -> list[Any]:
    """Return what of a cell decides what it does: not its outputs or number."""
    tags = cell["metadata"].get("tags", [])
    return [cell["cell_type"], tags, "".join(cell["source"]).strip()]


def _parameters(profile: Profile, task: str) -> dict[str, Any]:
    """Return what is passed to a task's notebook: its share of the profile, and its folders."""
    declared = _declared(task)
    given = {**profile.parameters, **profile.tasks.get(task, {})}
    chosen = {k: v for k, v in given.items() if k in declared}
    chosen["out_dir"] = _relative(profile.folder(task))
    for parameter, upstream in _UPSTREAM.get(task, {}).items():
        chosen[parameter] = _relative(profile.folder(upstream))
    return chosen


def _inputs_now(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest's inputs as they are now: photographs, weights, other runs."""
    recorded = manifest["inputs"]
    now: dict[str, Any] = dict(recorded)
    now["files"] = {file: sha256_of(Path(file)) for file in recorded["files"]}
    if recorded.get("images"):
        found = list(iter_images(manifest["parameters"]["images"]))
        now["images"] = {p.id: p.sha256 for p in found if not isinstance(p, Failure)}
    if "probe" in recorded:
        from xailib.probe import load_probe

        probe = recorded["probe"]
        found_now = load_probe(probe["source"], probe["crops"], probe["seed"])
        now["probe"] = {**probe, "count": len(found_now), "sha256": found_now.sha256}
    if "published" in recorded:
        from xailib import published

        at_hand = published.at_hand(manifest["parameters"]["published"])
        now["published"] = {**recorded["published"], "at_hand": at_hand}
    if "runs" in recorded:
        now["runs"] = {folder: run_digest(project_root() / folder) for folder in recorded["runs"]}
    return now


def _managed() -> set[str]:
    """Return the parameters that the pipeline sets itself."""
    return {"out_dir", *(name for needs in _UPSTREAM.values() for name in needs)}


def _notebook(task: str) -> Path:
    path = project_root() / "notebooks" / f"{task}.ipynb"
    if not path.is_file():
        raise InputError(f"notebook: no {str(path)!r}; run 'make pair' in the project's folder")
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


@cache
def _declared(task: str) -> frozenset[str]:
    """Return the names in a notebook's parameters cell."""
    import papermill

    return frozenset(papermill.inspect_notebook(str(_notebook(task))))


def _relative(folder: Path) -> str:
    return os.path.relpath(folder, project_root())
