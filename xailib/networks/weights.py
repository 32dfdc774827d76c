"""Weights: read as tensors only, fitted strictly, hashed, fetched or said to be unreachable."""

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from xailib.downloads import fetch as downloads
from xailib.errors import InputError, UnavailableError
from xailib.files import sha256_of

RANDOM = "random"  # as `weights`: untrained, from the seed
_UNREADABLE = (
    pickle.UnpicklingError,
    SafetensorError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    EOFError,
)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict, also one inside a training checkpoint; only tensors are unpickled.

    Raises
    ------
    InputError
        If there is no such file, or it is not a state dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"weights: no file {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_safetensors(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"weights: {str(path)!r} is not a PyTorch state dict: {reason}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    tensors = isinstance(found, Mapping) and all(isinstance(v, Tensor) for v in found.values())
    if not tensors or not found:
        raise InputError(f"weights: {str(path)!r} holds {type(found).__name__}, not a state dict")
    return {key.removeprefix("module."): value for key, value in found.items()}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict whose names and shapes must all fit, or say which do not.

    Raises
    ------
    InputError
        With up to three missing, unexpected and misshapen entries.
    """
    own = module.state_dict()
    # Counters of training steps came late to batch norm; older files lack them.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    problems = [
        f"{len(found)} {kind} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("misshapen", shapes))
        if found
    ]
    if problems:
        raise InputError(f"weights: {what} does not fit the network: {'; '.join(problems)}")
    module.load_state_dict(dict(state), strict=False)


def hash_of(module: nn.Module) -> str:
    """Return the SHA-256 of a network's entries: names, shapes, types and values."""
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def existing_file(weights: str | Path, members: Iterable[str] = ()) -> Path:
    """Return the file that `weights` names, or raise with what else it may be."""
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    known = [*members, RANDOM]
    raise InputError(f"weights: {str(weights)!r} is neither a file nor one of {', '.join(known)}")


def fetch(what: str, get: Callable[[], Any]) -> Any:
    """Return what `get` fetches.

    Raises
    ------
    UnavailableError
        Saying what was tried, why it failed, and how to supply a file.
    """
    try:
        return get()
    except (URLError, OSError, RuntimeError) as error:
        reason = (str(getattr(error, "reason", error)).splitlines() or [type(error).__name__])[0]
        raise UnavailableError(
            f"weights: could not fetch {what} ({reason}); "
            "download it elsewhere and give weights=PATH"
        ) from error


def download(address: str) -> Path:
    """Fetch a file that its publisher gives no hash for, once; a change later is refused."""
    return Path(fetch(address, lambda: downloads.fetch(address)))


def checkpoint(address: str, watch: downloads.Watch | None = None) -> Path:
    """Fetch one of torchvision's files, whose names end with the start of their SHA-256."""
    file = Path(torch.hub.get_dir(), "checkpoints", Path(address).name)
    start = file.stem.rpartition("-")[2]

    def get() -> Path:
        downloads.fetch(address, file, checked=True, watch=watch)
        if not sha256_of(file).startswith(start):
            file.unlink()
            raise UnavailableError(f"the SHA-256 does not start with {start}")
        return file

    return Path(fetch(address, get))
