"""LIME's true error: of few superpixels, what infinitely many samples would give is computed.

All 2**d masks of d superpixels are scored once; from their scores come the exact weights, and
any number of runs of LIME with no further pass. Masks are numbered: bit i of a mask's number says
whether superpixel i is shown.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int

from xailib.errors import InputError, check_name
from xailib.explain.sampling import BLOCKS, DESIGNS
from xailib.explain.stability import closeness, mask_is_stable, next_draw

Scores = Float[np.ndarray, " masks"]
# Beside the designs of `explain_lime`: pairs of a mask and its opposite of which none comes
# twice; and independent masks, drawn by their leverage in LIME's regression and weighted by its
# inverse (Musco & Witter 2025, for Shapley values). Both need a list of all masks.
LISTED = ("paired", "leverage")
MOST = 4000  # samples that `stable_errors` draws


def all_masks(superpixels: int) -> Int[np.ndarray, "masks superpixels"]:
    """Return all masks in the order of their numbers, 0 hidden and 1 shown."""
    return np.arange(1 << superpixels)[:, None] >> np.arange(superpixels) & 1


def exact_lime(scores: Scores) -> Float64[np.ndarray, " superpixels"]:
    """Return the weights that LIME tends to with more and more samples, from all masks' scores.

    Another number of scores than that of all masks of some superpixels raises `InputError`.
    """
    shown = all_masks(_superpixels(scores))
    return _ridge(shown[None], scores[None], closeness(shown.astype(bool))[None], 0.0)[0]


def exact_shapley(scores: Scores) -> Float64[np.ndarray, " superpixels"]:
    """Return the Shapley value of each superpixel, from all masks' scores; raises as `exact_lime`.

    The mean over all orders of what showing the superpixel adds to those before it (Shapley 1953).
    """
    count = _superpixels(scores)
    numbers = np.arange(len(scores))
    sizes = all_masks(count).sum(1)
    orders = np.cumprod([1.0, *range(1, count + 1)])  # factorials
    share = orders[sizes] * orders[np.maximum(count - 1 - sizes, 0)] / orders[count]
    found = []
    for superpixel in range(count):
        without = numbers[numbers >> superpixel & 1 == 0]
        added = scores[without | 1 << superpixel].astype(float) - scores[without]
        found.append(share[without] @ added)
    return np.array(found)


def design_errors(
    tables: Mapping[str, Scores],
    designs: Sequence[str],
    sizes: Sequence[int],
    runs: int = 40,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how far LIME's weights are from the exact ones, by design and number of samples.

    Parameters
    ----------
    tables : mapping from image to (masks,) float
        The scores of all masks.
    designs : sequence of str
        Names in `xailib.explain.sampling.DESIGNS` or in `LISTED`.
    sizes, runs
        Samples of a run, even numbers, and runs of each.
    seed : int
        Of all runs.

    Returns
    -------
    DataFrame
        Columns image, design, samples, error: the root of the mean squared error of a weight,
        divided by the root mean square of the exact ones.
    """
    for design in designs:
        check_name("designs", design, (*DESIGNS, *LISTED))
    rows = []
    for image, scores in tables.items():
        shown, exact = all_masks(_superpixels(scores)), exact_lime(scores)
        near = closeness(shown.astype(bool))
        for design in designs:
            rng = np.random.RandomState(seed)
            for samples in sizes:
                drawn = [_drawn(design, rng, samples, shown, near) for _ in range(runs)]
                masks, counts = (np.stack(part) for part in zip(*drawn, strict=True))
                weights = _ridge(shown[masks], scores[masks], near[masks] * counts, 1.0)
                rows.append((image, design, samples, _error(weights, exact)))
    return pd.DataFrame(rows, columns=["image", "design", "samples", "error"])


