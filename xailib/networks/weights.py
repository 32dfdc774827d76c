"""Weights: read as tensors only, found in whatever is stored with them, fitted strictly, hashed."""

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from xailib.errors import InputError, first_line

RANDOM = "random"  # as `weights`: untrained, from the seed
_UNREADABLE = (
    pickle.UnpicklingError, SafetensorError, OSError, RuntimeError, ValueError, LookupError,
    AttributeError, EOFError,
)  # fmt: skip
# What a file begins with that is none of ours, and what it is then.
_OTHERS = (
    (rb"\Z", "it is empty"),
    (rb"version https://git-lfs", "it is a pointer of Git LFS; git lfs pull fetches the file"),
    (rb"\s*<", "it is a web page; download the file itself"),
    (rb"\x1f\x8b", "it is packed by gzip; unpack it"),
    (rb"\x89HDF", "it is HDF5, as of Keras"),
    (rb"[\t\r\n -~]+\Z", "it is a text"),
)


class _Inert:
    """What stands for any object beside the weights: nothing of its own code is imported or run."""

    def __init__(self, *_args: object, **_named: object) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None: ...  # of a dictionary's kind

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict, also one inside a training checkpoint; only tensors are unpickled."""
    _, state = max(_sets_in(path), key=lambda found: len(found[1]))
    known = next(iter(state)).removeprefix("module.").replace("_orig_mod.", "")
    return next(_renamed(state, known))[1]


def load_file(module: nn.Module, path: Path) -> str:
    """Load the weights in a file that fit a network, and return what to call them.

    They may be stored beside anything else, inside dictionaries or a whole module, under the names
    that DataParallel, torch.compile or Lightning give them, or as parts of a larger network. Of
    several sets that fit, a moving average (``ema``) is taken, as timm does. `InputError` is raised
    where none fits, or several without one.
    """
    own = module.state_dict()
    longest = max(own, key=lambda key: key.count("."), default="")  # seldom another's end
    sets = [
        (f"{place}.{prefix}".strip("."), entries)
        for place, state in _sets_in(path)
        for prefix, entries in _renamed(state, longest)
    ]
    fits = {
        place: sum(key in state and state[key].shape == own[key].shape for key in own)
        for place, state in sets
    }
    best = max(fits.values())
    fitting = [(place, state) for place, state in sets if fits[place] == best]
    averages = [one for one in fitting if re.search(r"(^|[._])ema([._]|$)", one[0])]
    chosen = _different(averages or fitting)
    chosen = chosen if len(chosen) == 1 else _different(fitting)
    if len(chosen) > 1:
        names = " and ".join(place or "its top level" for place, _ in chosen)
        raise InputError(f"weights: {path.name} holds {names}, which both fit; save one of them")
    place, state = chosen[0]
    load_strictly(module, state, path.name)
    return path.name if len(fitting) == 1 else f"{path.name} ({place})"


def _different(
    sets: Sequence[tuple[str, dict[str, Tensor]]],
) -> list[tuple[str, dict[str, Tensor]]]:
    """Return the sets without those that repeat the first: a network may be stored twice."""
    first = sets[0][1]

    def repeats(state: dict[str, Tensor]) -> bool:
        return state.keys() == first.keys() and all(
            torch.equal(tensor, first[name]) for name, tensor in state.items()
        )

    return [sets[0], *(one for one in sets[1:] if not repeats(one[1]))]


def _sets_in(path: str | Path) -> list[tuple[str, dict[str, Tensor]]]:
    """Return the sets of named tensors in a file, each with its place."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"weights: no file {str(path)!r}")
    with path.open("rb") as file:
        start = file.read(64)
    try:
        if start[8:9] == b"{":  # whatever it is called
            found: Any = load_safetensors(path)
        else:
            # What it says of TorchScript is an error below.
            with warnings.catch_warnings(action="ignore"):
                found = _unpickled(path)
    except _UNREADABLE as error:
        reason = first_line(error)
        if "TorchScript archive" in reason:
            reason = "TorchScript; load it in a function of your own, path/to/file.py:load"
        if zipfile.is_zipfile(path) and "subdirectory" in reason:
            reason = "it is a zip archive of other files"
        reason = next((what for sign, what in _OTHERS if re.match(sign, start)), reason)
        raise InputError(f"weights: {str(path)!r} is not a PyTorch state dict: {reason}") from error
    sets = list(_sets(found))
    if not sets:
        kind = type(found).__name__.replace("_Inert", "another object")
        kind += " without named tensors" if isinstance(found, Mapping) else ""
        raise InputError(f"weights: {str(path)!r} is not a PyTorch state dict: it holds {kind}")
    return sets


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:  # whose name says nothing
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            file.seek(0)
            names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
            file.seek(0)
            with torch.serialization.safe_globals([(_Inert, name) for name in names]):
                return torch.load(file, map_location="cpu", weights_only=True)


