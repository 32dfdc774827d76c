"""How well activations follow concepts, and whether that is more than chance: certified labels.

All units and all concepts are compared at once. Of the scores here correlation, cosine, AUPRC, F1
and IoU pass the sanity tests of NeuronEval (Oikarinen, Yan & Weng, ICML 2025): they fall when
half of a concept's images are left out or as many wrong ones added. So does the top-down
correlation (Iman & Conover 1987), by which labels are chosen: of memberships and of Savage's scores
of the activations' ranks. Like AUROC, INVERT's score, it takes ranks only, so that no few extreme
values decide it; unlike it, it weighs the most activating images most.

One correction stands for the whole room: Benjamini and Yekutieli's (2001), which bounds the share
of wrong certificates among those given, however units depend on each other.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy import stats
from torch import Tensor

from xailib.errors import InputError, check_name
from xailib.project import cores

TOP = 0.05  # share of the images on which a unit counts as active, for F1 and IoU
LEVEL = 0.05  # of the adjusted p

Activations = Float[np.ndarray, "probe units"]
Masks = Bool[np.ndarray, "concepts probe"]
Scores = Float32[np.ndarray, "units concepts"]


def score_all(
    activations: Activations, masks: Bool[np.ndarray, "concepts _"], score: str = "top_down"
) -> Scores:
    """Score every unit against every concept.

    Parameters
    ----------
    activations : (probe, units)
        Finite.
    masks : (concepts, probe)
        Which images belong to each concept.
    score : str
        One of ``"top_down"``, ``"correlation"``, ``"cosine"``, ``"auroc"``, ``"auprc"``, ``"f1"``
        and ``"iou"``.

    Returns
    -------
    (units, concepts)
        Higher is better; 0 where a unit or a concept is constant, 0.5 for AUROC.

    Raises
    ------
    InputError
        For an unknown score, tables that do not fit, or activations that are not finite.
    """
    check_name("score", score, SCORES)
    activations, masks = np.asarray(activations), np.asarray(masks, bool)
    if activations.ndim != 2 or masks.ndim != 2 or len(activations) != masks.shape[1]:
        raise InputError(
            f"masks: {masks.shape} do not fit the activations {activations.shape}; "
            "(concepts, probe) and (probe, units) are needed"
        )
    if not np.isfinite(activations).all():
        raise InputError("activations: not all are finite")
    return SCORES[score](activations, masks)


def _standard(values: Float[np.ndarray, "probe _"]) -> Float32[Tensor, "probe _"]:
    """Return columns with mean zero and norm one; constant ones are zero."""
    table = torch.from_numpy(np.asarray(values, np.float64))
    table = table - table.mean(0)
    norm = table.norm(dim=0)
    return (table / torch.where(norm > 1e-12, norm, torch.inf)).float()


def _correlation(activations: Activations, masks: Masks) -> Scores:
    return (_standard(activations).T @ _standard(masks.T.astype(np.float32))).numpy()


def _ranked(activations: Activations) -> Float64[np.ndarray, "probe units"]:
    return np.asarray(stats.rankdata(activations, axis=0))


def top_down(activations: Activations) -> Float64[np.ndarray, "probe units"]:
    """Return Savage's scores, ``-log(1 - rank / (images + 1))``; ties have their mean rank."""
    return -np.log1p(-_ranked(activations) / (len(activations) + 1))


def _cosine(activations: Activations, masks: Masks) -> Scores:
    table = torch.from_numpy(np.asarray(activations, np.float32))
    wide = torch.from_numpy(masks.astype(np.float32))
    found = table.T @ wide.T / table.norm(dim=0).clamp_min(1e-12)[:, None]
    return (found / wide.sum(1).clamp_min(1).sqrt()).numpy()


def _auroc(activations: Activations, masks: Masks) -> Scores:
    count, sizes = len(activations), masks.sum(1)
    sums = _ranked(activations).T @ masks.T
    pairs = sizes * (count - sizes)
    found = (sums - sizes * (sizes + 1) / 2) / np.maximum(pairs, 1)
    return np.where(pairs > 0, found, 0.5).astype(np.float32)


