"""The cosines of probe images and concepts, and the evidence of units' top images for concepts.

The evidence is what soft-WPMI and WPMI weigh. No (probe, concepts) matrix is needed as a whole.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log1p

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from xailib.networks import classifier as models
from xailib.networks.memory import free_memory

Array = np.ndarray | Tensor
_ROWS = 256  # probe images at a time on a CPU: with 20,000 concepts 20 MB
_GROUP = 2**22  # products of units and concepts at a time on a GPU: 16 MB stay in its cache
_LARGEST = 80.0  # e^80 is still a float32


@dataclass(frozen=True)
class Similarities:
    """The (probe, concepts) matrix of cosines, in memory or computed a block at a time."""

    images: Float32[Tensor, "probe _"]  #: embeddings, unit rows; without `texts` the matrix
    texts: Float32[Tensor, "concepts _"] | None = None  #: embeddings, unit rows

    @property
    def shape(self) -> tuple[int, int]:
        """(probe, concepts)."""
        return len(self.images), self.images.shape[1] if self.texts is None else len(self.texts)

    @property
    def device(self) -> torch.device:
        """The device of the images, also used for results."""
        return self.images.device

    def rows(
        self,
        index: Int64[Tensor, " rows"],
        scale: float = 1.0,
        columns: slice = slice(None),
    ) -> Float32[Tensor, "rows _"]:
        """Return some rows times `scale`, all of their columns or some, as a new tensor."""
        if self.texts is None:
            return self.images[index, columns].mul_(scale)
        return self.images[index].mul_(scale) @ self.texts[columns].T

    def columns(self, start: int, stop: int) -> Float32[Tensor, "probe columns"]:
        """Return some columns, as a new tensor."""
        if self.texts is None:
            return self.images[:, start:stop].clone()
        return self.images @ self.texts[start:stop].T


def product(
    images: Float[Array, "probe dimensions"],
    texts: Float[Array, "concepts dimensions"],
    device: str | torch.device = "auto",
) -> Similarities:
    """Return two tables of embeddings, unit rows, on a device, as the matrix of their cosines.

    MPS, which has no double precision, is the CPU here.
    """
    chosen = models._device(str(device))
    place = torch.device("cpu") if chosen.type == "mps" else chosen
    return Similarities(as_tensor(images, place).float(), as_tensor(texts, place).float())


def as_tensor(values: Shaped[Array, "_ _"], device: torch.device) -> Shaped[Tensor, "_ _"]:
    """Return a table on a device, in its own precision; no copy where it is there already."""
    if isinstance(values, np.ndarray):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of memory maps: nothing is written to them here
            values = torch.from_numpy(np.ascontiguousarray(values))
    return values.to(device)


def evidence_of(
    similarities: Similarities, images: Int64[Tensor, "top units"], odds: Tensor, a: float
) -> Float32[Tensor, "units concepts"]:
    """Return each unit's ``sum_j log1p(odds_j P[images_j, c])``, on the similarities' device.

    ``P`` is the softmax of ``a``, the inverse temperature, times a row; `images` and `odds` are by
    rank. Only rows that are some unit's are read, a block at a time.
    """
    find = _by_visits if similarities.device.type == "cpu" else _by_ranks
    return find(similarities, images, odds, a)


def _by_visits(
    similarities: Similarities, images: Int64[Tensor, "top units"], odds: Tensor, a: float
) -> Float32[Tensor, "units concepts"]:
    """Visit the rows a block after another, each with the units that it belongs to."""
    needed, place = images.unique(return_inverse=True)
    products = torch.ones(images.shape[1], similarities.shape[1])
    threads = torch.get_num_threads()
    chunks = (part.chunk(threads, dim) for part, dim in ((products, 0), (place, 1)))
    # Units are distributed among threads: a row is too short for torch to split it itself.
    shares = [_Products(rows, visits, odds) for rows, visits in zip(*chunks, strict=True)]
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(needed), _ROWS):
            block = similarities.rows(needed[start : start + _ROWS], a)
            torch.softmax(block, 1, out=block)
            greatest = block.amax(1).tolist()
            jobs = [pool.submit(share.multiply, block, greatest, start) for share in shares]
            for job in jobs:
                job.result()
        for job in [pool.submit(share.take_logarithms) for share in shares]:
            job.result()
    return products


class _Products:
    """Sums of logarithms of some units, stored as products.

    One fused operation for each image of a unit, and a logarithm only where the greatest
    probabilities say that the product could overflow. ``products`` are ones at first, in the end
    the sums of logarithms; ``visits`` says which probability rows the units' images are.
    """

    def __init__(
        self,
        products: Float32[Tensor, "units concepts"],
        visits: Int64[Tensor, "top units"],
        odds: Float32[Tensor, " top"],
    ) -> None:
        units = visits.shape[1]
        order = visits.flatten().argsort(stable=True)
        self._row = visits.flatten()[order]
        self._unit = (order % units).tolist()
        self._odds = odds[order // units].tolist()
        self._next = 0
        self._products = products
        self._rows = list(products)
        self._bounds = [0.0] * units  # each product is below e^bound
        self._finished: dict[int, Tensor] = {}

    @torch.inference_mode()  # which is each thread's own
    def multiply(
        self, block: Float32[Tensor, "rows concepts"], greatest: list[float], start: int
    ) -> None:
        """Multiply by what the probability rows from `start` on give to these units."""
        end = int(torch.searchsorted(self._row, start + len(block)))
        now = slice(self._next, end)
        self._next = end
        probabilities, rows, bounds = list(block), self._rows, self._bounds
        visits = zip(
            (self._row[now] - start).tolist(), self._unit[now], self._odds[now], strict=True
        )
        for place, unit, weight in visits:
            row, bound = rows[unit], log1p(weight * greatest[place])
            if bounds[unit] + bound > _LARGEST:
                self._finished[unit] = self._finished.get(unit, 0) + row.log()
                row.fill_(1)
                bounds[unit] = 0.0
            row.addcmul_(row, probabilities[place], value=weight)
            bounds[unit] += bound

    @torch.inference_mode()
    def take_logarithms(self) -> None:
        """Turn the products into sums of logarithms."""
        self._products.log_()
        for unit, logarithm in self._finished.items():
            self._rows[unit] += logarithm


def _by_ranks(
    similarities: Similarities, images: Int64[Tensor, "top units"], odds: Tensor, a: float
) -> Float32[Tensor, "units concepts"]:
    """Return what `_by_visits` does, rank by rank for many units at once.

    The probabilities of all images that are needed are held, of as many concepts as fit into
    the free memory; where not all do, rows are multiplied twice, first for the softmax's sums.
    """
    needed, place = images.unique(return_inverse=True)
    units, concepts = images.shape[1], similarities.shape[1]
    evidence = torch.zeros(units, concepts, device=images.device)
    width = max(1, min(concepts, _free_numbers(images.device) // len(needed)))
    height = _ROWS * times(images)
    parts = [slice(start, start + height) for start in range(0, len(needed), height)]
    sums = [similarities.rows(needed[p], a).logsumexp(1, True) for p in parts if width < concepts]
    weights = odds.tolist()
    for start in range(0, concepts, width):
        columns = slice(start, min(start + width, concepts))
        table = torch.empty(len(needed), columns.stop - start, device=images.device)
        for number, part in enumerate(parts):
            block = similarities.rows(needed[part], a, columns)
            if sums:
                torch.exp(block.sub_(sums[number]), out=table[part])
            else:
                torch.softmax(block, 1, out=table[part])
        group = max(1, _GROUP // table.shape[1])
        for first in range(0, units, group):
            some = slice(first, first + group)
            product, bound = torch.ones_like(evidence[some, columns]), 0.0
            for rank, weight in zip(place[:, some], weights, strict=True):
                if bound + log1p(weight) > _LARGEST:  # whatever the probabilities are
                    evidence[some, columns] += product.log_()
                    product.fill_(1)
                    bound = 0.0
                product.addcmul_(product, table.index_select(0, rank), value=weight)
                bound += log1p(weight)
            evidence[some, columns] += product.log_()
    return evidence


def _free_numbers(device: torch.device) -> int:
    """Return how many float32 may be taken of a GPU's memory: 80 % of what is free."""
    return int(0.8 * (free_memory(device) or 0)) // 4 if device.type == "cuda" else 2**30


def times(tensor: Tensor) -> int:
    """Return how many times as much is processed at a time on this device as on a CPU."""
    return 16 if tensor.is_cuda else 1
