"""Class activation maps, by the grad-cam package, with the network left as it was found."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float32
from pytorch_grad_cam import (
    AblationCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from xailib.errors import InputError, unknown_name
from xailib.explanation import Explanation
from xailib.images import Photograph
from xailib.layers import preserved
from xailib.models import BATCH, Classifier

METHODS = MappingProxyType(
    {
        "gradcam": GradCAM,
        "gradcam++": GradCAMPlusPlus,
        "xgradcam": XGradCAM,
        "hirescam": HiResCAM,
        "layercam": LayerCAM,
        "ablationcam": AblationCAM,
        "scorecam": ScoreCAM,
    }
)
_RELUS = (nn.ReLU, nn.ReLU6)


def cam_layer_of(classifier: Classifier, layer: str | None = None) -> str:
    """Return the layer to use: the one named, or the classifier's last with feature maps.

    Raises
    ------
    InputError
        For an unknown name, or where none is named and the network has no feature maps.
    """
    name = layer or classifier.cam_layer
    if name is None:
        raise InputError(
            f"layer: {classifier.name} ends in tokens, not feature maps; a CAM needs maps"
        )
    classifier.layer(name)
    return name


def explain_cam(
    classifier: Classifier,
    photograph: Photograph,
    method: str = "gradcam",
    target: int | str | None = None,
    *,
    layer: str | None = None,
    batch_size: int = BATCH,
) -> Explanation:
    """Explain one prediction by a class activation map of one layer.

    Parameters
    ----------
    classifier, photograph
        What is explained.
    method : str
        A name in `METHODS`.
    target : int or str, optional
        A category's index or name; by default the predicted one. Its logit is explained.
    layer : str, optional
        A `named_modules` name; by default the last layer with feature maps.
    batch_size : int
        Pictures a forward pass, for the methods that need many.

    Returns
    -------
    Explanation
        In [0, 1], as grad-cam scales it (negative parts cut, then by minimum and maximum);
        ``raw`` is the weighted sum of the layer's maps before that.

    Raises
    ------
    InputError
        For an unknown method, layer or target, or a layer without feature maps.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    name = cam_layer_of(classifier, layer)
    chosen = classifier.target(photograph, target)
    view = classifier.view(photograph)
    batch = classifier.input_tensor(view.pixels[None]).requires_grad_()
    raw: list[np.ndarray] = []
    with preserved(classifier.module), _grad_cam(method, classifier, name, batch_size) as cam:
        combine = cam.get_cam_image

        def keep_raw(*args: object, **kwargs: object) -> np.ndarray:
            maps: np.ndarray = combine(*args, **kwargs)
            raw.append(maps[0].astype(np.float32))
            return maps

        cam.get_cam_image = keep_raw
        try:
            saliency = cam(batch, [ClassifierOutputTarget(chosen.index)])[0]
        except (ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f"layer: {method} cannot use {name!r} of {classifier.name}: {error}"
            ) from error
    return Explanation(
        method=method,
        image=photograph.id,
        image_sha256=photograph.sha256,
        classifier=classifier.id,
        target=chosen.index,
        target_name=chosen.name,
        probability=chosen.probability,
        frame=view.frame,
        saliency=saliency.astype(np.float32),
        raw=raw[0],
        parameters={"layer": name},
    )


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
    with preserved(module), _guided(relus):
        score = module.eval()(batch)[0, chosen.index]
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


@contextmanager
def _grad_cam(
    method: str, classifier: Classifier, layer: str, batch_size: int
) -> Iterator[BaseCAM]:
    """Make grad-cam's object for a method; its hooks are gone afterwards.

    Its own ``with`` is not used: that would swallow an IndexError.
    """
    options = {"ablation_layer": AblationLayer()} if method == "ablationcam" else {}
    cam = METHODS[method](classifier.module, [classifier.layer(layer)], **options)
    cam.batch_size = batch_size
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it always draws a progress bar
            yield cam
    finally:
        cam.activations_and_grads.release()
