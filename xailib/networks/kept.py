"""What was set up for a network, kept with it: until it dies, or its weights change."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

MOST = 8  # engines kept for one network: each holds a copy of the weights that it uses

Stamp = tuple[tuple[int, int], ...]


@dataclass
class _Shelf:
    stamp: Stamp
    things: dict[Hashable, Any] = field(default_factory=dict)


_shelves: WeakKeyDictionary[nn.Module, _Shelf] = WeakKeyDictionary()


def kept_for(network: nn.Module) -> dict[Hashable, Any]:
    """Return what is kept for a network with the weights that it has now.

    Whatever was kept for other weights is dropped. What is put into the dict must not hold the
    network itself, or neither would ever be freed.
    """
    stamp = stamp_of(network)
    shelf = _shelves.get(network)
    if shelf is None or shelf.stamp != stamp:
        shelf = _shelves[network] = _Shelf(stamp)
    return shelf.things


def keep(things: dict[Hashable, Any], key: Hashable, thing: Any) -> None:
    """Put a thing on top, and drop the oldest where there are more than `MOST`."""
    things.pop(key, None)
    things[key] = thing
    while len(things) > MOST:
        del things[next(iter(things))]


def stamp_of(network: nn.Module) -> Stamp:
    """Return where each weight lies and how often it was written to.

    It changes with every operation in place, ``load_state_dict`` and replaced weights, and
    costs no look at the numbers. What is written through ``.data`` or from numpy it does not
    see.
    """
    return tuple(_place(tensor) for tensor in chain(network.parameters(), network.buffers()))


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
