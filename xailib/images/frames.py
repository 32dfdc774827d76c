"""Frames: which part of a photograph a map shows, and how to bring maps into one frame.

A network sees a photograph resized and cropped. A map made in the network's input therefore
lives in a *frame*; pixels of two maps may only be compared when both are in the same one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from xailib.errors import InputError

Resized = Float32[np.ndarray, "height2 width2"]
Map = Float32[np.ndarray, "height width"]

Interpolation = Literal["bilinear", "nearest"]


@dataclass(frozen=True)
class Frame:
    """The part of a photograph that a map covers: the photograph resized, then cropped."""

    photograph: tuple[int, int]  #: (height, width), the photograph's own size, pixels
    resized: tuple[int, int]  #: (height, width) of the whole photograph after resizing, pixels
    #: (top, left, height, width), in pixels of the resized photograph; it lies inside
    crop: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        top, left, height, width = self.crop
        inside = top >= 0 and left >= 0 and height > 0 and width > 0
        if not (inside and top + height <= self.resized[0] and left + width <= self.resized[1]):
            raise InputError(f"frame: crop {self.crop} does not lie inside {self.resized}")

    @classmethod
    def whole(cls, height: int, width: int) -> "Frame":
        """Return the frame of a map that covers the photograph pixel by pixel."""
        return cls((height, width), (height, width), (0, 0, height, width))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a map in this frame."""
        return self.crop[2], self.crop[3]

    def to_photograph(self, values: Map) -> Resized:
        """Return a map of this frame at the photograph's own size, NaN outside the crop."""
        if values.shape != self.size:
            raise InputError(f"map: shape {values.shape} is not the frame's {self.size}")
        height, width = self.photograph
        if self.crop == (0, 0, *self.resized):
            return resize(values, (height, width), "bilinear")
        top, left, tall, wide = self.crop
        down, across = height / self.resized[0], width / self.resized[1]
        # The crop's edges fall between the photograph's pixels: rounded, at most half a pixel.
        bottom, right = round((top + tall) * down), round((left + wide) * across)
        top, left = round(top * down), round(left * across)
        bottom, right = max(bottom, top + 1), max(right, left + 1)
        full = np.full((height, width), np.nan, np.float32)
        full[top:bottom, left:right] = resize(values, (bottom - top, right - left), "bilinear")
        return full

    def from_photograph(self, values: Map) -> Resized:
        """Return the part of a map of the whole photograph that this frame shows."""
        if values.shape != self.photograph:
            raise InputError(f"map: shape {values.shape} is not the photograph's {self.photograph}")
        top, left, height, width = self.crop
        large = resize(values, self.resized, "bilinear")
        return large[top : top + height, left : left + width].copy()

    def show(self, pixels: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
        """Return what this frame shows of the photograph, for drawing under a map."""
        if pixels.shape[:2] != self.photograph:
            raise InputError(f"frame: of a {self.photograph} photograph, not {pixels.shape[:2]}")
        top, left, height, width = self.crop
        image = Image.fromarray(pixels).resize(self.resized[::-1], Image.Resampling.BICUBIC)
        return np.array(image.crop((left, top, left + width, top + height)))


def change_frame(values: Map, source: Frame, target: Frame) -> Resized:
    """Return a map of `source` as it looks in `target`, NaN where `source` shows nothing.

    Frames of photographs of different sizes raise `InputError`.
    """
    if source == target:
        return values
    if source.photograph != target.photograph:
        raise InputError(
            f"frames: of photographs of different sizes, {source.photograph} and "
            f"{target.photograph} (height, width)"
        )
    return target.from_photograph(source.to_photograph(values))


def resize(values: Map, size: tuple[int, int], how: Interpolation) -> Resized:
    """Resize a map to (height, width) by Pillow's filters; NaN spreads to what it touches."""
    if values.shape == size:
        return values
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(image.resize((size[1], size[0]), Image.Resampling[how.upper()]))
