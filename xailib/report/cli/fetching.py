"""``xailib fetch``: weights, probe images, word lists, published files, ahead of need."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from xailib.errors import UnavailableError
from xailib.report.cli.common import (
    byte_bar,
    json_option,
    profile_option,
    show_json,
    show_table,
    size,
)

if TYPE_CHECKING:
    from xailib.report.run.artefacts import Artefact


@click.command()
@click.argument("names", nargs=-1)
@profile_option
@click.option("--list", "listed", is_flag=True, help="List instead of fetching.")
@click.option("--sizes", is_flag=True, help="With --list: ask the servers for the sizes.")
@json_option
@click.pass_context
def fetch(
    ctx: click.Context,
    names: tuple[str, ...],
    profile: str | None,
    listed: bool,
    sizes: bool,
    as_json: bool,
) -> None:
    """Fetch what NAMES or a profile need, each checked by its SHA-256.

    NAMES are probe sets (broden, imagenet-sample), the word list (20k), the replicated report's
    files (published), networks (resnet50, resnet50:IMAGENET1K_V1, resnet18_places365, any of
    timm's) and CLIP's (clip:ViT-B/16). What breaks off is gone on with by the next call. A hash
    that no publisher states is noted at first use, and another file later is refused. The folder
    that XAILIB_MIRROR names is looked in before the network. Two that fetch one file at once
    fetch it once.

    A size is that of what lies here, "stated" by the publisher, "measured" by us, "announced" by
    the server (--sizes), or "unknown".

    \b
    Examples:
      xailib fetch --list
      xailib fetch broden 20k clip:ViT-B/16
      xailib fetch --profile replication
      XAILIB_MIRROR=/media/stick xailib fetch resnet50
    """
    from xailib.report.run import artefacts

    wanted = [artefact for name in names for artefact in artefacts.find(name)]
    wanted += _of_profile(profile) if profile else []
    if not wanted and not listed and not profile:
        raise click.UsageError("name something, or a --profile; xailib fetch --list tells what")
    rows = []
    for artefact in wanted or (artefacts.known() if listed else []):
        state, why = (_state(artefact), "") if listed else _get(artefact)
        count, source = _size(artefact, sizes)
        rows.append(
            {
                "name": artefact.name,
                "state": state,
                "bytes": count,
                "size": source,
                "licence": artefact.licence,
            }
        )
        if why:
            click.echo(f"Cannot be had: {artefact.what}: {why}", err=True)
    if as_json:
        show_json(rows)
    else:
        show_table([_told(row) for row in rows])
    if any(row["state"] == "failed" for row in rows):
        ctx.exit(1)


def _of_profile(profile: str) -> "list[Artefact]":
    from xailib.report.params.profiles import TASKS, load_profile
    from xailib.report.run.artefacts import Artefact
    from xailib.report.run.preflight import needs

    loaded = load_profile(profile)
    found = [need for task in TASKS for need in needs(loaded.share(task))]
    by_files = {need.files: need for need in found if isinstance(need, Artefact)}
    return list(by_files.values())


def _state(artefact: "Artefact") -> str:
    return "here" if artefact.here else "to fetch"


def _size(artefact: "Artefact", ask: bool) -> tuple[int | None, str]:
    """Return the bytes of one thing, and where that is known from."""
    if artefact.bytes is not None:
        return artefact.bytes, "here"
    if ask and (count := _asked(artefact)) is not None:
        return count, "announced"
    return artefact.expected or (None, "unknown")


def _told(row: Mapping[str, Any]) -> dict[str, object]:
    """Return a row for people: the size in words."""
    count, source = row["bytes"], row["size"]
    said = source if count is None else size(count) + ("" if source == "here" else f", {source}")
    return {
        "name": row["name"],
        "state": row["state"],
        "size": said,
        "licence": row["licence"],
    }


def _get(artefact: "Artefact") -> tuple[str, str]:
    """Fetch one thing; return what became of it, and why not."""
    if artefact.here:
        return "here", ""
    try:
        with byte_bar(artefact.what) as watch:
            artefact.get(watch)
    except UnavailableError as error:
        return "failed", str(error)
    return "fetched", ""


def _asked(artefact: "Artefact") -> int | None:
    """Return what the servers say of its size: the first that answers."""
    from xailib.downloads.web import size_of

    return next((n for address in artefact.addresses if (n := size_of(address))), None)
