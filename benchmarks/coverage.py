"""How often intervals of 95 % hold the mean of as few numbers as there are photographs.

    python benchmarks/coverage.py [TRIALS]

For made-up paired differences of known mean it prints, by their number, the share of intervals
that hold it: Student's t, which the pages use, and scipy's two bootstraps. `pairs` is the mean
over all pairs of photographs, for which t is that of the jackknife's pseudo-values.
"""

import sys
import warnings

import numpy as np
import pandas as pd
from scipy import stats

from xailib.compare.intervals import mean_interval, pseudo_values

SIZES = (3, 6, 10, 20)
CENTRE = np.exp(0.5)  # of the lognormal distribution
DIFFERENCES = {  # each with mean zero
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.lognormal(size=shape) - CENTRE,
    "bounded": lambda rng, shape: rng.beta(2, 5, shape) - rng.beta(2, 5, shape),
    "ends": lambda rng, shape: rng.beta(0.5, 0.5, shape) - 0.5,
    "tied": lambda rng, shape: rng.integers(-2, 3, shape).astype(float),
}


def resampled(values: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scipy's bootstrap intervals of the mean, one a row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows whose values are all equal
        found = stats.bootstrap(
            (values,), np.mean, axis=1, n_resamples=999, method=method, vectorized=True,
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return found.low, found.high


def coverage(trials: int, seed: int = 0) -> pd.DataFrame:
    """Return the share of intervals that hold the mean: differences, count, and each rule."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, draw in DIFFERENCES.items():
        for count in SIZES:
            values = draw(rng, (trials, count))
            rules = {"t": mean_interval(values.T)}
            rules |= {rule: resampled(values, rule) for rule in ("percentile", "BCa")}
            held = {rule: np.mean((low <= 0) & (high >= 0)) for rule, (low, high) in rules.items()}
            rows.append({"differences": name, "count": count, **held})
    for count in SIZES:
        rows.append({"differences": "pairs", "count": count, "t": of_pairs(rng, trials, count)})
    return pd.DataFrame(rows)


def of_pairs(rng: np.random.Generator, trials: int, count: int) -> float:
    """Return how often the interval of a mean over pairs holds it: distances of normal numbers."""
    held = 0
    for values in rng.normal(size=(trials, count)):
        pairs = np.abs(values[:, None] - values)
        np.fill_diagonal(pairs, np.nan)
        low, high = mean_interval(pseudo_values(pairs))
        held += bool(low <= 2 / np.pi**0.5 <= high)
    return held / trials


if __name__ == "__main__":
    table = coverage(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    print(table.to_string(index=False, float_format="{:.1%}".format, na_rep=""))
