"""How stable LIME's weights and mask are, from the samples that it drew: no further forward pass.

Two ways to draw again from the samples. How far is a weight from what many more samples would give?
The bootstrap (Efron 1979) fits the linear model to samples drawn with replacement. Would another
run choose the same superpixels? A bootstrap is overconfident here, since its refits share the noise
of the fit that they start from; but two halves of independent samples are two real runs of half the
length. What they share estimates what two such runs share, and longer runs share more: a cautious
estimate, not a bound, since all splits are of the same samples. Where samples are drawn in pairs,
pairs stay together; an orthogonal design loses its balance in the halves, which makes them look
less similar than two orthogonal runs would be.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from scipy.stats import rankdata
from torch import Tensor

from xailib.errors import InputError
from xailib.explain.explanation import Superpixels
from xailib.explain.record import exact_to
from xailib.networks.forward import ROUNDING

REFITS = 100
SEED = 0  # of the bootstrap and of the splits
_PAIRS = 2**18  # samples times pairs of superpixels at a time: 2 MB stay in the cache
STEP = 250  # samples before the first look at whether a mask is stable

# A mask is stable if two halves of its samples share this part of the chosen superpixels ...
AGREEMENT = 0.8
# ... in this share of the ways to split them.
CONFIDENCE = 0.9

Shown = Bool[np.ndarray, "samples superpixels"]
Scores = Float[np.ndarray, " samples"]
Areas = Int[np.ndarray, " superpixels"]
Counts = Int[np.ndarray, "refits samples"]
Weights = Float[np.ndarray, "refits superpixels"]
Chosen = Bool[np.ndarray, "refits superpixels"]
Device = str | torch.device


@dataclass(frozen=True)
class Stability:
    """How stable one LIME explanation is."""

    samples: int  #: perturbed images that the weights rest on
    #: of the 95 % bootstrap interval of each weight, to `high`
    low: Float[np.ndarray, " superpixels"]
    high: Float[np.ndarray, " superpixels"]
    selection_frequency: Float[np.ndarray, " superpixels"]  #: share of halves that select it
    iou: float  #: mean IoU, in pixels, of the masks from two halves of the samples
    shared: float  #: mean share of the chosen superpixels that both halves choose
    shared_low: float  #: the share that two halves reach with the confidence `CONFIDENCE`
    rank_correlation: float  #: mean Spearman correlation of the weights from two halves
    #: more superpixels than the mask is to hold, and a score that is not constant
    choice: bool = True

    @property
    def stable(self) -> bool:
        """Whether two runs of half the length choose much the same, see `AGREEMENT`."""
        return self.choice and self.shared_low >= AGREEMENT


def stability(parts: Superpixels, num_features: int = 10, device: Device = "cpu") -> Stability:
    """Return how stable an explanation's weights and its mask are.

    Parameters
    ----------
    parts : Superpixels
        LIME's linear model with its samples, at least ten.
    num_features : int
        Superpixels in the mask, at least 1: those that support the target most (LIME 1).
    device : str or torch.device
        Where to refit.
    """
    shown, scores = parts.shown, parts.scores
    if shown is None or scores is None:
        raise InputError("explanation: it stores no samples; explain it again with explain_lime")
    if len(shown) < 10:
        raise InputError(f"explanation: {len(shown)} samples cannot be split; at least 10")
    areas = np.bincount(parts.segments.ravel(), minlength=shown.shape[1])
    again = fit(shown, scores, bootstrap_counts(len(shown), parts.block), device)
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    one, other = half_weights(shown, scores, parts.block, device)
    mask, twin = supporters(one, num_features), supporters(other, num_features)
    part = shared(mask, twin)
    return Stability(
        len(shown),
        low,
        high,
        np.concatenate([mask, twin]).mean(axis=0),
        float(mask_iou(mask, twin, areas).mean()),
        float(part.mean()),
        float(np.quantile(part, 1 - CONFIDENCE)),
        float(rank_correlation(one, other).mean()),
        choosable(shown, scores, num_features),
    )


def choosable(shown: Shown, scores: Scores, num_features: int) -> bool:
    """Return whether there is anything to choose, see `Stability`."""
    return bool(np.ptp(scores) > exact_to(scores, ROUNDING)) and num_features < shown.shape[1]


def mask_is_stable(
    shown: Shown, scores: Scores, num_features: int, block: int = 1, device: Device = "cpu"
) -> bool:
    """Return whether the mask that these samples give is stable, as `Stability.stable`."""
    if not choosable(shown, scores, num_features):
        return False
    part = shared_by_halves(shown, scores, num_features, block, device)
    return bool(np.quantile(part, 1 - CONFIDENCE) >= AGREEMENT)


def shared_by_halves(
    shown: Shown, scores: Scores, num_features: int, block: int = 1, device: Device = "cpu"
) -> Float[np.ndarray, " refits"]:
    """Return for each split the share of the chosen superpixels that both halves choose."""
    one, other = half_weights(shown, scores, block, device)
    return shared(supporters(one, num_features), supporters(other, num_features))


def next_draw(drawn: int, most: int, step: int = STEP) -> int:
    """Return how many samples to draw before the next look, at most up to `most` in all.

    That is `step`, or where it is more a quarter of those drawn, since looking takes longer too;
    the quarter is even, so that pairs stay together.
    """
    return min(max(step, drawn // 8 * 2), most - drawn)


def closeness(shown: Shown) -> Scores:
    """Return lime's weight of each sample: 1 for the whole view, less the more is hidden."""
    share = np.sqrt(shown.mean(axis=1))
    return np.sqrt(np.exp(-((1 - share) ** 2) / 0.25**2))


