"""The record of an explanation, with what every method takes from the same places."""

from typing import Any

import numpy as np

from xailib.explain.explanation import Explanation
from xailib.explain.signal import no_signal
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier, Prediction, View


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
