"""Ablation-CAM (Desai & Ramaswamy 2020): a channel counts by what the target loses without it.

The part of the network in front of the layer is computed once, and for each channel only the tail
behind it; where that is an average pool and a linear layer, the scores follow from the linear
layer's weights. Either shortcut is used only after it has given the same scores as the whole
network on channels of this very image, or of an earlier one where the tail reads nothing but the
layer's output.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

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


class Ablation(NamedTuple):
    """The weights of a layer's channels, and how they were found."""

    #: what the target loses without the channel, as a share of `level`
    weights: Float[Tensor, "targets channels"]
    level: Float[Tensor, " targets"]  #: the target's score, absolute
    how: str  #: what is computed for each channel, "closed form", "tail" or "whole network"
    engine: str  #: of the passes; "eager" where none was needed


def ablation_weights(
    classifier: Classifier,
    tail: Tail,
    layout: Layout,
    targets: Int[Tensor, " targets"],
    rule: str,
    options: PassOptions,
) -> Ablation:
    """Return by what share the targets' scores drop without each channel.

    Parameters
    ----------
    classifier : Classifier
        What is explained. Where its labels are independent, the score of ``"centred"`` is the plain
        logit, which other classes' logits do not change.
    tail : Tail
        Of its network behind the layer, for the explained image, in eval mode.
    layout : Layout
        Where the layer's channels are.
    targets : (targets,) int
        The explained classes' indices, which share all passes.
    rule : {"centred", "gradcam"}
        ``"centred"``: a channel is set to zero, as in the paper, and the score is the target's
        logit minus the mean of all logits. A softmax does not see a constant that is added to
        all logits, and neither does this score; the paper's, the plain logit, negates every
        weight when the constant moves the target's logit below zero. (The softmax
        probability would do too, but it hardly moves where the network is confident.)
        ``"gradcam"``: as the grad-cam package has it, with the plain logit; and where the
        layer's smallest value is not exactly zero, the i-th channel of a batch is set to that
        value minus ``i * 1e7`` (so its result depends on the batch size).
    options : mapping
        See `xailib.networks.forward.forward_batches`.
    """
    channels = _Channels(tail, layout, classifier.precision, rule, options.get("batch_size"))
    whole = double(tail.logits)
    logits = whole.repeat(len(channels.values), 1)  # of channels that are zero already
    how, used = "closed form", "eager"
    if len(channels.changed):
        found, how, used = channels.logits(options)
        logits[channels.changed.to(logits.device)] = found
    return Ablation(*_drop(classifier, whole, logits, targets.to(whole.device), rule), how, used)


def way_of(tail: Tail, layout: Layout, precision: str) -> str:
    """Return what has to be computed for each channel, as in `Ablation`, after trying it."""
    channels = _Channels(tail, layout, precision)
    if not len(channels.changed):
        return "closed form"
    return channels.shortcut() or "whole network"


class _Channels:
    """The channels of a layer's output, each of which can be replaced."""

    def __init__(
        self,
        tail: Tail,
        layout: Layout,
        precision: str,
        rule: str = "centred",
        batch_size: int | None = None,
    ) -> None:
        self.tail, self.layout, self.precision = tail, layout, precision
        self.flat = tail.output.movedim(layout.axis, 0).flatten(1)  # channels, positions
        self.values = _values(tail.output, len(self.flat), rule, batch_size)
        # Those that are anywhere something else than what replaces them.
        self.changed = torch.nonzero((self.flat != self.values[:, None]).any(1))[:, 0]

    def without(self, some: Int[Tensor, " some"]) -> Float[Tensor, "some ..."]:
        """Return the layer's output several times, each time without one of some channels."""
        output = self.tail.output
        last = output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last)
        # As the network itself has it: else a GPU turns the tensors of every layer behind it.
        order = torch.channels_last if last else torch.contiguous_format
        batch = output.expand(len(some), *output.shape[1:]).clone(memory_format=order)
        rows = torch.arange(len(some), device=some.device)
        values = self.values[some].reshape(-1, *[1] * (batch.ndim - 2))
        batch.movedim(self.layout.axis, 1)[rows, some] = values
        return batch

    def logits(self, options: PassOptions) -> tuple[Float[Tensor, "changed classes"], str, str]:
        """Return the scores without each changed channel, in the cheapest way that is exact."""
        tail, precision = self.tail, self.precision
        cache, key = shortcuts(tail.network), (tail.layer, precision, *tail.image.shape[1:])
        known = cache.get(key, "")
        alone = bool(known)
        if not known:
            known = self.shortcut()
            alone = known != "" and tail.stands_alone()
            if alone:
                cache[key] = known
        if known == "closed form":
            with torch.no_grad():
                closed = self.closed_form()
            if closed is not None:
                return closed(self.changed), known, "eager"
            known = "tail"

        def make(start: int, stop: int) -> Tensor:
            return self.without(self.changed[start:stop])

        of = (tail.network, tail.layer) if alone else None
        module: nn.Module = tail if known else _Whole(tail)
        chosen: PassOptions = options if known else {**options, "engine": "eager"}
        count = len(self.changed)
        found = forward_batches(module, make, count, of=of, precision=precision, **chosen)
        return double(found.logits), known or "whole network", found.engine

    def shortcut(self) -> str:
        """Return the first shortcut that gets the strongest channels right; ``""`` if none does."""
        strength = self.flat.abs().mean(1)[self.changed]
        tried = self.changed[strength.argsort(descending=True)[:_TRIED]]
        with torch.no_grad():
            true = double(self.tail.whole(self.without(tried)))
            closed = self.closed_form()
            if closed is not None and _agree(closed(tried), true, self.precision):
                return "closed form"
            found = _or_none(self.tail, self.without(tried))
            return "tail" if _agree(found, true, self.precision) else ""

    def closed_form(self) -> Callable[[Tensor], Tensor] | None:
        """Return the function from channels to the scores without each, where there is one.

        It needs a linear layer whose input is the mean of each of the layer's maps and whose output
        is the network's. This is read off the numbers of one pass, whatever lies in between.
        """
        last = last_linear(self.tail.network)
        maps = double(self.layout.maps(self.tail.output))
        if last is None or self.layout.prefix or last.in_features != maps.shape[1]:
            return None
        with watching(last) as seen:
            logits = _or_none(self.tail, self.tail.output)
        means = maps.mean((2, 3))
        if logits is None or len(seen) != 1:
            return None
        pooled, scores = (double(tensor) for tensor in seen[0])
        if not (_agree(pooled, means, self.precision) and _agree(scores, logits, self.precision)):
            return None
        weight = double(last.weight.detach())
        return lambda some: _without(logits, means, weight, some, self.values[some])


