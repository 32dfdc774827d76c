"""Lines and time for one job: LIME and Grad-CAM of one photograph, by a module just trained.

    python benchmarks/same_job.py [PHOTOGRAPH]

The peers are lime with grad-cam, and captum (`pip install captum`, left out if it is not there).
Each way stands below as a user would write it; its lines are counted here, and the ways take turns.
"""

import inspect
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import Times
from PIL import Image
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms import v2

from xailib.images.load import load_images

SAMPLES, RUNS = 1000, 3
NAMES = [f"class {index}" for index in range(1000)]


def by_xailib(module: nn.Module, transform: Callable, image: Image.Image) -> list[Any]:
    """LIME's superpixels and Grad-CAM's map."""
    from xailib.explain import explain_cam, explain_lime
    from xailib.networks import classifier_from

    classifier = classifier_from(module, transform, NAMES)
    lime = explain_lime(classifier, image, num_samples=SAMPLES)
    return [lime, explain_cam(classifier, image, "gradcam")]


def by_lime_and_gradcam(module: nn.Module, transform: Callable, image: Image.Image) -> list[Any]:
    """LIME's superpixels and Grad-CAM's map, the view cropped by hand: lime takes no transform."""
    from lime.lime_image import LimeImageExplainer
    from pytorch_grad_cam import GradCAM

    crop, normalise = v2.Compose(transform.transforms[:-2]), v2.Compose(transform.transforms[-2:])
    view = np.asarray(crop(image))

    def predict(views: np.ndarray) -> np.ndarray:
        batch = torch.stack([normalise(Image.fromarray(one.astype(np.uint8))) for one in views])
        with torch.no_grad():
            return module(batch).softmax(1).numpy()

    lime = LimeImageExplainer(random_state=0).explain_instance(
        view, predict, num_samples=SAMPLES, batch_size=50
    )
    cam = GradCAM(module, [module.layer4[-1]])
    return [lime, cam(transform(image)[None], None)]


def by_captum(module: nn.Module, transform: Callable, image: Image.Image) -> list[Any]:
    """LIME's superpixels and Grad-CAM's map; superpixels and their distances are the user's."""
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import LayerAttribution, LayerGradCam, Lime
    from skimage.segmentation import quickshift

    batch = transform(image)[None]
    view = np.asarray(v2.Compose(transform.transforms[:-2])(image))
    segments = quickshift(view, kernel_size=4, max_dist=200, ratio=0.2)
    mask = torch.from_numpy(segments)[None, None]
    target = int(module(batch).argmax())

    def probabilities(images: torch.Tensor) -> torch.Tensor:
        return module(images).softmax(1)

    def kernel(_: torch.Tensor, __: torch.Tensor, shown: torch.Tensor, **___: Any) -> torch.Tensor:
        distance = 1 - shown.float().mean() ** 0.5  # of the cosine to what shows all
        return torch.exp(-(distance**2) / 0.25**2 / 2)

    lime = Lime(probabilities, SkLearnRidge(alpha=1), kernel)
    found = lime.attribute(
        batch, target=target, feature_mask=mask, n_samples=SAMPLES, perturbations_per_eval=50
    )
    cam = LayerGradCam(module, module.layer4[-1]).attribute(batch, target, relu_attributions=True)
    return [found, LayerAttribution.interpolate(cam, view.shape[:2])]


def lines(way: Callable) -> int:
    """Return the lines of code of one way, without its signature, its text and empty ones."""
    body = inspect.getsource(way).split('"""')[2].splitlines()
    return sum(bool(line.strip()) for line in body)


def main(name: str = "dalmatian") -> None:
    """Print what each way took."""
    torch.manual_seed(0)
    module = resnet18().eval()
    steps = [v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor(), v2.ToDtype(torch.float32, True)]
    transform = v2.Compose([*steps[:2], v2.Compose(steps[2:]), v2.Normalize([0.5] * 3, [0.25] * 3)])
    image = Image.fromarray(load_images(name)[0].pixels)
    ways = {"xailib": by_xailib, "lime + grad-cam": by_lime_and_gradcam, "captum": by_captum}
    times = {way: Times() for way in ways}
    for _ in range(RUNS):
        for way, function in ways.items():
            try:
                times[way].run(lambda f=function: f(module, transform, image))
            except ImportError as error:
                print(f"{way}: {error}", file=sys.stderr)
    rows = [
        (way, lines(ways[way]), median(found.seconds), median(found.processor))
        for way, found in times.items()
        if found.seconds
    ]
    columns = ["way", "lines", "seconds", "processor_seconds"]
    print(pd.DataFrame(rows, columns=columns).round(2).to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
