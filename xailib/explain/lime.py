"""LIME for photographs (Ribeiro, Singh & Guestrin 2016), by the authors' own package."""

import contextlib
import io
from collections.abc import Callable
from functools import partial
from types import MappingProxyType

import numpy as np
from jaxtyping import Int, UInt8
from lime.lime_image import ImageExplanation, LimeImageExplainer
from skimage.segmentation import felzenszwalb, quickshift, slic

from xailib.errors import InputError, unknown_name
from xailib.explanation import Explanation, Superpixels, scaled
from xailib.images import Photograph
from xailib.models import BATCH, Classifier

Segment = Callable[[UInt8[np.ndarray, "height width 3"]], Int[np.ndarray, "height width"]]

# lime's own settings for quickshift; the others give about as many superpixels at 224 pixels.
_SEGMENTATIONS = MappingProxyType(
    {
        "quickshift": lambda seed: partial(
            quickshift, kernel_size=4, max_dist=200, ratio=0.2, rng=seed
        ),
        "slic": lambda _seed: partial(slic, n_segments=60, compactness=10, start_label=0),
        "felzenszwalb": lambda _seed: partial(felzenszwalb, scale=200, sigma=0.5, min_size=200),
    }
)


def segmentation(name: str, seed: int = 0) -> Segment:
    """Return the function that cuts a view into superpixels numbered from 0.

    ``"quickshift"`` has lime's settings and a seed that takes effect (lime's own does not reach
    scikit-image); ``"slic"`` and ``"felzenszwalb"`` have nothing random.

    Raises
    ------
    InputError
        For another name.
    """
    if name not in _SEGMENTATIONS:
        raise unknown_name("segmentation", name, _SEGMENTATIONS)
    make: Segment = _SEGMENTATIONS[name](seed)
    return make


def explain_lime(
    classifier: Classifier,
    photograph: Photograph,
    target: int | str | None = None,
    *,
    num_samples: int = 1000,
    segments: str = "quickshift",
    hide_color: int | None = 0,
    seed: int = 0,
    batch_size: int = BATCH,
) -> Explanation:
    """Explain one prediction by LIME.

    Superpixels of the classifier's view are hidden at random, and a ridge regression weighted
    by closeness to the whole picture gives each superpixel its share in the probability.

    Parameters
    ----------
    classifier, photograph
        What is explained.
    target : int or str, optional
        A category's index or name; by default the predicted one.
    num_samples : int
        Perturbed pictures, at least 10; the first is the whole view.
    segments : str
        See `segmentation`.
    hide_color : int or None
        The gray level, 0 to 255, of hidden superpixels; None for each superpixel's mean colour.
    seed : int
        Of the superpixels and of the samples.
    batch_size : int
        Pictures a forward pass.

    Returns
    -------
    Explanation
        Signed; ``raw`` is each pixel's superpixel's weight, ``superpixels`` the linear model.

    Raises
    ------
    InputError
        For a parameter out of range, before any forward pass.
    """
    if num_samples < 10:
        raise InputError(f"num_samples: {num_samples} is too few; at least 10, usually 1000")
    if hide_color is not None and not 0 <= hide_color <= 255:
        raise InputError(f"hide_color: {hide_color} is not a gray level between 0 and 255")
    segment = segmentation(segments, seed)
    chosen = classifier.target(photograph, target)
    view = classifier.view(photograph)
    explainer = LimeImageExplainer(random_state=seed)
    with contextlib.redirect_stderr(io.StringIO()):  # lime always draws a progress bar
        found = explainer.explain_instance(
            view.pixels,
            partial(classifier.probabilities, batch_size=batch_size),
            labels=(chosen.index,),
            top_labels=None,
            hide_color=hide_color,
            num_samples=num_samples,
            batch_size=batch_size,
            segmentation_fn=segment,
        )
    parts = superpixels_of(found, chosen.index)
    raw = parts.weights[parts.segments].astype(np.float32)
    return Explanation(
        method="lime",
        image=photograph.id,
        image_sha256=photograph.sha256,
        classifier=classifier.id,
        target=chosen.index,
        target_name=chosen.name,
        probability=chosen.probability,
        frame=view.frame,
        saliency=scaled(raw, signed=True),
        raw=raw,
        signed=True,
        seed=seed,
        parameters={
            "num_samples": num_samples,
            "segmentation": segments,
            "hide_color": hide_color,
        },
        superpixels=parts,
    )


def superpixels_of(found: ImageExplanation, target: int) -> Superpixels:
    """Return lime's own result for one target as `Superpixels`."""
    weights = np.zeros(int(found.segments.max()) + 1)
    for superpixel, weight in found.local_exp[target]:
        weights[superpixel] = weight
    return Superpixels(found.segments, weights, float(found.intercept[target]), float(found.score))
