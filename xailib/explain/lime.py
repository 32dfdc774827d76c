"""LIME for photographs (Ribeiro, Singh & Guestrin 2016): the authors' method, a faster engine."""

from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
from jaxtyping import Int, UInt8
from lime.lime_image import ImageExplanation
from skimage.segmentation import felzenszwalb, quickshift, slic

from xailib.errors import InputError, unknown_name
from xailib.explain.lime_engine import LimeImageExplainer
from xailib.explain.record import record
from xailib.explanation import Explanation, Superpixels, scaled
from xailib.forward import ENGINES
from xailib.images import Photograph
from xailib.models import BATCH, Classifier

__all__ = [
    "LimeImageExplainer",
    "explain_lime",
    "explain_lime_targets",
    "segmentation",
    "superpixels_of",
]

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
    engine: str = "auto",
    progress: bool = False,
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
        Pictures a forward pass; it bounds the memory.
    engine : str
        See `xailib.forward.forward_batches`.
    progress : bool
        Draw a progress bar in the terminal.

    Returns
    -------
    Explanation
        Signed; ``raw`` is each pixel's superpixel's weight, ``superpixels`` the linear model.

    Raises
    ------
    InputError
        For a parameter out of range, before any forward pass.
    """
    targets = (target,)
    return explain_lime_targets(
        classifier,
        photograph,
        targets,
        num_samples=num_samples,
        segments=segments,
        hide_color=hide_color,
        seed=seed,
        batch_size=batch_size,
        engine=engine,
        progress=progress,
    )[0]


def explain_lime_targets(
    classifier: Classifier,
    photograph: Photograph,
    targets: Sequence[int | str | None],
    *,
    num_samples: int = 1000,
    segments: str = "quickshift",
    hide_color: int | None = 0,
    seed: int = 0,
    batch_size: int = BATCH,
    engine: str = "auto",
    progress: bool = False,
) -> list[Explanation]:
    """Explain several categories from one sampling: the cost of one, in the order of `targets`.

    The parameters are those of `explain_lime`, and so are the results.
    """
    _check(num_samples, hide_color, batch_size, engine)
    segment = segmentation(segments, seed)
    if not targets:
        raise InputError("targets: none given; name at least one category, or None")
    known = [None if target is None else classifier.category_index(target) for target in targets]
    view = classifier.view(photograph)
    chosen = [classifier.target(photograph, target) for target in known]
    explainer = LimeImageExplainer(random_state=seed, engine=engine, progress=progress)
    found = explainer.explain_instance(
        view.pixels,
        classifier,
        labels=tuple(dict.fromkeys(target.index for target in chosen)),
        top_labels=None,
        hide_color=hide_color,
        num_samples=num_samples,
        batch_size=batch_size,
        segmentation_fn=segment,
    )
    parameters = {
        "num_samples": num_samples,
        "segmentation": segments,
        "hide_color": hide_color,
        "engine": explainer.used,
    }
    explanations = []
    for target in chosen:
        parts = superpixels_of(found, target.index, explainer.fits[target.index])
        raw = parts.weights[parts.segments].astype(np.float32)
        explanations.append(
            record(
                "lime",
                classifier,
                photograph,
                target,
                view,
                saliency=scaled(raw, signed=True),
                raw=raw,
                signed=True,
                seed=seed,
                parameters=parameters,
                superpixels=parts,
            )
        )
    return explanations


def _check(num_samples: int, hide_color: int | None, batch_size: int, engine: str) -> None:
    """Raise unless what was asked for can be done."""
    if num_samples < 10:
        raise InputError(f"num_samples: {num_samples} is too few; at least 10, usually 1000")
    if hide_color is not None and not 0 <= hide_color <= 255:
        raise InputError(f"hide_color: {hide_color} is not a gray level between 0 and 255")
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} is not at least 1")
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)


def superpixels_of(found: ImageExplanation, target: int, fit: float | None = None) -> Superpixels:
    """Return lime's own result for one target as `Superpixels`.

    ``fit`` is the target's R squared; by default the one that lime keeps, the last target's.
    """
    weights = np.zeros(int(found.segments.max()) + 1)
    for superpixel, weight in found.local_exp[target]:
        weights[superpixel] = weight
    score = float(found.score if fit is None else fit)
    return Superpixels(found.segments, weights, float(found.intercept[target]), score)
