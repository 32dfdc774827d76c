"""Tables of how repeatable LIME is: real runs against each other, and estimates from a single run.

Explanations with their samples in, tidy tables out; no network. Explanations that say nothing
(`xailib.explain.record`) are left out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from xailib.errors import InputError
from xailib.explain.explanation import Explanation, Superpixels
from xailib.explain.stability import (
    Device,
    Scores,
    Shown,
    Stability,
    Weights,
    fit,
    mask_iou,
    mask_is_stable,
    next_draw,
    rank_correlation,
    shared,
    shared_by_halves,
    stability,
    supporters,
)

MIN_FREQUENCY = 0.9  # of halves that select a superpixel; the tables call it sure


def _parts(one: Explanation) -> tuple[Superpixels, Shown, Scores]:
    """Return LIME's linear model and its samples, or raise."""
    parts = one.superpixels
    if parts is None or parts.shown is None or parts.scores is None:
        raise InputError(f"explanations: {one.method} of {one.image!r} stores no samples of LIME")
    return parts, parts.shown, parts.scores


def _saying(explanations: Sequence[Explanation]) -> list[Explanation]:
    return [one for one in explanations if not one.no_signal]


def disjoint_runs(one: Explanation, samples: int) -> Weights:
    """Return the weights of all runs of this many samples that a long one can be split into.

    Runs share no sample but the whole view, with which each begins, as in lime.
    """
    _, shown, scores = _parts(one)
    found = [
        fit(shown[rows], scores[rows], np.ones((1, samples), int))[0]
        for start in range(0, len(shown) - samples + 1, samples)
        for rows in [np.r_[0, start + 1 : start + samples]]
    ]
    return np.array(found).reshape(len(found), shown.shape[1])


def runs_table(
    pools: Sequence[Explanation], sizes: Sequence[int], num_features: int = 10
) -> pd.DataFrame:
    """Compare every two runs of each size that the long runs can be split into.

    One row for each photograph and size of which there are two runs: image, samples, runs, pairs;
    means over pairs of iou (of the masks, in pixels), shared (share of the chosen superpixels in
    both masks) and rank_correlation (of the weights); scatter, the standard deviation of a weight
    over runs, mean over superpixels; halves, which is what a single run of twice the size says of
    `shared` by its own halves (NaN if the pool is too short).
    """
    rows = []
    for one in _saying(pools):
        parts, shown, scores = _parts(one)
        areas = np.bincount(parts.segments.ravel(), minlength=parts.weights.size)
        for samples in sizes:
            weights = disjoint_runs(one, samples)
            if len(weights) < 2:
                continue
            masks = supporters(weights, num_features)
            a, b = np.triu_indices(len(weights), 1)
            twice = shown[: 2 * samples], scores[: 2 * samples]
            halves = np.nan
            if 2 * samples <= len(shown):
                halves = shared_by_halves(*twice, num_features, parts.block).mean()
            rows.append(
                {
                    "image": one.image,
                    "samples": samples,
                    "runs": len(weights),
                    "pairs": len(a),
                    "iou": mask_iou(masks[a], masks[b], areas).mean(),
                    "shared": shared(masks[a], masks[b]).mean(),
                    "rank_correlation": rank_correlation(weights[a], weights[b]).mean(),
                    "scatter": weights.std(axis=0, ddof=1).mean(),
                    "halves": halves,
                }
            )
    if not rows:
        raise InputError(f"sizes: the long runs are too short for two runs of {min(sizes)} samples")
    return pd.DataFrame(rows)


def compared_sizes(runs: pd.DataFrame) -> tuple[int, int]:
    """Return the least and the largest size that all photographs of `runs_table` have."""
    photographs = runs.groupby("samples")["image"].nunique()  # who has a size has all below it
    common = photographs.index[photographs == runs["image"].nunique()]
    return int(common.min()), int(common.max())


def weights_table(one: Explanation, found: Stability, num_features: int = 10) -> pd.DataFrame:
    """Return one row for each superpixel, the largest weight first.

    Columns: superpixel, weight, low, high, chosen (in the mask), chosen_again (selection
    frequency).
    """
    weights = _parts(one)[0].weights
    table = pd.DataFrame(
        {
            "superpixel": np.arange(len(weights)),
            "weight": weights,
            "low": found.low,
            "high": found.high,
            "chosen": supporters(weights[None], num_features)[0],
            "chosen_again": found.selection_frequency,
        }
    )
    return table.sort_values("weight", ascending=False, kind="stable", ignore_index=True)


def designs_table(pools: Mapping[str, Sequence[Explanation]], samples: int) -> pd.DataFrame:
    """Compare how much weights scatter by the way samples are drawn.

    `pools` are by design: long runs of the same photographs, ``"independent"`` among them, which
    are split into runs of `samples`, at least two. One row for each photograph and design: image,
    design, runs, variance (of a weight over runs, mean over superpixels), and passes: the share of
    independent sampling's passes that gives the same variance, which falls with their number.
    """
    pools = {design: _saying(explanations) for design, explanations in pools.items()}
    known = {one.image for one in pools.get("independent", ())}
    for design, explanations in pools.items():
        for one in explanations:
            if one.image not in known:
                raise InputError(f"pools: {design} of {one.image!r} has no independent samples")
    rows = []
    for design, explanations in pools.items():
        for one in explanations:
            weights = disjoint_runs(one, samples)
            if len(weights) < 2:
                raise InputError(f"samples: {len(weights)} run of {samples} samples; at least two")
            variance = weights.var(axis=0, ddof=1).mean()
            rows.append(
                {"image": one.image, "design": design, "runs": len(weights), "variance": variance}
            )
    table = pd.DataFrame(rows)
    base = table[table["design"] == "independent"].set_index("image")["variance"]
    table["passes"] = table["variance"] / table["image"].map(base)
    return table


