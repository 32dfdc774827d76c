"""lime's explainer with the step replaced that takes all its time: scoring the samples.

Superpixels, samples, distances and the linear model are lime's own code. Perturbed pictures are
made by choosing pixels, on the classifier's device, a batch at a time, and equal samples are
scored once.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped, UInt8
from lime import lime_image
from lime.lime_base import LimeBase
from torch import Tensor
from tqdm import tqdm

from xailib.explain.sampling import DESIGNS
from xailib.explain.stability import STEP, next_draw
from xailib.networks.classifier import BATCH, Classifier, as_probabilities

Samples = tuple[Bool[np.ndarray, "samples superpixels"], Float[np.ndarray, "samples categories"]]
Enough = Callable[
    [Bool[np.ndarray, "samples superpixels"], Float[np.ndarray, "samples categories"]], bool
]


class _Base(LimeBase):
    """lime's linear model, which also keeps each category's R squared."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.fits: dict[int, float] = {}

    def explain_instance_with_data(
        self,
        data: Int[np.ndarray, "samples superpixels"],
        labels: Float[np.ndarray, "samples categories"],
        distances: Float[np.ndarray, " samples"],
        label: int | np.integer,
        *args: object,
        **kwargs: object,
    ) -> tuple:
        """Return the intercept, weights, R squared and local prediction, as lime does."""
        found = super().explain_instance_with_data(data, labels, distances, label, *args, **kwargs)
        self.fits[int(label)] = float(found[2])
        return found


