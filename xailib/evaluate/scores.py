"""What faithfulness curves amount to: one score a curve, and whether it beats the baselines."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.integrate import trapezoid
from scipy.stats import rankdata

from xailib.compare.intervals import decided, holm, paired
from xailib.errors import InputError

# Each measure, and which values of it support an explanation.
BETTER = {
    "deletion": "lower",
    "least_first": "higher",
    "relevance_gain": "higher",
    "pixel_flipping": "lower",
    "insertion": "higher",
    "flipping": "higher",
    "road": "higher",
    "single_deletion": "higher",
    "average_drop": "lower",
    "confidence_increase": "higher",
}
PAGE = ("deletion", "insertion", "flipping", "road")  # of which the report draws curves
Curve = Float[np.ndarray, "2 _"]  # fractions, and the target's probabilities


def values_of(curves: Mapping[str, Curve]) -> dict[str, float]:
    """Return what one map's curves amount to, by measure; see `xailib.evaluate.metrics.score`.

    Fractions rise. Of ``"masked"`` the two points are the whole image and the masked one; of
    ``"cell"`` the columns are what the map gives a cell, and what the target's score loses without.
    """
    area = {
        name: float(trapezoid(curves[name][1], curves[name][0]))
        for name in ("deletion", "least_first", "insertion")
        if name in curves
    }
    values = dict(area)
    if {"deletion", "least_first"} <= area.keys():
        values["relevance_gain"] = area["least_first"] - area["deletion"]
    if "deletion" in curves and len(curves["deletion"][1]) > 2:
        steps = curves["deletion"][1][1:]  # Quantus leaves the whole image out
        values["pixel_flipping"] = float(trapezoid(steps)) / (len(steps) - 1)
    if "flipping" in curves:
        scores = curves["flipping"][1]
        values["flipping"] = float((scores[0] - scores).mean())
    if "road_most" in curves:
        values["road"] = float((curves["road_least"][1] - curves["road_most"][1]).mean()) / 2
    if "cell" in curves:
        given, lost = (rankdata(part) for part in curves["cell"])
        flat = np.ptp(given) == 0 or np.ptp(lost) == 0
        values["single_deletion"] = 0.0 if flat else float(np.corrcoef(given, lost)[0, 1])
    if "masked" in curves:
        whole, masked = curves["masked"][1]
        values["average_drop"] = float(max(whole - masked, 0) / (whole + 1e-7))
        values["confidence_increase"] = float(masked > whole)
    return {measure: values[measure] for measure in BETTER if measure in values}


def curve_scores(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one score for each photograph, method and measure.

    From `xailib.evaluate.faithfulness.explanation_curves`, of any number of photographs. Columns
    image, target, method, measure (of `PAGE`, see `xailib.evaluate.metrics.score`), better
    (``"lower"`` or ``"higher"``), value.
    """
    rows = []
    for (image, target, method), part in curves.groupby(["image", "target", "method"], sort=False):
        found = {
            str(name): curve.sort_values("fraction")[["fraction", "score"]].to_numpy(float).T
            for name, curve in part.groupby("measure")
        }
        values = values_of(found)
        rows += [(image, target, method, m, BETTER[m], values[m]) for m in PAGE if m in values]
    columns = ["image", "target", "method", "measure", "better", "value"]
    return pd.DataFrame(rows, columns=columns)


def compare_with_baselines(
    scores: pd.DataFrame,
    baselines: Sequence[str] = ("random", "centre"),
) -> pd.DataFrame:
    """Compare every method with every baseline, photograph by photograph.

    Parameters
    ----------
    scores : DataFrame
        From `curve_scores`.
    baselines : sequence of str
        Methods to beat, the weakest first: a later one is compared with those before it.

    Returns
    -------
    DataFrame
        One row for each measure, method and baseline: measure, better, method, baseline, images
        (with both), mean and baseline_mean, difference (mean of method minus baseline), low,
        high and p (see `xailib.compare.intervals.paired`), p_adjusted (over all rows, see
        `xailib.compare.intervals.holm`), and verdict: ``"better"`` or ``"worse"`` where
        `xailib.compare.intervals.decided` says so of the interval and the adjusted p, else
        ``"undecided"``.

    Raises
    ------
    InputError
        If a baseline is absent or nothing is left to compare.
    """
    for baseline in baselines:
        if baseline not in set(scores["method"]):
            raise InputError(f"baselines: the table has no method {baseline!r}")
    rows = []
    for measure, part in scores.groupby("measure", sort=False):
        wide = part.pivot_table(index="image", columns="method", values="value", sort=False)
        for place, baseline in enumerate(baselines):
            for method in wide.columns.difference(list(baselines[: place + 1]), sort=False):
                both = wide[[method, baseline]].dropna()
                found = paired((both[method] - both[baseline]).to_numpy(float))
                rows.append(
                    {
                        "measure": measure,
                        "better": part["better"].iloc[0],
                        "method": method,
                        "baseline": baseline,
                        "images": found.count,
                        "mean": both[method].mean(),
                        "baseline_mean": both[baseline].mean(),
                        "difference": found.mean,
                        "low": found.low,
                        "high": found.high,
                        "p": found.p,
                    }
                )
    if not rows:
        raise InputError("scores: nothing to compare; the table holds only one baseline")
    table = pd.DataFrame(rows)
    table["p_adjusted"] = holm(table["p"].to_numpy(float))
    side = decided(*(table[name].to_numpy(float) for name in ("low", "high", "p_adjusted")))
    gain = pd.Series(side, table.index) * table["better"].map({"higher": 1, "lower": -1})
    table["verdict"] = gain.map({1: "better", -1: "worse", 0: "undecided"})
    return table
