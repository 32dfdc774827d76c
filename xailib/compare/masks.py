"""Masks: which pixels an explanation chooses, by a stated rule."""

import zlib

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int64, Shaped

from xailib.errors import InputError
from xailib.explain.explanation import Explanation, Signs, Superpixels

Mask = Bool[np.ndarray, "height width"]


def lime_superpixels(explanation: Explanation) -> Superpixels:
    """Return LIME's linear model, or raise for another method's explanation."""
    if explanation.superpixels is None:
        raise InputError(f"explanation: {explanation.method} has no superpixels; LIME has")
    return explanation.superpixels


def lime_mask(
    explanation: Explanation, num_features: int = 10, signs: Signs = "both"
) -> Int8[np.ndarray, "height width"]:
    """Return the superpixels that LIME ranks highest: 1 supports, -1 opposes, 0 not chosen.

    ``signs="positive"`` is the seed's LIME 1, the `num_features` superpixels that support the
    target most; ``signs="both"`` its LIME 2, those of largest absolute weight: lime's own
    ``get_image_and_mask``. An explanation without signal chooses none; one without superpixels, or
    `num_features` below 1, raises `InputError`.
    """
    parts = lime_superpixels(explanation)
    if num_features < 1:
        raise InputError(f"num_features: {num_features} is below 1")
    chosen = np.zeros(len(parts.weights), np.int8)
    ranked = [] if explanation.no_signal else parts.ranked(num_features, signs)
    for superpixel in ranked:
        chosen[superpixel] = -1 if parts.weights[superpixel] < 0 else 1
    return chosen[parts.segments]


def area_mask(saliency: Float32[np.ndarray, "height width"], pixels: int) -> Mask:
    """Return exactly the `pixels` highest pixels: masks of equal area can be compared fairly.

    Ties are broken as in `highest_first`. `InputError` is raised if there are fewer pixels.
    """
    if not 0 <= pixels <= saliency.size:
        raise InputError(f"pixels: {pixels} is not between 0 and {saliency.size}")
    mask = np.zeros(saliency.size, bool)
    mask[highest_first(saliency)[:pixels]] = True
    return mask.reshape(saliency.shape)


def highest_first(values: Shaped[np.ndarray, "..."]) -> Int64[np.ndarray, " values"]:
    """Return the flat indices of all values, the highest first.

    Ties, which a ReLU leaves at zero, are broken at random, so that no side of the image is
    preferred. The seed is made of the map's own ranks: equal maps, and maps that rank alike,
    give equal orders, and two maps that share their zeros do not share what fills them up.
    """
    flat = values.ravel()
    _, ranks = np.unique(flat, return_inverse=True)
    seed = zlib.crc32(ranks.astype(np.int64).tobytes())
    order: Int64[np.ndarray, " values"] = np.lexsort(
        (np.random.default_rng(seed).random(flat.size), -flat)
    )
    return order


def value_mask(saliency: Float32[np.ndarray, "height width"], threshold: float) -> Mask:
    """Return the pixels above `threshold` of a map scaled to [0, 1].

    A scaled map's values depend on its own range, so the same threshold gives other areas from
    other maps; 0 is what the seed did, and what is not in [0, 1) raises `InputError`.
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold: {threshold} is not at least 0 and below 1")
    return saliency > threshold
