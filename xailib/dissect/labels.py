"""Labels as a tidy table: one row for each unit, from how well concepts fit it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64

from xailib.dissect.concepts import Concepts


def unit_table(
    layer: str,
    scores: Float32[np.ndarray, "units concepts"],
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
        How well they fit; spoilt here, so that it need not be copied.
    concepts : Concepts
        Their names.
    top : sequence of sequences of str
        For each unit the ids of the images that activate it most.
    dead : (units,)
        Whether a unit is the same on all images.
    """
    names = np.array(concepts.names, dtype=object)
    units = np.arange(len(scores))
    best: Int64[np.ndarray, " units"] = scores.argmax(1)
    similarity = scores[units, best]
    # Row by row: a table in double precision would be the largest thing in memory.
    centre = np.array([row.mean(dtype=np.float64) for row in scores])
    spread = np.array([row.std(dtype=np.float64) for row in scores])
    scores[units, best] = -np.inf
    second = scores.argmax(1)
    alone = len(names) == 1  # a single concept has no runner-up
    return pd.DataFrame(
        {
            "layer": layer,
            "unit": units,
            "concept": names[best],
            "similarity": similarity,
            "runner_up": None if alone else names[second],
            "margin": np.nan if alone else similarity - scores[units, second],
            "zscore": np.divide(
                similarity - centre, spread, out=np.zeros_like(centre), where=spread > 0
            ),
            "dead": dead,
            "top_images": [list(images) for images in top],
        }
    )
