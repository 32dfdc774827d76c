"""Profiles: files of parameters for all notebooks, checked before any of them runs.

A profile is flat, usable by ``papermill -f`` as it is; each notebook takes those parameters that
its own parameters cell declares. Nothing here imports a network or a table.
"""

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from xailib.errors import InputError, check_name, near_matches, unknown_name
from xailib.project import project_root
from xailib.report.params.checks import looks_like_path, names_of_images
from xailib.report.params.schema import MANAGED, NOTEBOOKS, RUNS, check, meant, typed_as_text

TASKS = tuple(NOTEBOOKS)
# What may be a path: relative ones start at the caller's folder if they lead somewhere there.
_PATHS = frozenset(
    {"model", "weights", "compare", "compare_weights", "encoder_weights", "images", "probe"}
    | {"concepts", "boxes", "descriptions", "published"}
)
KEPT = "evidence"  # no profile: what `make evidence` consists of, see `xailib.report.evidence`


@dataclass(frozen=True)
class Profile:
    """A named set of parameters for all notebooks, and of those that only one task gets."""

    name: str  #: of its file, and of its folder in ``results/``
    parameters: dict[str, Any]  #: for every task that has them
    #: from a task to parameters of its own
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: the folder below ``results/``, or an absolute path, for the results of the tasks in
    #: `reached`, where values were changed for once, so that the profile's own results stay, or
    #: where another folder was asked for
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
    found = (file.stem for file in (project_root() / "params").glob("*.yaml"))
    return sorted(name for name in found if name != KEPT)


def load_profile(
    path: str | Path,
    changes: Mapping[str, Any] | None = None,
    only: str | Collection[str] | None = None,
    *,
    whole: bool = False,
    out: str = "",
) -> Profile:
    """Read a profile and check its parameters, with `changes` on top.

    Parameters
    ----------
    path : str or path
        A file, or the name of one in the project's ``params/``. Paths among the values start at
        the current folder or else at the file's own, if they lead somewhere there, else at the
        project.
    changes : mapping, optional
        Values that hold for every task which has the parameter. The results of tasks that get
        another value by them, or read such results, go to a folder beside the profile's.
    only : str or collection of str, optional
        The tasks that will run, with those that they read: what others could not use does not
        matter then.
    whole : bool
        Whether all results of a changed profile go to that folder, which a site is made of.
    out : str
        The folder for all results, instead of one below ``results/``.

    Raises
    ------
    InputError
        If the file is missing or no mapping, no notebook has a parameter of that name, or a
        value cannot be used by a notebook that gets it.
    """
    path = _file(path)
    found = _read(path)
    own = found.pop("tasks", None) or {}
    if not isinstance(own, dict) or not all(isinstance(one, dict) for one in own.values()):
        raise InputError("tasks: must be 'task:' lines with 'parameter: value' lines below each")
    for task in own:
        check_name("tasks", str(task), TASKS)
        _check_names(f"parameter of {task}", own[task], declared(task))
    everywhere = {name for task in TASKS for name in declared(task)}
    _check_names("parameter", [*found, *(changes or {})], everywhere)
    chosen = selected(only)
    for name in changes or {}:  # one that none of these tasks could use
        users = [task for task in TASKS if name in declared(task)]
        if set(chosen).isdisjoint(users):
            line = f"{', '.join(chosen)}: none has {name!r}; it is of {', '.join(users)}"
            raise InputError(f"parameter: {line}")
    own_folder = path.resolve().parent
    bases = [base for base in (Path.cwd(), own_folder) if base != project_root()]
    tasks = {task: _meant(one, bases) for task, one in own.items()}
    profile = Profile(path.name.removesuffix(".yaml"), _meant(found, bases), tasks)
    profile = _changed(profile, _meant(changes or {}, bases), whole)
    _check_values(profile, chosen)
    if not out:
        return profile
    folder = Path(out).expanduser().absolute()
    if folder.is_file():
        raise InputError(f"out: {out!r} is a file; name a folder")
    results = project_root() / "results"
    beside = folder.relative_to(results) if folder.is_relative_to(results) else folder
    return replace(profile, beside=str(beside), reached=TASKS)


def selected(only: str | Collection[str] | None) -> tuple[str, ...]:
    """Return tasks and those whose results they read, in their order; of None or none, all.

    `InputError` is raised for a name that is no task's.
    """
    named = [only] if isinstance(only, str) else list(only or TASKS)
    for task in named:
        check_name("task", task, TASKS)
    for task in reversed(TASKS):  # each before those that it reads
        if task in named:
            named += upstream(task).values()
    return tuple(task for task in TASKS if task in named)


