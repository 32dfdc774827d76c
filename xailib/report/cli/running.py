"""``xailib run`` and ``xailib report``: execute a profile's notebooks, build the site."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xailib.report.cli.common import (
    changes_option,
    json_option,
    only_option,
    profile_argument,
    show_json,
    yaml_changes,
)
from xailib.report.cli.sweeping import Options, sweep

if TYPE_CHECKING:
    from xailib.report.params.profiles import Profile

_workers = click.option(
    "--workers", type=click.IntRange(1), help="So many processes on this machine."
)
_threads = click.option(
    "--threads", type=click.IntRange(1), help="Of a job; default: cores / workers."
)


class _WithParameters(click.Command):
    """A command whose help lists the tasks' parameters, and explains those of ``--only TASK``."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the parameters below the options."""
        from xailib.report.params.schema import MANAGED, NOTEBOOKS, explained, parameters

        own = {
            task: {name: spec for name, spec in parameters(task).items() if name not in MANAGED}
            for task in NOTEBOOKS
        }
        title = "Parameters of each task (--only TASK --help explains them)"
        rows = [(task, " ".join(spec)) for task, spec in own.items()]
        if only := [task for task in ctx.params.get("only", ()) if task in own]:
            title = f"Parameters of {', '.join(only)}"
            rows = [
                (name, f"{explained(spec)}  [default: {json.dumps(spec['default'])}]")
                for name, spec in {k: v for task in only for k, v in own[task].items()}.items()
            ]
        with formatter.section(title):
            formatter.write_dl(rows)


@click.command(cls=_WithParameters)
@profile_argument
@only_option
@click.option("--out", metavar="FOLDER", help="Write all results there, a folder for each task.")
@click.option("--force", is_flag=True, help="Run also what is up to date.")
@click.option("--dry-run", is_flag=True, help="Print the jobs and what they will cost.")
@_workers
@click.option("--scheduler", metavar="ADDRESS", help="A Dask cluster: tcp://HOST:PORT.")
@_threads
@click.option(
    "--shard", type=click.IntRange(1), help="Photographs a job; default with workers: 10."
)
@click.option(
    "--store",
    metavar="URL",
    envvar="XAILIB_STORE",
    help="Share finished jobs there: s3://BUCKET/PREFIX, gs://..., a folder.",
)
@click.option("--tables", is_flag=True, help="No notebooks: tables of all labels and explanations.")
@changes_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    profile: str,
    only: tuple[str, ...],
    out: str | None,
    force: bool,
    changes: tuple[str, ...],
    as_json: bool,
    tables: bool,
    **where: Any,
) -> None:
    """Execute the notebooks of PROFILE that are not up to date.

    PROFILE is a file of parameters, or the name of one in params/ (default: embedded). All
    values are checked before anything runs; those that only the loaded network can judge (target,
    layer) where its weights are here, and it has not run here yet, else by the task: the exit code
    is 2 in both cases. With --json, one line for each task as it ends.

    Results go to results/PROFILE. With -p, those of the tasks that get another value by it go to
    a folder beside it: the profile's own stay as they are. -p holds for every task that has the
    parameter. What --only names reads the results of other tasks: those that are not up to date
    run first. Each finished line ends with the folder of its results; "xailib results" lists all.

    \b
    Examples:
      xailib run
      xailib run --only 2_lime --help
      xailib run --only 2_lime -p images=my.jpg -p num_samples=200
      xailib run --only 4_agreement -p 'images=[a.jpg, b.jpg]' --out my-results
      xailib run mine --force --json
      xailib run mine --workers 4 --dry-run
      xailib run mine --scheduler tcp://10.0.0.1:8786 --store s3://bucket/mine
    """
    loaded = _load(profile, changes, only, out=out or "")
    options = Options(pages=not tables, out=bool(out), **where)
    ctx.exit(sweep(loaded, only, force, options, as_json)[1])


@click.command()
@profile_argument
@click.option("--site", metavar="FOLDER", help="Where to build; default: _build of the project.")
@_workers
@_threads
@changes_option
@json_option
@click.pass_context
def report(
    ctx: click.Context,
    profile: str,
    site: str | None,
    changes: tuple[str, ...],
    as_json: bool,
    **where: Any,
) -> None:
    """Run what is missing of PROFILE, build the site, print the path of its first page.

    The page of a notebook that fails says why; the others are built, and the exit status is 1.

    With --workers, notebooks that do not need each other are executed at the same time. With -p,
    the site is of a folder of results beside the profile's own, which is named first.

    \b
    Examples:
      xailib report
      xailib report embedded --workers 2
      xailib report params/mine.yaml --site /tmp/mine
    """
    from xailib.project import project_root
    from xailib.report.params.profiles import TASKS

    loaded = _load(profile, changes, (), whole=True)
    root = project_root()
    target = Path(site).absolute() if site else root
    failed, _ = sweep(loaded, (), False, Options(whole=True, **where), as_json)
    if len(failed) == len(TASKS):
        click.echo("No site was built: no page has results.", err=True)
        ctx.exit(1)
    builder = str(Path(sys.executable).with_name("jupyter-book"))
    command = [builder, "build", str(root), "--path-output", str(target)]
    command += ["-W", "-n", "--keep-going", "-q"]
    environment = {**os.environ, "XAILIB_PROFILE": loaded.beside or loaded.name}
    environment["XAILIB_FAILED"] = json.dumps(failed)
    html = target / "_build" / "html"
    before = html.with_name("html.before")  # its files are shown by no page of a new site
    shutil.rmtree(before, ignore_errors=True)
    if html.is_dir():
        html.rename(before)
    index = (html / "index.html").resolve()
    try:
        done = subprocess.run(command, env=environment, check=False)  # noqa: S603  our own words
    finally:
        if index.is_file() or not before.is_dir():
            shutil.rmtree(before, ignore_errors=True)
        else:  # better the earlier site than none, also where the build is interrupted
            shutil.rmtree(html, ignore_errors=True)
            before.rename(html)
    if done.returncode or not index.is_file():
        click.echo("The site was not built cleanly; the reasons are above.", err=True)
        ctx.exit(1)
    if as_json:
        show_json({"report": str(index)}, line=True)
    else:
        click.echo(f"Report: {index}")
    if failed:
        click.echo(f"Without results, each page says why: {', '.join(failed)}.", err=True)
        ctx.exit(1)


def _load(profile: str, changes: Sequence[str], only: Sequence[str], **where: Any) -> "Profile":
    """Return a profile with its overrides, and report where its results go."""
    from xailib.report.params.profiles import load_profile, selected

    loaded = load_profile(profile, yaml_changes(changes), only, **where)
    if not where.get("out") and not set(loaded.reached).isdisjoint(selected(only)):
        line = f"Changed values: results/{loaded.beside}; those in results/{loaded.name} stay"
        click.echo(line, err=True)
    return loaded
