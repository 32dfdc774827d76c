"""Maps from gradients, several images at once; the formulas are the grad-cam package's."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from torch import Tensor, nn
from torch.autograd.graph import Node

from xailib.errors import InputError
from xailib.explain.cam.layout import Layout, layout_in
from xailib.explain.cam.tail import once
from xailib.explain.stream import of_one_shape
from xailib.networks.classifier import Classifier, check_classifier
from xailib.networks.counting import passed
from xailib.networks.forward import halving
from xailib.networks.memory import enough

GRADIENT_METHODS = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "xgradcam": XGradCAM,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
}


@dataclass(frozen=True)
class LayerPass:
    """What a pass gave: a layer's output for some images, and the network's scores."""

    output: Tensor  #: (images, ...)
    logits: Tensor  #: (images, classes), from which gradients lead back to `output`
    layout: Layout  #: of `output`

    @property
    def maps(self) -> Float[Tensor, "images channels rows columns"]:
        """The output as feature maps."""
        return self.layout.maps(self.output.detach())

    def gradient(self, targets: Int[Tensor, " images"]) -> Tensor | None:
        """Return the gradients of the images' targets at the layer's output; None without any."""
        if not self.logits.requires_grad:
            return None
        with torch.enable_grad():
            score = self.logits.gather(1, targets[:, None]).sum()  # images do not see each other
            (found,) = torch.autograd.grad(score, self.output, retain_graph=True, allow_unused=True)
        return found


def layer_pass(
    classifier: Classifier,
    layer: str,
    inputs: Float32[Tensor, "images colours height width"],
    *,
    gradients: bool = True,
) -> LayerPass:
    """Send images through a network, recording what lies behind a layer of feature maps."""
    if gradients:
        classifier.check_differentiable()
    found = _passed(classifier, layer, inputs, torch.no_grad() if gradients else None)
    if gradients and not found.logits.requires_grad:  # the network switches gradients off in part
        found = _passed(classifier, layer, inputs, torch.enable_grad())
    return found


def _passed(
    classifier: Classifier, layer: str, inputs: Tensor, mode: AbstractContextManager | None
) -> LayerPass:
    """Send images through, with a mode in front of the layer; None: without any gradient."""
    seen: list[Tensor] = []

    def replace(_part: nn.Module, _inputs: object, output: object) -> Tensor:
        seen.append(once(layer, output, bool(seen), len(inputs)).detach())
        if mode is None:
            return seen[0].clone()
        seen[0].requires_grad_()
        torch.set_grad_enabled(True)  # until the end of the block below
        return seen[0].clone()  # an in-place operation behind the layer may follow

    part = classifier.layer(layer)
    # Before hooks that the network itself has, which see what takes the output's place.
    hook = part.register_forward_hook(replace, prepend=True)
    with mode or torch.no_grad(), classifier.running(), hook:
        logits = classifier.module(inputs).float()
        for output in seen:
            output[:1].clone()  # raises for one that is nothing outside of a `torch.func.vmap`
    passed(len(inputs))
    if not seen:
        raise InputError(f"layer: {layer!r} takes no part in a forward pass")
    return LayerPass(seen[0], logits, layout_in(classifier, layer, seen[0], inputs))


def combined(
    method: str,
    activations: Float[np.ndarray, "images channels rows columns"],
    gradients: Float[np.ndarray, "images channels rows columns"],
) -> Float32[np.ndarray, "images rows columns"]:
    """Return grad-cam's weighted sum of a layer's maps, before ReLU and scaling."""
    kind = GRADIENT_METHODS[method]
    # Without its object, whose constructor adds hooks to a network.
    weights = SimpleNamespace(get_cam_weights=partial(kind.get_cam_weights, None))
    maps = kind.get_cam_image(weights, None, None, None, activations, gradients, eigen_smooth=False)
    return np.asarray(maps, np.float32)


def guided_backprop(
    classifier: Classifier, photograph: Any, target: int | str | None = None
) -> Float32[np.ndarray, "height width channels"]:
    """Return the guided gradient of the target's logit (Springenberg et al. 2015).

    The gradient with respect to the network's input, where every ReLU also stops negative gradients
    on their way back. Unlike grad-cam's, this reaches ReLU6, a ReLU called as a function, and one
    in front of an operation in place. A network without ReLU raises `InputError`: nothing would be
    guided.
    """
    return next(guided_backprops(classifier, [photograph], target))


def guided_backprops(
    classifier: Classifier, photographs: Iterable[Any], target: int | str | None = None
) -> Iterator[Float32[np.ndarray, "height width channels"]]:
    """Yield `guided_backprop` of many photographs; on a GPU several are computed at once."""
    check_classifier(classifier)
    index = None if target is None else classifier.class_index(target)
    most = enough(classifier.device) if classifier.device.type == "cuda" else 1
    views = (classifier.view(photograph).pixels for photograph in photographs)
    for group in of_one_shape(views, np.shape, most):
        inputs = classifier.input_tensor(np.stack(group))
        yield from guided_gradients(classifier, inputs, index).cpu().movedim(1, -1).numpy()


def guided_gradients(
    classifier: Classifier,
    inputs: Float32[Tensor, "images channels height width"],
    index: int | None = None,
) -> Float32[Tensor, "images channels height width"]:
    """Return the guided gradients of inputs, for the class of this index or the predicted one."""
    classifier.check_differentiable()

    def run(start: int, stop: int) -> Tensor:
        batch = inputs[start:stop].detach().requires_grad_()
        logits = classifier.module(batch).float()
        if not logits.requires_grad:
            raise InputError(f"model: no gradient reaches the input of {classifier.name!r}")
        relus = list(_relus(logits, batch))
        for relu in relus:
            relu.register_prehook(lambda gradients: (gradients[0].clamp(min=0),))
        best = logits.argmax(1) if index is None else torch.full_like(logits[:, 0], index).long()
        score = logits.gather(1, best[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, batch, allow_unused=True)
        if gradient is None:
            raise InputError(f"model: no gradient reaches the input of {classifier.name!r}")
        if not relus:
            raise InputError(f"model: {classifier.name} has no ReLU, which guided backprop needs")
        classifier.check_finite(logits.detach())
        return gradient

    with torch.enable_grad(), classifier.running():
        return torch.cat([part for _, _, part in halving(run, len(inputs), len(inputs))])


def _relus(scores: Tensor, image: Tensor) -> Iterator[Node]:
    """Yield the steps through a ReLU or ReLU6 in the graph from an image to the scores."""
    behind: dict[Node, list[Node]] = {}
    waiting, start = [scores.grad_fn], []
    while waiting:
        node = waiting.pop()
        for before, _ in node.next_functions if node else ():
            if before is not None and before not in behind:
                behind[before] = []
                waiting.append(before)
                start += [before] if getattr(before, "variable", None) is image else []
            if before is not None and node is not None:
                behind[before].append(node)
    reached: set[Node] = set()
    while start:
        node = start.pop()
        if node in reached:
            continue
        reached.add(node)
        start += behind.get(node, [])
        kind = type(node).__name__
        if kind.startswith("Relu") or (
            kind.startswith("Hardtanh") and node._saved_min_val == 0  # type: ignore[attr-defined]
        ):
            yield node
