"""A network's tail: what it computes behind one layer, for other outputs of that layer.

One pass records what every part output before the layer did; in the replay these parts answer at
once with that, the layer answers with the given output, and all behind it is computed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from xailib.errors import InputError
from xailib.networks.counting import passed
from xailib.networks.layers import get_layer, hookable

Batch = Float[Tensor, "batch ..."]


class Tail(nn.Module):
    """A network behind a layer, with that layer's `output` and the `logits` of an `image`."""

    def __init__(self, network: nn.Module, layer: str, image: Batch) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        self._layer = [get_layer(network, layer)]  # in a list: not a part of this module
        self.image = image
        self._before, self.output, self.logits = _record(network, layer, image)

    def forward(self, outputs: Batch) -> Batch:
        """Return the network's scores for the recorded image with other outputs of the layer."""
        return self._replay(outputs, self._before, self.image)

    def _replay(
        self, outputs: Batch, before: Mapping[nn.Module, Sequence[Any]], image: Tensor
    ) -> Batch:
        count = outputs.shape[0]

        def widened(value: Any) -> Any:
            alone = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == 1
            if not alone:
                return value
            # Not copied for many: what lies behind seldom writes into it, and then torch refuses.
            return value.expand(count, *value.shape[1:]) if count > 1 else value.clone()

        answers = {
            part: [_mapped(widened, value) for value in values] for part, values in before.items()
        }
        with answering({**answers, self._layer[0]: [outputs.clone()]}):
            return self.network(widened(image))

    def stands_alone(self) -> bool:
        """Return whether the tail reads nothing but the layer's output.

        Then it is the same function for every image of this size. Everything recorded in front
        of the layer is replaced by NaN, which would spread to the scores. Where something else
        than floating numbers was recorded, the answer is no.
        """
        before = {
            part: [_mapped(_blank, value) for value in values]
            for part, values in self._before.items()
        }
        if any(leaf is None for values in before.values() for leaf in tree_leaves(values)):
            return False
        try:
            with torch.no_grad():
                found = self._replay(self.output, before, torch.full_like(self.image, torch.nan))
                return torch.equal(found, self(self.output))
        except (RuntimeError, ValueError, TypeError, IndexError):
            return False

    def whole(self, outputs: Batch) -> Batch:
        """Return the same by full passes of the network: slow, and right for any network."""
        count = len(outputs)
        try:  # one pass up to the layer, if what lies behind it takes more images than came in
            scores = self._full(self.image, outputs)
        except (RuntimeError, ValueError):
            scores = None
        if scores is not None and len(scores) == count:
            return scores
        return self._full(self.image.expand(count, *self.image.shape[1:]), outputs)

    def _full(self, images: Float[Tensor, "images ..."], outputs: Batch) -> Tensor:
        with answering({self._layer[0]: [outputs.clone()]}, compute=True):
            return self.network(images)


@contextmanager
def answering(
    answers: Mapping[nn.Module, Sequence[Any]], *, compute: bool = False
) -> Iterator[None]:
    """Let parts of a network answer their first calls with given values.

    Further calls are computed as ever. With ``compute``, the calls that are answered are
    computed too, and their results dropped. Afterwards every part is as it was.
    """
    with ExitStack() as undo:
        # With it, `nn.TransformerEncoderLayer` computes its parts itself and calls none of them.
        fast = torch.backends.mha.get_fastpath_enabled()
        undo.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        for part, values in answers.items():
            if "forward" in vars(part):
                undo.callback(setattr, part, "forward", part.forward)
            else:
                undo.callback(vars(part).pop, "forward", None)
            part.forward = _answer(part.forward, list(values), compute=compute)
        yield


def _answer(forward: Callable, values: list[Any], *, compute: bool) -> Callable:
    def answer(*args: Any, **kwargs: Any) -> Any:
        if compute or not values:
            computed = forward(*args, **kwargs)
        return values.pop(0) if values else computed

    return answer


def _record(
    network: nn.Module, layer: str, image: Batch
) -> tuple[dict[nn.Module, list[Any]], Batch, Batch]:
    """Return the outputs of the parts before the layer, of the layer, and of the network."""
    target = get_layer(network, layer)
    # Of each part that is being computed, what the parts inside it have output so far.
    calls: list[list[tuple[nn.Module, Any]]] = [[]]
    before: dict[nn.Module, list[Any]] = defaultdict(list)
    found: list[Tensor] = []

    def enter(_part: nn.Module, _inputs: object) -> None:
        calls.append([])

    def leave(part: nn.Module, _inputs: object, value: Any) -> None:
        calls.pop()  # what finished inside it is not needed: it will not be computed again
        if part is target:
            found.append(once(layer, value, bool(found), len(image)).clone())
            for call in calls:
                for earlier, values in call:
                    before[earlier].append(values)
        elif not found:
            # Copied: an in-place operation that follows must not reach into the record.
            calls[-1].append((part, _mapped(_copied, value)))

    with torch.no_grad(), ExitStack() as hooks:
        for part in hookable(network).values():
            if part is not network:
                hooks.enter_context(part.register_forward_pre_hook(enter))
                # Before hooks of the network itself, which a replay calls, too.
                hooks.enter_context(part.register_forward_hook(leave, prepend=True))
        logits = network(image)
    passed(len(image))
    if not found:
        raise InputError(f"layer: {layer!r} takes no part in a forward pass")
    return before, found[0], logits


def once(layer: str, output: object, again: bool, images: int) -> Tensor:
    """Return a layer's output; raise unless it is a tensor of `images`, not computed `again`."""
    if again or not isinstance(output, Tensor):
        what = "is computed twice" if again else f"outputs a {type(output).__name__}"
        raise InputError(f"layer: {layer!r} {what}; name a layer with one tensor")
    if len(output) != images:
        raise InputError(
            f"layer: {layer!r} outputs {tuple(output.shape)}, no row for each image, but for parts "
            "of them; name another layer"
        )
    return output


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return torch's ``tree_map``, which leaves a cycle behind, only where it is needed."""
    if value is None or isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(_mapped(change, one) for one in value)
    return tree_map(change, value)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _blank(value: Any) -> Tensor | None:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return torch.full_like(value, torch.nan) if floating else None
