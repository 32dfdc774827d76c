"""The ``xailib`` command: run a profile's notebooks, build the site."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from xailib import __version__
from xailib.errors import XailibError

if TYPE_CHECKING:
    from xailib.profiles import Profile


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Explain image classifiers, and build the report."""


_profile = click.argument("profile", default="embedded")
_set = click.option(
    "-p",
    "--parameter",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a parameter of the profile; VALUE is YAML, so lists are [a, b].",
)


@main.command()
@_profile
@click.option("--only", metavar="TASK", help="Run one task, such as 2_lime.")
@click.option("--force", is_flag=True, help="Run also what is up to date.")
@_set
def run(profile: str, only: str | None, force: bool, changes: tuple[str, ...]) -> None:
    """Execute the notebooks of PROFILE that are not up to date.

    PROFILE is a file of parameters, or the name of one in params/ (default: embedded).

    Example: xailib run embedded --only 2_lime -p 'images: [chelsea]'
    """
    if not _run(profile, only, force, changes):
        sys.exit(1)


@main.command()
@_profile
@click.option("--site", metavar="FOLDER", help="Where to build; default: _build of the project.")
@_set
def report(profile: str, site: str | None, changes: tuple[str, ...]) -> None:
    """Run what is missing of PROFILE, build the site, print the path of its first page."""
    from xailib.project import project_root

    if not _run(profile, None, False, changes):
        sys.exit(1)
    root = project_root()
    target = Path(site) if site else root
    builder = str(Path(sys.executable).with_name("jupyter-book"))
    command = [builder, "build", str(root), "--path-output", str(target)]
    command += ["-W", "-n", "--keep-going", "-q"]
    environment = {**os.environ, "XAILIB_PROFILE": Path(profile).name.removesuffix(".yaml")}
    done = subprocess.run(command, env=environment, check=False)  # noqa: S603  our own words
    index = target / "_build" / "html" / "index.html"
    if done.returncode or not index.is_file():
        click.echo("The site was not built cleanly; the reasons are above.", err=True)
        sys.exit(1)
    click.echo(f"Report: {index.resolve()}")


def _run(profile: str, only: str | None, force: bool, changes: tuple[str, ...]) -> bool:
    """Run tasks and say what became of each; return whether all are up to date now."""
    try:
        from xailib.pipeline import run_profile
        from xailib.profiles import load_profile

        loaded = load_profile(profile, _changes(changes))
        for line in _unreachable(loaded):
            click.echo(f"Cannot be had: {line}", err=True)
        good = True
        for outcome in run_profile(loaded, only, force=force):
            took = f" in {outcome.seconds:.0f} s" if outcome.seconds else ""
            why = f": {outcome.message}" if outcome.message else ""
            click.echo(f"{outcome.task:14} {outcome.state}{took}{why}")
            good &= outcome.state in ("done", "reused")
    except XailibError as error:
        click.echo(f"Error: {error}", err=True)
        return False
    return good


def _unreachable(profile: "Profile") -> list[str]:
    """Return what a profile needs and cannot have, all at once; tasks without it still run."""
    from xailib.requirements import unreachable

    return unreachable({**profile.parameters, "tasks": profile.tasks})


def _changes(changes: tuple[str, ...]) -> dict[str, object]:
    """Return ``NAME=VALUE`` (or ``NAME: VALUE``) words as a mapping."""
    found: dict[str, object] = {}
    for change in changes:
        name, sign, value = change.partition("=")
        try:
            parsed = yaml.safe_load(f"{name}: {value}" if sign and ":" not in name else change)
        except yaml.YAMLError as error:
            raise click.UsageError(f"-p {change!r} is not NAME=VALUE in YAML") from error
        if not isinstance(parsed, dict):
            raise click.UsageError(f"-p {change!r} is not NAME=VALUE")
        found |= parsed
    return found


if __name__ == "__main__":
    main()
