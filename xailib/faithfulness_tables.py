"""What faithfulness curves amount to: one score a curve, and whether it beats the baselines.

Tables in, tables out; nothing here sees a network.
"""

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.integrate import trapezoid
from scipy.stats import false_discovery_control, rankdata, wilcoxon

from xailib.errors import InputError
from xailib.intervals import bootstrap

# Each measure, and which values of it speak for an explanation.
BETTER = MappingProxyType(
    {"deletion": "lower", "insertion": "higher", "flipping": "higher", "road": "higher"}
)
LEVEL = 0.05  # of the adjusted p, from which on a comparison is decided
_RESAMPLES = 5_000


def curve_scores(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one score for each photograph, method and measure.

    - ``deletion``, ``insertion``: the area under the curve (Petsiuk et al. 2018), 0 to 1;
    - ``flipping``: the area over it, AOPC, the mean of the probability lost over all steps
      including none (Samek et al. 2017), -1 to 1;
    - ``road``: the mean over the percentiles of half the difference between removing the least
      and the most relevant pixels, grad-cam's ``ROADCombined`` (Rong et al. 2022), -0.5 to 0.5.

    Parameters
    ----------
    curves : DataFrame
        From `xailib.faithfulness.explanation_curves`, of any number of photographs.

    Returns
    -------
    DataFrame
        Columns image, target, method, measure, better (``"lower"`` or ``"higher"``), value.
    """
    rows = []
    for (image, target, method), part in curves.groupby(["image", "target", "method"], sort=False):
        found = {str(m): c.sort_values("fraction") for m, c in part.groupby("measure")}
        values: dict[str, float] = {}
        for measure in ("deletion", "insertion"):
            if measure in found:
                curve = found[measure]
                values[measure] = float(trapezoid(curve["score"], curve["fraction"]))
        if "flipping" in found:
            scores = found["flipping"]["score"].to_numpy()
            values["flipping"] = float((scores[0] - scores).mean())
        if "road_most" in found:
            least, most = (found[f"road_{end}"]["score"].mean() for end in ("least", "most"))
            values["road"] = float(least - most) / 2
        rows += [(image, target, method, m, BETTER[m], value) for m, value in values.items()]
    columns = ["image", "target", "method", "measure", "better", "value"]
    return pd.DataFrame(rows, columns=columns)


def compare_with_baselines(
    scores: pd.DataFrame,
    baselines: Sequence[str] = ("random", "centre"),
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every method with every baseline, photograph by photograph.

    Parameters
    ----------
    scores : DataFrame
        From `curve_scores`.
    baselines : sequence of str
        Methods to beat, the weakest first: a later one is compared with those before it.
    confidence : float
        Of the interval, between 0 and 1.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        One row for each measure, method and baseline: measure, better, method, baseline, images
        (with both), mean and baseline_mean, difference (mean of method minus baseline), low and
        high (its percentile bootstrap interval over photographs; NaN for a single one), p
        (Wilcoxon's signed-rank test, two-sided), p_adjusted (Benjamini and Hochberg, over all
        rows), and verdict: ``"better"`` or ``"worse"`` where p_adjusted is below 0.05 and the mean
        difference has the sign of the ranks that the test sums, else ``"undecided"``.

    Raises
    ------
    InputError
        If a baseline is absent or nothing is left to compare.
    """
    for baseline in baselines:
        if baseline not in set(scores["method"]):
            raise InputError(f"baselines: the table has no method {baseline!r}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence: {confidence} is not between 0 and 1")
    rows = []
    for measure, part in scores.groupby("measure", sort=False):
        wide = part.pivot_table(index="image", columns="method", values="value", sort=False)
        for place, baseline in enumerate(baselines):
            for method in wide.columns.difference(list(baselines[: place + 1]), sort=False):
                both = wide[[method, baseline]].dropna()
                pair = both[method].to_numpy(float), both[baseline].to_numpy(float)
                rows.append(
                    {
                        "measure": measure,
                        "better": part["better"].iloc[0],
                        "method": method,
                        "baseline": baseline,
                        **_paired(*pair, confidence, seed),
                    }
                )
    if not rows:
        raise InputError("scores: nothing to compare; the table holds only one baseline")
    table = pd.DataFrame(rows)
    table["p_adjusted"] = false_discovery_control(table["p"])
    gain = np.sign(table["difference"]) * np.where(table["better"] == "higher", 1, -1)
    named = gain.map({1.0: "better", -1.0: "worse"})
    # One photograph may turn the mean against the ranks of all others.
    agreed = np.sign(table["difference"]) == np.sign(table.pop("ranks"))
    decided = (table["p_adjusted"] < LEVEL) & agreed
    table["verdict"] = named.where(decided, "undecided").fillna("undecided")
    return table


def _paired(
    values: Float64[np.ndarray, " images"],
    others: Float64[np.ndarray, " images"],
    confidence: float,
    seed: int,
) -> dict[str, int | float]:
    """Return the means of two paired samples, their mean difference, its interval, ranks and p."""
    differences = values - others
    low, high = mean_interval(differences[:, None], confidence, seed)[:, 0]
    return {
        "images": len(differences),
        "mean": values.mean(),
        "baseline_mean": others.mean(),
        "difference": differences.mean(),
        "low": low,
        "high": high,
        "ranks": float(np.sign(differences) @ rankdata(np.abs(differences))),
        # Where nothing differs there is nothing to rank.
        "p": float(wilcoxon(differences).pvalue) if differences.any() else 1.0,
    }


def mean_interval(
    values: Float64[np.ndarray, "images columns"], confidence: float = 0.95, seed: int = 0
) -> Float64[np.ndarray, "2 columns"]:
    """Return the percentile bootstrap interval of each column's mean; NaN for a single row."""
    if len(values) < 2:
        return np.full((2, values.shape[1]), np.nan)
    return np.stack(bootstrap(values, _RESAMPLES, confidence, seed))
