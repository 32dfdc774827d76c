"""What a network does to a photograph before it sees it: resize, crop, normalise.

`Preprocessing` is stated by numbers; `from_transform` measures geometry and colour map of a
transform that is only known as a function; steps behind these that are no map of single colours (a
standardisation of each image) are run themselves.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F  # noqa: N812

from xailib.errors import InputError, others_code
from xailib.images.frames import Frame

MAX_ASPECT = 100  # beyond this a resized photograph needs gigabytes
_TRIES = 16  # of one image, after which a step that acts on some images is noticed
_RANDOM = "transform: it gives another result each time; give the evaluation one"
_MOVED = "transform: it mirrors, turns, moves or flattens the photograph; unsupported"
Pixels = UInt8[np.ndarray, "height width 3"]
Batch = UInt8[Tensor, "images height width 3"]
Inputs = Float32[Tensor, "images channels height width"]


@runtime_checkable
class Prepares(Protocol):
    """Resize, crop and normalise, with the frame that leads back to the photograph."""

    #: whether `normalise` maps each pixel's colour alone, whatever the others are
    pixelwise: ClassVar[bool]

    def frame(self, height: int, width: int) -> Frame:
        """Return the frame of the network's input for a photograph of this size."""

    def crop(self, pixels: Pixels) -> UInt8[np.ndarray, "input_height input_width 3"]:
        """Return the photograph as the network sees it, still as 8-bit RGB."""

    def normalise(self, batch: Batch) -> Inputs:
        """Return cropped images as the network's input."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side (or squash), crop the centre, subtract the mean, divide by std."""

    pixelwise: ClassVar[bool] = True
    size: tuple[int, int]  #: (height, width) of the network's input, pixels
    resize: int | tuple[int, int]  #: the short side, or the size that the photograph is squashed to
    mean: tuple[float, float, float]  #: by colour channel, of values in 0 to 1, as `std`
    std: tuple[float, float, float]
    interpolation: str = "bilinear"  #: or "bicubic", with antialiasing as Pillow does it

    def frame(self, height: int, width: int) -> Frame:
        """Return the frame of the network's input for a photograph of this size."""
        if isinstance(self.resize, int):  # torchvision's rule, rounding down the long side
            short, long = sorted((height, width))
            if long > MAX_ASPECT * short:
                raise InputError(
                    f"photograph: {width} x {height} is too long and thin; "
                    f"at most {MAX_ASPECT} to 1 can be resized"
                )
            longer = int(self.resize * long / short)
            resized = (self.resize, longer) if height <= width else (longer, self.resize)
        else:
            resized = self.resize
        top = round((resized[0] - self.size[0]) / 2)
        left = round((resized[1] - self.size[1]) / 2)
        return Frame((height, width), resized, (top, left, *self.size))

    def crop(self, pixels: Pixels) -> UInt8[np.ndarray, "input_height input_width 3"]:
        """Return the photograph as the network sees it, still as 8-bit RGB."""
        frame = self.frame(pixels.shape[0], pixels.shape[1])
        image = F.resize(
            Image.fromarray(pixels), list(frame.resized), InterpolationMode(self.interpolation)
        )
        return np.array(F.crop(image, *frame.crop))

    def normalise(self, batch: Batch) -> Inputs:
        """Return cropped images as the network's input."""
        mean = torch.tensor(self.mean, device=batch.device)
        std = torch.tensor(self.std, device=batch.device)
        return ((batch.float() / 255 - mean) / std).movedim(-1, 1)