def _file(given: str | Path) -> Path:
    """Return a profile's file, or raise with what is near."""
    path = Path(given)
    with contextlib.suppress(RuntimeError):  # an unknown user
        path = path.expanduser()
    names, stem = profile_names(), path.name.removesuffix(".yaml")
    if re.search(r"\s", stem):
        raise InputError(f"profile: {stem!r} has a blank; its results get a folder of that name")
    if path.is_file():
        return path
    if path.parent in (Path(), Path("params")) and stem in names:
        return project_root() / "params" / f"{stem}.yaml"
    if not names:
        raise InputError(
            f"profile: there is no params/ folder in {str(project_root())!r}; "
            "run this in the project's folder, or give a profile's path"
        )
    if not looks_like_path(str(path)):
        raise unknown_name("profile", str(path), names)
    known = {name: name for name in names}
    known |= {file.stem: str(file) for file in path.parent.glob("*.yaml")}
    close = " or ".join(known[name] for name in near_matches(stem, known))
    hint = f"did you mean {close}?" if close else f"params/ holds {', '.join(names)}"
    raise InputError(f"profile: no file {str(path)!r}; {hint}")


class _Values(yaml.SafeLoader):
    """YAML in which a value is text where its parameter is, and in which no key occurs twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, once its values are marked as the texts that they are."""
        seen = set()
        for key, value in node.value:
            if str(key.value) in seen:
                problem = f"{key.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
            for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                null = one.tag.endswith(":null") or not isinstance(one, yaml.ScalarNode)
                if not null and typed_as_text(str(key.value), one.value):
                    one.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def read_values(text: str) -> Any:
    """Return the content of a YAML text, or raise `InputError` with the line and the error."""
    try:
        return yaml.load(text, _Values)  # noqa: S506  a safe loader
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        problem = "a tab; YAML wants blanks" if "\\t" in str(problem) else problem
        line = f"line {mark.line + 1}: " if mark else ""
        raise InputError(line + (problem or str(error).splitlines()[0])) from error


def _read(path: Path) -> dict[Any, Any]:
    try:
        found = read_values(path.read_text(encoding="utf-8"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"profile: {str(path)!r} is not YAML: {error}") from error
    except OSError as error:
        raise InputError(f"profile: cannot read {str(path)!r}: {error.strerror}") from error
    if not isinstance(found, dict):
        raise InputError(f"profile: {str(path)!r} must be 'parameter: value' lines")
    return found


def _meant(found: Mapping[str, Any], bases: Sequence[Path]) -> dict[str, Any]:
    """Return values as `meant`, paths whole where they lead somewhere from one of these folders."""
    values = {name: meant(name, value) for name, value in found.items()}
    for name in _PATHS & values.keys():
        given = values[name]
        several = isinstance(given, list)
        values[name] = [_place(one, bases) for one in given] if several else _place(given, bases)
    return values


def _place(value: Any, bases: Sequence[Path]) -> Any:
    if not isinstance(value, str) or not value or Path(value).is_absolute():
        return value
    file, colon, function = value.rpartition(":") if ".py:" in value else (value, "", "")
    for base in bases:
        place = base / file
        folder = place.is_dir() and file not in names_of_images()
        if place.exists() and (looks_like_path(file) or folder):
            return str(place.resolve()) + colon + function
    return value


def _check_names(what: str, names: Iterable[Any], known: Collection[str]) -> None:
    for name in names:
        if name in MANAGED:
            its = "the folder of results is --out FOLDER" if name == "out_dir" else "runs are found"
            raise InputError(f"{name}: only for papermill; {its}")
        if name not in known:
            raise unknown_name(what, str(name), sorted(set(known) - MANAGED))


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
    said = "+".join([profile.name, *(f"{name}={short(changes[name])}" for name in sorted(changes))])
    name = said.encode()[:100].decode(errors="ignore")  # other scripts have longer letters
    beside = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return replace(changed, beside=beside, reached=TASKS if whole else tuple(reached))


def short(value: Any) -> str:
    """Return a value in the name of a folder: of paths the last part, of many the first two."""
    if isinstance(value, list):
        more = [f"{len(value) - 2}more"] if len(value) > 3 else []
        return ",".join(map(short, value[:2] if more else value)) + "".join(f",{m}" for m in more)
    word = value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.,-]+", "_", word)


def _check_values(profile: Profile, tasks: Iterable[str]) -> None:
    """Raise if parameters of these tasks, their own defaults among them, cannot be used."""
    with contextlib.chdir(project_root()):  # where the notebooks' own paths start
        for task in tasks:
            found = {k: v for k, v in profile.values(task).items() if k not in MANAGED}
            check(task, found)
            if "heatmap" in found:  # one that another task makes
                made = profile.values("3_cam")["methods"]
                if (one := found["heatmap"]) not in made:
                    raise InputError(f"heatmap: {one!r} is not among methods: {', '.join(made)}")


def upstream(task: str) -> dict[str, str]:
    """Return which parameter of a task names the run of which other task."""
    return {name: RUNS[name] for name in declared(task) if name in RUNS}


def notebook(task: str) -> Path:
    """Return a task's notebook, or raise `InputError` if it is not there."""
    path = project_root() / "notebooks" / f"{task}.ipynb"
    if not path.is_file():
        raise InputError(f"notebook: no {str(path)!r}; run 'xailib pair' in the project's folder")
    return path


def declared(task: str) -> dict[str, Any]:
    """Return the names in a notebook's parameters cell, with their values."""
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
