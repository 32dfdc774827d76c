"""Ablation-CAM (Desai & Ramaswamy 2020): a channel counts by what the target loses without it.

The part of the network in front of the layer is computed once, and for each channel only the tail
behind it; where that is an average pool and a linear layer, the scores follow from the linear
layer's weights. Either shortcut is used only after it has given the same scores as the whole
network on channels of this very image, or of an earlier one where the tail reads nothing but the
layer's output.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from xailib.errors import InputError, check_name
from xailib.explain.cam.gradient import layer_pass
from xailib.explain.cam.layout import Layout
from xailib.explain.cam.tail import Tail
from xailib.networks.classifier import BATCH, Classifier, PassOptions
from xailib.networks.engines import cache_of
from xailib.networks.forward import double, forward_batches

RULES = ("centred", "gradcam")
_TRIED = 3  # channels that a shortcut must get right
_AGREES = {"exact": 1e-4, "tf32": 2e-3, "half": 2e-2}  # of the largest score
_FAR = 1e7  # how far below everything else grad-cam sets a channel that has negative values


@dataclass(frozen=True)
class Ablation:
    """The weights of a layer's channels, and how they were found."""

    #: what the target loses without the channel, as a share of `level`
    weights: Float[Tensor, "*targets channels"]
    level: Float[Tensor, "*targets"]  #: the target's score, absolute
    how: str  #: what is computed for each channel: "closed form", "tail" or "whole network"
    engine: str  #: of the passes; "eager" where none was needed


def ablation_weights(
    tail: Tail,
    layout: Layout,
    target: int | Int[Tensor, " targets"],
    *,
    rule: str = "centred",
    precision: str = "exact",
    independent: bool = False,
    **options: Unpack[PassOptions],
) -> Ablation:
    """Return by what share the target's score drops without each channel.

    Parameters
    ----------
    tail : Tail
        Of the network behind the layer, for the explained image, in eval mode.
    layout : Layout
        Where the layer's channels are.
    target : int or tensor of int
        The explained class's index, or several, which share all passes.
    rule : {"centred", "gradcam"}
        ``"centred"``: a channel is set to zero, as in the paper, and the score is the target's
        logit minus the mean of all logits. A softmax does not see a constant that is added to
        all logits, and neither does this score; the paper's, the plain logit, negates every
        weight when the constant moves the target's logit below zero. (The softmax
        probability would do too, but it hardly moves where the network is confident.)
        ``"gradcam"``: as the grad-cam package has it, with the plain logit; and where the
        layer's smallest value is not exactly zero, the i-th channel of a batch is set to that
        value minus ``i * 1e7`` (so its result depends on the batch size).
    independent : bool
        For ``"centred"``: whether each class has a sigmoid of its own. Then its score is the plain
        logit, which other classes' logits do not change.
    precision, **options
        See `xailib.networks.forward.forward_batches`.
    """
    check_name("rule", rule, RULES)
    output = tail.output
    count = output.shape[layout.axis]
    values = _values(output, count, rule, options.get("batch_size") or BATCH)
    changed = _changed(output, layout, values)
    whole = double(tail.logits)
    logits = whole.repeat(count, 1)  # of channels that are zero already
    how, used = "closed form", "eager"
    if len(changed):
        found, how, used = _ablated_logits(tail, layout, changed, values, precision, options)
        logits[changed.to(logits.device)] = found
    targets = torch.as_tensor(target, device=whole.device).reshape(-1)
    weights, level = _drop(whole, logits, targets, rule, independent)
    if not isinstance(target, Tensor):
        weights, level = weights[0], level[0]
    return Ablation(weights, level, how, used)


def way_of(tail: Tail, layout: Layout, precision: str) -> str:
    """Return what has to be computed for each channel, as in `Ablation`, after trying it."""
    output = tail.output
    count = output.shape[layout.axis]
    values = _values(output, count, "centred", BATCH)
    changed = _changed(output, layout, values)
    if not len(changed):
        return "closed form"
    return _tried(tail, layout, changed, values, precision) or "whole network"


def _changed(
    output: Float[Tensor, "1 ..."], layout: Layout, values: Float[Tensor, " channels"]
) -> Int[Tensor, " changed"]:
    """Return the channels that are anywhere something else than what replaces them."""
    flat = output.movedim(layout.axis, 0).flatten(1)  # channels, positions
    return torch.nonzero((flat != values[:, None]).any(1))[:, 0]


