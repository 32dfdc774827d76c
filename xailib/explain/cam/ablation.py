"""Ablation-CAM (Desai & Ramaswamy 2020): a channel counts by what the target loses without it.

The part of the network in front of the layer is computed once. Behind it, only the tail is,
for each channel; and where the tail is an average pool and a linear layer, the scores follow
from the linear layer's weights and no pass is needed. Either shortcut is used only after it
has given the same scores as the whole network on channels of this very picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xailib.errors import unknown_name
from xailib.explain.cam.layout import Layout
from xailib.explain.cam.tail import Tail
from xailib.networks.forward import forward_batches

RULES = ("centred", "gradcam")
_TRIED = 3  # channels that a shortcut must get right
_AGREES = 1e-4  # of the largest score
_FAR = 1e7  # how far below everything else grad-cam sets a channel that has negative values


@dataclass(frozen=True)
class Ablation:
    """The weights of a layer's channels, and how they were found.

    Attributes
    ----------
    weights : (channels,) float
        What the target loses without the channel, as a share.
    how : {"closed form", "tail", "whole network"}
        What had to be computed for each channel.
    engine : str
        By which the passes were made; ``"eager"`` where none was needed.
    """

    weights: Float[Tensor, " channels"]
    how: str
    engine: str


def ablation_weights(
    tail: Tail,
    layout: Layout,
    target: int,
    *,
    rule: str = "centred",
    batch_size: int = 16,
    engine: str = "auto",
) -> Ablation:
    """Return by what share the target's score drops without each channel.

    Parameters
    ----------
    tail : Tail
        Of the network behind the layer, for the explained picture. The network must be in
        eval mode.
    layout : Layout
        Where the layer's channels are.
    target : int
        The explained category's index.
    rule : {"centred", "gradcam"}
        ``"centred"``: a channel is set to zero, as in the paper, and the score is the target's
        logit minus the mean of all logits. A softmax does not see a constant that is added to
        all logits, and neither does this score; the paper's, the plain logit, negates every
        weight when the constant moves the target's logit below zero. (The softmax
        probability would do too, but it hardly moves where the network is sure.)
        ``"gradcam"``: as the grad-cam package has it, with the plain logit; and where the
        layer's smallest value is not exactly zero, the i-th channel of a batch is set to that
        value minus ``i * 1e7`` (so its result depends on the batch size).
    batch_size, engine
        See `xailib.networks.forward.forward_batches`.

    Raises
    ------
    InputError
        For an unknown rule.
    """
    if rule not in RULES:
        raise unknown_name("rule", rule, RULES)
    output = tail.output
    count = output.shape[layout.axis]
    values = _values(output, count, rule, batch_size)
    flat = output.movedim(layout.axis, 0).flatten(1)  # channels, positions
    changed = torch.nonzero((flat != values[:, None]).any(1))[:, 0]
    logits = tail.logits.double().repeat(count, 1)  # of channels that are zero already
    how, used = "closed form", "eager"
    if len(changed):
        logits[changed], how, used = _ablated_logits(
            tail, layout, changed, values, batch_size=batch_size, engine=engine
        )
    weights = _drop(tail.logits.double(), logits, target, rule)
    return Ablation(weights, how, used)


def _values(output: Tensor, count: int, rule: str, batch_size: int) -> Float[Tensor, " channels"]:
    """Return what each channel is set to."""
    lowest = output.min()
    if rule == "centred" or lowest == 0:
        return torch.zeros(count, dtype=output.dtype, device=output.device)
    place = torch.arange(count, device=output.device) % batch_size
    return lowest - _FAR * (1 + place)


def _drop(
    whole: Float[Tensor, "1 categories"],
    ablated: Float[Tensor, "channels categories"],
    target: int,
    rule: str,
) -> Float[Tensor, " channels"]:
    if rule == "gradcam":
        return (whole[0, target] - ablated[:, target]) / whole[0, target]
    alone = whole.shape[1] == 1  # one category: a sigmoid's score, with nothing to be relative to
    before = whole[0, target] - (0 if alone else whole.mean())
    after = ablated[:, target] - (0 if alone else ablated.mean(1))
    # By its size: for a target below the mean, a drop is a drop all the same.
    return (before - after) / before.abs().clamp(min=torch.finfo(whole.dtype).tiny)


def _ablated_logits(
    tail: Tail,
    layout: Layout,
    channels: Int[Tensor, " changed"],
    values: Float[Tensor, " channels"],
    *,
    batch_size: int,
    engine: str,
) -> tuple[Float[Tensor, "changed categories"], str, str]:
    """Return the scores without each of these channels, in the cheapest way that is exact."""

    def without(some: Int[Tensor, " some"]) -> Tensor:
        batch = tail.output.expand(len(some), *tail.output.shape[1:]).clone()
        rows = torch.arange(len(some), device=some.device)
        batch.movedim(layout.axis, 1)[rows, some] = values[some].reshape(
            -1, *[1] * (batch.ndim - 2)
        )
        return batch

    strength = tail.output.movedim(layout.axis, 0).flatten(1).abs().mean(1)
    tried = channels[strength[channels].argsort(descending=True)[:_TRIED]]
    with torch.no_grad():
        closed = _closed_form(tail, layout)
        true = tail.whole(without(tried)).double()
        if closed is not None and _agree(closed(tried, values[tried]), true):
            return closed(channels, values[channels]), "closed form", "eager"
        short = _agree(_or_none(tail, without(tried)), true)

    def make(start: int, stop: int) -> Tensor:
        return without(channels[start:stop])

    if short:
        of = (tail.network, tail.layer) if tail.stands_alone() else None
        found = forward_batches(
            tail, make, len(channels), batch_size=batch_size, engine=engine, of=of
        )
    else:
        whole = _Whole(tail)
        found = forward_batches(whole, make, len(channels), batch_size=batch_size, engine="eager")
    return found.logits.double(), "tail" if short else "whole network", found.engine


class _Whole(nn.Module):
    """The full passes of a `Tail`, as a module."""

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, outputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch categories"]:
        return self.tail.whole(outputs)


def _or_none(tail: Tail, outputs: Tensor) -> Tensor | None:
    """Return the tail's scores; None where it cannot be replayed for several at once."""
    try:
        return tail(outputs).double()
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None


