"""How well units fit concepts: the five measures of CLIP-Dissect (Oikarinen & Weng, ICLR 2023).

Each takes the similarity of probe images and concepts (a matrix, or
`xailib.dissect.evidence.product` of two tables of embeddings) and the units' activations, and
returns (units, concepts), higher for a better fit, on the similarity's device. Values of one
measure compare within one network, probe set and concept list.

None needs the whole (probe, concepts) matrix: soft-WPMI and WPMI read rows that are among some
unit's top images, the others columns, a block at a time.
"""

from collections.abc import Callable, Mapping
from math import log

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from xailib.dissect.evidence import Array, Similarities, as_tensor, evidence_of, times
from xailib.errors import InputError
from xailib.networks.forward import ROUNDING, double

Cosines = Similarities | Float[Array, "probe concepts"]
Table = Shaped[Array, "_ _"]  # (probe, units)
Tops = list[Int64[Tensor, "top _"]]  # of layers, each units' most activating images, falling
Tables = Table | Mapping[str, Table]
Fit = Float32[Tensor, "units concepts"]
# At a time on a CPU: 16 MB of units and 65 MB of concepts with 63,305 probe images.
_UNITS, _COLUMNS = 64, 256


def soft_wpmi(
    similarity: Cosines,
    activations: Tables | Tops,
    *,
    top_k: int = 100,
    a: float = 10.0,
    lam: float = 1.0,
    min_prob: float = 1e-7,
    p_start: float = 0.998,
    p_end: float = 0.97,
) -> Fit:
    """Soft weighted pointwise mutual information, the paper's recommended measure (sec. 3.2).

    ``sum_j log(1 + p_j (P[x_j, c] - 1) + min_prob) - lam * log(mean over units of exp(that))``
    with ``P`` the softmax of ``a * similarity`` over concepts, ``x_j`` the unit's j-th most
    activating image, and ``p_j`` the probability that it is one, falling from `p_start`
    towards `p_end`.

    Parameters
    ----------
    similarity : (probe, concepts)
        A matrix of cosines, or `xailib.dissect.evidence.product`.
    activations : (probe, units), or a mapping from layer to such tables
        Finite. Layers have each a mean of their own; their units are returned one layer after
        the other. Instead, by layer, the images that activate each unit most may be given: rows
        of the similarity, which may be of those alone, on its device.
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
    steps = torch.arange(top_k, dtype=torch.float64) / top_k
    chances = p_start - steps * (p_start - p_end)
    return _wpmi(similarity, activations, chances, a, lam, min_prob)


def wpmi(
    similarity: Cosines,
    activations: Tables,
    *,
    top_k: int = 28,
    a: float = 2.0,
    lam: float = 0.6,
    min_prob: float = 1e-7,
) -> Fit:
    """Weighted pointwise mutual information: `soft_wpmi` with every ``p_j`` one (sec. 3.2)."""
    chances = torch.ones(top_k, dtype=torch.float64)
    return _wpmi(similarity, activations, chances, a, lam, min_prob)


def cos_similarity(similarity: Cosines, activations: Tables) -> Fit:
    """Cosine of a unit's activations and a concept's similarities over the probe images."""
    return _cosine(similarity, activations, 1, 1e-12)


def cos_similarity_cubed(similarity: Cosines, activations: Tables) -> Fit:
    """Cosine as in `cos_similarity`, of values minus their mean, cubed (sec. 3.2).

    Norms below 0.001 count as 0.001, so that a dead unit fits nothing.
    """
    return _cosine(similarity, activations, 3, 1e-3)


def rank_reorder(
    similarity: Cosines,
    activations: Tables,
    *,
    p: float = 3.0,
    top_fraction: float = 0.05,
    scale_p: float = 0.5,
) -> Fit:
    """Minus the error of ordering a unit's top activations by a concept's similarities.

    ``-mean |t - t'|^p / baseline / max(m, 1e-6)^scale_p``: ``t`` the top activations
    (`top_fraction` of the images, at least two), ``t'`` the same in the order of the concept, ``m``
    the concept's mean similarity on them. The baseline, the error of a random order, is the exact
    expectation, which the authors estimate from five permutations. Slow: it sorts every concept for
    every unit.
    """
    similarities, tables = _as_tensors(similarity, activations)
    probe, concepts = similarities.shape
    count = int(probe * top_fraction)
    if not 2 <= count <= probe:
        raise InputError(
            f"top_fraction: {top_fraction} of {probe} probe images is {count}; "
            "at least 2 and at most all are needed"
        )
    units = sum(table.shape[1] for table in tables)
    scores = torch.empty(units, concepts, device=similarities.device)
    at_a_time = concepts if scores.is_cpu else _COLUMNS * times(scores)
    columns = ((unit, table) for table in tables for unit in range(table.shape[1]))
    for row, (unit, active) in enumerate(columns):
        images = top_images(active[:, unit : unit + 1], count)[:, 0]
        target = double(active[images, unit])  # falling
        rising = target.flip(0)[:, None]
        baseline = (target[:, None] - target).abs().pow(p).mean()
        for start in range(0, concepts, at_a_time):
            some = slice(start, start + at_a_time)
            seen = similarities.rows(images, columns=some)  # (count, concepts)
            order = seen.argsort(dim=0, stable=True).to(target.device)
            error = (target[order] - rising).abs().pow(p).mean(0)
            mean = double(seen).mean(0).clamp_min(1e-6)
            scores[row, some] = -(error / baseline.clamp_min(1e-30) / mean.pow(scale_p)).to(scores)
    return scores


MEASURES: dict[str, Callable[..., Fit]] = {
    "soft_wpmi": soft_wpmi,
    "wpmi": wpmi,
    "rank_reorder": rank_reorder,
    "cos_similarity": cos_similarity,
    "cos_similarity_cubed": cos_similarity_cubed,
}


def top_images(activations: Shaped[Array, "probe units"], count: int) -> Int64[Tensor, "top units"]:
    """Return each unit's `count` most activating images, falling; of equals the earlier first.

    Half precision and ReLU make many equals, which ``topk`` alone orders differently from one
    machine to the next. A tensor's are found on its device.
    """
    place = activations.device if isinstance(activations, Tensor) else torch.device("cpu")
    table = as_tensor(activations, place)
    probe, units = table.shape
    group = max(1, probe // (4 * count))
    rank = torch.arange(count, device=place)[:, None]
    found = []
    for start in range(0, units, _UNITS * times(table)):
        values = table[:, start : start + _UNITS * times(table)].float()
        # At least `count` values reach the count-th greatest of the maxima of groups: only
        # those that do are sorted, about a seventh more than `count` where none are equal.
        maxima = values[: probe // group * group].unflatten(0, (-1, group)).amax(1)
        image, unit = (values >= maxima.topk(count, dim=0).values[-1]).nonzero(as_tuple=True)
        order = values[image, unit].argsort(descending=True, stable=True)
        order = order[unit[order].argsort(stable=True)]  # unit by unit
        sizes = torch.bincount(unit, minlength=values.shape[1])
        first = sizes.cumsum(0) - sizes
        found.append(image[order[first + rank]])
    return torch.cat(found, dim=1)


def check_top_k(top_k: int, probe: int) -> None:
    """Raise unless there are so many probe images."""
    if not 1 <= top_k <= probe:
        raise InputError(f"top_k: {top_k} is not between 1 and the {probe} probe images")


def _wpmi(
    similarity: Cosines,
    activations: Tables | Tops,
    chances: Float[Tensor, " top"],
    a: float,
    lam: float,
    min_prob: float,
) -> Fit:
    similarities, tops = _as_tensors(similarity, activations)
    if not isinstance(activations, list):
        check_top_k(len(chances), similarities.shape[0])
        tops = [top_images(table, len(chances)) for table in tops]
    # log(b + p P) = log b + log1p(p P / b), b = 1 - p + min_prob. The first part is the same for
    # all units and concepts: left out of the sum, it costs no precision.
    rest = 1 - chances + min_prob
    fixed = float(rest.log().sum())
    evidence = evidence_of(similarities, torch.cat(tops, 1), (chances / rest).float(), a)
    for part in evidence.split([top.shape[1] for top in tops]):
        mean = part.logsumexp(0) - log(len(part))
        part.sub_(lam * mean).add_((1 - lam) * fixed)
    return evidence


def _cosine(similarity: Cosines, activations: Tables, power: int, min_norm: float) -> Fit:
    similarities, tables = _as_tensors(similarity, activations)
    sizes, concepts = [table.shape[1] for table in tables], similarities.shape[1]
    scores = torch.empty(sum(sizes), concepts, device=similarities.device)
    width = _COLUMNS * times(scores)
    parts = scores.split(sizes)
    for part, table in zip(parts, tables, strict=True):
        active = _scaled(table.to(torch.float32, copy=True), power, min_norm)
        for start in range(0, concepts, width):
            stop = min(start + width, concepts)
            block = _scaled(similarities.columns(start, stop), power, min_norm)
            torch.mm(active.T, block, out=part[:, start:stop])
    return scores


def _scaled(
    values: Float32[Tensor, "probe _"], power: int, min_norm: float
) -> Float32[Tensor, "probe _"]:
    """Make columns unit columns, in place; cubed, of values minus their mean."""
    if power == 3:
        values.sub_(values.mean(0)).pow_(3)
    return values.div_(values.norm(dim=0).clamp_min(min_norm))


def _as_tensors(
    similarity: Cosines, activations: Tables | Tops
) -> tuple[Similarities, list[Shaped[Tensor, "_ _"]]]:
    """Return what is compared on one device; raise unless shapes fit and activations are finite."""
    if not isinstance(similarity, Similarities):
        place = similarity.device if isinstance(similarity, Tensor) else torch.device("cpu")
        similarity = Similarities(as_tensor(similarity, place).float())
    if isinstance(activations, list):
        return similarity, activations
    given = {"": activations} if isinstance(activations, Array) else activations
    if not given:
        raise InputError("activations: no layer is given")
    tables = {name: as_tensor(table, similarity.device) for name, table in given.items()}
    for name, table in tables.items():
        of = f" of layer {name!r}" if name else ""
        if len(table) != similarity.shape[0]:
            raise InputError(
                f"activations: those{of} are of {len(table)} probe images, "
                f"but the similarity is of {similarity.shape[0]}"
            )
        if 0 in similarity.shape or 0 in table.shape:
            raise InputError("similarity: there are no probe images, concepts or units to compare")
        finite = torch.stack(extremes(table)).isfinite().all(0)
        if not finite.all():
            unit = int(finite.int().argmin())
            raise InputError(f"activations: unit {unit}{of} has values that are not finite")
    return similarity, list(tables.values())


def extremes(table: Shaped[Tensor, "probe units"]) -> tuple[Tensor, Tensor]:
    """Return each unit's least and greatest activation, NaN where there is one."""
    return table.amin(0), table.amax(0)


def constant(least: Shaped[Tensor, " units"], greatest: Shaped[Tensor, " units"]) -> Tensor:
    """Return which units are the same on all images, but for rounding errors: dead ones."""
    low, high = least.float(), greatest.float()
    return high - low <= ROUNDING * torch.maximum(low.abs(), high.abs())