def active(activations: Activations) -> Bool[np.ndarray, "probe units"]:
    """Return on which `TOP` of the images each unit is most active, and above its least."""
    count = max(1, round(TOP * len(activations)))
    least = -np.partition(-activations, count - 1, axis=0)[count - 1]
    return (activations >= least) & (activations > activations.min(0))


def _overlaps(activations: Activations, masks: Masks) -> tuple[Scores, Scores]:
    """Return the images that are active and of the concept, and the sum of both numbers."""
    on = active(activations).astype(np.float32)
    wide = masks.astype(np.float32)
    both = (torch.from_numpy(on).T @ torch.from_numpy(wide).T).numpy()
    return both, on.sum(0)[:, None] + wide.sum(1)


def _f1(activations: Activations, masks: Masks) -> Scores:
    both, sizes = _overlaps(activations, masks)
    return 2 * both / np.maximum(sizes, 1)


def _iou(activations: Activations, masks: Masks) -> Scores:
    both, sizes = _overlaps(activations, masks)
    return both / np.maximum(sizes - both, 1)


def _auprc(activations: Activations, masks: Masks) -> Scores:
    """Return average precision: over a concept's images, how many of those so far are its own.

    Of equal activations the earlier image comes first. All concepts' images are sorted at once:
    a key is the concept's number, then the image's place.
    """
    count, units = activations.shape
    owner, members = np.nonzero(masks)
    filled, starts, sizes = np.unique(owner, return_index=True, return_counts=True)
    step = 1 << count.bit_length()
    base = (owner * step).astype(np.uint32 if len(masks) * step < 2**32 else np.uint64)
    hits = (np.arange(len(owner)) - np.repeat(starts, sizes) + 1).astype(np.float32)
    found = np.zeros((units, len(masks)), np.float32)
    if not len(owner):
        return found

    def score(row: Float32[np.ndarray, " concepts"], order: Int64[np.ndarray, " images"]) -> None:
        place = np.empty(count, base.dtype)
        place[order] = np.arange(1, count + 1)
        keys = np.sort(base + place[members]) & base.dtype.type(step - 1)
        row[filled] = np.add.reduceat(hits / keys.astype(np.float32), starts) / sizes

    with ThreadPoolExecutor(cores()) as threads:  # numpy sorts beside Python
        deque(threads.map(score, found, np.argsort(-activations, axis=0, kind="stable").T), 0)
    return found


SCORES: dict[str, Callable[[Activations, Masks], Scores]] = {
    "top_down": lambda activations, masks: _correlation(top_down(activations), masks),
    "correlation": _correlation,
    "cosine": _cosine,
    "auroc": _auroc,
    "auprc": _auprc,
    "f1": _f1,
    "iou": _iou,
}


def untrained_view(
    activations: Activations, components: int = 80
) -> Float64[np.ndarray, "probe components"]:
    """Return what untrained networks see in images: their units' first principal components.

    Units of a network with random weights follow brightness, colour and texture, and so they follow
    "sky" or "bamboo forest" better than most trained units follow anything. What these components
    explain is taken out of activations and concepts before a label is certified.

    Parameters
    ----------
    activations : (probe, units)
        Of a layer of one or more networks with random weights, side by side.
    components : int
        How many, at most the number of units.
    """
    seen = top_down(activations)
    seen = (seen - seen.mean(0)) / np.maximum(seen.std(0), 1e-12)
    return np.linalg.svd(seen, full_matrices=False)[0][:, :components]


def beyond(
    values: Float[np.ndarray, "probe columns"], view: Float[np.ndarray, "probe _"] | None
) -> Float64[np.ndarray, "probe columns"]:
    """Return what is left of columns once a constant and the columns of `view` are fitted."""
    ones = np.ones((len(values), 1))
    basis = np.linalg.qr(ones if view is None else np.hstack([ones, view]))[0]
    return values - basis @ (basis.T @ values)