def fit(shown: Shown, scores: Scores, counts: Counts, device: Device = "cpu") -> Weights:
    """Return lime's ridge regression (penalty 1, free intercept) for each row of sample counts.

    By one batched solve, in double precision; counts of one give lime's own weights.
    """
    return _ridge(_sums(shown, scores, counts, device), shown.shape[1])


def _sums(shown: Shown, scores: Scores, counts: Counts, device: Device) -> Float64[Tensor, "_ _"]:
    """Return for each row of counts the weighted sums that its regression is made of.

    They are linear in the counts: of all pairs of superpixels (the upper triangle), of each
    superpixel times the score, of the score, and of nothing (the weights themselves).
    """
    place, double = torch.device(device), torch.float64
    place = torch.device("cpu") if place.type == "mps" else place  # which has no float64
    columns = torch.from_numpy(shown).to(place, double)
    values = torch.from_numpy(scores - scores.mean()).to(place, double)[:, None]
    weights = torch.from_numpy(counts * closeness(shown)).to(place)
    one, other = torch.triu_indices(shown.shape[1], shown.shape[1], device=place)
    step = max(1, _PAIRS // len(one))
    sums = weights.new_zeros(len(weights), len(one))
    for start in range(0, len(shown), step):
        part = columns[start : start + step].T.contiguous()
        sums.addmm_(weights[:, start : start + step], (part[one] * part[other]).T)
    rest = torch.cat([columns * values, values, torch.ones_like(values)], 1)
    return torch.cat([sums, weights @ rest], 1)


def _ridge(sums: Float64[Tensor, "refits _"], count: int) -> Weights:
    """Solve all regressions of so many superpixels, from their sums, at once."""
    one, other = torch.triu_indices(count, count, device=sums.device)
    pairs, pull, level, total = sums.split([len(one), count, 1, 1], dim=1)
    moments = sums.new_empty(len(sums), count, count)
    moments[:, one, other] = moments[:, other, one] = pairs
    shown = moments.diagonal(dim1=1, dim2=2).clone()  # a superpixel is shown or not: its own square
    moments -= shown[:, :, None] * (shown / total)[:, None]
    moments.diagonal(dim1=1, dim2=2).add_(1)
    pull = (pull - level * shown / total)[:, :, None]
    return torch.cholesky_solve(pull, torch.linalg.cholesky(moments))[:, :, 0].cpu().numpy()


def bootstrap_counts(samples: int, block: int) -> Counts:
    """Return how often each sample takes part if blocks of them are drawn with replacement.

    The first block holds the whole view, which is in every run of LIME, and always takes part.
    """
    others = -(-samples // block) - 1
    rng = np.random.default_rng(SEED)
    return _by_sample(rng.multinomial(others, np.full(others, 1 / others), REFITS), samples, block)


def half_weights(
    shown: Shown, scores: Scores, block: int, device: Device = "cpu"
) -> tuple[Weights, Weights]:
    """Return the weights from either half of the samples, split at random `REFITS` times.

    Blocks stay together, and the first one, with the whole view, belongs to both halves.
    """
    others = np.zeros((REFITS, -(-len(shown) // block) - 1), int)
    others[:, ::2] = 1
    half = np.random.default_rng(SEED).permuted(others, axis=1)
    first = np.arange(len(shown)) < block
    counts = np.concatenate([_by_sample(half, len(shown), block), 1 + first[None]])
    one, both = _sums(shown, scores, counts, device).split([REFITS, 1])
    return _ridge(one, shown.shape[1]), _ridge(both - one, shown.shape[1])


def _by_sample(others: Int[np.ndarray, "refits others"], samples: int, block: int) -> Counts:
    """Return the counts of the samples from those of all blocks but the first."""
    counts = np.concatenate([np.ones((len(others), 1), int), others], axis=1)
    return np.repeat(counts, block, axis=1)[:, :samples]


def supporters(weights: Weights, num_features: int) -> Chosen:
    """Return which superpixels each row's mask holds: the `num_features` largest positive ones."""
    if num_features < 1:
        raise InputError(f"num_features: {num_features} is below 1")
    chosen = np.zeros(weights.shape, bool)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :num_features]
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen & (weights > 0)


def shared(one: Chosen, other: Chosen) -> Float[np.ndarray, " refits"]:
    """Return the share of the chosen superpixels in both masks, row by row; 1 if none is chosen."""
    larger = np.maximum(one.sum(axis=1), other.sum(axis=1))
    return np.where(larger > 0, (one & other).sum(axis=1) / np.maximum(larger, 1), 1.0)


def mask_iou(one: Chosen, other: Chosen, areas: Areas) -> Float[np.ndarray, " refits"]:
    """Return the masks' IoU in pixels, row by row; 1 where both are empty."""
    union = (one | other) @ areas
    return np.where(union > 0, ((one & other) @ areas) / np.maximum(union, 1), 1.0)


def rank_correlation(one: Weights, other: Weights) -> Float[np.ndarray, " refits"]:
    """Return Spearman's correlation of two sets of weights, row by row; NaN if one is constant."""
    ranks = [rankdata(weights, axis=1) for weights in (one, other)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    none = np.full(len(a), np.nan)
    return np.divide((a * b).sum(axis=1), spread, out=none, where=spread > 0)
