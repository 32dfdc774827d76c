"""Modules as people have them: unwrapped, in float32, with a row of scores whatever they output.

What is noticed is either done (a wrapper taken off, a softmax undone) or refused in one line. A
module given is not changed: what it lacks is added around it by `Adapted`, under its own names.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from xailib.errors import InputError, check_name, others_code
from xailib.networks.layers import Trace, evaluation, hookable, trace

OUTPUTS = ("auto", "logits", "probabilities", "multilabel", "binary")
_WRAPPERS = ("DataParallel", "DistributedDataParallel", "OptimizedModule")
_COMPILED = "_torchdynamo_orig_callable"  # how torch.compile marks what it has wrapped
_SAME = 1e-4  # of the largest score: what may differ when an image is shown again
_BATCH = 0.005  # and when it is shown in a batch
_COARSE = 0.05  # likewise, of numbers below float32; dynamic quantisation takes a batch's range
# Operations of a graph that pass on what they are given, weighted or side by side.
_HAND_ON = (
    "View", "Unsafe", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Clone", "ToCopy",
    "Expand", "Permute", "Transpose", "TBackward", "Alias", "Index", "Mul", "Div", "Add",
    "Mean", "Sum", "Stack", "Cat", "Unbind", "Split", "AsStrided", "Copy", "Sub", "Rsub", "Neg",
)  # fmt: skip
# Those whose results are scores, also where they lie between 0 and 1; and those that end there.
_OPEN = {
    "Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Linear", "Convolution", "Relu", "Clamp", "Hardtanh",
}  # fmt: skip
_SHARES = {"Softmax", "Sigmoid", "Hardsigmoid"}


@dataclass(frozen=True)
class Scores:
    """How a network's output becomes a row of scores."""

    #: where the tensor is in the output, by keys, attributes or numbers; empty for a tensor
    place: tuple[str | int, ...] = ()
    #: "log", "logit" or "log odds", which undo a softmax (up to a constant), sigmoids, their log
    undo: str = ""
    flat: bool = False  #: whether it has other axes than images and classes
    sides: int = 0  #: of one output z, 1 for the classes' logits (z/2, -z/2), 2 for (-z/2, z/2)

    def of(self, output: Any) -> Tensor:
        """Return the scores, (batch, classes)."""
        found = _entry(output, self.place)
        found = _rows(found) if self.flat else found
        tiny = torch.finfo(found.dtype).tiny
        if self.undo == "log":
            found = found.clamp(min=tiny).log()
        elif self.undo == "logit":
            found = found.clamp(min=tiny).log() - (1 - found).clamp(min=tiny).log()
        elif self.undo == "log odds":
            found = found - (-torch.expm1(found)).clamp(min=tiny).log()
        if self.sides:
            half = found / 2
            found = torch.cat([half, -half] if self.sides == 1 else [-half, half], dim=1)
        return found


