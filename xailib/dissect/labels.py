"""Labels as a tidy table: one row for each unit, from how well concepts fit it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from xailib.dissect.concepts import Concepts

_ROWS = 64  # units at a time: with 20,000 concepts 10 MB


def unit_table(
    layer: str,
    scores: Float32[Tensor, "units concepts"],
    concepts: Concepts,
    top: Sequence[Sequence[str]],
    dead: Bool[np.ndarray, " units"],
) -> pd.DataFrame:
    """Return one layer's part of what `xailib.dissect.label.label_units` returns.

    Parameters
    ----------
    layer : str
        Its name.
    scores : (units, concepts)
        How well they fit, on any device; modified in place, so that it need not be copied.
    concepts : Concepts
        Their names.
    top : sequence of sequences of str
        For each unit the ids of the images that activate it most.
    dead : (units,)
        Whether a unit is the same on all images.
    """
    names = np.array(concepts.names, dtype=object)
    greatest = scores.max(1)
    # Some rows at a time: a table in double precision would be the largest thing in memory.
    moments = [torch.std_mean(part.double(), 1, correction=0) for part in scores.split(_ROWS)]
    spread, centre = (torch.cat(some).cpu().numpy() for some in zip(*moments, strict=True))
    scores.scatter_(1, greatest.indices[:, None], -torch.inf)
    behind = scores.max(1)
    similarity, best, second = (
        found.cpu().numpy() for found in (greatest.values, greatest.indices, behind.indices)
    )
    alone = len(names) == 1  # a single concept has no runner-up
    return pd.DataFrame(
        {
            "layer": layer,
            "unit": np.arange(len(scores)),
            "concept": names[best],
            "similarity": similarity,
            "runner_up": None if alone else names[second],
            "margin": np.nan if alone else similarity - behind.values.cpu().numpy(),
            "zscore": np.divide(
                similarity - centre, spread, out=np.zeros_like(centre), where=spread > 0
            ),
            "dead": dead,
            "top_images": [list(images) for images in top],
        }
    )