def _replacing(
    tail: Tail, layout: Layout, values: Float[Tensor, " channels"]
) -> Callable[[Int[Tensor, " some"]], Tensor]:
    """Return the function from channels to the layer's output, each time without one of them."""
    last = tail.output.ndim == 4 and tail.output.is_contiguous(memory_format=torch.channels_last)
    # As the network itself has it: else a GPU turns the tensors of every layer behind it.
    order = torch.channels_last if last else torch.contiguous_format

    def without(some: Int[Tensor, " some"]) -> Tensor:
        batch = tail.output.expand(len(some), *tail.output.shape[1:])
        batch = batch.clone(memory_format=order)
        rows = torch.arange(len(some), device=some.device)
        batch.movedim(layout.axis, 1)[rows, some] = values[some].reshape(
            -1, *[1] * (batch.ndim - 2)
        )
        return batch

    return without


def shortcut(network: nn.Module, layer: str, precision: str, size: tuple[int, ...]) -> str:
    """Return the shortcut found right for a layer and inputs of a size, or ``""``."""
    found: str = _shortcuts(network).get((layer, precision, *size), "")
    return found


def _shortcuts(network: nn.Module) -> dict:
    return cache_of(network).setdefault("shortcuts of AblationCAM", {})


def closed_weights(
    classifier: Classifier,
    layer: str,
    layout_of: Callable[[Tensor], Layout],
    inputs: Float[Tensor, "images colours height width"],
    targets_of: Callable[[Tensor], Tensor],
    rule: str,
    batch_size: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
    """Return `ablation_weights` of several images by the closed form, which must be the `shortcut`.

    One pass of all images. ``layout_of`` finds the layout from the layer's output, ``targets_of``
    the targets from the scores. Returned are logits, targets, maps, weights and levels, each image
    by image; None unless the numbers of the pass are those of the closed form.
    """
    linear = _last_linear(classifier.module)
    if linear is None:
        raise InputError(f"layer: {layer!r} has no closed form")
    with watching(linear) as seen:
        found = layer_pass(classifier, layer, inputs, gradients=False)
    ((pooled, scores),) = seen
    layout, targets = layout_of(found.output), targets_of(found.logits)
    maps = layout.maps(found.output)
    weights, levels, agree = [], [], []
    weight, precision = double(linear.weight.detach()), classifier.precision
    independent = classifier.outputs == "multilabel"
    every = torch.arange(maps.shape[1], device=maps.device)
    for image in range(len(inputs)):
        here = slice(image, image + 1)
        logits, means = double(found.logits[here]), double(maps[here]).mean((2, 3))
        values = _values(found.output[here], len(every), rule, batch_size or BATCH)
        changed = (maps[image].flatten(1) != values[:, None]).any(1)
        ablated = _without(logits, means, weight, every, values)
        ablated = torch.where(changed.to(logits.device)[:, None], ablated, logits)
        whose = targets[image].to(logits.device)
        lost, level = _drop(logits, ablated, whose, rule, independent)
        weights.append(lost)
        levels.append(level)
        agree.append(
            _near(double(pooled[here]), means, precision)
            & _near(double(scores[here]), logits, precision)
        )
    if not torch.stack(agree).all():
        return None
    return found.logits, targets, maps, torch.stack(weights), torch.stack(levels)


def _values(output: Tensor, count: int, rule: str, batch_size: int) -> Float[Tensor, " channels"]:
    """Return what each channel is set to."""
    nothing = torch.zeros(count, dtype=output.dtype, device=output.device)
    if rule == "centred":
        return nothing
    lowest = output.min()
    place = torch.arange(count, device=output.device) % batch_size
    return torch.where(lowest == 0, nothing, lowest - _FAR * (1 + place))


def _drop(
    whole: Float[Tensor, "1 classes"],
    ablated: Float[Tensor, "channels classes"],
    targets: Int[Tensor, " targets"],
    rule: str,
    independent: bool,
) -> tuple[Float[Tensor, "targets channels"], Float[Tensor, " targets"]]:
    """Return what each target loses without each channel, as a share of its score, and that."""
    before, after = whole[0].index_select(0, targets)[:, None], ablated.index_select(1, targets).T
    if rule == "gradcam":
        return (before - after) / before, before[:, 0].abs()
    if not independent:
        before, after = before - whole.mean(), after - ablated.mean(1)
    # By its size: for a target below the mean, a drop is a drop all the same.
    level = before.abs()
    least = torch.finfo(torch.float32).tiny  # of equal scores nothing is a share
    return (before - after) / level.clamp(min=least), level[:, 0]


def _ablated_logits(
    tail: Tail,
    layout: Layout,
    channels: Int[Tensor, " changed"],
    values: Float[Tensor, " channels"],
    precision: str,
    options: PassOptions,
) -> tuple[Float[Tensor, "changed classes"], str, str]:
    """Return the scores without each of these channels, in the cheapest way that is exact."""
    without = _replacing(tail, layout, values)
    size = tuple(tail.image.shape[1:])
    known = shortcut(tail.network, tail.layer, precision, size)
    alone = bool(known)
    if not known:
        known = _tried(tail, layout, channels, values, precision)
        alone = known != "" and tail.stands_alone()
        if alone:
            _shortcuts(tail.network)[(tail.layer, precision, *size)] = known
    if known == "closed form":
        with torch.no_grad():
            closed = _closed_form(tail, layout, precision)
        if closed is not None:
            return closed(channels, values[channels]), known, "eager"
        known = "tail"

    def make(start: int, stop: int) -> Tensor:
        return without(channels[start:stop])

    of = (tail.network, tail.layer) if alone else None
    module: nn.Module = tail if known else _Whole(tail)
    chosen: PassOptions = options if known else {**options, "engine": "eager"}
    found = forward_batches(module, make, len(channels), of=of, precision=precision, **chosen)
    return double(found.logits), known or "whole network", found.engine


def _tried(
    tail: Tail,
    layout: Layout,
    channels: Int[Tensor, " changed"],
    values: Float[Tensor, " channels"],
    precision: str,
) -> str:
    """Return the first shortcut that gets the strongest channels right; ``""`` if none does."""
    without = _replacing(tail, layout, values)
    strength = tail.output.movedim(layout.axis, 0).flatten(1).abs().mean(1)
    tried = channels[strength[channels].argsort(descending=True)[:_TRIED]]
    with torch.no_grad():
        true = double(tail.whole(without(tried)))
        closed = _closed_form(tail, layout, precision)
        if closed is not None and _agree(closed(tried, values[tried]), true, precision):
            return "closed form"
        return "tail" if _agree(_or_none(tail, without(tried)), true, precision) else ""


class _Whole(nn.Module):
    """The full passes of a `Tail`, as a module."""

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, outputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        return self.tail.whole(outputs)


def _or_none(tail: Tail, outputs: Tensor) -> Tensor | None:
    """Return the tail's scores; None where it cannot be replayed for several at once."""
    try:
        return double(tail(outputs))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None


def _agree(found: Tensor | None, true: Tensor, precision: str) -> bool:
    if found is None or found.shape != true.shape:
        return False
    return bool(_near(found, true, precision))


def _near(found: Tensor, true: Tensor, precision: str) -> Bool[Tensor, ""]:
    allowed = _AGREES[precision] * true.abs().max().clamp(min=1)
    return (found - true).abs().max() <= allowed


def _last_linear(network: nn.Module) -> nn.Linear | None:
    return next((p for p in reversed(list(network.modules())) if isinstance(p, nn.Linear)), None)


def _closed_form(
    tail: Tail, layout: Layout, precision: str
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the function from channels and their new values to scores, where there is one.

    It needs a linear layer whose input is the mean of each of the layer's maps and whose output
    is the network's. This is read off the numbers of one pass, whatever lies in between.
    """
    last = _last_linear(tail.network)
    maps = double(layout.maps(tail.output))
    if last is None or layout.prefix or last.in_features != maps.shape[1]:
        return None
    with watching(last) as seen:
        logits = _or_none(tail, tail.output)
    means = maps.mean((2, 3))
    if logits is None or len(seen) != 1 or seen[0][0].shape != means.shape:
        return None
    pooled, scores = (double(tensor) for tensor in seen[0])
    if scores.shape != logits.shape or not (
        _agree(pooled, means, precision) and _agree(scores, logits, precision)
    ):
        return None
    weight = double(last.weight.detach())
    return lambda channels, values: _without(logits, means, weight, channels, values)


def _without(
    logits: Float[Tensor, "1 classes"],
    means: Float[Tensor, "1 channels"],
    weight: Float[Tensor, "classes channels"],
    channels: Int[Tensor, " some"],
    values: Float[Tensor, " some"],
) -> Float[Tensor, "some classes"]:
    """Return the scores with some channels' means replaced by other values."""
    channels = channels.to(logits.device)
    change = double(values) - means[0, channels]
    return logits + change[:, None] * weight[:, channels].T


@contextmanager
def watching(linear: nn.Linear) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record the inputs and outputs of a linear layer."""
    seen: list[tuple[Tensor, Tensor]] = []
    with linear.register_forward_hook(lambda _m, i, o: seen.append((i[0].detach(), o.detach()))):
        yield seen
