"""Class activation maps: which part of a layer's feature maps a prediction rests on."""

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float32
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor

from xailib.errors import InputError, unknown_name
from xailib.explain.cam.ablation import RULES, ablation_weights
from xailib.explain.cam.gradient import GRADIENT_METHODS, gradient_map, guided_backprop
from xailib.explain.cam.layout import layout_of, token_layer
from xailib.explain.cam.scorecam import score_weights
from xailib.explain.cam.tail import Tail
from xailib.explain.explanation import Explanation
from xailib.explain.record import record
from xailib.images.load import Photograph
from xailib.networks.classifier import BATCH, Classifier, Prediction, as_probabilities
from xailib.networks.forward import ENGINES
from xailib.networks.layers import evaluation

__all__ = ["METHODS", "cam_layer_of", "check_methods", "explain_cam", "guided_backprop"]

# The classes of the grad-cam package that do the same; the gradient methods are computed by them.
METHODS = MappingProxyType({**GRADIENT_METHODS, "ablationcam": AblationCAM, "scorecam": ScoreCAM})


def check_methods(methods: Sequence[str]) -> None:
    """Raise unless `methods` names at least one, each known.

    Raises
    ------
    InputError
        Before any work; with near matches.
    """
    if not methods:
        raise InputError(f"methods: the list is empty; allowed: {', '.join(METHODS)}")
    for method in methods:
        if method not in METHODS:
            raise unknown_name("methods", method, METHODS)


def cam_layer_of(classifier: Classifier, layer: str | None = None) -> str:
    """Return the layer to use: the one named, or the classifier's own.

    That is its last layer with feature maps; where tokens follow these (ViT, Swin), the norm in
    front of the last attention.

    Raises
    ------
    InputError
        For an unknown name, or where none is named and the network has neither.
    """
    name = layer or classifier.cam_layer or token_layer(classifier.module)
    if name is None:
        raise InputError(
            f"layer: {classifier.name} has neither feature maps nor attention over tokens; "
            "name a layer whose output is one of these"
        )
    classifier.layer(name)
    return name


def explain_cam(
    classifier: Classifier,
    photograph: Photograph,
    method: str = "gradcam",
    target: int | str | None = None,
    *,
    layer: str | None = None,
    batch_size: int = BATCH,
    engine: str = "auto",
    rule: str = "centred",
) -> Explanation:
    """Explain one prediction by a class activation map of one layer.

    Parameters
    ----------
    classifier, photograph
        What is explained.
    method : str
        A name in `METHODS`.
    target : int or str, optional
        A category's index or name; by default the predicted one. Its logit is explained.
    layer : str, optional
        A `named_modules` name; by default `cam_layer_of` the classifier. Its output may be
        feature maps, channels first or last, or tokens.
    batch_size : int
        Pictures a forward pass, for the methods that need many; it bounds their memory.
    engine : str
        For these, see `xailib.networks.forward.forward_batches`.
    rule : str
        For ``"ablationcam"``, see `xailib.explain.cam.ablation.ablation_weights`.

    Returns
    -------
    Explanation
        In [0, 1], as grad-cam scales it (negative parts cut, then by minimum and maximum);
        ``raw`` is the weighted sum of the layer's maps before that. ``parameters`` say the
        layer, and for the methods with many passes how and by which engine they were made.

    Raises
    ------
    InputError
        For an unknown method, layer, target, engine or rule, or a layer without feature maps.
    """
    for argument, given, allowed in (
        ("method", method, METHODS),
        ("engine", engine, ENGINES),
        ("rule", rule, RULES),
    ):
        if given not in allowed:
            raise unknown_name(argument, given, allowed)
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} is not at least 1")
    name = cam_layer_of(classifier, layer)
    index = None if target is None else classifier.category_index(target)
    view = classifier.view(photograph)
    picture = classifier.input_tensor(view.pixels[None])
    with evaluation(classifier.module):
        tail = Tail(classifier.module, name, picture)
        chosen = _prediction(classifier, tail.logits, index)
        layout = layout_of(tuple(tail.output.shape), view.frame.size, name)
        parameters = {"layer": name}
        if method in GRADIENT_METHODS:
            raw = gradient_map(method, classifier, picture, name, layout, chosen.index)
        else:
            maps = layout.maps(tail.output)
            if method == "ablationcam":
                found = ablation_weights(
                    tail, layout, chosen.index, rule=rule, batch_size=batch_size, engine=engine
                )
                weights = found.weights
                parameters |= {"rule": rule, "passes": found.how, "engine": found.engine}
            else:
                weights, used = score_weights(
                    classifier, picture, maps, chosen.index, batch_size=batch_size, engine=engine
                )
                parameters |= {"engine": used}
            combined = torch.einsum("c,chw->hw", weights.double(), maps[0].double())
            raw = combined.float().cpu().numpy()
    return record(
        method,
        classifier,
        photograph,
        chosen,
        view,
        saliency=_saliency(raw, view.frame.size),
        raw=raw,
        parameters=parameters,
    )


def _prediction(
    classifier: Classifier, logits: Float32[Tensor, "1 categories"], index: int | None
) -> Prediction:
    """Return the category to explain, from scores that are there already."""
    if not torch.isfinite(logits).all():
        raise InputError(f"model: {classifier.name!r} gives scores that are not finite")
    probabilities = as_probabilities(logits)[0]
    best = int(probabilities.argmax()) if index is None else index
    return Prediction(best, classifier.categories[best], float(probabilities[best]))


def _saliency(
    raw: Float32[np.ndarray, "rows columns"], size: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    """Return a map as grad-cam shows it: negative parts cut, scaled, enlarged, scaled again."""
    enlarged = scale_cam_image(np.maximum(raw, 0)[None], size[::-1])
    return scale_cam_image(np.maximum(enlarged, 0))[0].astype(np.float32)
