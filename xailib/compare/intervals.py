"""Confidence intervals of means over photographs and of shares of units, and tests of differences.

**A mean over photographs** has Student's t interval, on all pages. Of few numbers a bootstrap is
too narrow: it takes their spread, which is too small, and the normal distribution's quantiles,
which are too. `benchmarks/coverage.py` counts how often intervals of 95 % hold the mean.

**A difference is decided** if its interval excludes zero and a test agrees after correction for
several tests. Of photographs the test is Wilcoxon's signed-rank test, which is exact for few and
takes differences for symmetric about their middle; it asks for no other shape. The intervals
themselves are each of one mean alone.

**What is corrected for**: one rule for all pages. All tests of a table are adjusted together by
Holm's method (`holm`), which bounds the chance of a single false one among them; tests that could
not be made do not count. All tests of the evidence run, on all its networks, are one table. Tables
hold the raw p beside the adjusted, as numbers. The sanity checks compare intervals, without a test.

**What an interval covers.** Photographs are the sample. LIME draws its own samples for each, so
that their noise is part of the scatter between photographs. Random weights are shared by all
photographs: `crossed_interval` counts their draws as a second sample.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

CONFIDENCE = 0.95
LEVEL = 0.05  # of an adjusted p, below which a test counts


@dataclass(frozen=True)
class Estimate:
    """A difference with its interval, and the test of no difference."""

    mean: float  #: with the limits of its 95 % interval; NaN where none can be given
    low: float
    high: float
    p: float  #: two-sided, not adjusted; 1 where nothing differs, NaN with nothing to test
    count: int  #: photographs or units that it rests on


def mean_interval(
    values: Float[np.ndarray, "photographs *quantities"],
) -> tuple[Float[np.ndarray, "*quantities"], Float[np.ndarray, "*quantities"]]:
    """Return the limits of Student's t interval of the mean over the first axis.

    NaN for fewer than two rows; where all rows are equal, the interval is that row.
    """
    values = np.asarray(values, float)
    count = len(values)
    if count < 2:
        none = np.full(values.shape[1:], np.nan)
        return none, none
    mean = values.mean(axis=0)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * values.std(axis=0, ddof=1) / count**0.5
    return np.asarray(mean - half), np.asarray(mean + half)


def crossed_interval(values: Float[np.ndarray, "photographs draws"]) -> tuple[float, float]:
    """Return the limits of the interval of a mean over photographs and over draws that they share.

    Both are samples: the variance of the mean is that of a two-way table, without gaps, with random
    rows and columns, with Satterthwaite's degrees of freedom, and never below what either alone
    gives (Searle, Casella & McCulloch 1992). Of one draw it is `mean_interval`.
    """
    rows, columns = values.shape
    if rows < 2 or columns < 2:
        low, high = mean_interval(values.mean(axis=1) if columns else np.empty(0))
        return float(low), float(high)
    mean, by_row, by_column = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - by_row[:, None] - by_column + mean
    free = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    # Mean squares of rows, columns and the rest, each as its part in the variance of the mean.
    shares = np.array([by_row.var(), by_column.var(), rest.var()]) / free
    variance = max(shares[0] + shares[1] - shares[2], shares[0], shares[1])
    if variance == 0:
        return float(mean), float(mean)
    freedom = variance**2 / (shares[:2] ** 2 / free[:2]).sum()
    half = stats.t.ppf((1 + CONFIDENCE) / 2, max(freedom, 1)) * variance**0.5
    return float(mean - half), float(mean + half)


def paired(differences: Float[np.ndarray, " photographs"]) -> Estimate:
    """Return the mean of differences, one a photograph; NaN is left out.

    The interval is `mean_interval`'s, p that of Wilcoxon's signed-rank test.
    """
    differences = np.asarray(differences, float)
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        none = float("nan")
        return Estimate(none, none, none, none, 0)
    low, high = mean_interval(differences)
    p = stats.wilcoxon(differences).pvalue if differences.any() else 1.0
    return Estimate(float(differences.mean()), float(low), float(high), float(p), len(differences))


def no_more_than(differences: Float[np.ndarray, " photographs"], margin: float) -> float:
    """Return p of the test that differences are, in the middle, at least `margin` from zero.

    Of two one-sided signed-rank tests, one a side of the margin, the larger p (Schuirmann 1987).
    """
    differences = np.asarray(differences, float)
    differences = differences[~np.isnan(differences)]
    sides = ((differences + margin, "greater"), (differences - margin, "less"))
    if not all(values.any() for values, _ in sides):
        return float("nan")
    return max(float(stats.wilcoxon(values, alternative=side).pvalue) for values, side in sides)


def pseudo_values(
    pairs: Float[np.ndarray, "photographs photographs"],
) -> Float[np.ndarray, " kept"]:
    """Return what each photograph adds to a mean over all pairs of different photographs.

    Pairs share photographs, so they are no independent numbers; these are, nearly: the jackknife's
    pseudo-values (Arvesen 1969), and `mean_interval` is of their mean. If no pair is missing, that
    is the mean over pairs; else it is near it, so give it, not the other, with the interval. NaN in
    `pairs` is no value, as on the diagonal; photographs without any pair are left out. Of fewer
    than three photographs all is NaN.
    """
    pairs = np.asarray(pairs, float)
    known = ~np.isnan(pairs)
    some = known.any(axis=0) | known.any(axis=1)
    pairs, known = pairs[np.ix_(some, some)], known[np.ix_(some, some)]
    filled = np.where(known, pairs, 0)
    total, number = filled.sum(), known.sum()
    others = total - filled.sum(axis=0) - filled.sum(axis=1)
    left = number - known.sum(axis=0) - known.sum(axis=1)
    count = len(pairs)
    without = np.divide(others, left, out=np.full(count, np.nan), where=left > 0)
    return count * total / max(number, 1) - (count - 1) * without


def share_interval(found: int, total: int) -> tuple[float, float]:
    """Return Wilson's interval of a share; it is no point where all or none are found."""
    limits = stats.binomtest(found, total).proportion_ci(CONFIDENCE, "wilson")
    return float(limits.low), float(limits.high)


