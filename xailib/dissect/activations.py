"""Activations of units, and embeddings, of probe images: recorded once and used again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xailib.dissect.blocks import Recording, Tell, record
from xailib.encoders.clip import ClipEncoder
from xailib.encoders.crops import Rows, batches
from xailib.encoders.load import ConseEncoder, Encoder
from xailib.errors import InputError
from xailib.explain.cam.layout import Layout, layout_of
from xailib.images.load import Photograph
from xailib.images.pool import Crop, crops
from xailib.images.probe import ProbeSet
from xailib.networks import layers as layer_tools
from xailib.networks.classifier import Classifier, load_classifier
from xailib.networks.forward import halving
from xailib.networks.memory import download, enough
from xailib.networks.preprocessing import shown_by


def networks_of(parameters: Mapping[str, Any]) -> dict[str, tuple[Classifier, list[str]]]:
    """Load the networks that a notebook's parameters ask to dissect, each with its layers.

    By what tables call them: the network, then the one to compare it with if there is one, then, as
    the control, the first with random weights. ``outputs`` and ``preprocessing`` are the first's.
    """
    model = parameters["model"]
    how = {name: parameters[name] for name in ("device", "seed", "precision")}
    meant = {name: parameters[name] for name in ("outputs", "preprocessing")}
    first = load_classifier(model, parameters["weights"], **how, **meant)
    layers = _known(first, parameters["layers"])
    found = {model: (first, layers)}
    compare = parameters["compare"]
    if compare:
        second = load_classifier(compare, parameters["compare_weights"], **how)
        name = compare if compare != model else f"{compare}, {second.weights}"
        found[name] = (second, _known(second, parameters["compare_layers"]))
    if parameters["control"] and ".py:" not in model:
        found["random weights"] = (load_classifier(model, "random", **how, **meant), layers)
    return found


def _known(network: Classifier, layers: Sequence[str]) -> list[str]:
    """Return the layers to dissect, once the network has them: before another one is loaded."""
    for name in layers:
        network.layer(name)
    return list(layers or network.dissect_layers)


def record_activations(
    classifier: Classifier,
    layers: Sequence[str],
    probe: ProbeSet,
    *,
    folder: str | Path,
    pool: str = "avg",
    dtype: str = "float16",
    batch_size: int | None = None,
    workers: int | None = None,
    tell: Tell | None = None,
) -> Recording:
    """Record the activations of units on each probe image, in one forward pass for all layers.

    Feature maps are pooled over space. Layers of tokens give the class token where they have one,
    else the pooled tokens. Rows of scores are stored as they are. Only blocks that the folder does
    not hold yet are recorded, see `xailib.dissect.blocks`.

    Parameters
    ----------
    classifier, probe
        Whose units, and what they are shown.
    layers : sequence of str
        `named_modules` names.
    folder : str or path
        Where blocks are stored, also those of other networks or images.
    pool : {"avg", "max"}
        Over space, or over tokens.
    dtype : {"float16", "float32"}
        On the disk: 2 or 4 bytes for each unit and image. A layer whose values half precision
        cannot hold is recorded in float32 all the same.
    batch_size : int, optional
        Images at a time; by default as many as the device takes well.
    workers : int, optional
        Processes that read images ahead, by default `xailib.images.pool.workers_for` the device.
    tell : callable, optional
        Called with the number of images shown so far, and of all that are to be recorded.

    Raises
    ------
    InputError
        For an unknown layer, too little room, or activations that are not finite; before any
        work where that is known.
    StorageError
        If the disk is full, or may not be written to.
    """
    if isinstance(layers, str) or not layers:
        raise InputError("layers: name at least one, in a list")
    if len(set(layers)) < len(layers):
        raise InputError("layers: one is named twice")
    for name in layers:
        classifier.layer(name)
    if pool not in ("avg", "max"):
        raise InputError(f"pool: {pool!r} is neither 'avg' nor 'max'")
    if dtype not in ("float16", "float32"):
        raise InputError(f"dtype: {dtype!r} is neither 'float16' nor 'float32'")
    wanted = {
        "classifier": f"{classifier.name}@{classifier.sha256}",
        "layers": list(layers),
        "pool": pool,
        "dtype": dtype,
        "precision": classifier.precision,
        "preprocessing": shown_by(classifier.preprocessing),
    }
    device = classifier.device
    size = enough(device) if batch_size is None else batch_size
    return record(
        folder,
        wanted,
        probe,
        lambda part: crops(part, classifier.preprocessing.crop, device, workers),
        lambda images, count: _pooled(classifier, layers, images, count, pool, size),
        tell,
    )


_BEHIND = {"cuda": 1}  # batches that a GPU computes while the next is read
# The ids of images that are shown, and what waits for their rows, a table a layer.
Started = tuple[list[str], Callable[[], list[Float[np.ndarray, "images units"]]]]


def _pooled(
    classifier: Classifier,
    layers: Sequence[str],
    images: Iterator[Crop],
    total: int,
    pool: str,
    batch_size: int,
) -> Iterator[dict[str, Float[np.ndarray, "batch units"]]]:
    """Yield each batch's pooled activations by layer, float32."""
    module = classifier.module
    names = {name.rpartition(".")[2] for name, _ in module.named_parameters()}
    class_token = bool(names & {"class_token", "cls_token"})  # as torchvision and timm name it
    views: list[Crop] = []  # read, and not shown yet
    with torch.no_grad(), layer_tools.recorded(module, layers) as outputs:

        def run(first: int, last: int) -> list[Started]:
            count = last - first
            views.extend(islice(images, max(0, count - len(views))))
            started = []
            for size, some in groupby(views[:count], lambda view: view.pixels.shape[:2]):
                part = list(some)
                outputs.clear()
                with classifier.running():
                    module(classifier.input_tensor(np.stack([view.pixels for view in part])))
                missing = [name for name in layers if name not in outputs]
                if missing:
                    raise InputError(f"layers: the network does not use {', '.join(missing)}")
                shape = (len(part), *size)
                patches = classifier.patches
                values = [
                    _pool(name, outputs[name], shape, pool, class_token, patches.get(name)).float()
                    for name in layers
                ]
                started.append(([view.id for view in part], download(*values)))
            del views[:count]  # only now: where memory runs out they are shown again, fewer a pass
            return started

        behind = _BEHIND.get(classifier.device.type, 0)
        waiting: list[list[Started]] = []
        for _, _, started in halving(run, total, batch_size):
            waiting.append(started)
            if len(waiting) > behind:
                yield _rows(layers, waiting.pop(0))
        for started in waiting:
            yield _rows(layers, started)


