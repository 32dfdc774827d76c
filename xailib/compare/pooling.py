"""Effects on several networks together, and how many photographs would decide one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from xailib.compare.intervals import CONFIDENCE, LEVEL

POWER = 0.8  # with which `photographs_needed` decides


@dataclass(frozen=True)
class Pooled:
    """A mean effect over networks (DerSimonian and Laird 1986)."""

    mean: float  #: with the limits of its 95 % interval
    low: float
    high: float
    p: float  #: two-sided, of no effect
    error: float  #: the mean's standard error
    between: float  #: standard deviation of the effect between networks (tau)
    heterogeneity: float  #: I squared, the share of the variation that sampling does not explain


def pooled(means: Float[np.ndarray, " networks"], errors: Float[np.ndarray, " networks"]) -> Pooled:
    """Return the random-effects mean of networks' effects, each with its standard error.

    One without an error, on which all photographs are alike, has no weight that could be given.
    Networks count as independent. Where they share photographs, as in the report, they are not
    quite, and the interval is too narrow if effects go up and down together.
    """
    means, errors = np.asarray(means, float), np.asarray(errors, float)
    means, errors = means[errors > 0], errors[errors > 0]
    if not len(means):
        return Pooled(*[float("nan")] * 7)
    weights = errors**-2
    fixed = np.average(means, weights=weights)
    q, freedom = float(weights @ (means - fixed) ** 2), len(means) - 1
    spread = weights.sum() - (weights**2).sum() / weights.sum()
    between = max(0.0, (q - freedom) / spread) if freedom else 0.0
    weights = 1 / (errors**2 + between)
    mean, error = float(np.average(means, weights=weights)), float(weights.sum() ** -0.5)
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    p = float(2 * stats.norm.sf(abs(mean) / error))
    share = max(0.0, 1 - freedom / q) if q > 0 else 0.0
    return Pooled(mean, mean - half, mean + half, p, error, between**0.5, share)


def photographs_needed(effect: float, deviation: float, tests: int, *, sides: int = 2) -> float:
    """Return how many photographs would decide a test, in four of five repetitions.

    By the normal distribution, and 5 % more for the signed-rank test, which needs some photographs
    to reach so small a p at all; infinite where no number would do.

    Parameters
    ----------
    effect : float
        The distance of the mean difference from what is to be excluded, as it was found: if
        the true one is smaller, more are needed. Nothing decides one that is not positive.
    deviation : float
        Of the differences.
    tests : int
        For how many p is adjusted; the most that Holm's method may ask of one.
    sides : int
        2, or 1 for a test in one direction.
    """
    if not effect > 0:
        return float("inf")
    level = LEVEL / max(tests, 1) / sides
    least = np.ceil(np.log2(1 / level))  # of fewer, the smallest p is larger
    tail = stats.norm.ppf(1 - level) + stats.norm.ppf(POWER)
    return float(np.ceil(max(least, (tail * deviation / effect) ** 2 * np.pi / 3)))
