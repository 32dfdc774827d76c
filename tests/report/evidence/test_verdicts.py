"""What the kept run decides, recomputed from its tables by other code; pooling and power."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xailib.compare.pooling import photographs_needed, pooled
from xailib.report.evidence import kept, verdicts
from xailib.report.replication import findings

SIGNS = {"deletion": -1, "insertion": 1, "flipping": 1, "road": 1}
WORDS = {"deletion": "deletion", "region flipping": "flipping", "insertion": "insertion"}


def literal(values, claim, measure):
    """The differences of a test, from a table of one network, photograph by photograph."""

    def column(method, name):
        own = values[(values["method"] == method) & (values["measure"] == name)]
        return own.set_index("image")["value"]

    if claim == findings.SMOOTHER:
        return 1 - column("scorecam", "step") / column("gradcam", "step")
    if claim == findings.LESS:
        return column("gradcam", "above_half") - column("scorecam", "above_half")
    if claim == findings.AGREE:
        return column("gradcam", "iou_others") - column("gradcam", "iou")
    if claim == findings.SIGNS:
        return column("gradcam", "iou2") - column("gradcam", "iou")
    if claim == findings.COMPACT:
        return column("gradcam", "inside") - column("lime", "inside")
    if claim == findings.BETTER:
        name = measure.partition(":")[0]
        name = WORDS.get(name, name.lower())
        return SIGNS[name] * (column("gradcam", name) - column("lime", name))
    method, other = claim.split(" over ")
    return SIGNS[measure] * (column(method, measure) - column(other, measure))


def stepped(p):
    """Holm's adjustment, one p after the other."""
    found, largest = {}, 0.0
    made = sorted((value, place) for place, value in enumerate(p) if value == value)
    for number, (value, place) in enumerate(made):
        largest = max(largest, min(1.0, value * (len(made) - number)))
        found[place] = largest
    return [found.get(place, np.nan) for place in range(len(p))]


def word(row, p, p_none, p_less):
    if row["margin"] == row["margin"]:
        inside = -row["margin"] < row["low"] and row["high"] < row["margin"]
        if inside and p_none < 0.05:
            return "holds"
        outside = row["low"] > 0 or row["high"] < 0
        return "does not hold" if outside and p < 0.05 else "undecided"
    if p < 0.05 and row["low"] > 0:
        return "holds"
    if p < 0.05 and row["high"] < 0:
        return "does not hold"
    return "does not hold" if row["high"] < row["least"] and p_less < 0.05 else "undecided"


def test_every_verdict_follows_from_the_kept_tables():
    values = kept.load()["values"]
    found = verdicts.verdicts(values)
    rows = found.to_dict("records")
    by_test = {}
    for row in rows:
        if row["network"] == verdicts.POOLED:
            continue
        of = values[values["network"] == row["network"]]
        some = literal(of, row["claim"], row["measure"]).dropna().to_numpy()
        mean, error = some.mean(), some.std(ddof=1) / len(some) ** 0.5
        half = stats.t.ppf(0.975, len(some) - 1) * error
        assert row["count"] == len(some)
        assert (row["value"], row["low"], row["high"]) == pytest.approx(
            (mean, mean - half, mean + half), abs=1e-9
        )
        row["p"] = stats.wilcoxon(some).pvalue if some.any() else 1.0
        if row["margin"] == row["margin"]:
            above = stats.wilcoxon(some + row["margin"], alternative="greater").pvalue
            below = stats.wilcoxon(some - row["margin"], alternative="less").pvalue
            row["p_none"] = max(above, below)
        if row["least"] == row["least"]:
            row["p_less"] = stats.wilcoxon(some - row["least"], alternative="less").pvalue
        by_test.setdefault((row["claim"], row["measure"]), []).append((row, mean, error, len(some)))
    for row in rows:  # DerSimonian and Laird's formulas, network by network
        if row["network"] != verdicts.POOLED:
            continue
        parts = [p for p in by_test[row["claim"], row["measure"]] if p[3] >= 10 and p[2] > 0]
        mean, error = combined([p[1] for p in parts], [p[2] for p in parts])
        assert (row["value"], row["low"]) == pytest.approx((mean, mean - 1.959964 * error))
        row["p"] = 2 * stats.norm.sf(abs(mean) / error)
        if row["margin"] == row["margin"]:
            row["p_none"] = stats.norm.sf((row["margin"] - abs(mean)) / error)
        if row["least"] == row["least"]:
            row["p_less"] = stats.norm.sf((row["least"] - mean) / error)
    kinds = ("p", "p_none", "p_less")
    adjusted = stepped([row[kind] for row in rows for kind in kinds])
    for place, row in enumerate(rows):
        expected = word(row, *adjusted[3 * place : 3 * place + 3])
        others = {r[0]["verdict"] for r in by_test[row["claim"], row["measure"]]}
        if row["network"] == verdicts.POOLED and {"holds", "does not hold"} <= others:
            expected = verdicts.DIFFERS
        if row["network"] == verdicts.POOLED and expected == "undecided" and len(others) == 1:
            (expected,) = others  # every network says the same
        assert row["verdict"] == expected, row
        p, p_none, p_less = adjusted[3 * place : 3 * place + 3]
        small = expected == "does not hold" and not (row["high"] < 0 and p < 0.05)
        own = p_none if row["margin"] == row["margin"] and expected != "does not hold" else p
        own, less = (p_less, small) if small else (own, False)
        if row["network"] == verdicts.POOLED and expected != word(row, p, p_none, p_less):
            parts = [r[0] for r in by_test[row["claim"], row["measure"]]]
            if expected != verdicts.DIFFERS:  # as every network says
                own = max(part["p_adjusted"] for part in parts)
                less = all(part["negligible"] for part in parts)
        assert row["p_adjusted"] == pytest.approx(own, nan_ok=True), row
        assert row["negligible"] == less, row
        if row["network"] == verdicts.POOLED and expected == "undecided":
            needs = [r[0]["needed"] for r in by_test[row["claim"], row["measure"]]]
            assert row["needed"] == pytest.approx(np.nanmax(needs), nan_ok=True)


