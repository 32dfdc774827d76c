"""What the explorer computes explanations from, in the reader's browser: one script a photograph.

Behind an average pool, a linear layer's weights and the last feature maps give the class
activation maps of every class, and LIME's samples with their probabilities its linear model.
Scripts, because a page that is opened from a disk may load nothing else.
"""

import base64
import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image
from torch import Tensor, nn

from xailib.compare.masks import lime_superpixels
from xailib.errors import InputError
from xailib.explain.cam.ablation import last_linear, watching
from xailib.explain.cam.gradient import layer_pass
from xailib.explain.cam.methods import cam_layer_of
from xailib.explain.explanation import Explanation
from xailib.explain.sampling import Draw, Perturbed, hidden
from xailib.files import atomic
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier
from xailib.report.figures.explorer import anchor, enlarged
from xailib.report.run.results import Run

NETWORK = "figures/explore-network.js"
LIKELIEST = 20  # classes of which LIME is live
_NEAR = 1e-3  # of the largest number: how far a pass and the closed form may differ


@dataclass(frozen=True)
class Live:
    """The files that make one photograph's explanations live, below the run's folder."""

    photograph: str  #: the script with its feature maps and LIME's samples
    network: str  #: with the output layer's weights, shared by all; empty where only LIME is live
    why: str  #: why only LIME is; empty where the class activation maps are, too


def explorable(
    run: Run,
    classifier: Classifier,
    photographs: Sequence[Photograph],
    limes: Sequence[Explanation],
    *,
    layer: str | None = None,
    num_features: int = 10,
) -> list[Live]:
    """Write what a page needs to explain other classes of these photographs by itself.

    Parameters
    ----------
    run : Run
        Where the files are written.
    classifier, photographs
        What is explained.
    limes : sequence of Explanation
        LIME's, one for each photograph, with its samples. They are scored once more, for the
        probabilities of the `LIKELIEST` classes, which is stored for the next time.
    layer : str or None
        As for `xailib.explain.cam.methods.explain_cam`.
    num_features : int
        Superpixels that a mask holds at first.

    Returns
    -------
    list of Live
        One for each photograph. Class activation maps are live where the network behind `layer` is
        an average pool and a linear layer, which is tried on each photograph's own numbers.

    Raises
    ------
    InputError
        If LIME explains another network or another photograph, or its samples were not stored.
    """
    found = []
    for photograph, lime in zip(photographs, limes, strict=True):
        if (lime.image_sha256, lime.classifier) != (photograph.sha256, classifier.id):
            raise InputError(
                f"model: {classifier.id} and {photograph.id!r} are not what LIME explained, "
                f"{lime.classifier} and {lime.image!r}"
            )
        samples = _samples(run, classifier, photograph, lime)
        maps, why = _maps(classifier, layer, photograph)
        name = anchor(lime.image)
        path = f"figures/{name}-live.js"
        samples["features"] = num_features
        labels = {"independent": classifier.outputs == "multilabel"}
        _write(run, path, name, {**_view(photograph, lime), **labels, **maps, "lime": samples})
        found.append(Live(path, "" if why else NETWORK, why))
    linear = last_linear(classifier.module)
    if linear is not None and any(live.network for live in found):
        weights = linear.weight.detach().float().cpu().numpy().astype(np.float16)
        entries = {"names": classifier.class_names, "weights": packed(weights)}
        _write(run, NETWORK, "network", entries)
    return found


