"""A cache for each network: until the network is freed or its weights change."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

MOST = 8  # engines cached for one network: each holds a copy of the weights that it uses

Stamp = tuple[tuple[int, int], ...]


@dataclass
class _Cache:
    stamp: Stamp
    entries: dict[Hashable, Any] = field(default_factory=dict)


_caches: WeakKeyDictionary[nn.Module, _Cache] = WeakKeyDictionary()


def cache_of(network: nn.Module) -> dict[Hashable, Any]:
    """Return the cache of a network with its present weights.

    What was cached for other weights is dropped. An entry must not refer to the network itself,
    or neither would ever be freed.
    """
    stamp = stamp_of(network)
    cache = _caches.get(network)
    if cache is None or cache.stamp != stamp:
        cache = _caches[network] = _Cache(stamp)
    return cache.entries


def store(entries: dict[Hashable, Any], key: Hashable, entry: Any) -> None:
    """Add an entry, and drop the oldest where there are more than `MOST`."""
    entries.pop(key, None)
    entries[key] = entry
    while len(entries) > MOST:
        del entries[next(iter(entries))]


def stamp_of(network: nn.Module) -> Stamp:
    """Return the address of each weight and how often it was written to.

    It changes with every operation in place, ``load_state_dict`` and replaced weights, and
    costs no look at the numbers. What is written through ``.data`` or from numpy it does not
    see.
    """
    return tuple(_place(tensor) for tensor in chain(network.parameters(), network.buffers()))


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