def partial(
    activations: Activations, masks: Masks, view: Float[np.ndarray, "probe _"] | None = None
) -> Scores:
    """Return the top-down correlation with concepts, of what `view` does not explain of either."""
    left = beyond(masks.T.astype(np.float64), view)
    # A concept that the view explains entirely has nothing left but rounding errors.
    left[:, (left**2).sum(0) < 1e-9 * masks.sum(1)] = 0
    return (_standard(beyond(top_down(activations), view)).T @ _standard(left)).numpy()


def of_each(activations: Activations, masks: Bool[np.ndarray, "probe units"]) -> pd.DataFrame:
    """Score each unit against a concept of its own, by the five scores that pass NeuronEval.

    One row a unit: correlation, cosine, auprc, f1, iou; NaN where no image is of the concept.
    """
    values, own = np.asarray(activations, np.float64), masks.astype(np.float64)
    sizes = own.sum(0)
    centred, shifted = values - values.mean(0), own - own.mean(0)
    order = np.argsort(-values, axis=0, kind="stable")
    hits = np.take_along_axis(own, order, axis=0)
    precision = hits.cumsum(0) / np.arange(1, len(own) + 1)[:, None]
    on = active(values)
    both = (on & masks).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        table = {
            "correlation": (centred * shifted).sum(0)
            / np.sqrt((centred**2).sum(0) * (shifted**2).sum(0)),
            "cosine": (values * own).sum(0) / np.sqrt((values**2).sum(0) * sizes),
            "auprc": (precision * hits).sum(0) / sizes,
            "f1": 2 * both / (on.sum(0) + sizes),
            "iou": both / (on | masks).sum(0),
        }
    found = pd.DataFrame(table)
    found.loc[sizes == 0] = np.nan
    return found


def halves(count: int) -> tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]:
    """Return two disjoint halves of the probe images, always the same, each in rising order."""
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def certify(
    activations: Activations,
    untrained: Float[np.ndarray, "_ others"],
    masks: Masks,
    *,
    view: Float[np.ndarray, "probe _"] | None = None,
    draws: int = 500,
) -> pd.DataFrame:
    """Label the units of a layer on one half of the probe images, and test it on the other.

    Parameters
    ----------
    activations : (probe, units)
        Of one layer.
    untrained : (probe, others)
        Of the same layer of networks with random weights, which made no part of `view`: the null
        of random units. They are labelled the same way; those that are constant say nothing.
    masks : (concepts, probe)
        Which images belong to each concept.
    view : (probe, components), optional
        From `untrained_view` of other networks with random weights.
    draws : int
        Shuffles of the label for p_label, and resamples of the images for the interval.

    Returns
    -------
    DataFrame
        One row for each unit: unit, concept (a row of `masks`, chosen on the first half), score
        (`partial` on the second) with its 95 % interval low and high (bootstrap), zscore
        (against the unit's scores for all concepts on the second half), the five of `of_each` on
        the second half, p_label (of random labels: how many shuffles of the label score as high),
        p_unit (of random units: how many of `untrained` exceed what such units score for their
        own label's concept by as many standard deviations), p (the larger),
        again (the concept that the second half would choose), dead (constant on either half:
        no label). `adjust` tells from p which labels are certified.

    Raises
    ------
    InputError
        For tables that do not fit each other.
    """
    if len(untrained) != len(activations):
        raise InputError(f"untrained: {len(untrained)} rows for {len(activations)} probe images")
    first, second = halves(len(activations))
    known = masks[:, first].any(1) & masks[:, second].any(1)
    if not known.any():
        raise InputError("masks: no concept has images in both halves of the probe set")
    untrained = untrained[:, ~_constant(untrained, first, second)]
    if not untrained.size:
        raise InputError("untrained: all units are constant, so that they are no null")

    def compare(table: Activations, half: Int64[np.ndarray, " _"]) -> Scores:
        seen = None if view is None else view[half]
        return np.where(known, partial(table[half], masks[:, half], seen), -np.inf)

    concept, testing = compare(activations, first).argmax(1), compare(activations, second)
    units = np.arange(len(concept))
    score, inside = testing[units, concept], testing[:, known]
    spread = inside.std(1)
    others = compare(untrained, first).argmax(1)
    chance = np.where(known, compare(untrained, second), 0)
    usual, width = chance.mean(0), np.maximum(chance.std(0), 1e-12)
    null = np.sort((chance[np.arange(len(others)), others] - usual[others]) / width[others])
    above = np.searchsorted(null, (score - usual[concept]) / width[concept])
    p_unit = (1 + len(null) - above) / (1 + len(null))
    seen = None if view is None else view[second]
    own = masks[concept][:, second]
    ours, theirs = beyond(top_down(activations[second]), seen), beyond(own.T.astype(float), seen)
    p_label = _shuffled(ours, theirs, draws)
    low, high = _bootstrap(ours, theirs, draws)
    dead = _constant(activations, first, second)
    centred = score - inside.mean(1)
    return pd.DataFrame(
        {
            "unit": units,
            "concept": concept,
            "score": score,
            "low": low,
            "high": high,
            "zscore": np.divide(centred, spread, out=np.zeros(len(score)), where=spread > 0),
            **of_each(activations[second], own.T),
            "p_label": p_label,
            "p_unit": p_unit,
            "p": np.where(dead, 1.0, np.maximum(p_label, p_unit)),
            "again": testing.argmax(1),
            "dead": dead,
        }
    )


