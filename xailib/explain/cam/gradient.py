"""Maps from gradients, by the grad-cam package, with the network left as it was found."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float32
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from xailib.errors import InputError
from xailib.explain.cam.layout import Layout
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier
from xailib.networks.counting import passed
from xailib.networks.layers import preserved

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


def gradient_map(
    method: str,
    classifier: Classifier,
    picture: Float32[Tensor, "1 colours height width"],
    layer: str,
    layout: Layout,
    target: int,
) -> Float32[np.ndarray, "rows columns"]:
    """Return grad-cam's weighted sum of a layer's maps, before ReLU and scaling.

    Raises
    ------
    InputError
        If the target's logit does not depend on the layer by a gradient.
    """
    raw: list[np.ndarray] = []
    with (
        preserved(classifier.module),
        torch.enable_grad(),
        _grad_cam(method, classifier, layer, layout) as cam,
    ):
        combine = cam.get_cam_image

        def keep_raw(*args: object, **kwargs: object) -> np.ndarray:
            maps: np.ndarray = combine(*args, **kwargs)
            raw.append(maps[0].astype(np.float32))
            return maps

        cam.get_cam_image = keep_raw
        try:
            cam(picture.detach().requires_grad_(), [ClassifierOutputTarget(target)])
            passed(1)
        except (ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f"layer: {method} cannot use {layer!r} of {classifier.name}: {error}"
            ) from error
    return raw[0]


@contextmanager
def _grad_cam(method: str, classifier: Classifier, layer: str, layout: Layout) -> Iterator[BaseCAM]:
    """Make grad-cam's object for a method; its hooks are gone afterwards.

    Its own ``with`` is not used: that would swallow an IndexError.
    """

    def maps(output: Tensor) -> Tensor:
        return layout.maps(output).clone()  # an in-place operation behind the layer may follow

    cam = GRADIENT_METHODS[method](
        classifier.module, [classifier.layer(layer)], reshape_transform=maps
    )
    try:
        yield cam
    finally:
        cam.activations_and_grads.release()


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
    module = classifier.module
    relus = [part for part in module.modules() if isinstance(part, _RELUS)]
    if not relus:
        raise InputError(f"model: {classifier.name} has no ReLU, which guided backprop needs")
    chosen = classifier.target(photograph, target)
    batch = classifier.input_tensor(classifier.view(photograph).pixels[None]).requires_grad_()
    with preserved(module), torch.enable_grad(), _guided(relus):
        score = module.eval()(batch)[0, chosen.index]
        passed(1)
        (gradient,) = torch.autograd.grad(score, batch)
    return gradient[0].movedim(0, -1).float().cpu().numpy()


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
