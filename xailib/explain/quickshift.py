"""quickshift (Vedaldi & Soatto 2008) on any device, with scikit-image's superpixels.

scikit-image computes on one core. Here the distances of all pixels to all of their neighbours are
a few tensor operations: on a GPU a hundred times as fast, on a CPU slower. The numbers are
scikit-image's, in its order: float64, the same noise to break ties, and of equally near
neighbours the first.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from skimage.color import xyz2lab
from skimage.color.colorconv import xyz_from_rgb
from skimage.util import img_as_float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from xailib.networks.memory import free_memory, upload

_HELD = 2e9  # bytes of distances that are held at once
_SHADES = img_as_float(np.arange(256, dtype=np.uint8))
# sRGB's curve, which takes most of a conversion's time, for each of the values there are.
_LINEAR = np.where(_SHADES > 0.04045, ((_SHADES + 0.055) / 1.055) ** 2.4, _SHADES / 12.92)


def colours(
    pixels: UInt8[np.ndarray, "height width 3"], ratio: int | float
) -> Float64[np.ndarray, "height width 3"]:
    """Return an image in the colour space in which scikit-image measures distances (Lab)."""
    return np.ascontiguousarray(xyz2lab(_LINEAR[pixels] @ xyz_from_rgb.T) * ratio)


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
    kernel_size, max_dist, rng, device
        As for scikit-image, from whose random numbers ties are broken; and where to compute.
    """
    height, width, _ = images[0].shape
    noise = upload(np.random.default_rng(rng).normal(scale=0.00001, size=(height, width)), device)
    reach = math.ceil(3 * kernel_size)
    held = min(_HELD, (free_memory(torch.device(device)) or _HELD) / 6)
    rows = max(1, int(held // (8 * height * width * (2 * reach + 1))))
    fall = -0.5 / (kernel_size * kernel_size)
    return torch.stack(
        [
            _superpixels(upload(image, device), noise, reach, fall, max_dist, rows)
            for image in images
        ]
    )


def _superpixels(
    image: Float64[Tensor, "height width 3"],
    noise: Float64[Tensor, "height width"],
    reach: int,
    fall: float,
    max_dist: int | float,
    rows: int,
) -> Int64[Tensor, "height width"]:
    """Return the superpixels of one image, with so many rows of all pixels' neighbours at once."""
    height, width, _ = image.shape
    device, side = image.device, 2 * reach + 1
    away = torch.arange(-reach, reach + 1, device=device)
    # Beyond the edge everything is infinitely far away.
    padded = F.pad(image.movedim(-1, 0), (reach,) * 4, value=math.inf)
    parts = [slice(start, min(start + rows, side)) for start in range(0, side, rows)]

    def neighbours(values: Float64[Tensor, "_ _"], part: slice) -> Tensor:
        """Return (height, width, rows, side): some rows of each pixel's neighbours."""
        count = part.stop - part.start
        some = values[part.start : part.start + height + count - 1]
        return some.unfold(0, count, 1).unfold(1, side, 1)

    def distances(part: slice) -> Float64[Tensor, "height width neighbours"]:
        total = torch.zeros((), dtype=image.dtype, device=device)
        for plane in padded:  # one after the other, as scikit-image rounds them
            here = plane[reach : reach + height, reach : reach + width, None, None]
            total = (here - neighbours(plane, part)).square_().add_(total)
        total += (away[part, None] ** 2).double()
        total += (away**2).double()
        return total.flatten(2)

    one = distances(parts[0]) if len(parts) == 1 else None  # used twice
    densities = noise.new_zeros(height, width)
    for part in parts:
        far = distances(part) if one is None else one
        densities += (far * fall).exp_().sum(-1)
    densities += noise
    around = F.pad(densities, (reach,) * 4, value=-math.inf)

    own = torch.arange(height * width, device=device).view(height, width)
    parents, closest = own, torch.full_like(densities, math.inf)
    for part in parts:
        far = distances(part) if one is None else one
        higher = neighbours(around, part).flatten(2) > densities[..., None]
        near, place = far.masked_fill(~higher, math.inf).min(-1)  # the first of equals
        closer = near < closest
        closest = torch.where(closer, near, closest)
        step = (place // side + part.start - reach) * width + place % side - reach
        parents = torch.where(closer, own + step, parents)
    parents = torch.where(closest.sqrt() > max_dist, own, parents).flatten()
    for _ in range((height * width).bit_length()):  # each doubles the way that is gone
        parents = parents[parents]
    numbers = (parents == own.flatten()).cumsum(0) - 1
    return numbers[parents].view(height, width)
