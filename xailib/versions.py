"""Which code makes a result: found by following imports, never listed by hand.

A *root* is a module or a room of xailib, such as ``"xailib.explain"``. What it depends on is its
own file (of a room: every file of it), the data files that these name, and, in turn, all that
they import of xailib. The installed packages that these files import, and what those packages
require themselves, decide a result too.
"""

import ast
import hashlib
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, requires
from pathlib import Path

PACKAGE = "xailib"
_ROOT = Path(__file__).parent
_IMPORTERS = frozenset({"import_module", "import_optional"})  # take a module's name as a string
_DATA = frozenset({".csv", ".json", ".tsv", ".txt"})


def source_hash(roots: Iterable[str]) -> str:
    """Return the SHA-256 of all of xailib's files that modules or rooms depend on."""
    digest = hashlib.sha256()
    for file in sorted(source_files(roots)):
        digest.update(f"{file.relative_to(_ROOT)}\0{_read(file, *_stamp(file))[0]}".encode())
    return digest.hexdigest()


def source_files(roots: Iterable[str]) -> set[Path]:
    """Return xailib's files, code and data, that roots depend on."""
    found: set[Path] = set()
    waiting = [file for root in roots for file in _files_of(root)]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".py":
            _, imports, names = _read(file, *_stamp(file))
            found |= {data for data in file.parent.iterdir() if data.name in names}
            waiting += [other for name in imports for other in _files_of(name)]
    return found


def imports_of(code: str) -> frozenset[str]:
    """Return the modules that a piece of Python imports, wherever in it, by their full names."""
    return frozenset(_imported(ast.parse(code)))


def environment(roots: Iterable[str] = (PACKAGE,)) -> dict[str, str]:
    """Return the versions of Python, xailib and the packages that decide a result of these roots.

    That is what their files import, and what those packages require: with grad-cam its OpenCV,
    with transformers its tokenizers. A package that is imported only where it is installed, and
    is not, stands there as ``"absent"``.
    """
    modules = {
        name.partition(".")[0]
        for file in source_files(roots)
        if file.suffix == ".py"
        for name in _read(file, *_stamp(file))[1]
    }
    return dict(_versions(frozenset(modules)))


def git_commit() -> str:
    """Return the project's commit, with ``+`` if there are changes, or ``unknown``."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(  # noqa: S603  fixed command, no shell
            [*command, "--abbrev=12", "--exclude=*"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _files_of(name: str) -> list[Path]:
    """Return the file of a module, all files of a room, none for what is neither."""
    package, _, rest = name.partition(".")
    if package != PACKAGE:
        return []
    place = _ROOT.joinpath(*rest.split(".")) if rest else _ROOT
    if place.is_dir():
        return sorted(place.rglob("*.py"))
    return [place.with_suffix(".py")] if place.with_suffix(".py").is_file() else []


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@cache
def _read(file: Path, _changed: int, _size: int) -> tuple[str, frozenset[str], frozenset[str]]:
    """Return a file's hash, its imports, and the data files beside it that it names."""
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if file.suffix != ".py":
        return digest, frozenset(), frozenset()
    data = {path.name for path in file.parent.iterdir() if path.suffix in _DATA}
    text = content.decode()
    return digest, imports_of(text), frozenset(name for name in data if name in text)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those under ``if TYPE_CHECKING``, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        yield from _nodes(node)


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # Of a room, one of its files counts alone; what the room exports, the whole room.
            modules = [name for name in names if _files_of(name)]
            yield from modules if len(modules) == len(names) else [node.module, *modules]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if called in _IMPORTERS and isinstance(first, ast.Constant):
                yield str(first.value)


@cache  # looked up for every explanation, and the same as long as the process lives
def _versions(modules: frozenset[str]) -> dict[str, str]:
    by_module = _distributions()
    known = {name for module in modules for name in by_module.get(module, ())}
    known |= {required for name in known for required in _required(name)}
    found = {"python": platform.python_version(), PACKAGE: _version(PACKAGE)}
    canonical = {re.sub(r"[-_.]+", "-", name).lower() for name in known}
    found |= {name: _version(name) for name in sorted(canonical)}
    optional = {name.replace("-", "_") for name in _required(PACKAGE, extras=True)}
    missing = optional & (modules - by_module.keys())  # as they are imported
    return found | dict.fromkeys(sorted(missing), "absent")


_distributions = cache(packages_distributions)


def _required(name: str, *, extras: bool = False) -> list[str]:
    """Return what a distribution requires, without or with its extras."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return []
    wanted = [line for line in lines if extras or "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted]
    return [one for one in names if _version(one) != "absent"] if not extras else names


def _version(name: str) -> str:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return "absent"
    # What setuptools has in itself is found once something has imported pkg_resources, as CLIP.
    return "absent" if "_vendor" in Path(str(found.locate_file(""))).parts else found.version
