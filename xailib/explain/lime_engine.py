"""lime's own explainer with the step replaced that takes all its time: scoring the samples."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped, UInt8
from lime import lime_image
from torch import Tensor
from tqdm import tqdm

from xailib.explain.perturbed import Perturbed, distinct
from xailib.explain.sampling import independent
from xailib.networks.classifier import BATCH, Classifier
from xailib.networks.memory import upload


class LimeImageExplainer(lime_image.LimeImageExplainer):
    """lime's own explainer with a faster engine: same arguments, same `ImageExplanation`.

    ``explain_instance`` takes a `Classifier` as its ``classifier_fn``, for which images are
    perturbed on its device and scored by the fastest exact engine; any other function works as with
    lime, and sees each perturbed image once. With the same ``random_state``, the same superpixels
    and samples as lime's. Several ``labels`` are explained from one sampling.

    Parameters
    ----------
    engine : str
        See `xailib.networks.forward.forward_batches`; ``used`` is that of the last explanation, or
        ``"function"`` if it was not a `Classifier`'s.
    progress : bool
        Draw a progress bar in the terminal.
    *args, **kwargs
        As for lime.
    """

    def __init__(
        self, *args: object, engine: str = "auto", progress: bool = False, **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)
        self.engine = engine
        self.progress = progress
        self.used = "function"

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
        shown, place = distinct(data, int(segments.max()) + 1)
        with tqdm(total=num_samples, disable=not self.progress, leave=False) as bar:
            work = image, fudged_image, segments, shown, batch_size, bar.update
            if isinstance(classifier_fn, Classifier):
                found, self.used = _scored(classifier_fn, self.engine, *work)
            else:
                found, self.used = _called(classifier_fn, *work), "function"
        return data, found[place]


def _scored(
    classifier: Classifier,
    engine: str,
    image: UInt8[np.ndarray, "height width 3"],
    blank: UInt8[np.ndarray, "height width 3"],
    segments: Int[np.ndarray, "height width"],
    shown: Bool[np.ndarray, "samples superpixels"],
    batch_size: int | None,
    update: Callable[[int], object],
) -> tuple[Float32[np.ndarray, "samples classes"], str]:
    """Return probabilities of perturbed images that never leave the classifier's device."""
    perturbed = Perturbed(classifier, [image], [blank], [segments])
    rows = upload(shown, classifier.device)
    owner = torch.zeros(len(shown), dtype=torch.long, device=classifier.device)

    def make(start: int, stop: int) -> Tensor:
        update(stop - start)
        return perturbed.batch(rows[start:stop], owner[start:stop])

    found = classifier.forward_batches(make, len(shown), batch_size=batch_size, engine=engine)
    return classifier.as_probabilities(found.logits).cpu().numpy(), found.engine


def _called(
    classifier_fn: Callable,
    image: Shaped[np.ndarray, "height width colours"],
    blank: Shaped[np.ndarray, "height width colours"],
    segments: Int[np.ndarray, "height width"],
    shown: Bool[np.ndarray, "samples superpixels"],
    batch_size: int | None,
    update: Callable[[int], object],
) -> Float[np.ndarray, "samples classes"]:
    """Return what a function says of the perturbed images, `batch_size` at a time."""
    parts = []
    size = batch_size or BATCH
    for start in range(0, len(shown), size):
        pixels = shown[start : start + size][:, segments]
        parts.append(np.asarray(classifier_fn(np.where(pixels[..., None], image, blank))))
        update(len(pixels))
    return np.concatenate(parts)
