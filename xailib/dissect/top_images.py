"""Labels from recorded blocks, one after the other: only each unit's top images are stored.

The result is that of the whole recording at once, to the last bit: whoever has a million probe
images needs the memory of one block.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from xailib.dissect.concepts import Concepts
from xailib.dissect.evidence import product
from xailib.dissect.label import unit_table
from xailib.dissect.similarity import constant, soft_wpmi_of, top_images
from xailib.errors import InputError, check_least

Ids = Callable[[Int64[np.ndarray, " rows"]], Sequence[str]]
Rows = Callable[[Int64[np.ndarray, " rows"]], Float[np.ndarray, "rows dimensions"]]


class RunningTop:
    """Each unit's `count` most activating probe images of the `seen` that it was shown."""

    def __init__(self, count: int) -> None:
        check_least("count", count)
        self.count = count
        self.seen = 0
        # (top, units): positions in the whole probe set, falling; of equals the earlier first.
        self.images = torch.empty(0, 0, dtype=torch.int64)
        self.values = torch.empty(0, 0)  # the activations of these
        self._least = torch.empty(0)

    @classmethod
    def of(cls, blocks: Iterable[Float[np.ndarray, "_ units"]], count: int) -> "RunningTop":
        """Return the top images of a layer's units, from its table block by block."""
        top = cls(count)
        for block in blocks:
            top.add(block)
        return top

    @property
    def constant(self) -> Bool[np.ndarray, " units"]:
        """Whether a unit was the same on all images so far, but for rounding."""
        return constant(self._least, self.values[0]).numpy()

    def first(self, count: int) -> "RunningTop":
        """Return what would have been stored for the same images by a smaller count."""
        if not 1 <= count <= self.count:
            raise InputError(f"count: {count} is not between 1 and the {self.count} stored")
        found = RunningTop(count)
        found.images, found.values = self.images[:count], self.values[:count]
        found._least, found.seen = self._least, self.seen
        return found

    def add(self, activations: Float[np.ndarray, "block units"]) -> None:
        """Take in the next images of the probe set: of as many units, all finite."""
        if not np.isfinite(activations).all():
            raise InputError(f"activations: not all are finite from image {self.seen} on")
        units = activations.shape[1]
        if self.seen and units != len(self._least):
            raise InputError(f"activations: of {units} units, not {len(self._least)} as before")
        best = top_images(activations, min(self.count, len(activations)))
        top = np.take_along_axis(activations, best.numpy(), axis=0).astype(np.float32)
        images, values = best + self.seen, torch.from_numpy(top)
        least = torch.from_numpy(activations.min(0).astype(np.float32))
        if self.seen:
            images = torch.cat([self.images, images])
            values = torch.cat([self.values, values])
            least = torch.minimum(self._least, least)
        order = values.argsort(dim=0, descending=True, stable=True)[: self.count]
        self.images, self.values = images.gather(0, order), values.gather(0, order)
        self._least = least
        self.seen += len(activations)


def soft_wpmi_of_tops(
    tops: Sequence[RunningTop],
    rows: Rows,
    texts: Float[np.ndarray, "concepts dimensions"],
    device: str | torch.device = "auto",
    **parameters: Any,
) -> Float32[Tensor, "units concepts"]:
    """Return `xailib.dissect.similarity.soft_wpmi` of layers whose top images are known.

    The layers have seen the same probe images and store as many, which is ``top_k``; their units
    are returned one layer after the other.

    Parameters
    ----------
    tops : sequence of RunningTop
        One for each layer.
    rows : callable
        From positions in the probe set, rising, to these images' embeddings: only those that are
        among some unit's top images are asked for.
    texts : (concepts, dimensions)
        Embeddings of the concepts.
    device, **parameters
        Where to compute, and those of `soft_wpmi`.
    """
    if len({(top.count, top.seen) for top in tops}) != 1:
        raise InputError("tops: the layers must have seen the same images and store as many")
    count, seen = tops[0].count, tops[0].seen
    if seen < count:
        raise InputError(f"tops: {count} images are to be stored of {seen} seen")
    needed = torch.cat([top.images.flatten() for top in tops]).unique()
    similarities = product(rows(needed.numpy()), texts, device)
    places = [torch.searchsorted(needed, top.images).to(similarities.device) for top in tops]
    return soft_wpmi_of(similarities, places, **parameters)


def label_tops(
    tops: Mapping[str, RunningTop],
    rows: Rows,
    ids: Ids,
    texts: Float[np.ndarray, "concepts dimensions"],
    concepts: Concepts,
    *,
    top_k: int,
    top_count: int = 5,
    device: str | torch.device = "auto",
    **parameters: Any,
) -> pd.DataFrame:
    """Return the table of `xailib.dissect.label.label_units` by soft-WPMI, of layers' top images.

    By layer, `tops` store at least `top_k` and `top_count` images; `ids` leads from positions in
    the probe set, rising, to ids; for the others see `soft_wpmi_of_tops` and `label_units`.
    """
    scores = soft_wpmi_of_tops(
        [top.first(top_k) for top in tops.values()], rows, texts, device, **parameters
    )
    shown = {layer: top.first(top_count).images for layer, top in tops.items()}
    needed = torch.cat([images.flatten() for images in shown.values()]).unique().numpy()
    names = dict(zip(needed.tolist(), ids(needed), strict=True))
    parts = scores.split([images.shape[1] for images in shown.values()])
    return pd.concat(
        [
            unit_table(
                layer,
                part,
                concepts,
                [[names[image] for image in unit] for unit in images.T.tolist()],
                tops[layer].constant,
            )
            for (layer, images), part in zip(shown.items(), parts, strict=True)
        ],
        ignore_index=True,
    )
