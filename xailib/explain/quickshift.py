"""quickshift (Vedaldi & Soatto 2008) on any device, with scikit-image's superpixels.

scikit-image computes on one core. Here the distances of all pixels to a row of their neighbours
are one tensor operation, for several images at once: on a GPU twenty times as fast and more, on a
CPU slower. The numbers are scikit-image's, in its order: float64, the same noise to break ties,
and of equally near neighbours the first.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from xailib.networks.memory import free_memory, upload

_HELD = 4.5e9  # bytes of distances that are stored rather than computed twice


def colours(
    pixels: UInt8[np.ndarray, "height width 3"], ratio: int | float
) -> Float64[np.ndarray, "height width 3"]:
    """Return an image in the colour space in which scikit-image measures distances."""
    return np.ascontiguousarray(rgb2lab(pixels) * ratio)


def quickshift(
    images: Sequence[Float64[np.ndarray, "height width 3"]],
    *,
    kernel_size: int | float,
    max_dist: int | float,
    rng: int,
    device: torch.device | str = "cpu",
) -> Int64[Tensor, "images height width"]:
    """Return the superpixels that scikit-image's `quickshift` finds, numbered from 0.

    Parameters
    ----------
    images : sequence of (height, width, 3) float64
        Of one size, as `colours` returns them.
    kernel_size, max_dist, rng
        As for scikit-image, from whose random numbers ties are broken.
    device : torch.device or str
        Where to compute. Nothing is copied back and nothing waited for.
    """
    height, width, _ = images[0].shape
    noise = np.random.default_rng(rng).normal(scale=0.00001, size=(height, width))
    reach = math.ceil(3 * kernel_size)
    bytes_each = (2 * reach + 1) ** 2 * height * width * 8
    held = min(_HELD, (free_memory(torch.device(device)) or _HELD) / 3)
    at_once = max(1, int(held // bytes_each))
    parts = [
        _superpixels(
            upload(np.stack(images[start : start + at_once]), device),
            upload(noise, device),
            reach,
            -0.5 / (kernel_size * kernel_size),
            max_dist,
            keep=bytes_each <= held,
        )
        for start in range(0, len(images), at_once)
    ]
    return torch.cat(parts)


def _superpixels(
    images: Float64[Tensor, "images height width 3"],
    noise: Float64[Tensor, "height width"],
    reach: int,
    fall: float,
    max_dist: int | float,
    *,
    keep: bool,
) -> Int64[Tensor, "images height width"]:
    count, height, width, _ = images.shape
    device = images.device
    steps = range(-reach, reach + 1)
    aside = torch.arange(-reach, reach + 1, device=device)

    def neighbours(values: Tensor, down: int) -> Tensor:
        """Return (..., height, width, 2 * reach + 1): each pixel's row of neighbours."""
        return values[..., reach + down : reach + down + height, :].unfold(-1, 2 * reach + 1, 1)

    # Beyond the edge everything is infinitely far away.
    padded = F.pad(images.movedim(-1, 1), (reach,) * 4, value=math.inf)

    def distances(down: int) -> Tensor:
        squares = padded[..., reach : reach + height, reach : reach + width, None]
        squares = (squares - neighbours(padded, down)).square_()
        total = squares[:, 0]
        total += squares[:, 1]  # one after the other, as scikit-image rounds them
        total += squares[:, 2]
        total += down * down
        total += (aside * aside).double()
        return total.clone() if keep else total

    if keep:
        distances = cache(distances)
    densities = torch.zeros((count, height, width), dtype=torch.float64, device=device)
    for down in steps:
        densities += (distances(down) * fall).exp_().sum(-1)
    densities += noise
    around = F.pad(densities, (reach,) * 4, value=-math.inf)

    own = torch.arange(height * width, device=device).view(height, width)
    parents = own.expand(count, -1, -1)
    closest = torch.full_like(densities, math.inf)
    for down in steps:
        higher = neighbours(around, down) > densities[..., None]
        near, place = distances(down).masked_fill(~higher, math.inf).min(-1)  # the first of equals
        closer = near < closest
        closest = torch.where(closer, near, closest)
        parents = torch.where(closer, own + down * width + aside[place], parents)
    parents = torch.where(closest.sqrt() > max_dist, own, parents).flatten(1)
    for _ in range((height * width).bit_length()):  # each doubles the way that is gone
        parents = parents.gather(1, parents)
    numbers = (parents == own.flatten()).cumsum(1) - 1
    return numbers.gather(1, parents).view(count, height, width)
