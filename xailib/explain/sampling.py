"""Samples of LIME: which superpixels they show, and the perturbed images, made on the device.

A design takes a generator, the number of samples and of superpixels, and returns 0 (hidden) or 1
(shown), (samples, superpixels). In each, a superpixel is shown in half of the samples, and any
two are independent, so that all estimate the same weights; they differ in how much the
estimate scatters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Shaped, UInt8
from scipy.linalg import hadamard
from torch import Tensor

from xailib.networks.classifier import Classifier, PassOptions
from xailib.networks.memory import upload

Pixels = UInt8[np.ndarray, "height width 3"]
Segments = Int[np.ndarray, "height width"]
Rows = Int[np.ndarray, "samples superpixels"]
AnyRows = Int[np.ndarray, "_ _"]  # of images that differ in their numbers
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


DESIGNS: dict[str, Design] = {one.__name__: one for one in (independent, antithetic, orthogonal)}

# How many neighbouring samples belong together and may only be drawn again as one.
BLOCKS = {"independent": 1, "antithetic": 2, "orthogonal": 2}


def hidden(image: Pixels, segments: Segments, colour: int | None) -> Pixels:
    """Return what hidden superpixels show: a gray level, or each one's mean colour (None)."""
    found = np.full_like(image, 0 if colour is None else colour)
    if colour is None:
        for superpixel in np.unique(segments):
            here = segments == superpixel
            found[here] = [np.mean(image[here][:, channel]) for channel in range(3)]
    return found


def distinct(
    data: Rows, superpixels: int
) -> tuple[Bool[np.ndarray, "rows columns"], Int[np.ndarray, " samples"]]:
    """Return each different sample once, in the order drawn, and where each sample is among them.

    lime hides by number: of `superpixels`, those numbered beyond the samples' always show.
    """
    packed = np.packbits(data.astype(bool), axis=1)  # sorted in a tenth of the time
    _, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    shown = np.ones((len(first), max(data.shape[1], superpixels)), bool)
    shown[:, : data.shape[1]] = data[first[order]]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return shown, rank[place.ravel()]


@dataclass(frozen=True)
class Draw:
    """Samples of several images, as many of each, on the device."""

    which: tuple[int, ...]  #: the images
    rows: Sequence[AnyRows]  #: which superpixels each image's samples show
    shown: Bool[Tensor, "distinct superpixels"]  #: the different ones of all images
    owner: Int[Tensor, " distinct"]  #: whose they are, as places among all images
    place: Int[Tensor, "images samples"]  #: where each sample is among the different ones

    @classmethod
    def of(
        cls,
        which: Sequence[int],
        rows: Sequence[AnyRows],
        segments: Sequence[Segments],
        device: torch.device,
    ) -> "Draw":
        """Return samples of images, with the superpixels of each."""
        numbers = [int(one.max()) + 1 for one in segments]
        found = [distinct(data, count) for data, count in zip(rows, numbers, strict=True)]
        sizes = [len(shown) for shown, _ in found]
        together = np.ones((sum(sizes), max(shown.shape[1] for shown, _ in found)), bool)
        places, start = [], 0
        for (shown, place), size in zip(found, sizes, strict=True):
            together[start : start + size, : shown.shape[1]] = shown
            places.append(place + start)
            start += size
        owner = np.repeat(np.asarray(which), sizes)
        parts: list[Shaped[np.ndarray, ...]] = [together, owner, np.stack(places)]
        return cls(tuple(which), rows, *(upload(part, device) for part in parts))


class Perturbed:
    """Several images of one size, of which any superpixels can be hidden.

    Where normalising works pixel by pixel it is done once for each image and once for what hidden
    superpixels show, then pixels are only chosen; else each perturbed image is normalised.
    ``whole`` are the images as the network's input.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Sequence[Pixels],
        blanks: Sequence[Pixels],
        segments: Sequence[Segments],
    ) -> None:
        self.classifier = classifier
        self.whole = classifier.input_tensor(np.stack(images))
        if classifier.preprocessing.pixelwise:
            self._colours = [self.whole, classifier.input_tensor(np.stack(blanks))]
        else:
            both = (upload(np.stack(some), classifier.device) for some in (images, blanks))
            self._colours = [some.movedim(-1, 1) for some in both]
        self.places = upload(np.stack(segments).astype(np.int64), classifier.device)

    def batch(
        self, shown: Bool[Tensor, "batch superpixels"], owner: Int[Tensor, " batch"]
    ) -> Float32[Tensor, "batch channels height width"]:
        """Return the network's input for samples, each of the image that `owner` says."""
        (whole, blank), places = self._colours, self.places
        size = places.shape[1:]
        if len(whole) == 1:
            pixels = shown.index_select(1, places.flatten()).unflatten(1, size)
        else:
            whole, blank = whole[owner], blank[owner]
            pixels = shown.gather(1, places[owner].flatten(1)).unflatten(1, size)
        batch = torch.where(pixels[:, None], whole, blank)
        preprocessing = self.classifier.preprocessing
        if not preprocessing.pixelwise:
            batch = preprocessing.normalise(batch.movedim(1, -1).contiguous())
        return batch.contiguous(memory_format=torch.channels_last)

    def scored(
        self, draw: Draw, **options: Unpack[PassOptions]
    ) -> tuple[Float32[Tensor, "distinct classes"], str]:
        """Return the probabilities of a draw's different samples, and the engine of the passes."""
        found = self.classifier.forward_batches(
            lambda start, stop: self.batch(draw.shown[start:stop], draw.owner[start:stop]),
            len(draw.shown),
            **options,
        )
        return self.classifier.as_probabilities(found.logits), found.engine