def compared_shares(found: int, total: int, other: int, other_total: int) -> Estimate:
    """Return the difference of two independent shares, the first minus the second.

    Newcombe's interval (1998), made of the two of `share_interval`; p of Fisher's exact test. NaN
    if either is a share of nothing.
    """
    if not total or not other_total:
        none = float("nan")
        return Estimate(none, none, none, none, total + other_total)
    one, two = found / total, other / other_total
    (low, high), (least, most) = share_interval(found, total), share_interval(other, other_total)
    gap = one - two
    table = [[found, total - found], [other, other_total - other]]
    return Estimate(
        gap,
        gap - float(np.hypot(one - low, most - two)),
        gap + float(np.hypot(high - one, two - least)),
        float(stats.fisher_exact(table).pvalue),
        total + other_total,
    )


def holm(p: Float[np.ndarray, "*tests"]) -> Float[np.ndarray, "*tests"]:
    """Return p adjusted for the number of tests (Holm 1979); NaN is no test, and stays NaN."""
    shape, p = np.shape(p), np.asarray(p, float).ravel()
    adjusted = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.reshape(shape)


def decided(
    low: Float[np.ndarray, "*tests"] | float,
    high: Float[np.ndarray, "*tests"] | float,
    p_adjusted: Float[np.ndarray, "*tests"] | float,
) -> Int[np.ndarray, "*tests"]:
    """Return 1 where a difference is above zero, -1 where below, 0 where that is not decided."""
    side = np.greater(low, 0).astype(int) - np.less(high, 0).astype(int)
    return np.where(np.less(p_adjusted, LEVEL), side, 0)
