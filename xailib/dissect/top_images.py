"""Labels from recorded blocks, one after the other: only each unit's top images are stored.

The result is that of the whole recording at once, to the last bit: whoever has a million probe
images needs the memory of one block.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from xailib.dissect.concepts import Concepts
from xailib.dissect.evidence import product
from xailib.dissect.label import unit_table
from xailib.dissect.similarity import constant, soft_wpmi, top_images

Ids = Callable[[Int64[np.ndarray, " rows"]], Sequence[str]]
Rows = Callable[[Int64[np.ndarray, " rows"]], Float[np.ndarray, "rows dimensions"]]


@dataclass(frozen=True)
class Top:
    """Each unit's most activating probe images."""

    #: positions in the whole probe set, falling; of equals the earlier first
    images: Int64[Tensor, "top units"]
    dead: Bool[np.ndarray, " units"]  #: whether a unit is the same on all images, but for rounding


def running_top(blocks: Iterable[Float[np.ndarray, "_ units"]], count: int) -> Top:
    """Return the `count` top images of a layer's units, from its table block by block."""
    images, values = torch.empty(0, dtype=torch.int64), torch.empty(0)
    least, seen = torch.tensor(torch.inf), 0
    for block in blocks:
        best = top_images(block, min(count, len(block)))
        top = np.take_along_axis(block, best.numpy(), axis=0).astype(np.float32)
        images = torch.cat([images, best + seen])
        values = torch.cat([values, torch.from_numpy(top)])
        order = values.argsort(dim=0, descending=True, stable=True)[:count]
        images, values = images.gather(0, order), values.gather(0, order)
        least = torch.minimum(least, torch.from_numpy(block.min(0).astype(np.float32)))
        seen += len(block)
    return Top(images, constant(least, values[0]).numpy())


def label_tops(
    tops: Mapping[str, Top],
    rows: Rows,
    ids: Ids,
    texts: Float[np.ndarray, "concepts dimensions"],
    concepts: Concepts,
    *,
    top_k: int,
    top_count: int,
    device: str | torch.device,
) -> pd.DataFrame:
    """Return the table of `xailib.dissect.label.label_units` by soft-WPMI, of layers' top images.

    Parameters
    ----------
    tops : mapping from layer to Top
        Of the same probe images, at least `top_k` and `top_count` of them where there are so many.
    rows, ids : callable
        From positions in the probe set, rising, to these images' embeddings and to their ids: only
        those that are among some unit's top images are asked for.
    texts : (concepts, dimensions)
        Embeddings of the concepts.
    concepts, top_k, top_count, device
        See `label_units` and `xailib.dissect.similarity.soft_wpmi`.
    """
    best = [top.images[:top_k] for top in tops.values()]
    needed = torch.cat([images.flatten() for images in best]).unique()
    similarities = product(rows(needed.numpy()), texts, device)
    places = [torch.searchsorted(needed, images).to(similarities.device) for images in best]
    scores = soft_wpmi(similarities, places, top_k=top_k)
    parts = scores.split([images.shape[1] for images in best])
    shown = [top.images[:top_count] for top in tops.values()]
    needed = torch.cat([images.flatten() for images in shown]).unique()
    names = dict(zip(needed.tolist(), ids(needed.numpy()), strict=True))
    return pd.concat(
        [
            unit_table(
                layer,
                part,
                concepts,
                [[names[image] for image in unit] for unit in images.T.tolist()],
                top.dead,
            )
            for (layer, top), part, images in zip(tops.items(), parts, shown, strict=True)
        ],
        ignore_index=True,
    )