def _maps(
    classifier: Classifier, layer: str | None, photograph: Photograph
) -> tuple[dict[str, Any], str]:
    """Return the layer's maps and the scores for one photograph, or why they are of no use."""
    pixels = classifier.view(photograph).pixels
    inputs = classifier.input_tensor(pixels[None])
    try:
        name = cam_layer_of(classifier, layer)
        with watching(last_linear(classifier.module) or nn.Linear(1, 1)) as seen:
            found = layer_pass(classifier, name, inputs, gradients=False)
    except InputError as error:
        return {}, f"Only LIME is live. {error}"
    maps = found.maps.float()
    expected = maps.mean((2, 3)), found.logits
    if len(seen) != 1 or not all(map(_near, seen[0], expected)):
        return {}, (
            f"Only LIME is live. Behind {name}, {classifier.name} is not an average pool and a "
            "linear layer: heatmaps of other classes take passes of the network."
        )
    values = maps[0].cpu().numpy()
    low, span = values.min((1, 2)), np.ptp(values, axis=(1, 2))
    step = np.where(span > 0, span, 1).astype(np.float32) / np.float32(2**16 - 1)
    levels = np.round((values - low[:, None, None]) / step[:, None, None]).astype(np.uint16)
    numbers = {"low": low, "step": step, "levels": levels, "logits": found.logits[0].cpu().numpy()}
    return {key: packed(one) for key, one in numbers.items()}, ""


def _near(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal but for rounding."""
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= _NEAR * other.abs().max().clamp(min=1))


def _samples(
    run: Run, classifier: Classifier, photograph: Photograph, lime: Explanation
) -> dict[str, Any]:
    """Return LIME's samples with the probabilities of the likeliest classes, the target first."""
    parts = lime_superpixels(lime)
    if parts.shown is None:
        raise InputError(f"explanation: LIME's samples of {lime.image!r} are not stored; run again")
    made = hashlib.sha256(parts.segments.tobytes() + np.packbits(parts.shown).tobytes()).hexdigest()
    key = {"likeliest": LIKELIEST, "lime": made, "target": lime.target, **classifier.identity}
    file = run.cache("activations", {**key, "image": lime.image_sha256}, "xailib.explain")
    file /= "likeliest.npz"
    if not file.is_file():
        found = _scored(classifier, photograph, lime)
        order = np.argsort(-found[0], kind="stable")[:LIKELIEST]
        classes = [lime.target, *(int(index) for index in order if index != lime.target)]
        with atomic(file) as stream:
            np.savez_compressed(stream, classes=classes, probabilities=found[:, classes].T)
    with np.load(file) as stored:
        classes, probabilities = stored["classes"].tolist(), stored["probabilities"]
    return {
        "block": parts.block,
        "classes": [[index, classifier.class_names[index]] for index in classes],
        "segments": packed(parts.segments.astype(np.uint16)),
        "shown": packed(parts.shown.astype(np.uint8)),
        "probabilities": packed(probabilities.astype(np.float32)),
    }


def _scored(
    classifier: Classifier, photograph: Photograph, lime: Explanation
) -> Float32[np.ndarray, "samples classes"]:
    """Return all probabilities of LIME's samples; the first sample is the whole view."""
    parts, pixels = lime_superpixels(lime), classifier.view(photograph).pixels
    blank = hidden(pixels, parts.segments, lime.parameters["hide_color"])
    perturbed = Perturbed(classifier, [pixels], [blank], [parts.segments])
    rows = np.asarray(parts.shown, int)
    draw = Draw.of([0], [rows], [parts.segments], classifier.device)
    return perturbed.scored(draw)[0][draw.place[0]].cpu().numpy()


def _view(photograph: Photograph, lime: Explanation) -> dict[str, Any]:
    stream = io.BytesIO()
    picture = Image.fromarray(enlarged(lime.frame).show(photograph.pixels))
    picture.save(stream, "WEBP", quality=70, method=6)
    return {
        "image": lime.image,
        "target": lime.target,
        "size": lime.frame.size,
        "view": f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}",
    }


def packed(values: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    """Return an array as JSON: type, shape, and its bytes, alike ones together, deflated.

    Numbers of several bytes are taken apart, which saves an eighth of trained weights.
    """
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    planes = plain.reshape(-1).view(np.uint8).reshape(-1, plain.itemsize).T
    text = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()
    return {"type": str(values.dtype), "shape": list(values.shape), "data": text}


def _write(run: Run, path: str, name: str, entries: dict[str, Any]) -> None:
    with run.open(path) as file:
        file.write(f"xailib.live.take({json.dumps(name)}, {json.dumps(entries)});\n".encode())
