"""LIME's linear model: the ridge regression of a target's probability on what samples show.

On a CPU it is lime's own code. On a GPU the models of many images are solved at once, in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from lime import lime_image
from sklearn.metrics import pairwise_distances
from torch import Tensor

WIDTH = 0.25  # of lime's kernel


@dataclass(frozen=True)
class Fits:
    """The linear models of several images and targets."""

    # zero for superpixels that an image has not
    weights: Float64[Tensor, "images targets superpixels"]
    intercept: Float64[Tensor, "images targets"]  # the prediction with all superpixels hidden
    fit: Float64[Tensor, "images targets"]  # R squared, weighted


def closeness(
    shown: Bool[Tensor, "images samples superpixels"], superpixels: Int[Tensor, " images"]
) -> Float64[Tensor, "images samples"]:
    """Return lime's weight of each sample by its cosine distance to the whole image.

    `superpixels`: how many of the columns are an image's own; in others nothing is shown.
    """
    share = shown.sum(-1, dtype=torch.float64) / superpixels[:, None]
    return torch.exp(-((1 - share.sqrt()) ** 2) / WIDTH**2).sqrt()


def fit(
    shown: Bool[Tensor, "images samples superpixels"],
    scores: Float[Tensor, "images samples targets"],
    near: Float64[Tensor, "images samples"],
) -> Fits:
    """Return the ridge regressions (penalty 1, free intercept) of scores on what samples show.

    A sample with weight 0 counts for nothing, and a superpixel that is never shown gets none.
    Nothing waits for the device.
    """
    columns, values = shown.double(), scores.double()
    share = (near / near.sum(1, keepdim=True))[:, None]  # images, 1, samples
    middle, level = share @ columns, share @ values
    columns, values = columns - middle, values - level
    pull = columns.mT * near[:, None]
    penalised = pull @ columns
    penalised.diagonal(dim1=1, dim2=2).add_(1)
    factor, _ = torch.linalg.cholesky_ex(penalised)
    weights = torch.cholesky_solve(pull @ values, factor)
    left = (near[..., None] * (values - columns @ weights) ** 2).sum(1)
    spread = (near[..., None] * values**2).sum(1)
    # As scikit-learn has it where all scores are equal.
    explained = torch.where(spread > 0, 1 - left / spread, (left == 0).double())
    return Fits(weights.mT, (level - middle @ weights)[:, 0], explained)


def fit_as_lime(
    data: Int[np.ndarray, "samples superpixels"],
    scores: Float[np.ndarray, "samples targets"],
    rng: np.random.RandomState,
) -> list[tuple[Float64[np.ndarray, " superpixels"], float, float]]:
    """Return weights, intercept and R squared for each target, by lime's own code."""
    base = lime_image.LimeImageExplainer(kernel_width=WIDTH, random_state=rng).base
    distances = pairwise_distances(data, data[:1], metric="cosine").ravel()
    found = []
    for target in range(scores.shape[1]):
        every = data.shape[1]
        intercept, pairs, score, _ = base.explain_instance_with_data(
            data, scores, distances, target, max(every, 100000), feature_selection="auto"
        )
        weights = np.zeros(every)
        for superpixel, weight in pairs:
            weights[superpixel] = weight
        found.append((weights, float(intercept), float(score)))
    return found


def padded(
    data: Sequence[Int[np.ndarray, "_ _"]],
) -> Bool[np.ndarray, "images samples superpixels"]:
    """Return samples of several images as one array, filled up with samples that show nothing."""
    samples, superpixels = (max(rows.shape[axis] for rows in data) for axis in (0, 1))
    found = np.zeros((len(data), samples, superpixels), bool)
    for image, rows in enumerate(data):
        found[image, : rows.shape[0], : rows.shape[1]] = rows
    return found