class Adapted(nn.Module):
    """A module with what it lacks, whose parts have the names that they have in the module itself.

    It shares parts, parameters and mode with `inner`. ``scores`` says how the output is read (None:
    as it is), and in ``how`` may be true ``contiguous``: inputs are given in PyTorch's default
    memory format; ``copied``: as a copy, into which the network may write; ``cast``: weights are
    taken in float32, and stay as they are; ``eager``: ``torch.compile`` may not skip hooks.
    """

    def __init__(self, inner: nn.Module, scores: Scores | None, **how: bool) -> None:
        training = getattr(inner, "training", False)  # a frozen TorchScript has no mode
        self.__dict__["inner"] = [inner]  # in a list: no part, whose name the others would carry
        super().__init__()
        if isinstance(inner, torch.jit.ScriptModule):
            self.inner = inner
        else:
            own = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
            self.__dict__.update({name: inner.__dict__[name] for name in own})
        self.training = training
        # Not as attributes: a network may have a part of any such name.
        self.__dict__.update({"adapted scores": scores, "adapted how": how})

    @property
    def training(self) -> bool:
        """The module's own mode."""
        return getattr(self._given, "training", False)

    @training.setter
    def training(self, mode: bool) -> None:
        if hasattr(self._given, "training"):
            self._given.training = mode

    @property
    def _given(self) -> nn.Module:
        found = self.__dict__.get("inner")
        return found[0] if found else self.inner

    def train(self, mode: bool = True) -> "Adapted":
        """Set the mode, by the module's own method."""
        if hasattr(self._given, "training"):
            self._given.train(mode)
        return self

    def forward(self, batch: Tensor) -> Any:  # noqa: D102
        inner = self._given
        scores, how = (self.__dict__[f"adapted {name}"] for name in ("scores", "how"))
        with torch.compiler.set_stance("force_eager") if how.get("eager") else nullcontext():
            if how.get("contiguous"):
                batch = batch.contiguous()
            if how.get("copied"):
                batch = batch.clone()
            if how.get("cast"):
                every = {**dict(inner.named_parameters()), **dict(inner.named_buffers())}
                floats = {n: t.float() for n, t in every.items() if t.is_floating_point()}
                output = functional_call(inner, floats, (batch,))
            else:
                output = inner(batch)
        return scores.of(output) if scores else output


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module that DataParallel, DistributedDataParallel or torch.compile wraps."""
    while type(module).__name__ in _WRAPPERS:
        parts = dict(module.named_children())
        module = parts["module"] if "module" in parts else parts["_orig_mod"]
    return module


def made_ready(
    name: str,
    module: nn.Module,
    class_names: tuple[str, ...],
    inputs: Float32[Tensor, "2 channels height width"],
    outputs: str,
    *,
    live: bool,
) -> tuple[nn.Module, tuple[str, ...], str, list[Trace], float]:
    """Try a network on two different images, on its device, and return it with what it lacks.

    That is the module from input to logits, (batch, classes), the names of its classes, what its
    output means, one of `OUTPUTS`, the layers' outputs for one image, and the relative rounding of
    the coarsest of them. A single output has one class name (of the class that it supports) or two
    (of the class that it opposes, and of that one). The weights of a ``live`` module, the caller's,
    are left as they are.

    Raises
    ------
    InputError
        For a network that fails, is not deterministic, mixes the images of a batch, or whose
        output is not one row of finite scores.
    """
    check_name("outputs", outputs, OUTPUTS)
    module = unwrapped(module)
    check_weights(name, module)
    _usable_by_autograd(module)
    other = any(p.is_floating_point() and p.dtype != torch.float32 for p in module.parameters())
    if not live:
        module = module.float() if other else module
        _channels_last(module)
    how: dict[str, bool] = {"cast": other and live, "eager": _is_compiled(module)}
    one, both = inputs[:1], inputs.contiguous(memory_format=torch.channels_last)
    # No tensor that is cached now may lack gradients.
    with evaluation(module), _buffers_restored(module), torch.no_grad():
        shown = one.clone()
        try:
            found = Adapted(module, None, **how)(shown)
        except (Exception, SystemExit):  # noqa: BLE001  a network may raise anything
            how["contiguous"] = True
            shown = one.clone(memory_format=torch.contiguous_format)
            with others_code(f"model: {name!r} fails on its own input, {tuple(one.shape)}"):
                found = Adapted(module, None, **how)(shown)
        how["copied"] = not torch.equal(shown, one)  # it writes into its input
        place = _place(name, found, class_names)
        scores = Scores(place, flat=_entry(found, place).ndim != 2)
        network = _adapted(module, scores, **how)
        first, traces = scores.of(found), trace(network, one)
        kinds, second = _kinds(network, inputs[1:])
        alone = torch.cat([first, second]).float()
        if not torch.isfinite(alone).all():
            raise InputError(f"model: {name!r} gives scores that are not finite")
        types = {first.dtype, *(found.dtype for found in traces if found.dtype.is_floating_point)}
        coarse = max(torch.finfo(one).eps for one in types)
        exact = coarse <= torch.finfo(torch.float32).eps and not is_quantised(module)
        _check_repeats(name, network, both, alone, _BATCH if exact else _COARSE)
    meant, undo = _meaning(name, alone, kinds, outputs)
    sides = 0
    if meant == "binary":
        sides = len(class_names)
        class_names = class_names if sides == 2 else (class_names[0], f"not {class_names[0]}")
    network = _adapted(module, Scores(place, undo, scores.flat, sides), **how)
    return network, class_names, meant, traces, coarse


@contextmanager
def _buffers_restored(module: nn.Module) -> Iterator[None]:
    """Undo what passes do to a module's buffers, such as a batch norm's that stays in training."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, values in before:
            if not torch.equal(buffer, values):
                buffer.copy_(values)