def _agree(found: Tensor | None, true: Tensor) -> bool:
    if found is None or found.shape != true.shape:
        return False
    scale = max(1.0, float(true.abs().max()))
    return float((found - true).abs().max()) <= _AGREES * scale


def _closed_form(tail: Tail, layout: Layout) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the function from channels and their new values to scores, where there is one.

    It needs a linear layer whose input is the mean of each of the layer's maps and whose output
    is the network's. This is read off the numbers of one pass, whatever lies in between.
    """
    last = [part for part in tail.network.modules() if isinstance(part, nn.Linear)][-1:]
    maps = layout.maps(tail.output).double()
    if not last or layout.prefix or last[0].in_features != maps.shape[1]:
        return None
    seen: list[tuple[Tensor, Tensor]] = []
    handle = last[0].register_forward_hook(lambda _m, i, o: seen.append((i[0], o)))
    try:
        logits = _or_none(tail, tail.output)
    finally:
        handle.remove()
    means = maps.mean((2, 3))
    if logits is None or len(seen) != 1 or seen[0][0].shape != means.shape:
        return None
    pooled, scores = (tensor.double() for tensor in seen[0])
    if scores.shape != logits.shape or not (_agree(pooled, means) and _agree(scores, logits)):
        return None
    weight = last[0].weight.double()

    def closed(channels: Tensor, values: Tensor) -> Tensor:
        change = values.double() - means[0, channels]
        return logits + change[:, None] * weight[:, channels].T

    return closed
