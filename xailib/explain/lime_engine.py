"""What of lime takes its time: scoring the samples, and on a GPU fitting the linear models.

On a CPU the ridge regression of a target's probability on what samples show is lime's own code. On
a GPU the models of many images are solved at once, in float64.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from lime import lime_image
from sklearn.metrics import pairwise_distances
from torch import Tensor

from xailib.explain.sampling import Draw, Perturbed, distinct, independent
from xailib.networks.classifier import BATCH, Classifier

WIDTH = 0.25  # of lime's kernel


class LimeImageExplainer(lime_image.LimeImageExplainer):
    """lime's own explainer with a faster engine: same arguments, same `ImageExplanation`.

    ``explain_instance`` takes a `Classifier` as its ``classifier_fn``, for which images are
    perturbed on its device and scored by the fastest exact engine; any other function works as with
    lime, and sees each perturbed image once. With the same ``random_state``, the same superpixels
    and samples as lime's. Several ``labels`` are explained from one sampling.

    Parameters
    ----------
    engine : str
        See `xailib.networks.forward.forward_batches`.
    *args, **kwargs
        As for lime.
    """

    def __init__(self, *args: object, engine: str = "auto", **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.engine = engine

    def data_labels(
        self,
        image: Shaped[np.ndarray, "height width colours"],
        fudged_image: Shaped[np.ndarray, "height width colours"],
        segments: Int[np.ndarray, "height width"],
        classifier_fn: Classifier | Callable,
        num_samples: int,
        batch_size: int | None = None,
    ) -> tuple[Int[np.ndarray, "samples superpixels"], Float[np.ndarray, "samples classes"]]:
        """Return which superpixels each sample shows, and its probabilities (lime's hook)."""
        data = independent(self.random_state, num_samples, len(np.unique(segments)))
        data[0] = 1
        if isinstance(classifier_fn, Classifier):
            perturbed = Perturbed(classifier_fn, [image], [fudged_image], [segments])
            draw = Draw.of([0], [data], [segments], classifier_fn.device)
            found, _ = perturbed.scored(draw, batch_size=batch_size, engine=self.engine)
            return data, found[draw.place[0]].cpu().numpy()
        shown, place = distinct(data, int(segments.max()) + 1)
        parts = []
        size = batch_size or BATCH
        for start in range(0, len(shown), size):
            pixels = shown[start : start + size][:, segments, None]
            parts.append(np.asarray(classifier_fn(np.where(pixels, image, fudged_image))))
        return data, np.concatenate(parts)[place]


def fit(
    shown: Bool[Tensor, "images samples superpixels"],
    scores: Float[Tensor, "images samples targets"],
    near: Float64[Tensor, "images samples"],
) -> tuple[
    Float64[Tensor, "images targets superpixels"],
    Float64[Tensor, "images targets"],
    Float64[Tensor, "images targets"],
]:
    """Return the ridge regressions (penalty 1, free intercept) of scores on what samples show.

    Weights, the prediction with all superpixels hidden, and R squared. A sample with weight 0
    counts for nothing, and a superpixel that is never shown gets none. Nothing waits for the
    device.
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
    return weights.mT, (level - middle @ weights)[:, 0], explained


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
        intercept, pairs, score, _ = base.explain_instance_with_data(
            data, scores, distances, target, max(data.shape[1], 100000), feature_selection="auto"
        )
        weights = np.zeros(data.shape[1])
        superpixels, values = zip(*pairs, strict=True)
        weights[list(superpixels)] = values
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