def _adapted(module: nn.Module, scores: Scores, **how: bool) -> nn.Module:
    """Return the module itself where it lacks nothing."""
    return Adapted(module, scores, **how) if scores != Scores() or any(how.values()) else module


def check_weights(name: str, module: nn.Module) -> None:
    """Raise for a network without some of its weights: made by the first image, or on no device."""
    weights = [*module.parameters(), *module.buffers()]
    if any(map(is_lazy, weights)):
        raise InputError(
            f"model: {name!r} has lazy layers without weights; show it an image, then load weights"
        )
    if any(tensor.is_meta for tensor in weights):
        raise InputError(
            f"model: {name!r} is on the device 'meta', without weights; load them with assign=True"
        )


def is_quantised(module: nn.Module) -> bool:
    """Return whether a part computes with whole numbers."""
    return any("quantized" in type(part).__module__ for part in module.modules())


def _usable_by_autograd(module: nn.Module) -> None:
    """Replace tensors that were made in inference mode, which no gradient can pass."""
    for part in hookable(module).values():
        places: tuple[dict[str, Any], ...] = (part._parameters, part._buffers, part.__dict__)
        for own in places:
            for name, value in own.items():
                if isinstance(value, Tensor) and value.is_inference():
                    own[name] = (
                        type(value)(value.clone()) if own is part._parameters else value.clone()
                    )


def _channels_last(module: nn.Module) -> None:
    """Store the weights of 2-D convolutions channels last, the faster format."""
    for part in hookable(module).values():
        if isinstance(part, nn.Conv2d):
            for weight in part.parameters(recurse=False):
                if weight.ndim == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _is_compiled(module: nn.Module) -> bool:
    """Return whether torch.compile has wrapped a part, or a function that a part calls."""
    if "torch._dynamo" not in sys.modules:
        return False
    return any(
        type(part).__name__ == "OptimizedModule"
        or getattr(part, "_compiled_call_impl", None) is not None
        or any(hasattr(value, _COMPILED) for value in [type(part).forward, *vars(part).values()])
        for part in hookable(module).values()
    )


def _tensors(output: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple, Tensor]]:
    """Yield each tensor of an output with the steps that lead to it."""
    if isinstance(output, Tensor):
        yield place, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, (*place, key))
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))
        for key, value in zip(names, output, strict=True):
            yield from _tensors(value, (*place, key))
    elif len(place) < 4:
        for key, value in getattr(output, "__dict__", {}).items():
            yield from _tensors(value, (*place, key))


def _entry(output: Any, place: tuple[str | int, ...]) -> Tensor:
    for key in place:
        plain = isinstance(output, Mapping) or isinstance(key, int)
        output = output[key] if plain else getattr(output, str(key))
    return output


def _rows(scores: Tensor) -> Tensor:
    """Return scores with one row an image: of a network without a last axis, or with axes of 1."""
    if scores.ndim < 2:  # of a batch of one, ``squeeze`` leaves no axis at all
        return scores.reshape(-1, 1)
    alone = scores.numel() == scores.shape[0] * max(scores.shape[1:])
    return scores.flatten(1) if alone else scores


def _place(name: str, output: Any, class_names: tuple[str, ...]) -> tuple[str | int, ...]:
    """Return which tensor of an output has the scores.

    The output itself, the entry called ``logits``, or the only one of the right shape; where none
    has a score for each of two classes, the only one with a single score.
    """
    count = len(class_names)
    found = list(_tensors(output))
    rows = [(place, one) for place, one in found if one.ndim or not place]  # a loss has no axis
    wide = [place for place, tensor in rows if _fits(tensor, count)]
    fitting = wide or [place for place, tensor in rows if count == 2 and _fits(tensor, 1)]
    named = [place for place in fitting if place and str(place[-1]).lower() == "logits"]
    if len(named) == 1 or len(fitting) == 1:
        return (named or fitting)[0]
    kind = type(output).__name__
    wanted = f"a classifier must output a tensor (batch, {count}), one score for each class name"
    if len(fitting) > 1:
        places = " and ".join(".".join(map(str, place)) for place in fitting)
        raise InputError(
            f"model: {name!r} outputs a {kind} with {len(fitting)} tensors (1, {count}): {places}; "
            "return only the one to explain, or call it logits"
        )
    shapes = ", ".join(str(tuple(tensor.shape)) for _, tensor in found[:4])
    shape = f" of shape {shapes}" if shapes else ""
    raise InputError(f"model: {name!r} outputs a {kind}{shape}; {wanted}")