def _constant(
    activations: Activations, *halves: Int64[np.ndarray, " _"]
) -> Bool[np.ndarray, " units"]:
    """Return which units are constant on one of the halves."""
    return np.any([np.ptp(activations[half], axis=0) == 0 for half in halves], axis=0)


def _shuffled(
    ours: Float[np.ndarray, "probe units"], theirs: Float[np.ndarray, "probe units"], draws: int
) -> Float64[np.ndarray, " units"]:
    """Return how often the product of columns is as large when the rows of one are shuffled."""
    rng, found = np.random.default_rng(0), (ours * theirs).sum(0)
    one, other = torch.from_numpy(ours).float(), torch.from_numpy(theirs).float()
    limit, count = torch.from_numpy(found - 1e-9 * np.abs(found)).float(), torch.ones(len(found))
    for _ in range(draws):
        count += (one[rng.permutation(len(one))] * other).sum(0) >= limit
    return (count / (1 + draws)).numpy().astype(float)


def _bootstrap(
    ours: Float[np.ndarray, "probe units"], theirs: Float[np.ndarray, "probe units"], draws: int
) -> Float64[np.ndarray, "2 units"]:
    """Return 95 % intervals of the correlation of columns with mean zero, by resampled rows."""
    count = len(ours)
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), draws)
    drawn = torch.from_numpy(weights).float()
    both, one, other = (
        (drawn @ torch.from_numpy(table).float()).numpy()
        for table in (ours * theirs, ours**2, theirs**2)
    )
    found = both / np.sqrt(np.maximum(one * other, 1e-30))
    return np.asarray(np.quantile(found, [0.025, 0.975], axis=0))


def adjust(p: pd.Series) -> Float64[np.ndarray, " tests"]:
    """Return p adjusted for all tests that are made together (Benjamini & Yekutieli 2001)."""
    return np.asarray(stats.false_discovery_control(np.asarray(p), method="by"))


def agreement(
    first: Int64[np.ndarray, " units"],
    second: Int64[np.ndarray, " units"],
    related: Bool[np.ndarray, "concepts concepts"],
) -> dict[str, float]:
    """Return how often two labellings of the same units agree, as shares of the units.

    By ``"same"`` concept; by ``"related"`` ones (also parent and child, or children of one parent);
    and with ``_chance`` that of two labellings that use their concepts as often, of other units.
    """
    shares = [np.bincount(one, minlength=len(related)) / len(one) for one in (first, second)]
    return {
        "same": float((first == second).mean()),
        "same_chance": float(shares[0] @ shares[1]),
        "related": float(related[first, second].mean()),
        "related_chance": float(shares[0] @ related @ shares[1]),
    }
