"""How sure a mean over photographs or units is: bootstrap intervals and paired tests."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats


def bootstrap(
    values: Float[np.ndarray, "units quantities"],
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of each quantity's mean over rows drawn with replacement."""
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=samples)
    means = draws @ values / len(values)  # (samples, quantities)
    tail = (1 - confidence) / 2
    return np.quantile(means, tail, axis=0), np.quantile(means, 1 - tail, axis=0)


@dataclass(frozen=True)
class Paired:
    """A mean over photographs with its interval, and a paired test against zero.

    Attributes
    ----------
    mean, low, high : float
        With the limits of the bootstrap interval over photographs (BCa, 95 %).
    p : float
        Of Wilcoxon's signed-rank test, two-sided, exact for so few photographs.
    count : int
        Photographs; one whose value is NaN is left out.
    """

    mean: float
    low: float
    high: float
    p: float
    count: int


def paired(differences: Float[np.ndarray, " photographs"], seed: int = 0) -> Paired:
    """Return the mean of differences between pairs, its interval, and the test of no difference."""
    differences = np.asarray(differences, float)
    differences = differences[~np.isnan(differences)]
    low, high = interval(differences, seed)
    mean = float(differences.mean()) if len(differences) else float("nan")
    p = float(stats.wilcoxon(differences).pvalue) if differences.any() else float("nan")
    return Paired(mean, low, high, p, len(differences))


def interval(values: Float[np.ndarray, " photographs"], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (BCa, Efron 1987) of a mean over photographs.

    NaN for fewer than two values; where all are equal, that value.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float("nan"), float("nan")
    if values.min() == values.max():
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,), np.mean, random_state=np.random.default_rng(seed)
    ).confidence_interval
    return float(found.low), float(found.high)