@dataclass(frozen=True)
class MeasuredPreprocessing:
    """A transform known only as a function, as its geometry and its colour map."""

    pixelwise: ClassVar[bool] = True
    transform: Callable[[Image.Image], Tensor]  #: to (channels, height, width)
    matrix: Float32[np.ndarray, "channels 3"]  #: the colour map's linear part, of values in 0 to 1
    offset: Float32[np.ndarray, " channels"]  #: the input for black

    def frame(self, height: int, width: int) -> Frame:
        """Return the frame of the network's input, read off images sent through."""
        size = f"{width} x {height} pixels"
        pads = InputError(f"transform: it pads a photograph of {size}; unsupported")
        white = np.full((height, width, 3), 255, np.uint8)
        if np.ptp(_run(self.transform, white), axis=(1, 2)).max() > 1e-3:
            raise pads
        (rows, top, tall), (columns, left, wide) = (
            self._span(height, width, axis) for axis in (0, 1)
        )
        # What is seen of a photograph ends where the view does, up to what measuring leaves open.
        if rows < 0.97 * tall - 1 or columns < 0.97 * wide - 1:
            raise pads
        rows, columns = max(rows, tall), max(columns, wide)
        top, left = min(max(top, 0), rows - tall), min(max(left, 0), columns - wide)
        return Frame((height, width), (rows, columns), (top, left, tall, wide))

    def crop(self, pixels: Pixels) -> UInt8[np.ndarray, "input_height input_width 3"]:
        """Return the photograph as the network sees it, with the colour map undone."""
        seen = _run(self.transform, pixels)
        flat = (seen - self.offset[:, None, None]).reshape(len(self.offset), -1)
        # Of all colours that give this input, the one nearest to gray: a network that sees no
        # colour has many, and most do not fit into 8 bits.
        white = self.matrix.sum(1)
        gray = (white @ flat) / (white @ white)
        rgb = gray + np.linalg.pinv(self.matrix) @ (flat - np.outer(white, gray))
        rgb = rgb.reshape(3, *seen.shape[1:]).transpose(1, 2, 0)
        return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)

    def normalise(self, batch: Batch) -> Inputs:
        """Return cropped images as the network's input."""
        matrix = torch.from_numpy(self.matrix).to(batch.device)
        offset = torch.from_numpy(self.offset).to(batch.device)
        return (batch.float() / 255 @ matrix.T + offset).movedim(-1, 1)

    def _span(self, height: int, width: int, axis: int) -> tuple[int, int, int]:
        """Return the resized length, the crop's start and the crop's length along one axis."""
        length = (height, width)[axis]
        line = self._line((np.arange(length) + 0.5) / length, height, width, axis)
        size = len(line)
        inner = slice(size // 16, size - size // 16)  # edges may be padded
        step, start = np.polyfit(np.arange(size)[inner] + 0.5, line[inner], 1)
        edges = [round((start + step * size * part) * length) for part in (0.2, 0.8)]
        if step <= 0 or edges[0] == edges[1]:
            raise InputError(_MOVED)
        # The ramp is good to half a per cent (fixed-point resizing changes brightness by that);
        # where two edges between black and white come to lie is good to a fraction of a pixel.
        places = [
            size - self._line(np.arange(length) >= edge, height, width, axis).sum()
            for edge in edges
        ]
        scale = (places[1] - places[0]) / (edges[1] - edges[0])  # resized pixels a pixel
        resized, first = scale * length, scale * edges[0] - places[0]
        # Without antialiasing an edge lies between two pixels: the whole may seem a pixel more.
        if abs(1 / step - size) < 0.2 + 0.005 * size and abs(resized - size) < 2:
            return size, 0, size
        return round(resized), round(first), size

    def _line(self, values: np.ndarray, height: int, width: int, axis: int) -> np.ndarray:
        """Return what gray values (0 to 1) that vary along one axis become, along that axis."""
        values = values[:, None] if axis == 0 else values[None, :]
        gray = np.broadcast_to(np.round(values * 255), (height, width)).astype(np.uint8)
        seen = _run(self.transform, np.repeat(gray[..., None], 3, axis=2))
        slope = self.matrix.sum(1)
        best = int(np.abs(slope).argmax())
        return ((seen[best] - self.offset[best]) / slope[best]).mean(axis=1 - axis)


@dataclass(frozen=True)
class SteppedPreprocessing(MeasuredPreprocessing):
    """Steps that resize and crop, and steps behind them that see the whole image."""

    pixelwise: ClassVar[bool] = False
    rest: Sequence[Callable]  #: run for each image, whose size they must leave as it is
    as_image: bool  #: whether these take a PIL image, not a tensor

    def normalise(self, batch: Batch) -> Inputs:
        """Return cropped images as the network's input, each by the other steps themselves."""
        inputs = batch.cpu() if self.as_image else super().normalise(batch.cpu())
        found = []
        for one in inputs:
            seen: Any = Image.fromarray(one.numpy()) if self.as_image else one
            for step in self.rest:
                seen = step(seen)
            if not isinstance(seen, Tensor) or seen.shape[-2:] != batch.shape[1:3]:
                raise InputError("transform: steps behind the first colours change the size")
            found.append(seen.float())
        return torch.stack(found).to(batch.device)


def shown_by(preprocessing: Prepares) -> str:
    """Return a hash of what a network is shown of one image: two transforms have two."""
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    shown = preprocessing.normalise(torch.from_numpy(preprocessing.crop(image))[None])
    return hashlib.sha256(shown.numpy().round(2).tobytes()).hexdigest()[:16]


def preprocessing_of(transform: Any) -> Prepares:
    """Return the preprocessing that a person gives: as it is, or measured by trying it.

    Of steps in a row (``Compose``, ``nn.Sequential``) as many as possible are measured, and those
    behind them are run. `InputError` is raised for what is no transform, or cannot be measured.
    """
    if isinstance(transform, Prepares):
        return transform
    if not callable(transform) or isinstance(transform, type):
        raise InputError(
            f"transform: {transform!r} is not a transform; give a function from a PIL RGB image "
            "to a (channels, height, width) tensor"
        )
    try:
        return from_transform(transform)
    except InputError as error:
        steps = getattr(transform, "transforms", None) or list(
            getattr(transform, "children", list)()
        )
        for count in range(len(steps) - 1, 0, -1):
            try:
                return _stepped(steps, count)
            except InputError as another:
                if _MOVED in str(another):
                    raise
        raise error


def _stepped(steps: Sequence[Callable], count: int) -> SteppedPreprocessing:
    """Measure the first steps, and try the others."""

    def run(image: Any) -> Any:
        for step in steps[:count]:
            image = step(image)
        return image

    example = np.random.default_rng(0).integers(0, 256, (300, 256, 3), dtype=np.uint8)
    with others_code("transform: fails"):
        as_image = isinstance(run(Image.fromarray(example)), Image.Image)
    first = from_transform((lambda image: F.to_tensor(run(image))) if as_image else run)
    found = SteppedPreprocessing(
        first.transform, first.matrix, first.offset, tuple(steps[count:]), as_image
    )
    with others_code("transform: fails"):
        views = np.repeat(first.crop(example)[None], _TRIES, axis=0)
        inputs = found.normalise(torch.from_numpy(views))
    if not torch.equal(inputs, inputs[:1].expand_as(inputs)):
        raise InputError(_RANDOM)
    _check_in_place(found, views[0], inputs[0].numpy())
    return found


def _check_in_place(found: SteppedPreprocessing, view: Pixels, before: np.ndarray) -> None:
    """Raise if a change of some pixels does not show where they are."""
    height, width = view.shape[:2]
    part = slice(height // 8, height // 3), slice(width // 16, width // 4)
    other = view.copy()
    other[part] = (
        np.random.default_rng(1).permutation(view[part].reshape(-1, 3)).reshape(view[part].shape)
    )
    with others_code("transform: fails"):
        after = found.normalise(torch.from_numpy(other[None]))[0].numpy()
    changed = np.abs(after - before).max(0)
    if changed[part].mean() < 4 * changed.mean():
        raise InputError(_MOVED)


def from_transform(transform: Callable[[Image.Image], Tensor]) -> MeasuredPreprocessing:
    """Measure a transform that resizes, crops and maps colours linearly.

    Plain colours give the colour map, and edges between black and white the geometry for each size
    of photograph. `InputError` is raised for a random transform, and one that does anything else.
    """
    side = 64
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    first = _run(transform, noise)
    if not all(np.array_equal(first, _run(transform, noise)) for _ in range(_TRIES)):
        raise InputError(_RANDOM)
    plain = []
    for colour in ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 160, 40)):
        seen = _run(transform, np.full((side, side, 3), colour, np.uint8))
        rows, columns = (slice(size // 4, size - size // 4) for size in seen.shape[1:])
        if not np.ptp(seen, axis=(1, 2)).max() <= 1e-3:  # also NaN
            if np.ptp(seen[:, rows, columns], axis=(1, 2)).max() <= 1e-3:
                raise InputError(
                    "transform: it pads the image; unsupported, crop or squash instead"
                )
            raise InputError(
                "transform: it does not leave a plain colour plain; give its steps as a Compose, "
                "in which what resizes and crops comes first"
            )
        plain.append(seen.mean((1, 2)))
    black, red, green, blue, mixed = np.array(plain, np.float32)
    matrix = np.stack([red - black, green - black, blue - black], axis=1)
    predicted = matrix @ (np.array([90, 160, 40], np.float32) / 255) + black
    flat = not np.abs(matrix).max() > 1e-3  # each image standardised by itself
    blobs = rng.integers(64, 192, (8, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    # Half of the values are half of the way from black, unless the step looks at all pixels
    # (an equalised histogram); the values are such that no edge overshoots.
    away = np.abs(2 * _run(transform, blobs // 2) - _run(transform, blobs) - black[:, None, None])
    whole = away.max() > 6 / 255 * np.abs(matrix).sum(1).max()
    if flat or whole or np.abs(predicted - mixed).max() > 1e-2 * (1 + np.abs(mixed).max()):
        raise InputError(
            "transform: its colours are not a linear map of RGB; give its steps as a Compose, in "
            "which what resizes and crops comes first"
        )
    return MeasuredPreprocessing(transform, matrix, black)


def from_torchvision(preset: Any) -> Preprocessing:
    """Return the preprocessing of a torchvision ``weights.transforms()`` preset."""
    resize = preset.resize_size
    return Preprocessing(
        size=(preset.crop_size[0], preset.crop_size[-1]),
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def _run(transform: Callable[[Image.Image], Tensor], pixels: Pixels) -> np.ndarray:
    with others_code(f"transform: fails on {pixels.shape[1]} x {pixels.shape[0]} pixels"):
        seen = transform(Image.fromarray(pixels))
    last = isinstance(seen, Tensor) and seen.ndim == 3 and seen.shape[2] <= 4 < seen.shape[0]
    if not isinstance(seen, Tensor) or seen.ndim != 3 or last:
        shape = getattr(seen, "shape", None)
        raise InputError(
            "transform: must turn a PIL RGB image into a (channels, height, width) tensor, "
            f"not {type(seen).__name__}{f' of shape {tuple(shape)}' if shape else ''}"
        )
    return seen.detach().cpu().float().numpy()
