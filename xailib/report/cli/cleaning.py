"""``xailib clean``: files in results that belong to no finished run."""

import shutil
from pathlib import Path

import click

from xailib.report.cli.common import json_option, show_json, show_table, size


@click.command()
@click.argument("folder", required=False)
@click.option("--yes", is_flag=True, help="Delete it; without this it is only listed.")
@json_option
def clean(folder: str | None, yes: bool, as_json: bool) -> None:
    """List explanations and recordings that earlier parameters left in results, or delete them.

    A run keeps what other parameters gave, so that asking for them again costs nothing. FOLDER is
    one below results/, such as scratch or embedded; by default all are looked at. What a finished
    run consists of is never touched, nor is a run that was interrupted.

    \b
    Examples:
      xailib clean
      xailib clean scratch --yes
    """
    from xailib.errors import InputError
    from xailib.project import project_root
    from xailib.report.run.results import MANIFEST, leftovers

    results = project_root() / "results"
    root = results / folder if folder else results
    if not root.resolve().is_relative_to(results.resolve()) or (folder and not root.is_dir()):
        raise InputError(f"folder: {folder!r} is not below {str(results)!r}")
    rows, total = [], 0
    for manifest in sorted(root.rglob(MANIFEST)):
        places = leftovers(manifest.parent)
        if places:
            count = sum(map(_bytes, places))
            total += count
            run = str(manifest.parent.relative_to(results))
            rows.append({"run": run, "entries": len(places), "bytes": count})
            for place in places if yes else ():
                shutil.rmtree(place) if place.is_dir() else place.unlink()
    if as_json:
        show_json({"deleted": yes, "runs": rows})
        return
    show_table(rows)
    word = "deleted" if yes else "could be deleted: xailib clean --yes"
    click.echo(f"{size(total)} {word}" if rows else "Nothing is left over.")


def _bytes(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())
