"""Weights: read as tensors only, fitted strictly, hashed."""

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from xailib.errors import InputError

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
    """Load a state dict whose names and shapes must all fit, or report which do not.

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