def _sets(found: Any, place: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield each dictionary with tensors by name, and each whole module as one."""
    if isinstance(found, _Inert):
        whole = isinstance(found.state, Mapping) and "_modules" in found.state
        found = dict(_entries_of(found)) if whole else {}
    if isinstance(found, list | tuple):
        found = {str(n): one for n, one in enumerate(found) if not isinstance(one, Tensor)}
    if not isinstance(found, Mapping) or place.count(".") > 3:
        return
    named = {key: value for key, value in found.items() if isinstance(key, str)}
    if any(isinstance(value, Tensor) for value in named.values()):
        yield place, named
    for key, value in named.items():
        if isinstance(value, Mapping | _Inert | list | tuple):
            yield from _sets(value, f"{place}.{key}".removeprefix("."))


def _entries_of(module: _Inert, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the entries of a module that was stored whole."""
    state = module.state
    for own in ("_parameters", "_buffers"):
        for name, value in state.get(own, {}).items():
            if isinstance(value, Tensor) and name not in state.get(
                "_non_persistent_buffers_set", ()
            ):
                yield prefix + name, value
    for name, part in state.get("_modules", {}).items():
        if isinstance(part, _Inert):
            yield from _entries_of(part, f"{prefix}{name}.")


def _renamed(state: Mapping[str, Tensor], known: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield entries without what stands before their names, given a name without; and that."""
    plain = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    before = [key.removesuffix(known) for key in plain if key.endswith(f".{known}")]
    if known in plain or not before:
        before = [""]
    for prefix in before:
        inside = {key: value for key, value in plain.items() if key.startswith(prefix)}
        yield prefix, {key[len(prefix) :]: value for key, value in inside.items()}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict whose names and shapes must all fit, or report up to three that do not."""
    own = module.state_dict()
    # Counters of training steps came late to batch norm; older files lack them.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    both = [k for k in own if k in state]
    shapes = [
        f"{k} {_shape(state[k])} for {_shape(own[k])}"
        for k in both
        if _shape(state[k]) != _shape(own[k])
    ]
    whole = [k for k in both if _is_floating(own[k]) and not _is_floating(state[k])]
    found = {"missing": missing, "unexpected": unexpected, "misshapen": shapes}
    found["of whole numbers"] = [] if shapes else whole
    problems = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in found.items()
        if keys
    ]
    if problems:
        more = "" if missing or unexpected else "; write path/to/file.py:load for another network"
        raise InputError(f"weights: {what} does not fit the network: {'; '.join(problems)}{more}")
    module.load_state_dict(dict(state), strict=False)


def _shape(entry: object) -> tuple[int, ...] | None:
    return tuple(entry.shape) if isinstance(entry, Tensor) else None  # a module's extra state


def _is_floating(entry: object) -> bool:
    return isinstance(entry, Tensor) and entry.is_floating_point()


def hash_of(module: nn.Module) -> str:
    """Return the SHA-256 of a network's entries, names and values, of any type."""
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        _add(digest, key, value)
    return digest.hexdigest()


def _add(digest: Any, key: str, value: object) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        if value.is_quantized:
            value = value.dequantize()  # with its scale
        if value.layout != torch.strided:
            value = value.to_dense()
        value = value.detach().cpu().contiguous().flatten()
        digest.update(value.view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            _add(digest, f"{key} {name}", entry)
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value):
            _add(digest, f"{key} {place}", entry)
    elif isinstance(value, io.BytesIO):
        digest.update(key.encode() + value.getvalue())
    elif value is None or isinstance(value, str | bytes | int | float | torch.dtype | np.generic):
        digest.update(f"{key} {value!r}".encode())
    elif isinstance(value, np.ndarray):
        digest.update(f"{key} {value.shape} {value.dtype}".encode() + value.tobytes())
    else:  # whatever it holds; its address is none of it
        _add(digest, f"{key} {type(value).__name__}", getattr(value, "__dict__", None))


def existing_file(weights: str | Path, members: Iterable[str] = ()) -> Path:
    """Return the file that `weights` names, or raise with what else it may be."""
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    known = [*members, RANDOM]
    raise InputError(f"weights: {str(weights)!r} is neither a file nor one of {', '.join(known)}")
