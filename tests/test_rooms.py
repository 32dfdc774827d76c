"""The house: a core in rooms that import downwards only, and the report on top of it."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BASE = ("errors", "files", "project", "versions")  # what every room uses
ORDER = "downloads images networks encoders,explain compare dissect evaluate"
LEVELS = [set(rooms.split(",")) for rooms in ORDER.split()]  # rooms of a level are strangers
CORE = frozenset().union(*LEVELS)
MOST = 10  # files of a room, its __init__ not counted
# What only the report needs: none of it comes with `pip install .` without extras.
OF_THE_REPORT = {
    *("papermill", "nbclient", "nbformat", "jupytext", "jupyter-book", "jupyter-client", "ipython"),
    *("ipykernel", "dask", "distributed", "pydantic", "matplotlib-inline", "foolbox"),
}


@cache
def modules() -> dict[str, Path]:
    """Return the files of the package by the name they are imported by."""
    found = {}
    for file in sorted((ROOT / "xailib").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports(module: str) -> tuple[tuple[str, bool], ...]:
    """Return what a module imports, by full name, and whether that is done in a function.

    What stands under ``if TYPE_CHECKING`` is not imported when the program runs. Of a room's
    exports (``from xailib.explain import explain_lime``) that is the room.
    """
    return tuple(_imports(ast.parse(modules()[module].read_text(encoding="utf-8")), False))


def _imports(tree: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            own = {name if name in modules() else str(node.module) for name in names}
            yield from ((name, inside) for name in sorted(own))
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(node, inside or function)


def room(module: str) -> str:
    """Return the room of a module, or the name of one that is in none."""
    return [*module.split("."), ""][1]


def level(name: str) -> int:
    return next((n for n, rooms in enumerate(LEVELS) if name in rooms), -1)


def core() -> list[str]:
    return [name for name in modules() if room(name) in {*CORE, *BASE}]


def test_every_module_is_in_a_room_that_is_known():
    known = {"", "report", *CORE, *BASE}
    assert {room(name) for name in modules()} == known


def test_rooms_import_downwards_only_and_never_the_report():
    found = set()
    for module in core():
        for other, _ in imports(module):
            if not other.startswith("xailib.") or room(other) == room(module):
                continue
            free = room(other) in BASE or other == "xailib.explain.explanation"  # a data type
            if not free and not (-1 < level(room(other)) < level(room(module))):
                found.add((module, other))
    assert found == set()


def test_no_import_is_hidden_in_a_function():
    """Those of optional packages are not of xailib, and those of the command keep it quick."""
    found = {
        (module, other)
        for module in core()
        for other, inside in imports(module)
        if inside and other.startswith("xailib")
    }
    assert found == set()


def edges() -> dict[str, set[str]]:
    """Return which modules each imports, also inside functions but for those of the command."""
    return {
        module: {
            other
            for other, inside in imports(module)
            if other in modules() and not (inside and room(module) == "report" and "cli" in module)
        }
        for module in modules()
    }


def test_no_modules_import_each_other():
    TopologicalSorter(edges()).prepare()  # its error names the circle


def test_a_circle_would_be_found(monkeypatch):
    made = {"xailib.a": "b", "xailib.b": "c", "xailib.c": "a", "xailib.d": "a"}
    monkeypatch.setitem(globals(), "modules", lambda: made)
    monkeypatch.setitem(globals(), "imports", lambda name: ((f"xailib.{made[name]}", True),))
    with pytest.raises(CycleError):
        TopologicalSorter(edges()).prepare()


def rooms() -> dict[str, list[str]]:
    """Return the names of the files of each folder, by its path."""
    found: dict[str, list[str]] = {}
    for file in modules().values():
        place = file.parent.relative_to(ROOT).as_posix()
        found.setdefault(place, [])
        if file.stem != "__init__":
            found[place].append(file.stem)
    return found


def test_a_room_has_at_most_ten_files():
    assert [place for place, names in rooms().items() if len(names) > MOST] == []


def test_a_files_name_does_not_repeat_its_rooms():
    for place, names in rooms().items():
        word = place.rpartition("/")[2].rstrip("s")
        assert [name for name in names if word in name.split("_")] == [], place


def test_a_room_says_in_a_sentence_what_it_is_for():
    for place in rooms():
        text = (ROOT / place / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), place


@pytest.mark.parametrize("name", sorted(CORE))
def test_a_room_is_quick_to_import_and_hands_on_no_files_name(name):
    """A name that is both a file's and a function's would be one or the other by chance."""
    code = f"import sys, xailib.{name} as room; print(*room.__all__)\n"
    code += "print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    names, heavy = done.stdout.splitlines()
    assert set(names.split()) - set(rooms()[f"xailib/{name}"])
    assert len(names.split()) == len(set(names.split()))
    assert heavy == "False False"


def declared() -> list[str]:
    """Return the packages that `pip install .` without extras names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [canonicalize_name(Requirement(line).name) for line in project["dependencies"]]


@cache
def installed_with_the_core() -> frozenset[str]:
    """Return what `pip install .` without extras brings, as the installed packages say."""
    found, waiting = set(), declared()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            lines = map(Requirement, requires(name) or [])
            waiting += [
                canonicalize_name(one.name)
                for one in lines
                if not one.marker or one.marker.evaluate({"extra": ""})
            ]
    return frozenset(found)


def without_the_report(code: str) -> subprocess.CompletedProcess:
    """Run code as if nothing but the core and what it brings were installed."""
    absent = {
        module
        for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & installed_with_the_core()
    }
    absent -= {"xailib", "__editable___xailib_0_1_0_finder"}
    blocked = f"""
import importlib, sys
absent = {absent!r}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in absent:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""
    command = [sys.executable, "-c", blocked + code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_core_brings_none_of_the_reports_packages():
    assert installed_with_the_core() & OF_THE_REPORT == set()
    assert {"torch", "timm", "lime", "filelock"} < installed_with_the_core()


def test_the_core_works_without_the_report():
    names = [name for name in core() if "." in name]
    code = f"for name in {names!r}: importlib.import_module(name)\n"
    code += "from xailib.explain import explain_lime\nprint(explain_lime.__name__)"
    done = without_the_report(code)
    assert (done.returncode, done.stdout) == (0, "explain_lime\n"), done.stderr
    assert "No module named 'papermill'" in without_the_report("import papermill").stderr


def test_what_the_core_imports_is_what_it_declares():
    modules = {"grad-cam": "pytorch_grad_cam", "pillow": "PIL", "scikit-image": "skimage"}
    modules["scikit-learn"] = "sklearn"
    names = {modules.get(one, one.replace("-", "_")) for one in declared()}
    imported = {
        other.partition(".")[0] for name in core() for other, inside in imports(name) if not inside
    }
    imported -= {"xailib", *sys.stdlib_module_names}
    assert imported == names
