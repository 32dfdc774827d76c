"""What overlap two masks would have by chance: scattered pixels, moved blobs, other superpixels.

Smooth maps overlap more often than scattered pixels of the same area even if they have nothing
to do with each other. The null models here preserve what is not in question (areas, the blobs'
shapes, the superpixels) and break only the link between the two masks.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.fft import irfft2, rfft2
from scipy.special import gammaln

from xailib.errors import InputError

Mask = Bool[np.ndarray, "height width"]


def chance_iou(area_a: int, area_b: int, total: int) -> float:
    """Return the exact mean IoU of two masks of these areas placed at random among `total`.

    The intersection of two random subsets is hypergeometric; this is the expectation of
    ``k / (area_a + area_b - k)`` over it.
    """
    if area_a + area_b == 0:
        return float("nan")
    overlap = np.arange(max(0, area_a + area_b - total), min(area_a, area_b) + 1)
    # scipy's hypergeom is exact too, and takes seconds for areas of thousands of pixels.
    rest_a, rest_b = area_a - overlap, area_b - overlap
    neither = total - area_a - area_b + overlap
    ways = sum(gammaln(part + 1) for part in (overlap, rest_a, rest_b, neither))
    sizes = (area_a, total - area_a, area_b, total - area_b)
    constant = sum(gammaln(size + 1) for size in sizes) - gammaln(total + 1)
    probability = np.exp(constant - ways)
    return float((probability * overlap / (area_a + area_b - overlap)).sum())


def moved_iou(a: Mask, b: Bool[np.ndarray, "height2 width2"]) -> Float[np.ndarray, " moves"]:
    """Return the IoU of `a` with `b` moved to every place, as it is and mirrored.

    The image is wrapped around, so that areas and blobs stay as they are. These are all ``4 *
    height * width`` moves, not a sample: the intersections of one mirror image come from one
    circular cross-correlation. What is in the middle of most photographs is not preserved; for
    that, compare maps of different photographs. Two shapes or two empty masks raise `InputError`.
    """
    if a.shape != b.shape:
        raise InputError(f"masks: shapes {a.shape} and {b.shape} differ; use one frame")
    sizes = int(a.sum()) + int(b.sum())
    if not sizes:
        raise InputError("masks: both are empty, so they have no overlap by chance")
    spectrum = rfft2(a.astype(np.float64))
    found = []
    for mirrored in (b, b[::-1], b[:, ::-1], b[::-1, ::-1]):
        product = spectrum * rfft2(mirrored.astype(np.float64)).conj()
        overlap = np.rint(irfft2(product, s=a.shape)).ravel()
        found.append(overlap / (sizes - overlap))
    return np.concatenate(found)


def shuffled_iou(
    segments: Int[np.ndarray, "height width"],
    mask: Mask,
    area: int,
    draws: int = 2000,
    seed: int = 0,
) -> Float[np.ndarray, " draws"]:
    """Return the IoU of a mask with superpixels chosen in a random order, up to an area.

    Of the superpixel with which the area is passed, only the share that fits is counted, as if
    its pixels were taken at random.

    Parameters
    ----------
    segments : (height, width) int
        The superpixel of each pixel, numbered from 0.
    mask : (height, width) bool
        What the superpixels are compared with; it stays where it is.
    area : int
        Pixels of superpixels to choose.
    draws : int
        Random orders.
    seed : int
        Of the orders.
    """
    if not 0 <= area <= mask.size or area + mask.sum() == 0:
        raise InputError(f"area: {area} is not between 1 and the {mask.size} pixels of the mask")
    sizes = np.bincount(segments.ravel())
    inside = np.bincount(segments.ravel(), weights=mask.ravel())
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(len(sizes)), (draws, 1)), axis=1)
    before = np.cumsum(sizes[order], axis=1) - sizes[order]
    taken = np.clip((area - before) / np.maximum(sizes[order], 1), 0, 1)
    overlap = (taken * inside[order]).sum(axis=1)
    found: Float[np.ndarray, " draws"] = overlap / (area + mask.sum() - overlap)
    return found


def against(observed: float, null: Float[np.ndarray, " draws"]) -> dict[str, float]:
    """Return a null's mean, its central 95 %, and the share of it at or above what was observed."""
    low, high = np.quantile(null, (0.025, 0.975))
    above = (np.count_nonzero(null >= observed - 1e-12) + 1) / (len(null) + 1)
    return {
        "null_mean": float(null.mean()),
        "null_low": float(low),
        "null_high": float(high),
        "p": float(min(above, 1.0)),
    }