def combined(means, errors):
    weights = [1 / e**2 for e in errors]
    fixed = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
    q = sum(w * (m - fixed) ** 2 for w, m in zip(weights, means, strict=True))
    c = sum(weights) - sum(w * w for w in weights) / sum(weights)
    tau2 = max(0, (q - len(means) + 1) / c)
    weights = [1 / (e**2 + tau2) for e in errors]
    mean = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
    return mean, sum(weights) ** -0.5


def test_pooling_follows_the_formulas_and_its_limits():
    means, errors = [0.3, 0.1, -0.05], [0.05, 0.04, 0.1]
    one = pooled(np.array(means), np.array(errors))
    assert (one.mean, one.error) == pytest.approx(combined(means, errors))
    assert one.between > 0
    assert 0 < one.heterogeneity < 1
    same = pooled(np.array([0.2, 0.2]), np.array([0.1, 0.1]))
    assert (same.mean, same.error, same.between) == pytest.approx((0.2, 0.1 / 2**0.5, 0))
    without = pooled(np.array([*means, 9]), np.array([*errors, 0]))
    assert without == one
    assert np.isnan(pooled(np.array([1.0]), np.array([0.0])).mean)


@pytest.mark.parametrize(("effect", "sides"), [(0.4, 2), (0.5, 1)])
def test_so_many_photographs_decide_in_four_of_five_repetitions(effect, sides):
    rng = np.random.default_rng(3)
    count = int(photographs_needed(effect, 1.0, 10, sides=sides))
    side = "two-sided" if sides == 2 else "greater"
    draws = rng.normal(effect, 1, (400, count))
    found = stats.wilcoxon(draws, axis=1, alternative=side).pvalue < 0.05 / 10
    assert 0.7 < found.mean() < 0.92
    assert photographs_needed(0.0, 1.0, 10) == np.inf
    tiny = photographs_needed(100.0, 1.0, 10)  # the least p of n pairs is 2 in 2 ** n
    assert 2 / 2**tiny <= 0.05 / 10 < 2 / 2 ** (tiny - 1)


def made(**columns):
    """Values of three networks: by (method, measure), the photographs' mean on each network."""
    rng = np.random.default_rng(0)
    rows = []
    for network in range(3):
        for name, means in columns.items():
            method, _, measure = name.partition("__")
            for image in range(40):
                value = means[network] + rng.normal(0, 0.02)
                rows.append((f"net {network}", f"photo {image}", method, measure, value))
    return pd.DataFrame(rows, columns=["network", "image", "method", "measure", "value"])


@pytest.mark.parametrize(
    ("gains", "overall", "negligible"),
    [
        ((0.2, 0.3, 0.25), "holds", False),
        ((-0.2, -0.1, -0.2), "does not hold", False),
        ((0.2, -0.2, 0.2), verdicts.DIFFERS, False),
        ((0.0, 0.001, -0.001), "does not hold", True),
        ((0.05, 0.05, 0.05), "holds", False),
    ],
)
def test_a_claim_over_networks(gains, overall, negligible):
    values = made(gradcam__insertion=gains, lime__insertion=(0, 0, 0))
    table = verdicts.verdicts(values)
    (row,) = verdicts.overview(table).to_dict("records")
    assert (row["verdict"], row["negligible"]) == (overall, negligible)
    assert row["networks"].count("n = 40") == 3


def test_few_photographs_are_not_pooled_and_decide_nothing_on_sanity():
    values = made(gradcam__insertion=(0.2, 0.2, 0.2), lime__insertion=(0, 0, 0))
    few = values[values["image"].isin([f"photo {k}" for k in range(9)])]
    assert verdicts.POOLED not in set(verdicts.verdicts(few)["network"])
    alike = made(lime__random_spearman=(0.9, 0.9, 0.9))
    names = alike["image"].unique()
    pairs = pd.DataFrame(
        [
            (f"net {n}", a, b, "lime", 0.01 * (i % 7))
            for n in range(3)
            for i, a in enumerate(names)
            for b in names[:i]
        ],
        columns=["network", "image", "other", "method", "spearman"],
    )
    assert verdicts.sanity(alike, pairs)["verdict"].tolist() == ["fails"] * 3
    some = set(names[: verdicts.FEW - 1])
    rest = pairs[pairs["image"].isin(some) & pairs["other"].isin(some)]
    judged = verdicts.sanity(alike[alike["image"].isin(some)], rest)
    assert judged["verdict"].tolist() == ["undecided"] * 3


def test_each_claim_has_the_reports_own_words(shared):
    text = (shared / "seed/000_cfb66bf477e6e618.txt").read_text()
    plain = " ".join(text.split())
    claims = {test.claim for test in verdicts.tests() if test.kind == "claim"}
    assert claims <= findings.WORDS.keys()
    for claim, (words, _) in findings.WORDS.items():
        for part in words.split(" […] "):
            assert part.rstrip(".") in plain, claim