class LimeImageExplainer(lime_image.LimeImageExplainer):
    """lime's own explainer with a faster engine: same arguments, same `ImageExplanation`.

    ``explain_instance`` takes a `Classifier` as its ``classifier_fn``, for which pictures are
    perturbed on its device and scored by the fastest exact engine; any other function works as
    with lime, and sees each perturbed picture once. With the same ``random_state``, the same
    superpixels and samples as lime's. Several ``labels`` are explained from one sampling.

    Parameters
    ----------
    *args, **kwargs
        As for lime.
    engine : str
        See `xailib.networks.forward.forward_batches`.
    progress : bool
        Draw a progress bar in the terminal.
    enough : callable, optional
        Of the samples so far and their probabilities: whether to stop before ``num_samples``.
    design : str
        How samples are drawn, see `xailib.explain.sampling`; ``"independent"`` is lime's way.
    step : int
        Samples drawn before ``enough`` is asked; see `xailib.explain.stability.next_draw`.

    Attributes
    ----------
    used : str
        The engine of the last explanation; ``"function"`` if it was not a `Classifier`.
    samples : tuple of arrays
        Of the last explanation: which superpixels each sample shows, (samples, superpixels)
        bool, and its probabilities, (samples, categories).
    stopped : bool
        Whether ``enough`` ended the last explanation.
    """

    base: _Base

    def __init__(
        self,
        *args: object,
        engine: str = "auto",
        progress: bool = False,
        enough: Enough | None = None,
        design: str = "independent",
        step: int = STEP,
        **kwargs: object,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.base = _Base(self.base.kernel_fn, self.base.verbose, self.random_state)
        self.engine = engine
        self.progress = progress
        self.enough = enough
        self.design = DESIGNS[design]
        self.step = step
        self.used = "function"
        self.stopped = False
        self.samples: Samples = (np.empty((0, 0), bool), np.empty((0, 0)))

    @property
    def fits(self) -> dict[int, float]:
        """R squared of the last explanation's models, by category; lime keeps the last one's."""
        return self.base.fits

    def data_labels(
        self,
        image: Shaped[np.ndarray, "height width colours"],
        fudged_image: Shaped[np.ndarray, "height width colours"],
        segments: Int[np.ndarray, "height width"],
        classifier_fn: Classifier | Callable,
        num_samples: int,
        batch_size: int = BATCH,
    ) -> tuple[Int[np.ndarray, "samples superpixels"], Float[np.ndarray, "samples categories"]]:
        """Return which superpixels each sample shows, and its probabilities (lime's hook)."""
        self.base.fits = {}
        count = np.unique(segments).shape[0]
        pictures = (image, fudged_image, segments)
        step = self.step if self.enough else num_samples
        engine = self.engine
        data, found = np.empty((0, count), int), None
        self.stopped = False
        with tqdm(total=num_samples, disable=not self.progress, leave=False) as bar:
            while found is None or len(data) < num_samples:
                # One draw or many take the same numbers from lime's generator.
                drawn = next_draw(len(data), num_samples, step)
                more = self.design(self.random_state, drawn, count)
                if found is None:
                    more[0] = 1
                scores = self._score(more, *pictures, classifier_fn, batch_size, engine, bar.update)
                # What served the first samples serves all, however few come last.
                engine = self.used
                data = np.concatenate([data, more])
                found = scores if found is None else np.concatenate([found, scores])
                bar.update(len(data) - bar.n)  # those that were scored before
                if self.enough and self.enough(data.astype(bool), found):
                    self.stopped = True
                    break
        self.samples = (data.astype(bool), found)
        return data, found

    def _score(
        self,
        data: Int[np.ndarray, "samples superpixels"],
        image: Shaped[np.ndarray, "height width colours"],
        fudged_image: Shaped[np.ndarray, "height width colours"],
        segments: Int[np.ndarray, "height width"],
        classifier_fn: Classifier | Callable,
        batch_size: int,
        engine: str,
        update: Callable[[int], object],
    ) -> Float[np.ndarray, "samples categories"]:
        """Return the probabilities of samples; equal ones are scored once."""
        _, first, place = np.unique(data, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)  # as drawn, so that the whole picture comes first
        # lime hides by number: what is numbered beyond the count always shows.
        shown = np.ones((len(first), max(data.shape[1], int(segments.max()) + 1)), bool)
        shown[:, : data.shape[1]] = data[first[order]]
        pictures = (image, fudged_image, segments, shown)
        if isinstance(classifier_fn, Classifier):
            found, self.used = _scored(classifier_fn, *pictures, batch_size, engine, update)
        else:
            found, self.used = _called(classifier_fn, *pictures, batch_size, update), "function"
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return found[rank[place.ravel()]]


def _scored(
    classifier: Classifier,
    image: UInt8[np.ndarray, "height width 3"],
    hidden: UInt8[np.ndarray, "height width 3"],
    segments: Int[np.ndarray, "height width"],
    shown: Bool[np.ndarray, "samples superpixels"],
    batch_size: int,
    engine: str,
    update: Callable[[int], object],
) -> tuple[Float32[np.ndarray, "samples categories"], str]:
    """Return probabilities of perturbed pictures that never leave the classifier's device."""
    # Normalising works pixel by pixel: once for either picture, then pixels are only chosen.
    whole, blank = (classifier.input_tensor(pixels[None]) for pixels in (image, hidden))
    place = torch.from_numpy(np.ascontiguousarray(segments)).long().to(classifier.device)
    rows = torch.from_numpy(shown).to(classifier.device)

    def perturbed(start: int, stop: int) -> Tensor:
        update(stop - start)
        pixels = rows[start:stop].index_select(1, place.flatten()).unflatten(1, place.shape)
        batch = torch.where(pixels[:, None], whole, blank)
        return batch.contiguous(memory_format=torch.channels_last)

    found = classifier.forward_batches(perturbed, len(shown), batch_size=batch_size, engine=engine)
    return as_probabilities(found.logits).cpu().numpy(), found.engine


def _called(
    classifier_fn: Callable,
    image: Shaped[np.ndarray, "height width colours"],
    hidden: Shaped[np.ndarray, "height width colours"],
    segments: Int[np.ndarray, "height width"],
    shown: Bool[np.ndarray, "samples superpixels"],
    batch_size: int,
    update: Callable[[int], object],
) -> Float[np.ndarray, "samples categories"]:
    """Return what a function says of the perturbed pictures, `batch_size` at a time."""
    parts = []
    for start in range(0, len(shown), batch_size):
        pixels = shown[start : start + batch_size][:, segments]
        parts.append(np.asarray(classifier_fn(np.where(pixels[..., None], image, hidden))))
        update(len(pixels))
    return np.concatenate(parts)