def stable_errors(
    tables: Mapping[str, Scores],
    designs: Sequence[str],
    num_features: int = 5,
    runs: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Return where ``num_samples="auto"`` stops, and the error there, as in `design_errors`.

    Columns image, design, samples (mean over runs) and error.
    """
    rows = []
    for image, scores in tables.items():
        shown, exact = all_masks(_superpixels(scores)), exact_lime(scores)
        near = closeness(shown.astype(bool))
        for design in designs:
            rng = np.random.RandomState(seed)
            stops, weights = [], []
            for _ in range(runs):
                masks = np.empty(0, int)
                while len(masks) < MOST:
                    more, _ = _drawn(design, rng, next_draw(len(masks), MOST), shown, near)
                    masks = np.concatenate([masks, more])
                    rows_shown = shown[masks].astype(bool)
                    if mask_is_stable(rows_shown, scores[masks], num_features, BLOCKS[design]):
                        break
                stops.append(len(masks))
                part = shown[masks][None], scores[masks][None], near[masks][None]
                weights.append(_ridge(*part, 1.0)[0])
            rows.append((image, design, np.mean(stops), _error(np.array(weights), exact)))
    return pd.DataFrame(rows, columns=["image", "design", "samples", "error"])


def passes_for(errors: pd.DataFrame) -> pd.Series:
    """Return by design how many samples give the error of 1000 independent ones.

    Of means over images of `design_errors`, whose sizes must hold 1000; between two sizes a power
    law is taken, and beyond the last one that of the last two.
    """
    mean = errors.groupby(["design", "samples"], sort=False)["error"].mean().unstack("samples")
    wanted = np.log(mean[1000].to_dict()["independent"])
    sizes = np.log(mean.columns.to_numpy(float))
    found = {}
    for design, curve in mean.iterrows():
        logs = np.log(curve.to_numpy(float))
        place = int(np.clip((logs > wanted).sum(), 1, len(logs) - 1))
        slope = (sizes[place] - sizes[place - 1]) / (logs[place] - logs[place - 1])
        found[design] = float(np.exp(sizes[place] + slope * (wanted - logs[place])))
    return pd.Series(found, name="samples")


def _superpixels(scores: Scores) -> int:
    count = len(scores).bit_length() - 1
    if len(scores) < 2 or len(scores) != 1 << count:
        raise InputError(f"scores: {len(scores)} are not those of all masks; give 2**superpixels")
    return count


def _drawn(
    design: str,
    rng: np.random.RandomState,
    samples: int,
    shown: Int[np.ndarray, "masks superpixels"],
    near: Float64[np.ndarray, " masks"],
) -> tuple[Int[np.ndarray, " samples"], Float64[np.ndarray, " samples"]]:
    """Return the numbers of drawn masks, the first the whole view, and how often each counts."""
    masks, superpixels = shown.shape
    counts = np.ones(samples)
    if design == "paired":
        pairs = [rng.permutation(masks // 2) for _ in range(-(-samples // masks))]
        first = np.concatenate(pairs)[: samples // 2]
        drawn = np.stack([first, masks - 1 - first], axis=1).ravel()
    elif design == "leverage":
        columns = np.concatenate([np.ones((masks, 1)), shown], axis=1)
        inverse = np.linalg.inv(columns.T @ (near[:, None] * columns))
        leverage = near * ((columns @ inverse) * columns).sum(1)
        share = leverage / leverage.sum()
        drawn = rng.choice(masks, samples, p=share)
        counts = 1 / (share[drawn] * masks)
        counts[0] = 1
    else:
        drawn = DESIGNS[design](rng, samples, superpixels) @ (1 << np.arange(superpixels))
    drawn[0] = masks - 1
    return drawn, counts


def _ridge(
    shown: Int[np.ndarray, "runs samples superpixels"],
    scores: Float[np.ndarray, "runs samples"],
    weights: Float64[np.ndarray, "runs samples"],
    penalty: float,
) -> Float64[np.ndarray, "runs superpixels"]:
    """Return weighted ridge regressions with a free intercept, without it."""
    columns = np.concatenate([np.ones((*shown.shape[:2], 1)), shown], axis=2)
    pull = (columns * weights[..., None]).swapaxes(1, 2)
    free = np.diag([0.0, *np.full(shown.shape[2], penalty)])
    found = np.linalg.solve(pull @ columns + free, pull @ scores[..., None].astype(float))
    return found[:, 1:, 0]


def _error(
    weights: Float64[np.ndarray, "runs superpixels"], exact: Float64[np.ndarray, " superpixels"]
) -> float:
    return float(np.sqrt(((weights - exact) ** 2).mean() / (exact**2).mean()))
