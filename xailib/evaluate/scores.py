"""What faithfulness curves amount to: one score a curve, and whether it beats the baselines.

Tables in, tables out; nothing here sees a network.
"""

from collections.abc import Sequence
from types import MappingProxyType

import pandas as pd
from scipy.integrate import trapezoid
from scipy.stats import false_discovery_control

from xailib.compare.intervals import decided, paired
from xailib.errors import InputError

# Each measure, and which values of it speak for an explanation.
BETTER = MappingProxyType(
    {"deletion": "lower", "insertion": "higher", "flipping": "higher", "road": "higher"}
)


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
        From `xailib.evaluate.faithfulness.explanation_curves`, of any number of photographs.

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
        high and p (see `xailib.compare.intervals.paired`), p_adjusted (Benjamini and Hochberg, over
        all rows with a p), and verdict: ``"better"`` or ``"worse"`` where
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
    made = table["p"].dropna()  # without a photograph that both have, there is no test to count
    table["p_adjusted"] = pd.Series(false_discovery_control(made), made.index, float)
    side = decided(*(table[name].to_numpy(float) for name in ("low", "high", "p_adjusted")))
    gain = pd.Series(side, table.index) * table["better"].map({"higher": 1, "lower": -1})
    table["verdict"] = gain.map({1: "better", -1: "worse", 0: "undecided"})
    return table
