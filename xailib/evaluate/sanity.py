"""Sanity checks (Adebayo et al., NeurIPS 2018): how alike maps are, and verdicts."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from skimage.transform import resize

from xailib.compare.chance import chance_iou
from xailib.compare.intervals import crossed_interval, mean_interval, pseudo_values
from xailib.compare.iou import check_comparable, in_frame_of, iou
from xailib.compare.masks import area_mask
from xailib.errors import InputError, check_name
from xailib.explain.explanation import Explanation

# The measures' names, as charts and tables show them.
MEASURES = {
    "spearman": "rank correlation",
    "spearman_abs": "rank correlation, absolute",
    "ssim": "SSIM",
    "iou": "IoU",
}
AREA = 0.2  # of the view: at most so many pixels are compared by IoU
ALIKE = 0.9  # similarity from which two maps count as the same
CHANGED = 0.5  # and below which a map has clearly changed
ENOUGH = 6  # photographs from which a method is judged at all


def similarity(
    a: Float32[np.ndarray, "height width"],
    b: Float32[np.ndarray, "height2 width2"],
    *,
    signed: bool = False,
) -> dict[str, float]:
    """Return how alike two scaled maps of one method are, by the measures of the paper and IoU.

    Parameters
    ----------
    a, b : (height, width) float32
        In [0, 1], or in [-1, 1] where `signed`.

    Returns
    -------
    dict
        ``spearman`` and ``spearman_abs``: rank correlation of the pixels, and of their absolute
        values; 0 where a map is constant, since it ranks nothing. ``ssim``: structural
        similarity (Wang et al. 2004). ``iou``: of the highest pixels of both, `AREA` of them or
        as many as are positive in either; NaN where one has none; ``chance`` is its mean for
        random masks. Equal maps have 1 in all but ``chance``. `InputError` is raised if the
        shapes differ.
    """
    if a.shape != b.shape:
        raise InputError(f"maps: shapes {a.shape} and {b.shape} differ")
    # Ties at zero are broken alike in both masks: they must not be drawn from.
    pixels = min(round(AREA * a.size), int((a > 0).sum()), int((b > 0).sum()))
    return {
        "spearman": rank_correlation(a, b),
        "spearman_abs": rank_correlation(np.abs(a), np.abs(b)),
        "ssim": float(structural_similarity(a, b, data_range=2 if signed else 1)),
        "iou": iou(area_mask(a, pixels), area_mask(b, pixels)),
        "chance": chance_iou(pixels, pixels, a.size),
    }


def rank_correlation(
    a: Float[np.ndarray, "height width"], b: Float[np.ndarray, "height width"]
) -> float:
    """Return Spearman's rank correlation of two maps; 0 where one ranks nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a.ravel(), b.ravel()).statistic)


def compare(
    maps: Mapping[tuple[str, Hashable], Iterable[Explanation]],
    reference: Hashable,
    column: str,
    allow: Collection[str],
) -> pd.DataFrame:
    """Compare each method's maps with its reference maps, photograph by photograph.

    Parameters
    ----------
    maps : mapping from (method, key) to explanations
        Those of each photograph; one that the reference lacks is left out, and so is a map that
        says nothing (`xailib.explain.record`).
    reference : key
        Which of them, one a photograph, the others are compared with; it is among the rows.
    column : str
        What the keys are called in the table.
    allow : collection of {"classifier", "target"}
        What may differ between the two, see `xailib.compare.iou.check_comparable`.

    Returns
    -------
    DataFrame
        One row for each map: image, method, `column`, target, draw, and what `similarity`
        returns. Where several maps of a photograph have one key, as of several draws of random
        weights, draw counts them from 0, in the order given.
    """
    rows = []
    for (method, key), explanations in maps.items():
        trained = {e.image_sha256: e for e in maps[method, reference] if not e.no_signal}
        for other in explanations:
            first = trained.get(other.image_sha256)
            if first is None:
                continue
            check_comparable(first, other, allow)
            if other.no_signal:
                continue
            labels = {"image": other.image, "method": method, column: key}
            alike = similarity(first.saliency, in_frame_of(other, first), signed=first.signed)
            rows.append({**labels, "target": other.target_name, **alike})
    if not rows:
        raise InputError("maps: there is nothing to compare")
    table = pd.DataFrame(rows)
    draw = table.groupby(["image", "method", column], sort=False).cumcount()
    table.insert(4, "draw", draw)
    return table


