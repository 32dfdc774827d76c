"""LIME for photographs (Ribeiro, Singh & Guestrin 2016): the authors' method, a faster engine."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Literal, TypedDict, Unpack

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from lime.lime_image import ImageExplanation
from skimage.segmentation import felzenszwalb, quickshift, slic

from xailib.errors import InputError, unknown_name
from xailib.explain.explanation import Explanation, Superpixels, scaled
from xailib.explain.lime_engine import LimeImageExplainer
from xailib.explain.record import record
from xailib.explain.sampling import BLOCKS, DESIGNS
from xailib.explain.stability import mask_is_stable
from xailib.images.load import Photograph
from xailib.networks.classifier import BATCH, Classifier
from xailib.networks.forward import ENGINES

__all__ = [
    "LimeImageExplainer",
    "LimeOptions",
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


class LimeOptions(TypedDict, total=False):
    """What `explain_lime` takes besides classifier, photograph and target.

    Attributes
    ----------
    num_samples : int or "auto"
        Perturbed pictures, at least 10; the first is the whole view. ``"auto"`` draws until the
        mask is stable, see `xailib.explain.stability`, or `max_samples` are drawn; which of the two
        is the explanation's parameter ``stopped``.
    max_samples : int
        The cap of ``"auto"``.
    num_features : int
        Superpixels in the mask that ``"auto"`` makes stable.
    design : str
        How samples are drawn, see `xailib.explain.sampling`; ``"independent"`` is lime's way.
    segments : str
        See `segmentation`.
    hide_color : int or None
        The gray level, 0 to 255, of hidden superpixels; None for each superpixel's mean colour.
    seed : int
        Of the superpixels and of the samples.
    batch_size : int
        Pictures a forward pass; it bounds the memory.
    engine : str
        See `xailib.networks.forward.forward_batches`.
    progress : bool
        Draw a progress bar in the terminal.
    """

    num_samples: int | Literal["auto"]
    max_samples: int
    num_features: int
    design: str
    segments: str
    hide_color: int | None
    seed: int
    batch_size: int
    engine: str
    progress: bool


_DEFAULTS = LimeOptions(
    num_samples=1000,
    max_samples=4000,
    num_features=10,
    design="independent",
    segments="quickshift",
    hide_color=0,
    seed=0,
    batch_size=BATCH,
    engine="auto",
    progress=False,
)


def explain_lime(
    classifier: Classifier,
    photograph: Photograph,
    target: int | str | None = None,
    **options: Unpack[LimeOptions],
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
    **options
        See `LimeOptions`; by default lime's own 1000 samples of quickshift's superpixels.

    Returns
    -------
    Explanation
        Signed; ``raw`` is each pixel's superpixel's weight, ``superpixels`` the linear model
        with its samples.

    Raises
    ------
    InputError
        For a parameter out of range, before any forward pass.
    """
    return explain_lime_targets(classifier, photograph, (target,), **options)[0]


def explain_lime_targets(
    classifier: Classifier,
    photograph: Photograph,
    targets: Sequence[int | str | None],
    **options: Unpack[LimeOptions],
) -> list[Explanation]:
    """Explain several categories from one sampling: the cost of one, in the order of `targets`.

    The parameters are those of `explain_lime`, and so are the results; ``num_samples="auto"``
    draws until every target's mask is stable.
    """
    chosen = _checked(options)
    segment = segmentation(chosen["segments"], chosen["seed"])
    if not targets:
        raise InputError("targets: none given; name at least one category, or None")
    known = [None if target is None else classifier.category_index(target) for target in targets]
    view = classifier.view(photograph)
    predictions = [classifier.target(photograph, target) for target in known]
    labels = tuple(dict.fromkeys(target.index for target in predictions))
    auto = chosen["num_samples"] == "auto"
    block = BLOCKS[chosen["design"]]
    explainer = LimeImageExplainer(
        random_state=chosen["seed"],
        engine=chosen["engine"],
        progress=chosen["progress"],
        enough=partial(_all_stable, labels, chosen["num_features"], block) if auto else None,
        design=chosen["design"],
    )
    found = explainer.explain_instance(
        view.pixels,
        classifier,
        labels=labels,
        top_labels=None,
        hide_color=chosen["hide_color"],
        num_samples=chosen["max_samples"] if auto else chosen["num_samples"],
        batch_size=chosen["batch_size"],
        segmentation_fn=segment,
    )
    shown, scores = explainer.samples
    parameters = {
        "num_samples": chosen["num_samples"],
        "design": chosen["design"],
        "segmentation": chosen["segments"],
        "hide_color": chosen["hide_color"],
        "engine": explainer.used,
    }
    if auto:
        parameters |= {name: chosen[name] for name in ("max_samples", "num_features")}
        parameters["stopped"] = "stable" if explainer.stopped else "max_samples"
    explanations = []
    for target in predictions:
        parts = replace(
            superpixels_of(found, target.index, explainer.fits[target.index]),
            shown=shown,
            scores=scores[:, target.index],
            block=block,
        )
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
                seed=chosen["seed"],
                parameters=parameters,
                superpixels=parts,
            )
        )
    return explanations


def _all_stable(
    labels: Sequence[int],
    num_features: int,
    block: int,
    shown: Bool[np.ndarray, "samples superpixels"],
    scores: Float[np.ndarray, "samples categories"],
) -> bool:
    """Return whether the masks of all categories would come out alike with other samples."""
    return all(mask_is_stable(shown, scores[:, label], num_features, block) for label in labels)


def _checked(options: LimeOptions) -> LimeOptions:
    """Return all options; raise unless what was asked for can be done."""
    for name in options:
        if name not in _DEFAULTS:
            raise unknown_name("option", name, _DEFAULTS)
    chosen: LimeOptions = {**_DEFAULTS, **options}
    samples, hide_color = chosen["num_samples"], chosen["hide_color"]
    if isinstance(samples, str) and samples != "auto":
        raise InputError(f"num_samples: {samples!r} is neither a number nor 'auto'")
    least = chosen["max_samples"] if samples == "auto" else samples
    if least < 10:
        name = "max_samples" if samples == "auto" else "num_samples"
        raise InputError(f"{name}: {least} is too few; at least 10, usually 1000")
    if hide_color is not None and not 0 <= hide_color <= 255:
        raise InputError(f"hide_color: {hide_color} is not a gray level between 0 and 255")
    for name, value in (
        ("batch_size", chosen["batch_size"]),
        ("num_features", chosen["num_features"]),
    ):
        if value < 1:
            raise InputError(f"{name}: {value} is not at least 1")
    if chosen["design"] not in DESIGNS:
        raise unknown_name("design", chosen["design"], DESIGNS)
    if chosen["engine"] not in ENGINES:
        raise unknown_name("engine", chosen["engine"], ENGINES)
    return chosen


def superpixels_of(found: ImageExplanation, target: int, fit: float | None = None) -> Superpixels:
    """Return lime's own result for one target as `Superpixels`.

    ``fit`` is the target's R squared; by default the one that lime keeps, the last target's.
    """
    weights = np.zeros(int(found.segments.max()) + 1)
    for superpixel, weight in found.local_exp[target]:
        weights[superpixel] = weight
    score = float(found.score if fit is None else fit)
    return Superpixels(found.segments, weights, float(found.intercept[target]), score)
