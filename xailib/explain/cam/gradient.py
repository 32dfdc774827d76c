"""Maps from gradients: one pass forward, and back from the target to the layer, for several images.

The formulas are the grad-cam package's own code; the network is left as it was found.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType, SimpleNamespace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from torch import Tensor, nn

from xailib.errors import InputError
from xailib.explain.cam.tail import once
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier
from xailib.networks.counting import passed
from xailib.networks.forward import halving
from xailib.networks.layers import evaluation
from xailib.networks.memory import enough

GRADIENT_METHODS = MappingProxyType(
    {
        "gradcam": GradCAM,
        "gradcam++": GradCAMPlusPlus,
        "xgradcam": XGradCAM,
        "hirescam": HiResCAM,
        "layercam": LayerCAM,
    }
)
_RELUS = (nn.ReLU, nn.ReLU6)


@dataclass
class LayerPass:
    """What a pass gave: a layer's output for some images, and the network's scores.

    Attributes
    ----------
    output : (images, ...) tensor
        The layer's.
    logits : (images, classes) float32 tensor
        The network's, from which gradients lead back to `output`.
    """

    output: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))

    def gradient(self, targets: Int[Tensor, " images"]) -> Tensor | None:
        """Return the gradient of each image's target with respect to the layer's output.

        None where there is none. May be called several times.
        """
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
    """Send images through a network, of which only what lies behind a layer is recorded.

    Raises
    ------
    InputError
        For a layer that does not output one tensor, once.
    """
    found = LayerPass()
    seen: list[Tensor] = []

    def replace(_part: nn.Module, _inputs: object, output: object) -> Tensor:
        seen.append(once(layer, output, bool(seen)).detach())
        if not gradients:
            return seen[0].clone()
        found.output = seen[0].requires_grad_()
        torch.set_grad_enabled(True)  # until the end of the block below
        return found.output.clone()  # an in-place operation behind the layer may follow

    with torch.no_grad(), evaluation(classifier.module), classifier.computing():
        handle = classifier.layer(layer).register_forward_hook(replace)
        try:
            found.logits = classifier.module(inputs).float()
        finally:
            handle.remove()
    passed(len(inputs))
    if not seen:
        raise InputError(f"layer: {layer!r} takes no part in a forward pass")
    found.output = seen[0]
    return found


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
    classifier: Classifier, photograph: Photograph, target: int | str | None = None
) -> Float32[np.ndarray, "height width channels"]:
    """Return the guided gradient of the target's logit (Springenberg et al. 2015).

    The gradient with respect to the network's input, where every ReLU also stops negative
    gradients on their way back. Unlike grad-cam's, this reaches ReLU6 and leaves the network
    as it was.

    Raises
    ------
    InputError
        If the network has no ReLU: nothing would be guided.
    """
    return next(guided_backprops(classifier, [photograph], target))


def guided_backprops(
    classifier: Classifier, photographs: Iterable[Photograph], target: int | str | None = None
) -> Iterator[Float32[np.ndarray, "height width channels"]]:
    """Yield `guided_backprop` of many photographs; on a GPU several are computed at once.

    Raises
    ------
    InputError
        As for one.
    """
    relus = [part for part in classifier.module.modules() if isinstance(part, _RELUS)]
    if not relus:
        raise InputError(f"model: {classifier.name} has no ReLU, which guided backprop needs")
    index = None if target is None else classifier.class_index(target)
    most = enough(classifier.device) if classifier.device.type == "cuda" else 1
    group: list[np.ndarray] = []
    for photograph in photographs:
        pixels = classifier.view(photograph).pixels
        if len(group) == most or (group and group[0].shape != pixels.shape):
            yield from _guided_gradients(classifier, relus, group, index)
            group = []
        group.append(pixels)
    if group:
        yield from _guided_gradients(classifier, relus, group, index)


def _guided_gradients(
    classifier: Classifier,
    relus: Sequence[nn.ReLU | nn.ReLU6],
    views: Sequence[np.ndarray],
    index: int | None,
) -> Iterator[Float32[np.ndarray, "height width channels"]]:
    inputs = classifier.input_tensor(np.stack(views))

    def run(start: int, stop: int) -> Tensor:
        batch = inputs[start:stop].detach().requires_grad_()
        with torch.enable_grad(), classifier.computing():
            logits = classifier.module(batch).float()
            best = (
                logits.argmax(1) if index is None else torch.full_like(logits[:, 0], index).long()
            )
            score = logits.gather(1, best[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, batch)
        return torch.cat([gradient.flatten(1), logits.detach()], dim=1)

    with evaluation(classifier.module), _guided(relus):
        found = torch.cat([part for _, _, part in halving(run, len(inputs), len(inputs))]).cpu()
    gradients, logits = found.split([inputs[0].numel(), found.shape[1] - inputs[0].numel()], dim=1)
    classifier.check_finite(logits)
    yield from gradients.unflatten(1, inputs.shape[1:]).movedim(1, -1).numpy()


@contextmanager
def _guided(relus: Sequence[nn.ReLU | nn.ReLU6]) -> Iterator[None]:
    in_place = [relu.inplace for relu in relus]
    handles = []
    try:
        for relu in relus:
            relu.inplace = False  # a backward hook cannot see through an in-place operation
            handles.append(
                relu.register_full_backward_hook(
                    lambda _module, gradients, _outputs: (gradients[0].clamp(min=0),)  # type: ignore[index]
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()
        for relu, value in zip(relus, in_place, strict=True):
            relu.inplace = value