def _rows(
    layers: Sequence[str], started: Sequence[Started]
) -> dict[str, Float[np.ndarray, "batch units"]]:
    """Wait for a batch; raise for an image whose activations are not finite."""
    parts = []
    for ids, wait in started:
        parts.append(dict(zip(layers, wait(), strict=True)))
        for name, values in parts[-1].items():
            finite = np.isfinite(values).all(1)
            if not finite.all():
                image = ids[finite.argmin()]
                raise InputError(
                    f"activations: layer {name!r} is not finite for the image {image!r}"
                )
    return {name: np.concatenate([part[name] for part in parts]) for name in layers}


def _pool(
    name: str,
    output: Tensor,
    shape: tuple[int, int, int],
    pool: str,
    class_token: bool,
    patch: tuple[float, float] | None = None,
) -> Tensor:
    """Return one value for each image and unit of a layer's output.

    The shape is that of the input: images, height, width.
    """
    count = shape[0]
    if output.ndim not in (2, 3, 4) or len(output) != count:
        raise InputError(
            f"layers: {name!r} outputs {tuple(output.shape)} for {count} images, which is "
            "neither maps, nor tokens, nor one row for each"
        )
    if output.ndim == 2:
        return output
    try:
        layout = layout_of(tuple(output.shape), shape[1:], name, patch)
    except InputError:  # no grid: a class token alone, or tokens that stand for nothing in space
        layout = Layout(1 if output.ndim == 4 else -1, (0, 0), prefix=output.ndim == 3)
    if output.ndim == 3 and class_token and layout.prefix:  # a part may see the grid alone
        return output[:, 0]
    space = (1,) if output.ndim == 3 else (2, 3) if layout.axis == 1 else (1, 2)
    output = output[:, layout.prefix :] if layout.grid[0] else output
    return output.mean(space) if pool == "avg" else output.amax(space)


def record_embeddings(
    encoder: Encoder,
    probe: ProbeSet,
    *,
    folder: str | Path,
    tell: Tell | None = None,
) -> Recording:
    """Record the encoder's rows of the probe images, as the table ``"embeddings"``.

    What labels are then chosen from, of which layers and by which measure, does not matter to them.
    Arguments and errors are those of `record_activations`; the table is (probe, dimensions)
    float32, unit rows in the probe set's order.
    """
    wanted = {"encoder": f"{encoder.name}@{encoder.sha256}", "dtype": "float32"}
    device = getattr(encoder, "device", torch.device("cpu"))

    def read(part: ProbeSet) -> Iterator[Crop] | Iterator[Photograph]:
        if isinstance(encoder, ClipEncoder | ConseEncoder):  # whose crops others can make
            return crops(part, encoder.preprocessing.crop, device)
        return part.photographs()

    def embedded(
        images: Iterator[Crop] | Iterator[Photograph], _: int
    ) -> Iterator[dict[str, Rows]]:
        for batch in batches(images, enough(device)):
            rows = encoder.encode_images(batch)
            finite = np.isfinite(rows).all(1)
            if not finite.all():
                raise InputError(f"encoder: not finite for the image {batch[finite.argmin()].id!r}")
            yield {"embeddings": rows}

    return record(folder, wanted, probe, read, embedded, tell)
