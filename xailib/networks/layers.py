"""Layers by name: find one, record what they output, and which to use where none is named."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xailib.errors import InputError, unknown_name

_POOLS = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d, nn.Dropout, nn.Identity,
)  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """The output of one layer in a forward pass: its place in the order, shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


def get_layer(module: nn.Module, name: str) -> nn.Module:
    """Return the layer with this `named_modules` name, or raise with the nearest ones."""
    layers = dict(module.named_modules())
    if not name or name not in layers:
        raise unknown_name("layer", name, [key for key in layers if key])
    if isinstance(layers[name], torch.jit.ScriptModule):
        raise InputError(
            f"layer: {name!r} is TorchScript, which takes no hooks; give the module as it was "
            "before torch.jit"
        )
    return layers[name]


def hookable(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that take hooks, by name: all but TorchScript's."""
    script = torch.jit.ScriptModule
    return {name: part for name, part in module.named_modules() if not isinstance(part, script)}


@contextmanager
def evaluation(module: nn.Module) -> Iterator[nn.Module]:
    """Put a network in eval mode; afterwards every part is in the mode it was in."""
    # A TorchScript that was frozen has no mode.
    modes = {part: part.training for part in module.modules() if hasattr(part, "training")}
    try:
        with suppress(NotImplementedError):  # of a module from torch.export, which has no modes
            module.eval()
        yield module
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def recorded(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of layers: a dict that each forward pass fills, by layer name.

    Outputs are copied, so that an in-place operation behind the layer does not change them.
    Hooks are gone afterwards, whatever happened.
    """
    outputs: dict[str, Tensor] = {}

    def record(name: str, output: object) -> None:
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            raise InputError(f"layer: {name!r} outputs a {kind}, not a tensor")
        outputs[name] = output.detach().clone()

    with hooked({name: get_layer(module, name) for name in names}, record):
        yield outputs


@contextmanager
def hooked(
    parts: Mapping[str, nn.Module], hook: Callable[[str, Any], None], *, before: bool = False
) -> Iterator[None]:
    """Call ``hook(name, output)`` when a part has been computed; ``before``: with its inputs."""
    with ExitStack() as hooks:
        for name, part in parts.items():
            if before:
                enter = part.register_forward_pre_hook(lambda _p, i, name=name: hook(name, i))
                hooks.enter_context(enter)
            else:
                leave = part.register_forward_hook(lambda _p, _i, o, name=name: hook(name, o))
                hooks.enter_context(leave)
        yield


def trace(module: nn.Module, example: Tensor) -> list[Trace]:
    """Return every layer that outputs a tensor, in the order in which they finish."""
    traces: list[Trace] = []

    def note(name: str, output: object) -> None:
        if name and isinstance(output, Tensor):
            traces.append(Trace(name, tuple(output.shape), output.dtype))

    with torch.no_grad(), evaluation(module), hooked(hookable(module), note):
        module(example)
    return traces


def spatial_layers(module: nn.Module, traces: Sequence[Trace], classes: int) -> list[Trace]:
    """Return the layers that output feature maps (batch, units, height, width), in order.

    Left out are pools and dropouts, what comes before the first layer that computes (an input's
    normalisation; TorchScript behind it takes no hooks), layers used several times, maps of a
    single pixel, and maps that already are the classes' scores: as many as classes, and no weights
    behind them.
    """
    layers = hookable(module)
    weighted = [bool(layers[t.name]._parameters) for t in traces]
    last = max((place for place, has in enumerate(weighted) if has), default=-1)
    times = Counter(t.name for t in traces)
    script = len(layers) < len(list(module.modules()))
    none = len(traces) if script else 0
    first = next((p for p, t in enumerate(traces) if _computes(layers[t.name], t)), none)
    return [
        t
        for place, t in enumerate(traces)
        if len(t.shape) == 4
        and t.shape[0] == 1  # no parts of an image, such as windows
        and place >= first
        and times[t.name] == 1
        and min(t.shape[2:]) > 1
        and (t.shape[1] != classes or place < last)
        and not isinstance(layers[t.name], _POOLS)
    ]


def patches(
    module: nn.Module, traces: Sequence[Trace], size: Sequence[int]
) -> dict[str, tuple[float, float]]:
    """Return the (height, width) in pixels of a patch, by each layer of tokens made of patches.

    That is a pixel of the last convolution's maps before the layer, of an input of this size.
    """
    layers = hookable(module)
    found: dict[str, tuple[float, float]] = {}
    patch = None
    for t in traces:
        if isinstance(layers[t.name], nn.Conv2d) and len(t.shape) == 4 and t.shape[0] == 1:
            patch = size[0] / t.shape[2], size[1] / t.shape[3]
        elif len(t.shape) == 3 and patch:
            found[t.name] = patch
    return found


def _computes(layer: nn.Module, found: Trace) -> bool:
    """Return whether a layer has more weights than a mean and a deviation for each channel."""
    own = sum(weight.numel() for weight in layer.parameters(recurse=False))
    return len(found.shape) < 2 or own > 2 * found.shape[1]


def default_cam_layer(module: nn.Module, traces: Sequence[Trace], classes: int) -> str | None:
    """Return the last layer with feature maps, or None where tokens follow them (ViT, Swin)."""
    spatial = spatial_layers(module, traces, classes)
    if not spatial:
        return None
    last = traces.index(spatial[-1])
    if any(len(t.shape) == 3 and t.shape[1] > 1 for t in traces[last + 1 :]):
        return None
    return spatial[-1].name


def default_dissect_layers(
    module: nn.Module, traces: Sequence[Trace], classes: int
) -> tuple[str, ...]:
    """Return the last two stages of feature maps and the output layer, as the seed chose them.

    A stage is the last layer, at most two names deep, with maps of one size; for a ResNet
    these are ``layer3``, ``layer4`` and ``fc``. Names of wrappers do not count: of modules with
    one part that has weights.
    """
    layers = hookable(module)
    parts = {
        name: sum(any(True for _ in part.parameters()) for part in layer.children())
        for name, layer in layers.items()
    }
    stages: dict[tuple[int, ...], str] = {}
    for t in spatial_layers(module, traces, classes):
        names = t.name.split(".")
        above = [".".join(names[:depth]) for depth in range(len(names))]
        if sum(parts.get(name, 2) != 1 for name in above) <= 2:
            stages[t.shape[2:]] = t.name
    linear = [n for n, part in layers.items() if isinstance(part, nn.Linear)]
    return (*list(stages.values())[-2:], *linear[-1:])
