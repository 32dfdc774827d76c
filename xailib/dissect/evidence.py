"""The evidence of units' top images for concepts, which soft-WPMI and WPMI weigh."""

from concurrent.futures import ThreadPoolExecutor
from math import log1p

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from xailib.dissect.cosines import Similarities

_ROWS = 256  # probe images at a time: with 20,000 concepts 20 MB
_LARGEST = 80.0  # e^80 is still a float32


def evidence_of(
    similarities: Similarities, images: Int64[Tensor, "top units"], odds: Tensor, a: float
) -> Float32[Tensor, "units concepts"]:
    """Return each unit's ``sum_j log1p(odds_j P[images_j, c])``.

    Parameters
    ----------
    similarities : (probe, concepts)
        Only rows that are some unit's are read, a block at a time.
    images : (top, units)
        Each unit's probe images, by rank.
    odds : (top,)
        Factors of the probabilities, by rank.
    a : float
        Inverse temperature: ``P`` is the softmax of ``a`` times a row.
    """
    needed, place = images.unique(return_inverse=True)
    products = torch.ones(images.shape[1], similarities.shape[1])
    threads = torch.get_num_threads()
    chunks = (part.chunk(threads, dim) for part, dim in ((products, 0), (place, 1)))
    # Units are shared out among threads: a row is too short for torch to share it out itself.
    shares = [_Products(rows, visits, odds) for rows, visits in zip(*chunks, strict=True)]
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(needed), _ROWS):
            block = similarities.rows(needed[start : start + _ROWS], a).float()
            torch.softmax(block, 1, out=block)
            greatest = block.amax(1).tolist()
            jobs = [pool.submit(share.multiply, block, greatest, start) for share in shares]
            for job in jobs:
                job.result()
        for job in [pool.submit(share.take_logarithms) for share in shares]:
            job.result()
    return products


class _Products:
    """Sums of logarithms of some units, kept as products.

    One fused operation for each image of a unit, and a logarithm only where the greatest
    probabilities say that the product could overflow.

    Parameters
    ----------
    products : (units, concepts)
        Ones; in the end the sums of logarithms.
    visits : (top, units)
        Which probability rows the units' images are.
    odds : (top,)
        Factors of the probabilities, by rank of the image.
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
