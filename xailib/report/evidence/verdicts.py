"""What the evidence run decides: every test on its tables, by network and over networks.

Tables in, a table out. All tests of the evidence run are adjusted together (Holm): those of the
replicated report's claims and those of methods against the baselines, on each network and pooled.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from xailib.compare.intervals import CONFIDENCE, LEVEL, no_more_than, paired
from xailib.compare.pooling import photographs_needed, pooled
from xailib.evaluate.sanity import verdict as judge
from xailib.evaluate.scores import BETTER as DIRECTION
from xailib.evaluate.scores import PAGE
from xailib.report.figures.faithfulness import MEASURES
from xailib.report.replication.findings import (
    ABOUT,
    AGREE,
    BETTER,
    COMPACT,
    FAILS,
    HOLDS,
    LESS,
    MARGIN,
    SIGNS,
    SMOOTHER,
    UNDECIDED,
    decide,
)

POOLED = "all networks"
DIFFERS = "differs by network"
POOLABLE = 10  # photographs, not all alike, from which on a network counts in a pooled effect
FEW = 20  # photographs without which no verdict on sanity is given
HIGHER = {measure: 1 if DIRECTION[measure] == "higher" else -1 for measure in PAGE}
METHODS = ("lime", "lime2", "gradcam", "gradcam++", "layercam", "ablationcam", "scorecam", "guided")

Wide = Mapping[tuple[str, str], pd.Series]  # (method, measure): a value for each photograph


@dataclass(frozen=True)
class Test:
    """One difference that is tested on every network."""

    kind: str  #: ``"claim"`` or ``"baseline"``
    claim: str
    measure: str  #: what the number is, whose positive values support the claim
    #: from a network's values by (method, measure) to a difference for each photograph
    of: Callable[[Wide], pd.Series]
    page: str  #: the label of the page with the evidence
    margin: float = float("nan")  #: see `xailib.report.replication.findings.Finding`
    #: NaN, or the smallest effect that matters; the claim does not hold if the effect is shown to
    #: be smaller, whatever its sign
    least: float = float("nan")


def tests() -> Iterator[Test]:
    """Yield all tests on photographs, in the order of the pages."""
    differences: dict[str, Callable[[Wide], pd.Series]] = {
        SMOOTHER: lambda wide: (
            1 - wide["scorecam", "step"] / wide["gradcam", "step"].where(lambda s: s > 0)
        ),
        LESS: lambda wide: wide["gradcam", "above_half"] - wide["scorecam", "above_half"],
        AGREE: lambda wide: wide["gradcam", "iou_others"] - wide["gradcam", "iou"],
        SIGNS: lambda wide: wide["gradcam", "iou2"] - wide["gradcam", "iou"],
        COMPACT: lambda wide: wide["gradcam", "inside"] - wide["lime", "inside"],
    }
    for claim, of in differences.items():
        limits = {SMOOTHER: {"least": MARGIN}, LESS: {"least": MARGIN}, SIGNS: {"margin": MARGIN}}
        measure, page = ABOUT[claim]
        yield Test("claim", claim, measure, of, page, **limits.get(claim, {}))
    for measure in PAGE:
        yield Test(
            "claim",
            BETTER,
            f"{MEASURES[measure]}: gain of Grad-CAM over LIME",
            _gain("gradcam", "lime", measure),
            "task-faithfulness",
            least=MARGIN / 2 if measure == "road" else MARGIN,  # ROAD is half a difference
        )
    for baseline in ("random", "centre"):
        for method in METHODS:
            for measure in PAGE:
                gain = _gain(method, baseline, measure)
                claim = f"{method} over {baseline}"
                yield Test("baseline", claim, measure, gain, "task-faithfulness")


def _gain(method: str, other: str, measure: str) -> Callable[[Wide], pd.Series]:
    return lambda wide: HIGHER[measure] * (wide[method, measure] - wide[other, measure])


def verdicts(values: pd.DataFrame) -> pd.DataFrame:
    """Return every test on the kept tables, decided.

    Parameters
    ----------
    values : DataFrame
        See `xailib.report.evidence.tables.collect`.

    Returns
    -------
    DataFrame
        One row for each test and network, and where several networks have `POOLABLE`
        photographs one for `POOLED`, whose verdict is the pooled test's, or if that leaves it
        open the one that all networks share: their largest p is then its own (an
        intersection-union test; Berger 1982). Columns: kind, claim, measure, page, margin, least,
        network, value, low, high, deviation (of the differences; pooled: NaN), count (photographs;
        pooled: of the network with most), p, p_none (that there is a difference), p_less (that the
        effect is at least `least`), p_adjusted, verdict, negligible (it does not hold because
        the effect is smaller than `least`), between and heterogeneity (pooled only), needed
        (photographs that would decide what is undecided; NaN else). A pooled test that holds on
        one network and does not on another has the verdict `DIFFERS`.
    """
    wides = {
        str(network): dict(part.pivot(index="image", columns=["method", "measure"], values="value"))
        for network, part in values.groupby("network", sort=False)
    }
    rows = [row for test in tests() for row in _rows(test, wides)]
    table = pd.DataFrame(rows)
    adjusted = decide(table, ("p", "p_none", "p_less"))
    small = (table["verdict"] == UNDECIDED) & (table["high"] < table["least"])
    small &= adjusted[:, 2] < LEVEL
    table.loc[small, "verdict"] = FAILS
    table.loc[small, "p_adjusted"] = adjusted[small, 2]
    table["negligible"] = small
    one = (table["verdict"] == UNDECIDED) & (table["network"] != POOLED)
    table["needed"] = needed_by(table, one, int(np.isfinite(adjusted).sum()))
    for _, part in table.groupby(["claim", "measure"], sort=False):
        of = part[part["network"] != POOLED]
        whole = part.index[part["network"] == POOLED]
        found = set(of["verdict"])
        undecided = (table.loc[whole, "verdict"] == UNDECIDED).any()
        if {HOLDS, FAILS} <= found:
            table.loc[whole, "verdict"] = DIFFERS
        elif undecided and len(found) == 1 and UNDECIDED not in found:
            columns = ["verdict", "p_adjusted", "negligible"]
            table.loc[whole, columns] = [*found, of["p_adjusted"].max(), of["negligible"].all()]
        elif undecided:
            table.loc[whole, "needed"] = of["needed"].max()
    return table


def needed_by(table: pd.DataFrame, wanted: pd.Series, tests: int) -> list[float]:
    """Return how many photographs, or units, would decide each wanted test one way or the other.

    NaN of the others. ``table`` holds value and margin, and where there are such least and a
    deviation; without one it is taken from the interval and the count.
    """
    found = []
    for row, asked in zip(table.to_dict("records"), wanted, strict=True):
        if not asked:
            found.append(np.nan)
            continue
        value, margin = row["value"], row["margin"]
        least, deviation = row.get("least", np.nan), row.get("deviation", np.nan)
        if np.isnan(deviation):
            quantile = stats.t.ppf((1 + CONFIDENCE) / 2, max(row["count"] - 1, 1))
            half = (row["high"] - row["low"]) / 2
            deviation = half / float(quantile) * row["count"] ** 0.5
        ways = [photographs_needed(abs(value), deviation, tests)]
        if not np.isnan(margin):
            ways.append(photographs_needed(margin - abs(value), deviation, tests, sides=1))
        if not np.isnan(least):
            ways.append(photographs_needed(least - value, deviation, tests, sides=1))
        found.append(min(ways))
    return found


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each test: over all networks, or on the one that has been tested.

    With ``networks``, in words: the verdict, and how many photographs, network by network; and
    ``split``, whether these verdicts differ.
    """
    rows = []
    for _, part in table.groupby(["kind", "claim", "measure"], sort=False):
        whole = part[part["network"] == POOLED]
        single = part.sort_values("count", ascending=False, kind="stable")
        row = (whole if len(whole) else single).iloc[0].to_dict()
        of = part[~part["network"].isin([POOLED, ""])]
        words = [f"{one.network}: {one.verdict} (n = {one.count})" for one in of.itertuples()]
        rows.append(row | {"networks": "; ".join(words), "split": of["verdict"].nunique() > 1})
    return pd.DataFrame(rows)


