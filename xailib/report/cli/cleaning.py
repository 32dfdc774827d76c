"""``xailib results`` and ``clean``: finished runs, and files that belong to none."""

import shutil
from pathlib import Path

import click

from xailib.report.cli.common import from_here, json_option, show_json, show_table, size


@click.command()
@click.argument("folder", required=False)
@json_option
def results(folder: str | None, as_json: bool) -> None:
    """List finished runs: folder, time, photographs, and parameters other than the default.

    FOLDER is one below results/, or any other; by default all of results/ is looked at. The book's
    page "Run it on your own data" says how to read a run with pandas and numpy. With --json, all
    parameters and the files of each run.

    \b
    Examples:
      xailib results
      xailib results embedded
      xailib results my-results --json
    """
    from xailib.errors import InputError
    from xailib.project import project_root
    from xailib.report.params.profiles import MANAGED, short
    from xailib.report.params.schema import NOTEBOOKS, parameters
    from xailib.report.run.results import MANIFEST, read_manifest

    root = project_root() / "results"
    if folder:
        places = [p for p in (root / folder, Path(folder).absolute()) if p.is_dir()]
        if not places:
            raise InputError(f"folder: no {folder!r} in the current folder or in {str(root)!r}")
        root = places[0]
    runs, rows = [], []
    for file in sorted(root.rglob(MANIFEST)):
        manifest = read_manifest(file.parent)
        if (task := manifest.get("task")) not in NOTEBOOKS:
            continue  # a part of one
        spec, given = parameters(task), manifest.get("request", manifest)["parameters"]
        words = [
            f"{name}={short(value)}"
            for name, value in given.items()
            if name in spec.keys() - MANAGED and value != spec[name]["default"]
        ]
        finished, images = manifest["finished"], list(manifest["inputs"]["images"])
        runs.append({
            "run": str(file.parent), "task": task, "finished": finished, "images": images,
            "failures": manifest["failures"], "parameters": given,
            "files": list(manifest["outputs"]),
        })  # fmt: skip
        rows.append({
            "run": from_here(file.parent), "finished": finished[:16].replace("T", " "),
            "images": len(images), "parameters": " ".join(words) or "default",
        })  # fmt: skip
    if as_json:
        show_json(runs)
    elif rows:
        show_table(rows)
    else:
        click.echo(f"No finished run in {from_here(root)}.")


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
        if places := leftovers(manifest.parent):
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
