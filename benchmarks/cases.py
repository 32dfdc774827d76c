"""What is compared: ours, the peer called directly, and the passes that cannot be avoided."""

import contextlib
import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lime import lime_image
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from xailib.explain.cam.methods import METHODS, explain_cam
from xailib.explain.cam.tail import Tail
from xailib.explain.lime import explain_lime, segmentation
from xailib.images.load import Photograph
from xailib.networks.classifier import BATCH, Classifier, load_classifier
from xailib.networks.layers import evaluation

WEIGHTS = Path(__file__).parents[2] / "shared/weights/resnet50_imagenet1k.pth"


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    key : str
        What ``--only`` takes.
    name, peers_name : str
        What is computed, and what ours is compared with.
    ours, peer : callable
        Either returns an array to be compared.
    passes : int
        Full or tail passes that the result needs at least.
    bare : callable
        Returns the module and the batch of which one pass is taken as the limit.
    """

    key: str
    name: str
    peers_name: str
    ours: Callable[[], np.ndarray]
    peer: Callable[[], np.ndarray]
    passes: int
    bare: Callable[[], tuple[torch.nn.Module, torch.Tensor]]


def networks() -> dict[str, Callable[[], Classifier]]:
    """Return the loaders of the networks: real weights where they are at hand."""
    weights = WEIGHTS if WEIGHTS.is_file() else "random"
    return {
        "resnet50": lambda: load_classifier("resnet50", weights),
        "tf_efficientnet_lite0": lambda: load_classifier("tf_efficientnet_lite0"),
    }


Make = Callable[[Classifier, Photograph], Case]


def cases(network: str, samples: int) -> dict[str, Make]:
    """Return what makes each comparison for a network, by key: nothing is computed yet."""
    layers = ("layer4", "layer3") if network.startswith("resnet") else ("bn2", "blocks.4")
    last, earlier = layers
    return {
        "lime": lambda net, photo: lime_case(net, photo, samples),
        "lime_channels_last": lambda net, photo: lime_case(net, photo, samples, fast=True),
        f"ablation_{last}": lambda net, photo: ablation_case(net, photo, last),
        f"ablation_{earlier}": lambda net, photo: ablation_case(net, photo, earlier),
        f"scorecam_{last}": lambda net, photo: score_case(net, photo, last),
    }


def plain_function(net: Classifier) -> Callable[[np.ndarray], np.ndarray]:
    """Return the prediction function that most users of lime write: eager, as PyTorch comes."""
    module = copy.deepcopy(net.module).to(memory_format=torch.contiguous_format).eval()

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            batch = net.preprocessing.normalise(torch.from_numpy(pixels).to(net.device))
            return module(batch.contiguous()).softmax(1).cpu().numpy()

    return probabilities


def lime_case(net: Classifier, photo: Photograph, samples: int, *, fast: bool = False) -> Case:
    """LIME against lime with its own batches of 10 and an eager prediction function."""
    target = net.target(photo)
    pixels = net.view(photo).pixels
    function = net.probabilities if fast else plain_function(net)

    def peer() -> np.ndarray:
        with contextlib.redirect_stderr(io.StringIO()):
            found = lime_image.LimeImageExplainer(random_state=0).explain_instance(
                pixels,
                function,
                labels=(target.index,),
                top_labels=None,
                hide_color=0,
                num_samples=samples,
                segmentation_fn=segmentation("quickshift"),
            )
        weights = dict(found.local_exp[target.index])
        return np.array([weights.get(i, 0.0) for i in range(found.segments.max() + 1)])

    def ours() -> np.ndarray:
        parts = explain_lime(net, photo, target.index, num_samples=samples).superpixels
        return parts.weights

    return Case(
        "lime_channels_last" if fast else "lime",
        f"LIME, {samples} samples",
        f"lime, eager{', channels last' if fast else ''}",
        ours,
        peer,
        samples,
        lambda: _full(net, photo),
    )


def ablation_case(net: Classifier, photo: Photograph, layer: str) -> Case:
    """AblationCAM by grad-cam's rule against grad-cam."""
    tail = record(net, photo, layer)
    found = explain_cam(net, photo, "ablationcam", layer=layer, rule="gradcam")
    channels = tail.output.shape[1]
    closed = found.parameters["passes"] == "closed form"

    def bare() -> tuple[torch.nn.Module, torch.Tensor]:
        if closed:
            return _full(net, photo)
        return tail, tail.output.repeat(BATCH, *[1] * (tail.output.ndim - 1))

    return Case(
        f"ablation_{layer}",
        f"AblationCAM, {layer}, {channels} channels",
        "grad-cam",
        lambda: explain_cam(net, photo, "ablationcam", layer=layer, rule="gradcam").saliency,
        lambda: _grad_cam(net, photo, "ablationcam", layer),
        2 if closed else channels,  # one that records the layer, one that checks the closed form
        bare,
    )


def score_case(net: Classifier, photo: Photograph, layer: str) -> Case:
    """ScoreCAM against grad-cam."""
    tail = record(net, photo, layer)
    alive = (tail.output[0] != 0).flatten(1).any(1)
    passes = int(alive.sum()) + int(not alive.all())
    return Case(
        f"scorecam_{layer}",
        f"ScoreCAM, {layer}, {len(alive)} channels",
        "grad-cam",
        lambda: explain_cam(net, photo, "scorecam", layer=layer).saliency,
        lambda: _grad_cam(net, photo, "scorecam", layer),
        passes,
        lambda: _full(net, photo),
    )


def _full(net: Classifier, photo: Photograph) -> tuple[torch.nn.Module, torch.Tensor]:
    pixels = np.repeat(net.view(photo).pixels[None], BATCH, axis=0)
    return net.module, net.input_tensor(pixels)


def record(net: Classifier, photo: Photograph, layer: str) -> Tail:
    """Return the network behind a layer, for one photograph."""
    picture = net.input_tensor(net.view(photo).pixels[None])
    with evaluation(net.module):
        return Tail(net.module, layer, picture)


def _grad_cam(net: Classifier, photo: Photograph, method: str, layer: str) -> np.ndarray:
    target = net.target(photo).index
    options = {"ablation_layer": AblationLayer()} if method == "ablationcam" else {}
    picture = net.input_tensor(net.view(photo).pixels[None])
    with contextlib.redirect_stderr(io.StringIO()):
        cam = METHODS[method](net.module, [net.layer(layer)], **options)
        cam.batch_size = BATCH
        found = cam(picture, [ClassifierOutputTarget(target)])[0]
        cam.activations_and_grads.release()
    net.module.zero_grad()  # what grad-cam leaves
    return found
