"""Arrays that others have pickled, read without running anything that their files may name."""

import io
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from xailib.errors import InputError

MAX_BYTES = 16_000_000
_NUMBERS = ("b1", "i1", "u1", "i2", "i4", "i8", "f4", "f8")
# What unpickling damaged or hostile bytes may raise.
_DAMAGED = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)


def read_array(path: str | Path) -> Shaped[np.ndarray, "..."]:
    """Read the array in a file that ``torch.save`` made of one.

    Parameters
    ----------
    path : str or path
        A zip archive with one ``data.pkl``, at most `MAX_BYTES` large when unpacked.

    Returns
    -------
    array
        Of truth values, whole or floating-point numbers; not writeable.

    Raises
    ------
    InputError
        If the file is absent, too large, or holds anything but one such array.
    """
    path = Path(path)
    try:
        found = _ArraysOnly(io.BytesIO(_pickled(path))).load()
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"array: cannot read {str(path)!r}: {error.strerror or error}") from error
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"array: {path.name!r} holds no plain array: {reason}") from error
    if not isinstance(found, _Array) or found.values is None:
        raise InputError(f"array: {path.name!r} holds {type(found).__name__}, not an array")
    return found.values


def _pickled(path: Path) -> bytes:
    """Return the pickle inside the archive, reading no more than is allowed."""
    with zipfile.ZipFile(path) as archive:
        entries = [e for e in archive.infolist() if e.filename.endswith("/data.pkl")]
        if len(entries) != 1:
            raise InputError(f"array: {path.name!r} holds {len(entries)} files data.pkl, not one")
        with archive.open(entries[0]) as stream:
            data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"array: {path.name!r} unpacks to more than {MAX_BYTES} bytes")
    return data


class _Dtype:
    """Stands for ``numpy.dtype``: a kind of number, and the order of its bytes."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _NUMBERS:
            raise InputError(f"array: of {code!r}, not of numbers")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|"):
            raise InputError(f"array: unknown order of bytes {state[1]!r}")
        self.code = state[1] + self.code


class _Array:
    """Stands for ``numpy.ndarray`` while it is put together."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = np.frombuffer(data, dtype.code).reshape(shape, order="F" if fortran else "C")


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays of numbers: every name leads to code of this module, or is refused."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        make = _ALLOWED.get((module.replace("numpy.core", "numpy._core"), name))
        if make is None:
            raise InputError(f"array: its file names {module}.{name}, which is not allowed")
        return lambda *given: make(*given)  # a new one: a pickle may set attributes of what it got


def _nothing(*_: Any) -> None:
    """Stand for ``numpy.ndarray``, which is only named as the kind of array to make."""


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy", "ndarray"): _nothing,
    ("numpy", "dtype"): _Dtype,
    # Older pickles hold bytes as text.
    ("_codecs", "encode"): lambda text, _encoding: text.encode("latin-1"),
}
