"""The record of an explanation, and whether it says anything: one check before it is scaled.

Scaling makes each map as bright as any other, also one made of rounding errors.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from xailib.explain.explanation import Explanation
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier, Prediction, View
from xailib.networks.forward import ROUNDING

_PRECISIONS = {"exact": 0.0, "tf32": 2.0**-10, "half": 2.0**-7}


def record(
    method: str,
    classifier: Classifier,
    photograph: Photograph,
    target: Prediction,
    view: View,
    **found: Any,
) -> Explanation:
    """Return the explanation of one prediction; ``found`` is what the method itself gives.

    See `Explanation`. A method that does not look itself is only asked whether its map is constant.
    """
    if "no_signal" not in found:
        found["no_signal"] = no_signal(found["raw"], signed=True)
    if found["no_signal"]:
        found["saliency"] = np.zeros_like(found["saliency"])
    return Explanation(
        method=method,
        image=photograph.id,
        image_sha256=photograph.sha256,
        classifier=classifier.id,
        target=target.index,
        target_name=target.name,
        probability=target.probability,
        frame=view.frame,
        parameters={**found.pop("parameters", {}), "precision": classifier.precision},
        **found,
    )


def rounding(classifier: Classifier) -> float:
    """Return how exact a network's scores are, relative to the largest of them."""
    kinds = {p.dtype for p in classifier.module.parameters() if p.is_floating_point()}
    coarse = [torch.finfo(kind).eps for kind in kinds if torch.finfo(kind).bits < 32]
    return max(ROUNDING, classifier.coarse, _PRECISIONS[classifier.precision], *coarse)


def exact_to(
    probabilities: Float[np.ndarray, " samples"], relative: float, logit: float = 0.0
) -> float:
    """Return what probabilities are exact to, if the largest score they are made of is `logit`."""
    errors = probabilities * (1 + (1 - probabilities) * abs(logit))  # of a softmax, to first order
    return relative * float(errors.max())


def no_signal(
    raw: Float[np.ndarray, "rows columns"],
    *,
    signed: bool,
    moved: float = np.inf,
    exact_to: float = 0.0,
    terms: float = 0.0,
    relative: float = ROUNDING,
    what: str = "score",
) -> str:
    """Return why a map says nothing about its target; an empty string if it says something.

    Parameters
    ----------
    raw : (rows, columns) float
        The map, unscaled; negative values count where it is `signed`, else they are clipped.
    moved, exact_to : float
        By how much the target's score differs between what the method compares, found by `what`
        ("score" or "gradient"), and what the score is exact to, in the same unit.
    terms, relative : float
        The largest sum of absolute values that a value of the map is the sum of, and what numbers
        are exact to relative to it, see `rounding`.
    """
    if moved <= exact_to:
        exactly = moved == 0
        if what == "gradient":
            how = "exactly zero" if exactly else "below the score's rounding"
            return f"gradient times activation is {how}"
        return f"the score is constant{'' if exactly else ' within its rounding'}"
    least = relative * max(terms, float(np.abs(raw).max()))
    if least == 0:
        return "the map is exactly zero"
    if float(np.ptp(raw)) <= least:
        return "the map is constant"
    if not signed and float(raw.max()) <= least:
        return "no value of the map is positive"
    return ""
