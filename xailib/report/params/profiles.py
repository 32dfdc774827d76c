"""Profiles: files of parameters for all notebooks, checked before any of them runs.

A profile is flat, usable by ``papermill -f`` as it is; each notebook takes those parameters that
its own parameters cell declares. Nothing here imports a network or a table.
"""

import ast
import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from xailib.errors import InputError, near_matches, unknown_name
from xailib.project import project_root
from xailib.report.params.rules import looks_like_path
from xailib.report.params.schema import MANAGED, RUNS, check, meant

TASKS = (
    "1_clip_dissect", "2_lime", "3_cam", "4_agreement", "5_faithfulness", "6_replication",
    "7_sanity", "9_stability", "8_findings", "10_explore",
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """A named set of parameters for all notebooks, and of those that only one task gets.

    Attributes
    ----------
    name : str
        Of its file, and of its folder in ``results/``.
    parameters : dict
        For every task that has them.
    tasks : dict
        From a task to parameters of its own.
    beside : str
        Where values were changed for once: the folder for the tasks that these reach, so that
        the profile's own results stay.
    reached : sequence of str
        These tasks.
    """

    name: str
    parameters: dict[str, Any]
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    beside: str = ""
    reached: Sequence[str] = ()

    def folder(self, task: str) -> Path:
        """Return the folder of a task's run."""
        name = self.beside if task in self.reached else self.name
        return project_root() / "results" / name / task

    def share(self, task: str) -> dict[str, Any]:
        """Return the parameters that the profile gives to one task."""
        given = {**self.parameters, **self.tasks.get(task, {})}
        return {name: value for name, value in given.items() if name in declared(task)}

    def values(self, task: str) -> dict[str, Any]:
        """Return all parameters of a task: its notebook's own, and what the profile gives it."""
        return {**declared(task), **self.share(task)}


def profile_names() -> list[str]:
    """Return the names of the profiles in the project."""
    return sorted(file.stem for file in (project_root() / "params").glob("*.yaml"))


def load_profile(
    path: str | Path,
    changes: Mapping[str, Any] | None = None,
    only: str | None = None,
    *,
    whole: bool = False,
) -> Profile:
    """Read a profile and check its parameters, with `changes` on top.

    Parameters
    ----------
    path : str or path
        A file, or the name of one in the project's ``params/``.
    changes : mapping, optional
        Values that hold for every task which has the parameter. The results of tasks that get
        another value by them, or read such results, go to a folder beside the profile's.
    only : str, optional
        The one task that will run: what others could not use does not matter then.
    whole : bool
        Whether all results of a changed profile go to that folder, which a site is made of.

    Raises
    ------
    InputError
        If the file is missing or no mapping, no notebook has a parameter of that name, or a
        value cannot be used by a notebook that gets it.
    """
    path = Path(path)
    with contextlib.suppress(RuntimeError):  # a home of nobody's
        path = path.expanduser()
    if not path.is_file():
        named = path.parent in (Path(), Path("params"))
        near = project_root() / "params" / f"{path.name.removesuffix('.yaml')}.yaml"
        if not profile_names():
            raise InputError(
                f"profile: there is no params/ folder in {str(project_root())!r}; "
                "run this in the project's folder, or give a profile's path"
            )
        if not (named and near.is_file()):
            raise _no_profile(str(path))
        path = near
    found = _read(path)
    tasks = {task: meant(own) for task, own in _of_tasks(found.pop("tasks", None) or {}).items()}
    allowed = {name for task in TASKS for name in declared(task)} - MANAGED
    for name in (*found, *(changes or {})):
        if name not in allowed:
            raise unknown_name("parameter", str(name), sorted(allowed))
    if only in TASKS:
        _check_reach(changes or {}, only)
    profile = Profile(path.name.removesuffix(".yaml"), meant(found), tasks)
    profile = _changed(profile, meant(changes or {}), whole)
    _check_values(profile, (only,) if only in TASKS else TASKS)
    return profile


def _no_profile(given: str) -> InputError:
    """Return the error for a profile that is not there, with what is near."""
    if not looks_like_path(given):
        return unknown_name("profile", given, profile_names())
    path = Path(given)
    known = {name: name for name in profile_names()}
    known |= {file.stem: str(file) for file in path.parent.glob("*.yaml")}
    close = near_matches(path.name.removesuffix(".yaml"), known)
    hint = f"params/ holds {', '.join(profile_names())}"
    if close:
        hint = f"did you mean {' or '.join(known[name] for name in close)}?"
    return InputError(f"profile: no file {given!r}; {hint}")


def _check_reach(changes: Mapping[str, Any], only: str) -> None:
    """Raise for a value that neither a task nor what it reads could use."""
    reached = {only}
    for task in reversed(TASKS):
        reached |= set(upstream(task).values()) if task in reached else set()
    for name in changes:
        users = [task for task in TASKS if name in declared(task)]
        if reached.isdisjoint(users):
            raise InputError(f"parameter: {only} has no {name!r}; it is of {', '.join(users)}")


def _changed(profile: Profile, changes: Mapping[str, Any], whole: bool) -> Profile:
    """Return a profile with changes on top; tasks that these reach get a folder of their own."""
    parameters = {**profile.parameters, **changes}
    tasks = {
        task: {name: value for name, value in own.items() if name not in changes}
        for task, own in profile.tasks.items()
    }
    changed = Profile(profile.name, parameters, tasks)
    reached: list[str] = []
    for task in TASKS:  # each behind those whose runs it reads
        read = upstream(task).values()
        if changed.share(task) != profile.share(task) or not set(reached).isdisjoint(read):
            reached.append(task)
    if not reached:
        return changed
    text = json.dumps(dict(changes), sort_keys=True, default=str)
    name = f"{profile.name}+{'+'.join(sorted(changes))}"[:80]
    beside = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return replace(changed, beside=beside, reached=TASKS if whole else tuple(reached))


def _read(path: Path) -> dict[Any, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"profile: {str(path)!r} is not YAML: {reason}") from error
    except OSError as error:
        raise InputError(f"profile: cannot read {str(path)!r}: {error.strerror}") from error
    if not isinstance(found, dict):
        raise InputError(f"profile: {str(path)!r} must be 'parameter: value' lines")
    return found


def _of_tasks(found: Any) -> dict[str, dict[str, Any]]:
    """Return a profile's ``tasks:``, from a task to parameters of its own, checked by name."""
    if not isinstance(found, dict) or not all(isinstance(own, dict) for own in found.values()):
        raise InputError("tasks: must be 'task:' lines with 'parameter: value' lines below each")
    for task, own in found.items():
        if task not in TASKS:
            raise unknown_name("tasks", str(task), TASKS)
        allowed = set(declared(task)) - MANAGED
        for name in own:
            if name not in allowed:
                raise unknown_name(f"parameter of {task}", str(name), sorted(allowed))
    return found


def _check_values(profile: Profile, tasks: Iterable[str]) -> None:
    """Raise if parameters of these tasks, their own defaults among them, cannot be used."""
    with contextlib.chdir(project_root()):  # where the notebooks' own paths start
        for task in tasks:
            found = {k: v for k, v in profile.values(task).items() if k not in MANAGED}
            if "heatmap" in found:  # of the heatmaps that another task makes
                found["methods"] = profile.values("3_cam")["methods"]
            check(found, profile.share(task))


def upstream(task: str) -> dict[str, str]:
    """Return which parameter of a task names the run of which other task."""
    return {name: RUNS[name] for name in declared(task) if name in RUNS}


def notebook(task: str) -> Path:
    """Return a task's notebook.

    Raises
    ------
    InputError
        If it is not there.
    """
    path = project_root() / "notebooks" / f"{task}.ipynb"
    if not path.is_file():
        raise InputError(f"notebook: no {str(path)!r}; run 'make pair' in the project's folder")
    return path


def declared(task: str) -> dict[str, Any]:
    """Return the names in a notebook's parameters cell, with the values that stand there."""
    return _declared(notebook(task))


@cache
def _declared(path: Path) -> dict[str, Any]:
    cells = json.loads(path.read_bytes())["cells"]
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    lines = ast.parse("".join(cell["source"])).body
    return {
        line.target.id: ast.literal_eval(line.value)
        for line in lines
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value
    }
