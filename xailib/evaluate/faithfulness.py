"""Faithfulness: whether the target's probability follows the pixels that a method ranks high.

Curves of the probability while pixels are deleted, inserted, flipped or imputed in an
explanation's order, beside the same for uninformative baselines. What the curves
amount to, and whether that beats the baselines, is in `xailib.evaluate.scores`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from xailib.compare.iou import check_comparable
from xailib.errors import InputError, check_least
from xailib.evaluate.perturbation import (
    BLUR,
    CURVES,
    REGION,
    Perturbed,
    Saliency,
    Trial,
    centred_blob,
    plan,
    random_field,
)
from xailib.explain.explanation import Explanation
from xailib.images.frames import change_frame
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier
from xailib.networks.memory import enough

BASELINES = ("random", "centre")  # the names under which their curves stand


def explanation_curves(
    classifier: Classifier,
    photograph: Photograph,
    explanations: Sequence[Explanation],
    *,
    draws: int = 3,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Return the curves of explanations of one prediction, and of the two baselines.

    Parameters
    ----------
    classifier, photograph
        What was explained.
    explanations : sequence of Explanation
        One a method. Signed maps (LIME's) are ranked by signed value: what opposes the
        target comes last. Of those that say nothing there are no curves
        (`xailib.explain.record`).
    draws : int
        Of the random baseline, averaged; at least 1.
    seed, **options
        See `faithfulness_curves`.

    Returns
    -------
    DataFrame
        Columns image, target, method, measure (deletion, insertion, flipping, road_most,
        road_least), fraction (of the image replaced, or inserted) and score (the target's
        softmax probability). Methods ``"random"`` and ``"centre"`` are the baselines.

    Raises
    ------
    InputError
        If an explanation is of another photograph, network or target, does not cover the
        classifier's view, or a parameter is out of range; before any forward pass.
    """
    check_least("draws", draws)
    maps = maps_of(classifier, photograph, explanations)
    view = classifier.view(photograph).frame.size
    place = int(photograph.sha256[:8], 16)  # other draws for each photograph
    names = [f"random {draw}" for draw in range(draws)]
    fields = {n: random_field(view, (seed, draw, place)) for draw, n in enumerate(names)}
    curves = faithfulness_curves(
        classifier,
        photograph,
        explanations[0].target,
        {**maps, **fields, "centre": centred_blob(view)},
        seed=seed,
        **options,
    )
    curves["method"] = curves["method"].replace(dict.fromkeys(names, "random"))
    by = ["image", "target", "method", "measure", "fraction"]
    return curves.groupby(by, sort=False)["score"].mean().reset_index()


def maps_of(
    classifier: Classifier, photograph: Photograph, explanations: Sequence[Explanation]
) -> dict[str, Saliency]:
    """Return explanations' saliency by method, in the classifier's view, of those with a signal."""
    if not explanations:
        raise InputError("explanations: none given")
    frame = classifier.view(photograph).frame
    maps: dict[str, Saliency] = {}
    for explanation in explanations:
        check_comparable(explanations[0], explanation)
        if explanation.image_sha256 != photograph.sha256:
            raise InputError(
                f"explanations: {explanation.method} explains {explanation.image!r}, "
                f"not the photograph {photograph.id!r}"
            )
        if explanation.classifier != classifier.id:
            raise InputError(
                f"explanations: {explanation.method} explains the network "
                f"{explanation.classifier}, not {classifier.id}"
            )
        if explanation.method in (*maps, *BASELINES):
            raise InputError(f"explanations: the name {explanation.method!r} is taken already")
        if explanation.no_signal:
            continue
        saliency = change_frame(explanation.saliency, explanation.frame, frame)
        if np.isnan(saliency).any():
            raise InputError(
                f"explanations: {explanation.method} does not cover the view of {photograph.id!r}"
            )
        maps[explanation.method] = saliency
    return maps


