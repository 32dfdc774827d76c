"""Perturbed images: which pixels of a view are replaced, in what order, and by what.

Deletion, insertion, region flipping and ROAD read nothing of a saliency map but the order in which
it ranks the pixels, ties broken in one of the ways of `TIES`. Nothing here sees a network.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, UInt8
from pytorch_grad_cam.metrics.road import neighbors_weights
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import conv2d, pad

from xailib.compare.masks import highest_first
from xailib.errors import InputError, check_least, check_name
from xailib.images.frames import resize

Saliency = Float32[np.ndarray, "height width"]
Order = Int32[np.ndarray, "height width"]

REGION = 8  # pixels a side of the regions that are flipped
FLIPPED = 0.16  # share of them: 100 regions of 9 x 9 in 227 x 227 pixels, as Samek et al.
BLUR = 5.0  # standard deviation at 224 pixels a side, of RISE's kernel of 11 x 11 pixels
CELLS = 4  # a side of the grid of which single cells are deleted: IDSDS's
ROAD_NOISE = 0.01  # grad-cam's own, on the normalised image
_RESIDUAL = 1e-9  # of ROAD's equations on a GPU: pixels are then within 1e-5 of their solution
_AT_ONCE = 64 * 224 * 224  # pixels of masks that are imputed together there: about 2 GB at most
COARSE = 7  # a side of the random baseline: as coarse as the last feature maps of most networks
# What replaces the first pixels of the order, and what the other pixels show.
_SWAPS = {
    "deletion": ("gray", "image"),
    "least_first": ("gray", "image"),
    "insertion": ("image", "blurred"),
    "flipping": ("noise", "image"),
    "cell": ("gray", "image"),
    "whole": ("gray", "image"),
}
# What images of a measure show, and so are made together.
_CONTENTS: Mapping[str, tuple[str, ...]] = {
    **_SWAPS,
    "masked": ("masked",),
    **dict.fromkeys(("road_most", "road_least"), ("imputed",)),
}
CURVES = ("deletion", "insertion", "flipping", "road_most", "road_least")
# By a draw that the map's own ranks seed, as in masks of equal area; or by the distance from the
# centre of the pixels of that value: superpixels are then replaced as patches, not as noise.
TIES = ("random", "centre")


def pixel_order(saliency: Float[np.ndarray, "height width"], ties: str = "random") -> Order:
    """Return each pixel's place, 0 for the most salient, with ties broken in a way of `TIES`.

    With random ties, the pixels of places below `n` are those of `xailib.compare.masks.area_mask`.
    """
    check_name("ties", ties, TIES)
    if ties == "random":
        order = highest_first(saliency)
    else:
        flat = saliency.ravel()
        _, group = np.unique(flat, return_inverse=True)
        size = np.bincount(group)
        apart = np.zeros(flat.size)
        for axis in np.indices(saliency.shape).reshape(2, -1):
            apart += (axis - (np.bincount(group, axis) / size)[group]) ** 2
        order = np.lexsort((apart, -flat))
    places = np.empty(saliency.size, np.int32)
    places[order] = np.arange(saliency.size, dtype=np.int32)
    return places.reshape(saliency.shape)


def cell_numbers(size: tuple[int, int]) -> Order:
    """Return each pixel's cell of a grid of equal ones, row by row; -1 for pixels left over."""
    down, across = (
        np.where(np.arange(n) < n // CELLS * CELLS, np.arange(n) // max(1, n // CELLS), -1)
        for n in size
    )
    inside = (down[:, None] >= 0) & (across >= 0)
    return np.where(inside, CELLS * down[:, None] + across, -1).astype(np.int32)


def region_order(saliency: Saliency, side: int = REGION, ties: str = "random") -> Order:
    """Return the place of each pixel's region, 0 for the region of highest mean saliency.

    The view is divided into squares of about `side` pixels; those of a side that it does not divide
    differ by a pixel, which is why means stand for the sums of Samek et al. (2017).
    """
    rows, columns = (
        np.arange(length) * max(1, round(length / side)) // length for length in saliency.shape
    )
    region = rows[:, None] * (columns[-1] + 1) + columns
    means = np.bincount(region.ravel(), saliency.ravel()) / np.bincount(region.ravel())
    return pixel_order(means.reshape(rows[-1] + 1, columns[-1] + 1), ties).ravel()[region]


def random_field(size: tuple[int, int], seed: Sequence[int]) -> Saliency:
    """Return a random map as smooth as a heatmap: a square of draws, enlarged bilinearly.

    Single random pixels would be no fair opponent: deleted ones are scattered over the whole
    image, which destroys every edge in it, and networks answer to that noise whatever the
    place. A smooth field removes patches, as heatmaps and superpixels do.
    """
    draws = np.random.default_rng(seed).random((COARSE, COARSE)).astype(np.float32)
    return resize(draws, size, "bilinear")


def centred_blob(size: tuple[int, int]) -> Saliency:
    """Return a Gaussian around the centre: what a photographer would guess."""
    down, across = (((np.arange(n) + 0.5) / n - 0.5) ** 2 for n in size)
    return np.exp(-8 * (down[:, None] + across)).astype(np.float32)


@dataclass(frozen=True)
class Trial:
    """One perturbed image."""

    method: str  #: whose order of the pixels
    #: one of `CURVES`, "least_first" (deletion from the other end), "cell" (one cell of a grid
    #: deleted), "masked" (the image times the map) or "whole" (the image as it is)
    measure: str
    fraction: float  #: of the image that was replaced (inserted, for insertion), 0 to 1
    count: int  #: the same in pixels; for flipping in regions; which cell

    @property
    def key(self) -> tuple[str | float | int, ...]:
        """What image this is, the same for all methods and measures that need it."""
        if self.measure == "cell":
            return ("cell", self.count)
        if self.measure in _SWAPS and self.fraction in (0, 1):
            return (_SWAPS[self.measure][0 if self.fraction else 1],)
        return (self.measure, self.fraction, self.method)


def plan(
    methods: Iterable[str],
    size: tuple[int, int],
    steps: int = 32,
    percentiles: Sequence[int | float] = (70, 90),
    side: int = REGION,
    curves: Collection[str] = CURVES,
) -> list[Trial]:
    """Return the images that are needed, method by method.

    Deletion and insertion go from nothing to everything in `steps` equal steps, flipping to
    `FLIPPED` of the regions in as many. ROAD at percentile p, between 0 and 100, replaces the
    pixels above it (most relevant first) or as many from the other end.
    """
    check_least("steps", steps)
    if not all(0 < p < 100 for p in percentiles):
        given = ", ".join(f"{p:g}" for p in percentiles)
        raise InputError(f"road_percentiles: {given}; each must be between 0 and 100")
    pixels = size[0] * size[1]
    regions = int(region_order(np.zeros(size, np.float32), side).max()) + 1
    parts = np.linspace(0, 1, steps + 1)
    swapped, flipped = (
        np.unique(np.round(part)).astype(int).tolist()
        for part in (pixels * parts, FLIPPED * regions * parts)
    )
    # grad-cam's rule: all pixels at or above the percentile.
    removed = [pixels - int(np.ceil(round(p / 100 * (pixels - 1), 6))) for p in percentiles]
    every = {
        "deletion": [(n / pixels, n) for n in swapped],
        "least_first": [(n / pixels, n) for n in swapped],
        "insertion": [(n / pixels, n) for n in swapped],
        "flipping": [(n / regions, n) for n in flipped],
        "road_most": [(n / pixels, n) for n in removed],
        "road_least": [(n / pixels, n) for n in removed],
        "cell": [(1 / CELLS**2, n) for n in range(CELLS**2)],
        "masked": [(1.0, pixels)],
        "whole": [(0.0, 0)],
    }
    return [
        Trial(method, measure, *part)
        for method in methods
        for measure, parts in every.items()
        if measure in curves
        for part in parts
    ]


class Perturbed:
    """The perturbed images of one photograph, each made on demand.

    Parameters
    ----------
    image, noise : (1, channels, height, width) float32 Tensor
        The network's input, on whose device the images are made, and what flipped regions show.
    maps : mapping from method to (height, width) float32
        Saliency, higher is more salient; signed maps are ranked by signed value.
    seed, side, ties, blur
        Of ROAD's noise; of a flipped region, pixels; see `TIES` and `blurred`.
    """

    def __init__(
        self,
        image: Float32[Tensor, "1 channels height width"],
        noise: Float32[Tensor, "1 channels height width"],
        maps: Mapping[str, Saliency],
        seed: int = 0,
        side: int = REGION,
        ties: str = "random",
        blur: float = BLUR,
    ) -> None:
        grounds = {
            "image": image,
            "gray": torch.zeros_like(image),  # RISE's: normalised zero
            "blurred": blurred(image, blur),
            "noise": noise,
        }
        # Chosen from these, batches have the layout that passes want: a third less time.
        last = torch.channels_last
        self.grounds = {name: one.contiguous(memory_format=last) for name, one in grounds.items()}
        place = image.device
        self.pixels = {m: torch.from_numpy(pixel_order(s, ties)).to(place) for m, s in maps.items()}
        self.regions = {
            m: torch.from_numpy(region_order(s, side, ties)).to(place) for m, s in maps.items()
        }
        height, width = image.shape[2:]
        self.cells = torch.from_numpy(cell_numbers((height, width))).to(place)
        self.shares = {m: torch.from_numpy(share_of(s)).to(place) for m, s in maps.items()}
        source = torch.Generator().manual_seed(seed)
        self.speckles = ROAD_NOISE * torch.randn(image.shape, generator=source).to(place)

    def batch(self, trials: Sequence[Trial]) -> Float32[Tensor, "trials channels height width"]:
        """Return these images as the network's input."""
        parts = [
            self._made(content, list(same))
            for content, same in groupby(trials, key=lambda trial: _CONTENTS[trial.measure])
        ]
        batch = parts[0] if len(parts) == 1 else torch.cat(parts)
        return batch.contiguous(memory_format=torch.channels_last)

    def _made(
        self, content: tuple[str, ...], trials: Sequence[Trial]
    ) -> Float32[Tensor, "trials channels height width"]:
        image = self.grounds["image"]
        if content == ("masked",):
            return image * torch.stack([self.shares[trial.method] for trial in trials])[:, None]
        first = torch.stack([self._replaced(trial) for trial in trials])
        if content == ("imputed",):
            return imputed(image[0], ~first) + self.speckles * first[:, None]
        on, under = (self.grounds[name] for name in content)
        return torch.where(first[:, None], on, under)

    def _replaced(self, trial: Trial) -> Bool[Tensor, "height width"]:
        if trial.measure == "cell":
            return self.cells == trial.count
        if trial.measure == "flipping":
            return self.regions[trial.method] < trial.count
        order = self.pixels[trial.method]
        if trial.measure in ("least_first", "road_least"):
            return order >= order.numel() - trial.count
        return order < trial.count


def share_of(saliency: Saliency) -> Saliency:
    """Return what of each pixel the map lets through, 0 to 1: TorchCAM's scaling.

    What is negative opposes the class and counts as 0; a map without a positive value lets
    nothing through.
    """
    positive = saliency.clip(min=0)
    low, high = positive.min(), positive.max()
    return ((positive - low) / (high - low if high > low else 1)).astype(np.float32)


def blurred(
    image: Float32[Tensor, "1 channels height width"], deviation: float = BLUR
) -> Float32[Tensor, "1 channels height width"]:
    """Return the image that insertion starts from, blurred as in RISE (Petsiuk et al. 2018).

    Its kernel is a Gaussian of `deviation` pixels, which reflects at the borders of a square 2.2
    times as wide and so sums to 1; beyond the image all is zero, which darkens its rim. Both are
    lengths at 224 pixels a side, and scaled with the view.
    """
    if not deviation > 0:
        raise InputError(f"blur: {deviation:g} is not above 0")
    scale = min(image.shape[2:]) / 224
    reach = max(1, round(deviation * scale))
    point = np.zeros(2 * reach + 1)
    point[reach] = 1
    line = gaussian_filter1d(point, deviation * scale)
    kernel = torch.from_numpy(np.outer(line, line)).to(image).expand(len(image[0]), 1, -1, -1)
    return conv2d(image, kernel, padding=reach, groups=len(kernel))


def imputed(
    image: Float32[Tensor, "channels height width"], kept: Bool[Tensor, "masks height width"]
) -> Float32[Tensor, "masks channels height width"]:
    """Return images whose missing pixels are the weighted means of their neighbours.

    grad-cam's linear system of ROAD (Rong et al. 2022), without the noise. It is symmetric and
    definite, as long as one pixel of each mask is kept: solved as such, large holes take half the
    time. On a CPU one mask after the other is factorised; on a GPU conjugate gradients solve many
    at once, to within 1e-5 of a pixel; differences below that depend on the other masks.
    """
    if image.device.type == "mps":  # which has no float64
        return imputed(image.cpu(), kept.cpu()).to(image.device)
    size = kept.shape[1] * kept.shape[2]
    some = 1 if image.device.type == "cpu" else max(1, _AT_ONCE // size)
    solve = _factorised if image.device.type == "cpu" else _by_conjugate_gradients
    filled = (
        image.expand(len(kept), -1, -1, -1)
        .movedim(1, -1)
        .clone(memory_format=torch.contiguous_format)
    )
    for part, masks in zip(filled.split(some), kept.split(some), strict=True):
        missing = (~masks).flatten().nonzero()[:, 0]
        if len(missing):
            found = solve(*_system(image, masks, missing))
            part.view(-1, len(image))[missing] = found.float()
    return filled.movedim(-1, 1).contiguous()


def _system(
    image: Float32[Tensor, "channels height width"],
    kept: Bool[Tensor, "masks height width"],
    missing: Int64[Tensor, " missing"],
) -> tuple[Tensor, Tensor, Tensor, Float64[Tensor, "missing channels"]]:
    """Return grad-cam's equations of the missing pixels, all signs turned.

    That is their matrix, symmetric, as the starts of its rows, columns and values, and the right
    hand side. Sums are made in grad-cam's order: the numbers are its own to the last bit.
    """
    (masks, height, width), place = kept.shape, kept.device
    number = torch.full((masks, height, width), -1, device=place)
    number.view(-1)[missing] = torch.arange(len(missing), device=place)
    rim = (1, 1, 1, 1)
    numbers = pad(number, rim, value=-1).view(-1)
    inside = pad(torch.ones(height, width, dtype=torch.float64, device=place), rim).view(-1)
    values = pad((image * kept[:, None]).movedim(1, 0), rim).flatten(1)
    line, size = width + 2, len(inside)  # with the rim, of one mask
    rows = missing.div(width, rounding_mode="floor")
    alone = (rows % height + 1) * line + missing % width + 1  # the pixels' places in one mask
    at = alone + rows.div(height, rounding_mode="floor") * size  # and in all
    known = torch.zeros(len(image), len(missing), dtype=torch.float64, device=place)
    total = torch.ones(len(missing), dtype=torch.float64, device=place)
    for (y, x), weight in neighbors_weights:
        known += weight * values[:, at + (y * line + x)]
        total -= weight * (1 - inside[alone + (y * line + x)])
    weights = {offset: -weight for offset, weight in neighbors_weights} | {(0, 0): 0.0}
    offsets = sorted(weights)
    shifts = torch.tensor([y * line + x for y, x in offsets], device=place)
    columns = numbers[at[:, None] + shifts]
    entries = torch.tensor([weights[o] for o in offsets], dtype=torch.float64, device=place)
    entries = entries.repeat(len(missing), 1)
    entries[:, offsets.index((0, 0))] = total
    there = columns >= 0
    starts = pad(there.sum(1).cumsum(0), (1, 0))
    return starts, columns[there], entries[there], known.T


def _factorised(
    starts: Tensor, columns: Tensor, entries: Tensor, known: Float64[Tensor, "missing channels"]
) -> Float64[Tensor, "missing channels"]:
    parts = [part.numpy() for part in (entries, columns, starts)]
    factors = splu(
        csc_matrix(tuple(parts)),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return torch.from_numpy(factors.solve(known.numpy()))


def _by_conjugate_gradients(
    starts: Tensor, columns: Tensor, entries: Tensor, known: Float64[Tensor, "missing channels"]
) -> Float64[Tensor, "missing channels"]:
    """Solve the equations of all masks and channels at once; look every 50 steps whether it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this layout a beta
        system = torch.sparse_csr_tensor(starts, columns, entries, (len(known), len(known)))
    found, left = torch.zeros_like(known), known.clone()
    way, length = left.clone(), left.square().sum(0)
    for step in range(1, len(known) + 50):
        image = system @ way
        size = length / (way * image).sum(0).clamp_min(1e-300)
        found += size * way
        left -= size * image
        before, length = length, left.square().sum(0)
        way = left + length / before.clamp_min(1e-300) * way
        if step % 50 == 0 and float(left.abs().max()) < _RESIDUAL:
            break
    return found


def deleted(
    pixels: UInt8[np.ndarray, "height width 3"],
    saliency: Saliency,
    fraction: float,
    colour: UInt8[np.ndarray, " 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Return a view with this share of its pixels deleted, for drawing."""
    gone = pixel_order(saliency) < round(fraction * saliency.size)
    return np.where(gone[..., None], colour, pixels)
