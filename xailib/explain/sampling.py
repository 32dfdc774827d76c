"""Which superpixels the samples of LIME show: lime's own way to draw them, and two others.

A design takes a generator, the number of samples and of superpixels, and returns 0 (hidden) or 1
(shown), (samples, superpixels). In each, a superpixel is shown in half of the samples, and any
two are independent, so that all estimate the same weights; they differ in how much the
estimate scatters.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int
from scipy.linalg import hadamard

Rows = Int[np.ndarray, "samples superpixels"]
Design = Callable[[np.random.RandomState, int, int], Rows]


def independent(rng: np.random.RandomState, samples: int, superpixels: int) -> Rows:
    """Return samples that have nothing to do with each other, exactly as lime draws them."""
    return rng.randint(0, 2, samples * superpixels).reshape(samples, superpixels)


def antithetic(rng: np.random.RandomState, samples: int, superpixels: int) -> Rows:
    """Return pairs: every second sample shows what the one before it hides.

    What two superpixels do only together has the same sign in both samples of a pair and drops
    out of the difference, which is what a weight is made of (Hammersley & Morton 1956).
    """
    rows = independent(rng, (samples + 1) // 2, superpixels)
    return np.stack([rows, 1 - rows], axis=1).reshape(-1, superpixels)[:samples]


def orthogonal(rng: np.random.RandomState, samples: int, superpixels: int) -> Rows:
    """Return a Hadamard design and its mirror, again and again with other columns and signs.

    Within a block of twice the next power of two above the number of superpixels, any two
    superpixels are exactly uncorrelated, and each sample is followed by its opposite
    (a fold-over design; Box & Wilson 1951).
    """
    size = 1 << superpixels.bit_length()
    base = (hadamard(size)[:, 1:] > 0).astype(int)
    blocks = []
    for _ in range(-(-samples // (2 * size))):
        columns = rng.permutation(size - 1)[:superpixels]
        rows = base[rng.permutation(size)][:, columns] ^ rng.randint(0, 2, superpixels)
        blocks.append(np.stack([rows, 1 - rows], axis=1).reshape(-1, superpixels))
    return np.concatenate(blocks)[:samples]


DESIGNS: dict[str, Design] = {
    "independent": independent,
    "antithetic": antithetic,
    "orthogonal": orthogonal,
}

# How many neighbouring samples belong together and may only be drawn again as one.
BLOCKS = {"independent": 1, "antithetic": 2, "orthogonal": 2}
