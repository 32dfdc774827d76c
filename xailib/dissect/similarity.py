"""How well units fit concepts: the five measures of CLIP-Dissect (Oikarinen & Weng, ICLR 2023).

Each takes the similarity of probe images and concepts (a matrix, or
`xailib.dissect.cosines.product` of two tables of embeddings) and the units' activations, and
returns (units, concepts), higher for a better fit. Values of one measure compare within one
network, probe set and concept list. None needs the whole (probe, concepts) matrix: soft-WPMI and
WPMI read rows that are among some unit's top images, a block at a time; the others read columns.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from xailib.dissect.cosines import Matrix, Similarities, as_tensor
from xailib.dissect.evidence import evidence_of
from xailib.errors import InputError

Table = Float[np.ndarray, "_ _"]  # (probe, units)
Measure = Callable[..., Float32[np.ndarray, "units concepts"]]
_UNITS = 64  # at a time: with 63,305 probe images 32 MB
_COLUMNS = 256  # concepts at a time: with 63,305 probe images 65 MB


def soft_wpmi(
    similarity: Similarities | Float[np.ndarray, "probe concepts"],
    activations: Table | Sequence[Table],
    *,
    top_k: int = 100,
    a: float = 10.0,
    lam: float = 1.0,
    min_prob: float = 1e-7,
    p_start: float = 0.998,
    p_end: float = 0.97,
) -> Float32[np.ndarray, "_ concepts"]:
    """Soft weighted pointwise mutual information, the paper's recommended measure (sec. 3.2).

    ``sum_j log(1 + p_j (P[x_j, c] - 1) + min_prob) - lam * log(mean over units of exp(that))``
    with ``P`` the softmax of ``a * similarity`` over concepts, ``x_j`` the unit's j-th most
    activating image, and ``p_j`` the probability that it is one, falling from `p_start`
    towards `p_end`.

    Parameters
    ----------
    similarity : (probe, concepts)
        A matrix of cosines, or `xailib.dissect.cosines.product`.
    activations : (probe, units), or a list of them
        Finite. The tables of a list, such as layers, have each a mean of their own; their
        units are returned one table after the other.
    top_k : int
        Images of each unit, at most as many as there are. The paper's 100 suits tens of
        thousands of images; where each class has one or few, 5 does better.
    a : float
        Inverse temperature of the softmax.
    lam : float
        Weight of the concept's own frequency.
    min_prob : float
        Added to each probability.
    p_start, p_end : float
        In 0 to 1.

    Raises
    ------
    InputError
        For shapes that do not fit, `top_k` out of range, or activations that are not finite.
    """
    steps = torch.arange(top_k, dtype=torch.float64) / max(top_k, 1)
    chances = p_start - steps * (p_start - p_end)
    return _wpmi(similarity, activations, chances, a, lam, min_prob)


def wpmi(
    similarity: Similarities | Float[np.ndarray, "probe concepts"],
    activations: Table | Sequence[Table],
    *,
    top_k: int = 28,
    a: float = 2.0,
    lam: float = 0.6,
    min_prob: float = 1e-7,
) -> Float32[np.ndarray, "_ concepts"]:
    """Weighted pointwise mutual information: `soft_wpmi` with every ``p_j`` one (sec. 3.2)."""
    chances = torch.ones(top_k, dtype=torch.float64)
    return _wpmi(similarity, activations, chances, a, lam, min_prob)


def cos_similarity(
    similarity: Similarities | Float[np.ndarray, "probe concepts"],
    activations: Float[np.ndarray, "_ units"],
    *,
    min_norm: float = 1e-12,
) -> Float32[np.ndarray, "units concepts"]:
    """Cosine of a unit's activations and a concept's similarities over the probe images."""
    return _cosine(similarity, activations, 1, min_norm)


def cos_similarity_cubed(
    similarity: Similarities | Float[np.ndarray, "probe concepts"],
    activations: Float[np.ndarray, "_ units"],
    *,
    min_norm: float = 1e-3,
) -> Float32[np.ndarray, "units concepts"]:
    """Cosine as in `cos_similarity`, of values less their mean, cubed (sec. 3.2).

    Norms below `min_norm` count as `min_norm`, so that a dead unit fits nothing.
    """
    return _cosine(similarity, activations, 3, min_norm)


def rank_reorder(
    similarity: Similarities | Float[np.ndarray, "probe concepts"],
    activations: Float[np.ndarray, "_ units"],
    *,
    p: float = 3.0,
    top_fraction: float = 0.05,
    scale_p: float = 0.5,
) -> Float32[np.ndarray, "units concepts"]:
    """Minus the error of ordering a unit's top activations by a concept's similarities.

    ``-mean |t - t'|^p / baseline / max(m, 1e-6)^scale_p``: ``t`` the top activations, ``t'``
    the same in the order of the concept, ``m`` the concept's mean similarity on them. The
    authors estimate the baseline, the error of a random order, from five permutations; here
    it is the exact expectation, so that the measure is the same each time. Slow: it sorts
    every concept for every unit.

    Parameters
    ----------
    similarity, activations
        As in `soft_wpmi`.
    p : float
        The error's exponent.
    top_fraction : float
        Share of the probe images that counts, in 0 to 1; at least two images.
    scale_p : float
        Weight of the mean similarity.
    """
    similarities, active = _as_similarities(similarity), activations
    _check(similarities, active)
    count = int(len(active) * top_fraction)
    if not 2 <= count <= len(active):
        raise InputError(
            f"top_fraction: {top_fraction} of {len(active)} probe images is {count}; "
            "at least 2 and at most all are needed"
        )
    images = top_images(active, count)
    scores = torch.empty(active.shape[1], similarities.shape[1])
    for unit in range(active.shape[1]):
        target = as_tensor(active[images[:, unit], unit][None])[0].double()  # falling
        rising = target.flip(0)
        baseline = (target[:, None] - target).abs().pow(p).mean()
        seen = similarities.rows(images[:, unit])  # (count, concepts)
        ranks = seen.argsort(dim=0, stable=True).argsort(dim=0)
        error = (target[:, None] - rising[ranks]).abs().pow(p).mean(0)
        mean = seen.double().mean(0).clamp_min(1e-6)
        scores[unit] = -(error / baseline.clamp_min(1e-30) / mean.pow(scale_p)).float()
    return scores.numpy()


MEASURES: dict[str, Measure] = {
    "soft_wpmi": soft_wpmi,
    "wpmi": wpmi,
    "rank_reorder": rank_reorder,
    "cos_similarity": cos_similarity,
    "cos_similarity_cubed": cos_similarity_cubed,
}


def _wpmi(
    similarity: Similarities | Float[np.ndarray, "probe concepts"],
    activations: Table | Sequence[Table],
    chances: Tensor,
    a: float,
    lam: float,
    min_prob: float,
) -> Float32[np.ndarray, "_ concepts"]:
    layers = [activations] if isinstance(activations, np.ndarray) else activations
    if not layers:
        raise InputError("activations: no table is given")
    similarities = _as_similarities(similarity)
    for active in layers:
        _check(similarities, active)
    check_top_k(len(chances), similarities.shape[0])
    images = torch.cat([top_images(active, len(chances)) for active in layers], dim=1)
    # log(b + p P) = log b + log1p(p P / b), b = 1 - p + min_prob. The first part is the same for
    # all units and concepts: kept out of the sum, it costs no precision.
    rest = 1 - chances + min_prob
    constant = float(rest.log().sum())
    evidence = evidence_of(similarities, images, (chances / rest).float(), a)
    for part in evidence.split([active.shape[1] for active in layers]):
        mean = part.logsumexp(0) - np.log(len(part))
        part.sub_(lam * mean).add_((1 - lam) * constant)
    return evidence.numpy()


def _cosine(
    similarity: Similarities | Float[np.ndarray, "probe concepts"],
    activations: Float[np.ndarray, "_ units"],
    power: int,
    min_norm: float,
) -> Float32[np.ndarray, "units concepts"]:
    similarities = _as_similarities(similarity)
    _check(similarities, activations)
    active = as_tensor(activations).clone()  # what was given is not to change
    if power == 3:
        active.sub_(active.mean(0)).pow_(3)
    active.div_(active.norm(dim=0).clamp_min(min_norm))
    concepts = similarities.shape[1]
    scores = torch.empty(active.shape[1], concepts)
    for start in range(0, concepts, _COLUMNS):
        stop = min(start + _COLUMNS, concepts)
        block = similarities.columns(start, stop).float()
        if power == 3:
            block.sub_(block.mean(0)).pow_(3)
        block.div_(block.norm(dim=0).clamp_min(min_norm))
        torch.mm(active.T, block, out=scores[:, start:stop])
    return scores.numpy()


def top_images(
    activations: Float[np.ndarray, "probe units"], count: int
) -> Int64[Tensor, "top units"]:
    """Return each unit's `count` most activating images, falling; of equals the earlier first.

    Half precision and ReLU make many equals, which ``topk`` alone orders differently from one
    machine to the next.
    """
    probe, units = activations.shape
    group = max(1, probe // (4 * count))
    found = []
    for start in range(0, units, _UNITS):
        values = as_tensor(activations[:, start : start + _UNITS])
        # At least `count` values reach the count-th greatest of the maxima of groups: only
        # those that do are sorted, about a seventh more than `count` where none are equal.
        maxima = values[: probe // group * group].unflatten(0, (-1, group)).amax(1)
        image, unit = (values >= maxima.topk(count, dim=0).values[-1]).nonzero(as_tuple=True)
        order = values[image, unit].argsort(descending=True, stable=True)
        order = order[unit[order].argsort(stable=True)]  # unit by unit
        sizes = torch.bincount(unit, minlength=values.shape[1])
        first = sizes.cumsum(0) - sizes
        found.append(image[order[first + torch.arange(count)[:, None]]])
    return torch.cat(found, dim=1)


def check_top_k(top_k: int, probe: int) -> None:
    """Raise unless there are so many probe images."""
    if not 1 <= top_k <= probe:
        raise InputError(f"top_k: {top_k} is not between 1 and the {probe} probe images")


def _as_similarities(
    similarity: Similarities | Float[np.ndarray, "probe concepts"],
) -> Similarities:
    return Matrix(as_tensor(similarity)) if isinstance(similarity, np.ndarray) else similarity


def _check(similarities: Similarities, activations: Table) -> None:
    """Raise unless the shapes fit and the activations are finite."""
    if similarities.shape[0] != len(activations):
        raise InputError(
            f"activations: of {len(activations)} probe images, "
            f"but the similarity is of {similarities.shape[0]}"
        )
    if 0 in similarities.shape or 0 in activations.shape:
        raise InputError("similarity: there are no probe images, concepts or units to compare")
    finite = np.isfinite(activations).all(0)
    if not finite.all():
        unit = int(finite.argmin())
        raise InputError(f"activations: unit {unit} has values that are not finite")
