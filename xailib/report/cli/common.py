"""What the commands share: options, completion, tables, progress."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xailib.errors import XailibError

if TYPE_CHECKING:
    from xailib.report.params.profiles import Profile
    from xailib.report.run.plan import Outcome


def live() -> bool:
    """Return whether output goes to a user's terminal, and not to a CI's."""
    return sys.stderr.isatty() and not os.environ.get("CI")


def _offered(module: str, names: Callable[[Any], Iterable[str]]) -> Callable[..., list[str]]:
    """Return what completes a word in the shell: by names of a module that is imported then."""

    def complete(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
        return [name for name in names(import_module(module)) if name.startswith(start)]

    return complete


_profiles = _offered("xailib.report.params.profiles", lambda module: module.profile_names())
network_names = _offered("xailib.downloads.names", lambda module: module.networks())
_tasks = _offered("xailib.report.params.schema", lambda module: module.NOTEBOOKS)
_parameters = _offered(
    "xailib.report.params.schema",
    lambda module: [f"{name}=" for name in sorted(module.FIELDS.keys() - module.MANAGED)],
)
profile_argument = click.argument("profile", default="embedded", shell_complete=_profiles)
profile_option = click.option(
    "--profile", metavar="PROFILE", shell_complete=_profiles, help="What a profile needs."
)
only_option = click.option(
    "--only",
    metavar="TASK",
    multiple=True,
    is_eager=True,  # so that the help which follows knows it
    shell_complete=_tasks,
    help="Run this task and those that it reads, such as 2_lime; can be repeated.",
)
changes_option = click.option(
    "-p",
    "--parameter",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    shell_complete=_parameters,
    help="Change a parameter for once; VALUE is YAML, so lists are [a, b], or one of it alone.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def show_json(found: object, *, line: bool = False) -> None:
    """Print a document, or one line of several."""
    click.echo(json.dumps(found, indent=None if line else 1, ensure_ascii=False))


def show_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows under the names of their columns."""
    if not rows:
        return
    lines = [tuple(rows[0]), *(tuple(map(_cell, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def show_outcome(outcome: "Outcome", folder: Path, as_json: bool) -> None:
    """Report the outcome of a task or a job, and of a finished one where its results are."""
    finished = outcome.state in ("done", "reused")
    if as_json:
        show_json({**asdict(outcome), "folder": str(folder) if finished else None}, line=True)
        return
    took = f" in {outcome.seconds:.0f} s" if outcome.seconds else ""
    why = f": {outcome.message}" if outcome.message else ""
    where = f"  {from_here(folder)}" if finished else ""
    click.echo(f"{outcome.task:14} {outcome.state}{took}{why}{where}")


def from_here(folder: Path) -> str:
    """Return a folder as a user types it here: within the current one by a relative path."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def warn_of_lacks(profile: "Profile", tasks: Iterable[str]) -> dict[str, str]:
    """Say what tasks need and can neither find nor fetch.

    Returns
    -------
    dict
        From each task whose network is unavailable to the line that reports it: it can only fail.
    """
    from xailib.report.run.preflight import lacking

    lacks = lacking({task: profile.share(task) for task in tasks})
    for line in dict.fromkeys(line for lack in lacks.values() for line in lack.unreachable):
        click.echo(f"Unavailable: {line}", err=True)
    return {task: lack.networks[0] for task, lack in lacks.items() if lack.networks}


def duration(seconds: float | int) -> str:  # beartype takes no int for a float
    """Return a readable time."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def size(count: int) -> str:
    """Return a readable number of bytes."""
    if count < 1e5:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


@contextmanager
def byte_bar(what: str) -> Iterator[Callable[[int, int], object] | None]:
    """Draw the progress of a download, with the time left; None without a terminal."""
    if not live():
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=what, unit="B", unit_scale=True, leave=False) as bar:

        def watch(have: int, total: int) -> None:
            bar.total = total or None
            bar.update(have - bar.n)

        yield watch


def yaml_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Return ``NAME=VALUE`` (or ``NAME: VALUE``) words as a mapping."""
    from xailib.report.params.profiles import read_values

    found: dict[str, Any] = {}
    for change in changes:
        name, sign, value = change.partition("=")
        try:
            parsed = read_values(f"{name}: {value}" if sign and ":" not in name else change)
        except XailibError as error:
            reason = str(error).removeprefix("line 1: ")
            raise click.UsageError(f"-p {change!r} is not NAME=VALUE in YAML: {reason}") from error
        if not isinstance(parsed, dict):
            raise click.UsageError(f"-p {change!r} is not NAME=VALUE")
        for twice in found.keys() & parsed:
            raise click.UsageError(f"-p {twice}: given twice; a list is {twice}=[a, b]")
        found |= parsed
    return found