def null_baseline(maps: Mapping[str, Sequence[Explanation]]) -> pd.DataFrame:
    """Compare maps of one method with each other: those of different photographs, at least two.

    Objects stand in the middle of photographs, and methods have habits, so that even unrelated maps
    of one method are somewhat alike. No method can be expected to fall below this similarity. Maps
    that say nothing are left out; the same photograph under two names is no pair. One row for each
    ordered pair: method, image, other, and what `similarity` returns.
    """
    rows = []
    for method, explanations in maps.items():
        if len(explanations) < 2:
            raise InputError(f"images: {len(explanations)} for {method}; a null baseline needs two")
        said = [one for one in explanations if not one.no_signal]
        for number, a in enumerate(said):
            for b in said[:number]:
                if a.image_sha256 == b.image_sha256:
                    continue
                other = b.saliency
                if other.shape != a.saliency.shape:  # a network that does not resize
                    other = resize(other, a.saliency.shape, order=1).astype(np.float32)
                alike = similarity(a.saliency, other, signed=a.signed)
                rows += [
                    {"method": method, "image": one.image, "other": two.image, **alike}
                    for one, two in ((a, b), (b, a))
                ]
    if not rows:
        raise InputError("maps: no method has two maps of different photographs that say anything")
    return pd.DataFrame(rows)


def verdict(
    table: pd.DataFrame,
    unrelated: pd.DataFrame,
    measure: str = "spearman",
    enough: int = ENOUGH,
) -> pd.DataFrame:
    """Judge each method by its residual similarity (column left); tables in, table out.

    Means over photographs and draws, with 95 % intervals of
    `xailib.compare.intervals.crossed_interval`, clipped to -1 and 1. That of the null baseline, a
    mean over pairs, needs three photographs, and without it no method passes. Where pairs lack a
    value, the baseline is the mean of `xailib.compare.intervals.pseudo_values`, as its interval. A
    method **passes** if the mean similarity is not above the baseline's interval, and its own
    interval lies below `CHANGED`. It **fails** if its own interval lies above the baseline's, or
    above `ALIKE`. All else is **undecided**: among it a method whose maps are much alike whatever
    the photograph, for which a high baseline must not excuse a map that hardly changes, and every
    method with fewer than `enough` photographs.

    Parameters
    ----------
    table : DataFrame
        From `compare`, only the rows to judge, such as those of the last stage: one for each
        method, photograph and draw. Without the column draw there is one.
    unrelated : DataFrame
        From `null_baseline`.
    measure : str
        A name in `MEASURES`.
    enough : int
        Photographs below which a method is undecided.

    Returns
    -------
    DataFrame
        One row for each method of which maps say anything: method, photographs, verdict; `left`
        (residual) and `floor` (null baseline), mean similarities with their intervals (left_low,
        left_high, floor_low, floor_high).
    """
    check_name("measure", measure, MEASURES)
    table = table if "draw" in table else table.assign(draw=0)
    if table.duplicated(["method", "image", "draw"]).any():
        raise InputError("table: several rows for one method, photograph and draw; give one stage")
    rows, lacking = [], ""
    for method, part in table.groupby("method", sort=False):
        pairs = unrelated[unrelated["method"] == method]
        left = part.pivot(index="image", columns="draw", values=measure).dropna().to_numpy(float)
        if pairs.empty or not len(left):
            lacking = str(method)
            continue
        square = pairs.pivot(index="image", columns="other", values=measure).to_numpy(float)
        each = pseudo_values(square)
        # Student's intervals do not know that no similarity is beyond these.
        low, high = map(float, np.clip(crossed_interval(left), -1, 1))
        floor_low, floor_high = map(float, np.clip(mean_interval(each), -1, 1))
        if len(left) < enough:
            word = "undecided"
        elif low > floor_high or low >= ALIKE:
            word = "fails"
        else:
            word = "passes" if left.mean() <= floor_high and high < CHANGED else "undecided"
        found = {"method": method, "photographs": len(left), "verdict": word}
        found |= {"left": left.mean(), "left_low": low, "left_high": high}
        middle = pairs[measure].mean() if np.isnan(each).any() else each.mean()
        found |= {"floor": middle, "floor_low": floor_low, "floor_high": floor_high}
        rows.append(found)
    if not rows:
        raise InputError(
            f"table: nothing to judge {lacking!r} by; it needs {measure} and a null baseline"
        )
    return pd.DataFrame(rows)