def cuts_table(
    pools: Sequence[Explanation],
    others: Mapping[str, Sequence[Explanation]],
    num_features: int = 10,
) -> pd.DataFrame:
    """Compare masks of runs on another segmentation with those on the usual one.

    Parameters
    ----------
    pools
        Long runs on the usual segmentation, of samples drawn independently.
    others
        By the name of the segmentation: runs of the same photographs, no more than half as long.
    num_features : int
        Superpixels in a mask.

    Returns
    -------
    DataFrame
        One row for each photograph and cut: image, cut, samples, runs (of so many samples on the
        usual cut), superpixels, same (mean over pixels of the IoU of the two superpixels that
        a pixel is in: 1 for equal cuts), iou (of the masks in pixels, mean over those runs), and
        usual (the same between two runs on the usual cut).
    """
    long = {one.image: one for one in pools}
    silent = {one.image for one in pools if one.no_signal}
    rows = []
    for cut, explanations in others.items():
        for one in _saying(explanations):
            if one.image in silent:
                continue
            if one.image not in long:
                raise InputError(f"pools: none is of {one.image!r}")
            parts, shown, _ = _parts(one)
            pool = _parts(long[one.image])[0]
            weights = disjoint_runs(long[one.image], len(shown))
            if len(weights) < 2:
                raise InputError(f"pools: {len(weights)} run of {len(shown)} samples; at least two")
            masks = supporters(weights, num_features)
            mask = supporters(parts.weights[None], num_features)[0][parts.segments].ravel()
            pixels = masks[:, pool.segments.ravel()]  # (runs, pixels)
            either = (pixels | mask).sum(axis=1)
            a, b = np.triu_indices(len(masks), 1)
            areas = np.bincount(pool.segments.ravel(), minlength=masks.shape[1])
            rows.append(
                {
                    "image": one.image,
                    "cut": cut,
                    "samples": len(shown),
                    "runs": len(masks),
                    "superpixels": len(parts.weights),
                    "same": _same_cut(parts.segments, pool.segments),
                    "iou": ((pixels & mask).sum(axis=1) / np.maximum(either, 1)).mean(),
                    "usual": mask_iou(masks[a], masks[b], areas).mean(),
                }
            )
    return pd.DataFrame(rows)


def _same_cut(
    one: Int[np.ndarray, "height width"], other: Int[np.ndarray, "height width"]
) -> float:
    """Return the mean over pixels of the IoU of the two superpixels that a pixel is in."""
    pairs = np.stack([one.ravel(), other.ravel()])
    (a, b), both = np.unique(pairs, axis=1, return_counts=True)
    union = np.bincount(pairs[0])[a] + np.bincount(pairs[1])[b] - both
    return float((both / union) @ both / one.size)


def needed(one: Explanation, num_features: int = 10, device: Device = "cpu") -> int | None:
    """Return after how many samples the mask was stable; None if it was not by the end."""
    parts, shown, scores = _parts(one)
    samples = 0
    while samples < len(shown):  # where ``num_samples="auto"`` looks
        samples += next_draw(samples, len(shown))
        some = shown[:samples], scores[:samples]
        if mask_is_stable(*some, num_features, parts.block, device=device):
            return samples
    return None


def photographs_table(
    explanations: Sequence[Explanation], num_features: int = 10, device: Device = "cpu"
) -> tuple[pd.DataFrame, list[Stability]]:
    """Return each explanation's own stability estimates, and the details in the same order.

    The table's columns: image, target, samples, superpixels, iou, shared, shared_low,
    rank_correlation (see `Stability`), sure (chosen superpixels that at least `MIN_FREQUENCY`
    of the halves choose), chosen, stable, needed (samples after which ``"auto"`` would have
    stopped; NaN if it would not have by the end). The refits are made on `device`.
    """
    details = [stability(_parts(one)[0], num_features, device=device) for one in explanations]
    rows = []
    for one, found in zip(explanations, details, strict=True):
        parts = _parts(one)[0]
        chosen = supporters(parts.weights[None], num_features)[0]
        rows.append(
            {
                "image": one.image,
                "target": one.target_name,
                "samples": found.samples,
                "superpixels": len(parts.weights),
                "iou": found.iou,
                "shared": found.shared,
                "shared_low": found.shared_low,
                "rank_correlation": found.rank_correlation,
                "sure": int((chosen & (found.selection_frequency >= MIN_FREQUENCY)).sum()),
                "chosen": int(chosen.sum()),
                "stable": found.stable,
                "needed": float(needed(one, num_features, device) or "nan"),
            }
        )
    return pd.DataFrame(rows), details