def agreement_table(values: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return LIME's overlap with Grad-CAM by network, and if other photographs' maps have less.

    Columns: network, photographs, iou, chance, others (maps of other photographs), iou2 (of LIME
    2), and more: ``"yes"``, ``"no"`` or ``"undecided"``, as `verdicts` has it.
    """
    words = {FAILS: "yes", HOLDS: "no"}
    asked = table[(table["claim"] == AGREE) & (table["network"] != POOLED)]
    rows = []
    for row in asked.to_dict("records"):
        own = values[(values["network"] == row["network"]) & (values["method"] == "gradcam")]
        means = own.groupby("measure")["value"].mean()
        found = {"network": row["network"], "photographs": row["count"]}
        names = {"iou": "iou", "iou_chance": "chance", "iou_others": "others", "iou2": "iou2"}
        found |= {name: means[measure] for measure, name in names.items()}
        rows.append(found | {"more": words.get(row["verdict"], UNDECIDED)})
    return pd.DataFrame(rows)


def _rows(test: Test, wides: Mapping[str, Wide]) -> Iterator[dict[str, object]]:
    common: dict[str, object] = {"kind": test.kind, "claim": test.claim, "measure": test.measure}
    common |= {"page": test.page, "margin": test.margin, "least": test.least}
    found = []
    for network, wide in wides.items():
        try:
            differences = test.of(wide).dropna().to_numpy(float)
        except KeyError:  # the method was not made on this network
            continue
        if len(differences) < 2:
            continue
        one = paired(differences)
        deviation = float(differences.std(ddof=1))
        none = not np.isnan(test.margin)
        p_none = no_more_than(differences, test.margin) if none else float("nan")
        if one.count >= POOLABLE and deviation > 0:
            found.append((one.mean, deviation / one.count**0.5, one.count))
        yield common | {
            "network": network,
            "value": one.mean,
            "low": one.low,
            "high": one.high,
            "deviation": deviation,
            "count": one.count,
            "p": one.p,
            "p_none": p_none,
            "p_less": _less(differences, test.least),
        }
    if len(found) < 2:
        return
    means, errors, counts = (np.array(column, float) for column in zip(*found, strict=True))
    whole = pooled(means, errors)
    sides = whole.mean + test.margin, test.margin - whole.mean  # of two one-sided tests
    p_none = max(float(stats.norm.sf(side / whole.error)) for side in sides)  # the larger p
    yield common | {
        "network": POOLED,
        "value": whole.mean,
        "low": whole.low,
        "high": whole.high,
        "deviation": float("nan"),
        "count": int(counts.max()),
        "p": whole.p,
        "p_none": p_none,
        "p_less": float(stats.norm.sf((test.least - whole.mean) / whole.error)),
        "between": whole.between,
        "heterogeneity": whole.heterogeneity,
    }


def _less(differences: Float[np.ndarray, " photographs"], least: float) -> float:
    """Return p of the test that an effect is, in the middle, no smaller than this."""
    below = differences - least
    if np.isnan(least) or not below.any():
        return float("nan")
    return float(stats.wilcoxon(below, alternative="less").pvalue)


def sanity(values: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Judge methods by maps of networks with random weights, as the sanity page does.

    Return one row for each network and method: network, the columns of
    `xailib.evaluate.sanity.verdict`, where a method is undecided below `FEW` photographs, and
    second and least, the rank correlation with maps of other classes.
    """
    found = []
    renamed = values.rename(columns={"value": "spearman"})
    for network, own in renamed.groupby("network", sort=False):
        last = own[own["measure"] == "random_spearman"]
        if last.empty:
            continue
        one = pairs[pairs["network"] == network]
        turned = one.rename(columns={"image": "other", "other": "image"})
        judged = judge(last, pd.concat([one, turned]), enough=FEW)
        for name in ("second", "least"):
            of = own[own["measure"] == f"{name}_spearman"].groupby("method")["spearman"].mean()
            judged[name] = judged["method"].map(of)
        judged.insert(0, "network", network)
        found.append(judged)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()
