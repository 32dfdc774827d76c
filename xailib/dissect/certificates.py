"""How well activations follow concepts, and whether that is more than chance: certified labels.

All units and all concepts are compared at once. Of the scores here correlation, cosine, AUPRC, F1
and IoU pass the sanity tests of NeuronEval (Oikarinen, Yan & Weng, ICML 2025): they fall when
half of a concept's images are left out or as many wrong ones added. So does the correlation of
ranks, by which labels are chosen: it is AUROC, INVERT's score, made comparable between rare and
frequent concepts, and a few extreme activations do not decide it.

One correction stands for the whole room: Benjamini and Yekutieli's (2001), which bounds the share
of wrong certificates among those given, however units depend on each other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy import stats
from torch import Tensor

from xailib.errors import InputError, unknown_name

TOP = 0.05  # share of the images on which a unit counts as active, for F1 and IoU
LEVEL = 0.05  # of the adjusted p

Activations = Float[np.ndarray, "probe units"]
Masks = Bool[np.ndarray, "concepts probe"]
Scores = Float32[np.ndarray, "units concepts"]


def score_all(activations: Activations, masks: Masks, score: str = "ranks") -> Scores:
    """Score every unit against every concept.

    Parameters
    ----------
    activations : (probe, units)
        Finite.
    masks : (concepts, probe)
        Which images belong to each concept.
    score : str
        ``"ranks"`` (the correlation of the activations' ranks), or one of ``"correlation"``,
        ``"cosine"``, ``"auroc"``, ``"auprc"``, ``"f1"`` and ``"iou"``.

    Returns
    -------
    (units, concepts)
        Higher is better; 0 where a unit or a concept is constant, 0.5 for AUROC.

    Raises
    ------
    InputError
        For an unknown score, tables that do not fit, or activations that are not finite.
    """
    if score not in SCORES:
        raise unknown_name("score", score, SCORES)
    activations, masks = np.asarray(activations), np.asarray(masks, bool)
    if activations.ndim != 2 or masks.ndim != 2 or len(activations) != masks.shape[1]:
        raise InputError(
            f"masks: {masks.shape} do not fit the activations {activations.shape}; "
            "(concepts, probe) and (probe, units) are needed"
        )
    if not np.isfinite(activations).all():
        raise InputError("activations: not all are finite")
    return SCORES[score](activations, masks)


def _standard(values: Float[np.ndarray, "probe _"]) -> Float32[Tensor, "probe _"]:
    """Return columns with mean zero and norm one; constant ones are zero."""
    table = torch.from_numpy(np.asarray(values, np.float64))
    table = table - table.mean(0)
    norm = table.norm(dim=0)
    return (table / torch.where(norm > 1e-12, norm, torch.inf)).float()


def _correlation(activations: Activations, masks: Masks) -> Scores:
    return (_standard(activations).T @ _standard(masks.T)).numpy()


def _ranked(activations: Activations) -> Float64[np.ndarray, "probe units"]:
    return np.asarray(stats.rankdata(activations, axis=0))


def _rank_correlation(activations: Activations, masks: Masks) -> Scores:
    return _correlation(_ranked(activations), masks)


def _cosine(activations: Activations, masks: Masks) -> Scores:
    table = torch.from_numpy(np.asarray(activations, np.float32))
    wide = torch.from_numpy(masks.astype(np.float32))
    found = table.T @ wide.T / table.norm(dim=0).clamp_min(1e-12)[:, None]
    return (found / wide.sum(1).clamp_min(1).sqrt()).numpy()


def _auroc(activations: Activations, masks: Masks) -> Scores:
    count, sizes = len(activations), masks.sum(1)
    sums = _ranked(activations).T @ masks.T
    pairs = sizes * (count - sizes)
    found = (sums - sizes * (sizes + 1) / 2) / np.maximum(pairs, 1)
    return np.where(pairs > 0, found, 0.5).astype(np.float32)


def active(activations: Activations) -> Bool[np.ndarray, "probe units"]:
    """Return on which `TOP` of the images each unit is most active, and above its least."""
    count = max(1, round(TOP * len(activations)))
    least = -np.partition(-activations, count - 1, axis=0)[count - 1]
    return (activations >= least) & (activations > activations.min(0))


def _overlaps(activations: Activations, masks: Masks) -> tuple[Scores, Scores]:
    """Return the images that are active and of the concept, and the sum of both numbers."""
    on = active(activations).astype(np.float32)
    wide = masks.astype(np.float32)
    both = (torch.from_numpy(on).T @ torch.from_numpy(wide).T).numpy()
    return both, on.sum(0)[:, None] + wide.sum(1)


def _f1(activations: Activations, masks: Masks) -> Scores:
    both, sizes = _overlaps(activations, masks)
    return 2 * both / np.maximum(sizes, 1)


def _iou(activations: Activations, masks: Masks) -> Scores:
    both, sizes = _overlaps(activations, masks)
    return both / np.maximum(sizes - both, 1)


def _auprc(activations: Activations, masks: Masks) -> Scores:
    """Return average precision: over a concept's images, how many of those so far are its own.

    Of equal activations the earlier image comes first. All concepts' images are sorted at once:
    a key is the concept's number, then the image's place.
    """
    count, units = activations.shape
    owner, members = np.nonzero(masks)
    filled, starts, sizes = np.unique(owner, return_index=True, return_counts=True)
    step = 1 << count.bit_length()
    base = (owner * step).astype(np.uint32 if len(masks) * step < 2**32 else np.uint64)
    hits = (np.arange(len(owner)) - np.repeat(starts, sizes) + 1).astype(np.float32)
    found = np.zeros((units, len(masks)), np.float32)
    if not len(owner):
        return found
    place = np.empty(count, base.dtype)
    for row, order in zip(found, np.argsort(-activations, axis=0, kind="stable").T, strict=True):
        place[order] = np.arange(1, count + 1)
        keys = np.sort(base + place[members]) & base.dtype.type(step - 1)
        row[filled] = np.add.reduceat(hits / keys.astype(np.float32), starts) / sizes
    return found


SCORES: MappingProxyType[str, Callable[[Activations, Masks], Scores]] = MappingProxyType(
    {
        "ranks": _rank_correlation,
        "correlation": _correlation,
        "cosine": _cosine,
        "auroc": _auroc,
        "auprc": _auprc,
        "f1": _f1,
        "iou": _iou,
    }
)
