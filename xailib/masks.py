"""Masks: which pixels an explanation chooses, by a stated rule."""

import numpy as np
from jaxtyping import Bool, Float32, Int8

from xailib.errors import InputError
from xailib.explanation import Explanation, Signs

Mask = Bool[np.ndarray, "height width"]


def lime_mask(
    explanation: Explanation, num_features: int = 10, signs: Signs = "both"
) -> Int8[np.ndarray, "height width"]:
    """Return the superpixels that LIME ranks highest: 1 supports, -1 opposes, 0 not chosen.

    ``signs="positive"`` is the seed's LIME 1, the `num_features` superpixels that support the
    target most; ``signs="both"`` its LIME 2, those of largest absolute weight. The same as
    lime's own ``get_image_and_mask``.

    Raises
    ------
    InputError
        If the explanation has no superpixels, or `num_features` is below 1.
    """
    parts = explanation.superpixels
    if parts is None:
        raise InputError(f"explanation: {explanation.method} has no superpixels; LIME has")
    if num_features < 1:
        raise InputError(f"num_features: {num_features} is below 1")
    chosen = np.zeros(len(parts.weights), np.int8)
    for superpixel in parts.ranked(num_features, signs):
        chosen[superpixel] = -1 if parts.weights[superpixel] < 0 else 1
    return chosen[parts.segments]


def area_mask(saliency: Float32[np.ndarray, "height width"], pixels: int) -> Mask:
    """Return exactly the `pixels` highest pixels: masks of equal area can be compared fairly.

    Ties, which a ReLU leaves at zero, are broken at random with a fixed seed, so that no side
    of the picture is preferred.

    Raises
    ------
    InputError
        If there are fewer pixels than that.
    """
    if not 0 <= pixels <= saliency.size:
        raise InputError(f"pixels: {pixels} is not between 0 and {saliency.size}")
    lots = np.random.default_rng(0).random(saliency.size)
    order = np.lexsort((lots, -saliency.ravel()))
    mask = np.zeros(saliency.size, bool)
    mask[order[:pixels]] = True
    return mask.reshape(saliency.shape)


def value_mask(saliency: Float32[np.ndarray, "height width"], threshold: float) -> Mask:
    """Return the pixels above `threshold` of a map scaled to [0, 1].

    A scaled map's values depend on its own extremes, so the same threshold cuts other areas
    from other maps; ``threshold=0`` is what the seed did.

    Raises
    ------
    InputError
        If the threshold is not in [0, 1).
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold: {threshold} is not at least 0 and below 1")
    return saliency > threshold
