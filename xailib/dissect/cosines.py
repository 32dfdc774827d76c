"""The (probe, concepts) matrix of cosines, whole or computed a part at a time."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor


@dataclass(frozen=True)
class Matrix:
    """Similarities that lie in memory."""

    values: Float[Tensor, "probe concepts"]

    @property
    def shape(self) -> tuple[int, int]:
        """(probe, concepts)."""
        return self.values.shape[0], self.values.shape[1]

    def rows(
        self, index: Int64[Tensor, " rows"], scale: float = 1.0
    ) -> Float[Tensor, "rows concepts"]:
        """Return some rows times `scale`, as a new tensor."""
        return self.values[index].mul_(scale)

    def columns(self, start: int, stop: int) -> Float[Tensor, "probe columns"]:
        """Return some columns, as a new tensor."""
        return self.values[:, start:stop].clone()


@dataclass(frozen=True)
class Product:
    """Cosines of image and text embeddings (unit rows), computed when asked for."""

    images: Float[Tensor, "probe dimensions"]
    texts: Float[Tensor, "concepts dimensions"]

    @property
    def shape(self) -> tuple[int, int]:
        """(probe, concepts)."""
        return self.images.shape[0], self.texts.shape[0]

    def rows(
        self, index: Int64[Tensor, " rows"], scale: float = 1.0
    ) -> Float[Tensor, "rows concepts"]:
        """Return some rows times `scale`, as a new tensor."""
        return self.images[index].mul_(scale) @ self.texts.T

    def columns(self, start: int, stop: int) -> Float[Tensor, "probe columns"]:
        """Return some columns, as a new tensor."""
        return self.images @ self.texts[start:stop].T


Similarities = Matrix | Product


def product(
    images: Float[np.ndarray, "probe dimensions"], texts: Float[np.ndarray, "concepts dimensions"]
) -> Product:
    """Return two tables of embeddings as the matrix of their cosines."""
    return Product(as_tensor(images), as_tensor(texts))


def as_tensor(values: Float[np.ndarray, "_ _"]) -> Float32[Tensor, "_ _"]:
    """Return a table as float32; not a copy where it is one and may be written to."""
    # torch warns of read-only arrays, such as memory maps.
    return torch.from_numpy(np.require(values, np.float32, requirements=["C", "W"]))
