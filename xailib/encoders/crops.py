"""What encoders share: batches, unit rows, packages that only some of them need."""

import importlib
import warnings
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from xailib.errors import InputError, UnavailableError
from xailib.images.load import Photograph
from xailib.images.pool import Crop
from xailib.networks.preprocessing import Prepares

Images = Iterable[Photograph | Crop | UInt8[np.ndarray, "_ _ 3"]]
Rows = Float32[np.ndarray, "rows dimensions"]
TEXTS = 64  # texts in a batch


def import_optional(module: str, package: str) -> Any:
    """Import what only some encoders need, or raise with the package to install."""
    try:
        # openai-clip imports the deprecated pkg_resources.
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(module)
    except ImportError as error:
        raise UnavailableError(f"encoder: needs a package: pip install {package}") from error


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield up to `size` items at a time that follow one another: texts, or images of one size."""
    for _, alike in groupby(items, lambda item: getattr(item, "shape", None)):
        while batch := list(islice(alike, size)):
            yield batch


def unit_rows(rows: list[Tensor], argument: str) -> Rows:
    """Return batches of rows as one table of unit rows; raise, with the argument, for none."""
    if not rows:
        raise InputError(f"{argument}: there are none to encode")
    return nn.functional.normalize(torch.cat(rows), dim=1).numpy()


def cropped(
    images: Images, preprocessing: Prepares
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield images as a network sees them; a `Crop` is one already."""
    for image in images:
        if isinstance(image, Crop):
            yield image.pixels
        else:
            pixels = image.pixels if isinstance(image, Photograph) else image
            yield preprocessing.crop(pixels)
