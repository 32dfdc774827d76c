"""How sure LIME's weights and mask are, from the samples that it drew: no further forward pass.

Another seed would have drawn other samples. The bootstrap imitates that (Efron 1979): the linear
model is fitted again to samples drawn, with replacement, from those at hand. How much two such
refits differ tells how much two runs of LIME differ.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from xailib.errors import InputError
from xailib.explanation import Superpixels

REFITS = 200

# What is called stable: with this confidence, the masks of two runs agree by at least this IoU.
CONFIDENCE = 0.9
AGREEMENT = 0.8

Shown = Bool[np.ndarray, "samples superpixels"]
Scores = Float[np.ndarray, " samples"]
Areas = Int[np.ndarray, " superpixels"]
Weights = Float[np.ndarray, "refits superpixels"]
Chosen = Bool[np.ndarray, "refits superpixels"]


@dataclass(frozen=True)
class Stability:
    """What two runs of LIME with other seeds would have in common.

    Attributes
    ----------
    samples : int
        Perturbed pictures that the weights rest on.
    low, high : (superpixels,) float
        95 % bootstrap interval of each weight.
    chosen_again : (superpixels,) float
        Share of refits in whose mask the superpixel is.
    iou : float
        Expected IoU, in pixels, of the masks of two runs.
    iou_low : float
        The IoU that two runs exceed with the stated confidence.
    rank_correlation : float
        Expected Spearman correlation of the weights of two runs.
    """

    samples: int
    low: Float[np.ndarray, " superpixels"]
    high: Float[np.ndarray, " superpixels"]
    chosen_again: Float[np.ndarray, " superpixels"]
    iou: float
    iou_low: float
    rank_correlation: float


def stability(parts: Superpixels, num_features: int = 10, seed: int = 0) -> Stability:
    """Return how far another run of LIME would agree with this one.

    Raises
    ------
    InputError
        If the explanation kept no samples, or `num_features` is below 1.
    """
    if parts.shown is None or parts.scores is None:
        raise InputError("explanation: it keeps no samples; explain it again with explain_lime")
    areas = np.bincount(parts.segments.ravel(), minlength=parts.shown.shape[1])
    return stability_of(parts.shown, parts.scores, areas, num_features, seed=seed)


def stability_of(
    shown: Shown,
    scores: Scores,
    areas: Areas,
    num_features: int = 10,
    *,
    confidence: float = CONFIDENCE,
    refits: int = REFITS,
    seed: int = 0,
) -> Stability:
    """Return how far two sets of samples like these would lead to the same mask.

    Parameters
    ----------
    shown, scores
        The samples and the target's probability for each.
    areas
        Pixels of each superpixel.
    num_features : int
        Superpixels in the mask: those that support the target most (LIME 1).
    confidence : float
        Of ``iou_low``, above 0 and below 1.
    refits : int
        Bootstrap samples, at least 2.
    seed : int
        Of the bootstrap.

    Raises
    ------
    InputError
        If a parameter is out of range.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence: {confidence} is not between 0 and 1")
    if refits < 2:
        raise InputError(f"refits: {refits} is below 2")
    drawn = bootstrap_weights(shown, scores, refits, seed)
    chosen = supporters(drawn, num_features)
    ious = mask_iou(chosen, np.roll(chosen, 1, axis=0), areas)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Stability(
        len(shown),
        low,
        high,
        chosen.mean(axis=0),
        float(ious.mean()),
        float(np.quantile(ious, 1 - confidence)),
        float(rank_correlation(drawn, np.roll(drawn, 1, axis=0)).mean()),
    )


def is_stable(found: Stability) -> bool:
    """Return whether a mask counts as stable: see `CONFIDENCE` and `AGREEMENT`."""
    return found.iou_low >= AGREEMENT


def closeness(shown: Shown) -> Scores:
    """Return lime's weight of each sample: 1 for the whole view, less the more is hidden.

    That is ``sqrt(exp(-d**2 / 0.25**2))`` of the cosine distance d to the whole view.
    """
    share = np.sqrt(shown.mean(axis=1))
    return np.sqrt(np.exp(-((1 - share) ** 2) / 0.25**2))


def fit(shown: Shown, scores: Scores, counts: Int[np.ndarray, "refits samples"]) -> Weights:
    """Return lime's ridge regression (penalty 1, free intercept) for each row of sample counts.

    ``counts`` says how often each sample takes part; ones give lime's own weights.
    """
    columns = shown.astype(float)
    found = np.empty((len(counts), columns.shape[1]))
    near = closeness(shown)
    for refit, count in enumerate(counts):
        weight = near * count
        used = weight > 0
        part, share = columns[used], weight[used] / weight.sum()
        centred = part - share @ part
        pull = centred.T * weight[used]
        penalised = pull @ centred + np.eye(columns.shape[1])
        found[refit] = np.linalg.solve(penalised, pull @ (scores[used] - share @ scores[used]))
    return found


def bootstrap_weights(shown: Shown, scores: Scores, refits: int, seed: int) -> Weights:
    """Return the weights of refits to samples drawn with replacement.

    The first sample is the whole view in every run of LIME, and so it is here.
    """
    rng = np.random.default_rng(seed)
    others = len(shown) - 1
    counts = rng.multinomial(others, np.full(others, 1 / others), size=refits)
    return fit(shown, scores, np.concatenate([np.ones((refits, 1), int), counts], axis=1))


def supporters(weights: Weights, num_features: int) -> Chosen:
    """Return which superpixels each row's mask holds: the `num_features` largest positive ones."""
    if num_features < 1:
        raise InputError(f"num_features: {num_features} is below 1")
    chosen = np.zeros(weights.shape, bool)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :num_features]
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen & (weights > 0)


def mask_iou(one: Chosen, other: Chosen, areas: Areas) -> Float[np.ndarray, " refits"]:
    """Return the masks' IoU in pixels, row by row; 1 where both are empty."""
    union = (one | other) @ areas
    return np.where(union > 0, ((one & other) @ areas) / np.maximum(union, 1), 1.0)


def rank_correlation(one: Weights, other: Weights) -> Float[np.ndarray, " refits"]:
    """Return Spearman's correlation of two sets of weights, row by row."""
    ranks = [rankdata(weights, axis=1) for weights in (one, other)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