def faithfulness_curves(
    classifier: Classifier,
    photograph: Photograph,
    target: int | str,
    maps: Mapping[str, Saliency],
    *,
    curves: Collection[str] = CURVES,
    steps: int = 32,
    percentiles: Sequence[int | float] = (70, 90),
    seed: int = 0,
    side: int = REGION,
    ties: str = "random",
    blur: float = BLUR,
    batch_size: int | None = None,
    engine: str = "auto",
) -> pd.DataFrame:
    """Return the curves of any saliency maps in the classifier's view.

    As `explanation_curves`, without checks of where the maps come from and without baselines, and
    with the column logit, the target's. Each different image goes through the network once, in
    one sequence for all maps, a batch at a time. `InputError` is raised for a map of another size
    or with NaN, an unknown target, a parameter out of range; before any forward pass.

    Parameters
    ----------
    classifier, photograph, target, maps
        What is explained, and the maps by method.
    curves : collection of str
        Which, of the measures of `xailib.evaluate.perturbation.Trial`.
    steps : int
        Of each curve, at least 1.
    percentiles : sequence of float
        ROAD's, between 0 and 100: pixels above are replaced. Empty: no ROAD, which is the
        slowest part (it solves a system of as many equations as pixels are replaced). Those
        below 50 cost most: half a pass of a small network, and more, for each map and end.
    seed, side : int
        Of everything random; pixels a side of the flipped regions.
    ties : str
        In which order pixels of one value come, see `xailib.evaluate.perturbation.TIES`.
    blur : float
        Standard deviation of the blur that insertion starts from, in pixels of a view of 224;
        by default RISE's.
    batch_size, engine
        See `xailib.networks.forward.forward_batches`.
    """
    index, view = classifier.class_index(target), classifier.view(photograph)
    trials = plan(maps, view.frame.size, steps, percentiles, side, curves)
    for method, saliency in maps.items():
        if saliency.shape != view.frame.size:
            raise InputError(
                f"maps: {method} is {saliency.shape}, not the view's {view.frame.size}"
            )
        if not np.isfinite(saliency).all():
            raise InputError(f"maps: {method} is not finite")
    if not maps:
        raise InputError("maps: none given")
    noise = np.random.default_rng(seed).integers(0, 256, view.pixels.shape, np.uint8)
    image, replaced = (classifier.input_tensor(p[None]) for p in (view.pixels, noise))
    perturbed = Perturbed(image, replaced, maps, seed, side, ties, blur)
    distinct: dict[tuple, Trial] = {}
    for trial in trials:
        distinct.setdefault(trial.key, trial)
    # By measure, so that those that ROAD imputes come together: a GPU solves them at once.
    images = sorted(distinct.values(), key=lambda trial: trial.measure)
    found = classifier.forward_batches(
        lambda start, stop: perturbed.batch(images[start:stop]),
        len(images),
        batch_size=enough(classifier.device) if batch_size is None else batch_size,
        engine=engine,
    )
    place = {trial.key: number for number, trial in enumerate(images)}
    logits = found.logits[[place[trial.key] for trial in trials]]
    return pd.DataFrame(
        {
            "image": photograph.id,
            "target": classifier.class_names[index],
            "method": [trial.method for trial in trials],
            "measure": [trial.measure for trial in trials],
            "fraction": [trial.fraction for trial in trials],
            "score": classifier.as_probabilities(logits)[:, index].tolist(),
            "logit": logits[:, index].tolist(),
        }
    )


def neutral_colour(classifier: Classifier) -> UInt8[np.ndarray, " 3"]:
    """Return the colour that the network sees as zero, of deleted pixels; mid-gray without one."""
    if not classifier.preprocessing.pixelwise:
        return np.full(3, 128, np.uint8)
    basis = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.uint8)
    seen = classifier.input_tensor(basis[:, None, None]).flatten(1).cpu().numpy()
    shares = np.linalg.lstsq((seen[1:] - seen[0]).T, -seen[0], rcond=None)[0]
    return np.round(255 * shares.clip(0, 1)).astype(np.uint8)
