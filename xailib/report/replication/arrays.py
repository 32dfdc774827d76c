"""Arrays that others have pickled, read without running anything that their files may name."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from numpy._core.multiarray import _reconstruct

from xailib.errors import InputError, others_code

MAX_BYTES = 16_000_000
_NUMBERS = ("b1", "i1", "u1", "i2", "i4", "i8", "f4", "f8")
_ALLOWED: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),  # as NumPy 1 names it
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in _NUMBERS),
]


def read_array(path: str | Path) -> Shaped[np.ndarray, "..."]:
    """Read the array in a file that ``torch.save`` made of one, by its unpickler of weights only.

    It is of truth values, whole or floating-point numbers. `InputError` is raised if the file is
    absent, unpacks to more than `MAX_BYTES`, or holds anything but one such array.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"array: no file {str(path)!r}")
    with (
        others_code(f"array: {path.name!r} holds no plain array"),
        torch.serialization.safe_globals(_ALLOWED),
    ):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise InputError(f"array: {path.name!r} unpacks to more than {MAX_BYTES} bytes")
        try:
            found = torch.load(path, "cpu", weights_only=True)
        except UnpicklingError as error:  # whose words advise to read the file without care
            raise InputError(f"array: {path.name!r} holds what is not allowed") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        raise InputError(f"array: {path.name!r} holds {type(found).__name__}, not of numbers")
    return found