def shortcuts(network: nn.Module) -> dict[tuple[Any, ...], str]:
    """Return the shortcuts found right, by layer, precision and an input's size."""
    found: dict[tuple[Any, ...], str] = cache_of(network).setdefault("shortcuts of AblationCAM", {})
    return found


def closed_weights(
    classifier: Classifier,
    layer: str,
    inputs: Float[Tensor, "images colours height width"],
    targets_of: Callable[[Tensor], Tensor],
    rule: str,
    batch_size: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
    """Return `ablation_weights` of several images by the closed form, found right in `shortcuts`.

    One pass of all images, with whose scores ``targets_of`` finds the targets. Returned are logits,
    targets, maps, weights and levels, each image by image; None unless the numbers of the pass are
    those of the closed form.
    """
    linear = last_linear(classifier.module)
    if linear is None:
        return None
    with watching(linear) as seen:
        found = layer_pass(classifier, layer, inputs, gradients=False)
    ((pooled, scores),) = seen
    targets, maps = targets_of(found.logits), found.maps
    weights, levels, agree = [], [], []
    weight, precision = double(linear.weight.detach()), classifier.precision
    every = torch.arange(maps.shape[1], device=maps.device)
    for image in range(len(inputs)):
        here = slice(image, image + 1)
        logits, means = double(found.logits[here]), double(maps[here]).mean((2, 3))
        values = _values(found.output[here], len(every), rule, batch_size)
        changed = (maps[image].flatten(1) != values[:, None]).any(1)
        ablated = _without(logits, means, weight, every, values)
        ablated = torch.where(changed.to(logits.device)[:, None], ablated, logits)
        lost, level = _drop(classifier, logits, ablated, targets[image].to(logits.device), rule)
        weights.append(lost)
        levels.append(level)
        agree.append(
            _near(double(pooled[here]), means, precision)
            & _near(double(scores[here]), logits, precision)
        )
    if not torch.stack(agree).all():
        return None
    return found.logits, targets, maps, torch.stack(weights), torch.stack(levels)


def _values(
    output: Tensor, count: int, rule: str, batch_size: int | None
) -> Float[Tensor, " channels"]:
    """Return what each channel is set to."""
    nothing = torch.zeros(count, dtype=output.dtype, device=output.device)
    if rule == "centred":
        return nothing
    lowest = output.min()
    place = torch.arange(count, device=output.device) % (batch_size or BATCH)
    return torch.where(lowest == 0, nothing, lowest - _FAR * (1 + place))


def _drop(
    classifier: Classifier,
    whole: Float[Tensor, "1 classes"],
    ablated: Float[Tensor, "channels classes"],
    targets: Int[Tensor, " targets"],
    rule: str,
) -> tuple[Float[Tensor, "targets channels"], Float[Tensor, " targets"]]:
    """Return what each target loses without each channel, as a share of its score, and that."""
    before, after = whole[0].index_select(0, targets)[:, None], ablated.index_select(1, targets).T
    if rule == "gradcam":
        return (before - after) / before, before[:, 0].abs()
    if classifier.outputs != "multilabel":
        before, after = before - whole.mean(), after - ablated.mean(1)
    # By its size: for a target below the mean, a drop is a drop all the same.
    level = before.abs()
    least = torch.finfo(torch.float32).tiny  # of equal scores nothing is a share
    return (before - after) / level.clamp(min=least), level[:, 0]


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


def last_linear(network: nn.Module) -> nn.Linear | None:
    """Return the linear layer that comes last, in the order of ``modules``."""
    return next((p for p in reversed(list(network.modules())) if isinstance(p, nn.Linear)), None)


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
