"""How precisely a network computes: stated once, part of every manifest, compared like for like.

``"exact"`` is float32 throughout, so that a GPU gives a CPU's results within rounding; ``"tf32"``
lets a GPU round the factors of products to 10 bits (what PyTorch does for convolutions unless
set otherwise); ``"half"`` is autocast to bfloat16. On a CPU, ``"tf32"`` changes nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from xailib.errors import unknown_name

# How far an engine's scores may be from eager's at the same precision, as a share of the largest
# score (at least 1): further away it is another network.
TOLERANCES: Mapping[str, float] = MappingProxyType({"exact": 1e-3, "tf32": 5e-3, "half": 5e-2})
PRECISIONS = tuple(TOLERANCES)
ROUNDING = 8 * 2.0**-23  # of float32: sums in another order differ by some of its roundings


def check_precision(precision: str) -> str:
    """Return the name of a precision.

    Raises
    ------
    InputError
        For an unknown name, with the near ones.
    """
    if precision not in TOLERANCES:
        raise unknown_name("precision", precision, PRECISIONS)
    return precision


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Let passes on a device compute with this precision; afterwards all is as it was.

    PyTorch's switches hold for a process: no other thread should compute meanwhile.
    """
    if precision == "half":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif device.type != "cuda":
        yield
    else:
        with _tf32(precision == "tf32"):
            yield


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 for convolutions and for products of matrices."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    try:
        before = convolutions.allow_tf32, products.allow_tf32
    except RuntimeError:  # set by the names of PyTorch 2.9, which cannot be mixed with the older
        with _fp32("tf32" if allowed else "ieee"):
            yield
        return
    try:
        convolutions.allow_tf32 = products.allow_tf32 = allowed
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


@contextmanager
def _fp32(name: str) -> Iterator[None]:
    places = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = name
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def double(tensor: Shaped[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return a tensor in float64, on the host where its device has none (Apple's GPU)."""
    here = tensor.cpu() if tensor.device.type == "mps" else tensor
    return here.to(torch.float64)