def _fits(tensor: Tensor, count: int) -> bool:
    return tensor.is_floating_point() and _rows(tensor).shape == (1, count)


def _check_repeats(
    name: str, network: nn.Module, both: Tensor, alone: Tensor, allowed: float
) -> None:
    """Raise unless scores are the same each time, and the same in a batch, up to a share."""
    top = float(alone.abs().max().clamp(min=1e-6))
    if float((network(both[:1]).float() - alone[:1]).abs().max()) > _SAME * top:
        raise InputError(
            f"model: {name!r} gives another score each time it is shown an image; dropout or noise "
            "must be off in eval mode"
        )
    with others_code(f"model: {name!r} takes one image at a time, and fails on a batch of two"):
        found = network(both).float()
    if found.shape != alone.shape or float((found - alone).abs().max()) > allowed * top:
        raise InputError(
            f"model: {name!r} gives an image another score in a batch than alone; its images must "
            "not see each other"
        )


def _kinds(network: nn.Module, image: Tensor) -> tuple[set[str], Tensor]:
    """Return which operations a network ends with, as far as its graph shows it, and the scores."""
    try:
        with torch.enable_grad():
            scores = network(image.detach().requires_grad_())
        waiting, kinds = [scores.grad_fn], set()
        seen: set[Any] = set()
    except Exception:  # noqa: BLE001  what cannot be differentiated still has scores
        return set(), network(image)
    while waiting and len(seen) < 1000:
        node = waiting.pop()
        if node is None or node in seen or type(node).__name__ == "AccumulateGrad":
            continue
        seen.add(node)
        kind = type(node).__name__
        if kind.startswith(_HAND_ON) and not kind.startswith("Addm"):  # a matrix is no weight
            waiting += [before for before, _ in node.next_functions]
        else:
            kinds.add(kind.partition("Backward")[0])
    return kinds, scores.detach()


def _meaning(name: str, scores: Tensor, kinds: set[str], outputs: str) -> tuple[str, str]:
    """Return what the output means, and what undoes its last step."""
    single = scores.shape[1] == 1
    shares = bool((scores > -1e-6).all() and (scores < 1 + 1e-6).all())
    whole = shares and not single and bool(((scores.sum(1) - 1).abs() < 1e-3).all())
    # A softmax of which one output is handed on is a probability, too.
    last = _SHARES if single else _SHARES - {"Softmax"}
    sigmoids = shares and bool(kinds) and kinds <= last
    logs = kinds == {"LogSigmoid"}
    # Nothing to see it in (a sigmoid by hand, no graph), or values that are cut, which is taken at
    # the user's word.
    moves = shares and bool(scores.std() > 0)
    cut = moves and kinds <= {"Clamp", "Hardtanh"}
    unknown = moves and not sigmoids and kinds.isdisjoint(_OPEN)
    if outputs == "probabilities" and not (whole or (single and shares)):
        raise InputError(f"outputs: those of {name!r} are not probabilities that add up to 1")
    if outputs == "binary" and not single:
        raise InputError(
            f"outputs: 'binary' is for a single output; {name!r} has {scores.shape[1]}"
        )
    if outputs == "auto" and unknown and not whole:
        raise InputError(
            f"outputs: those of {name!r} lie between 0 and 1 and do not add up to 1; give outputs="
            "'multilabel' or 'binary' if they are probabilities, else 'logits'"
        )
    if outputs == "auto" and kinds and kinds <= _SHARES and not (whole or sigmoids):
        low, high = float(scores.min()), float(scores.max())
        raise InputError(
            f"outputs: those of {name!r}, {low:.3g} to {high:.3g}, end in a softmax or sigmoid and "
            "are no probabilities; give outputs='logits' to take them as they are"
        )
    stated = (cut and outputs != "auto") or (single and outputs == "probabilities")
    undo = "logit" if (sigmoids or unknown or stated) and outputs != "logits" else ""
    undo = "log odds" if logs and outputs != "logits" else undo
    if single:  # also of a label that stands alone: yes or no
        return "binary", undo
    if outputs == "probabilities" or (outputs == "auto" and whole):
        return "probabilities", "log"
    if outputs == "auto":
        outputs = "multilabel" if sigmoids or logs else "logits"
    return outputs, undo
