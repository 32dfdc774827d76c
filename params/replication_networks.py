"""The two ResNet-50 of the replicated report, each with the way it prepared a photograph.

LIME and the CAMs there explain two sets of torchvision's weights, and see the photograph in two
ways. As in `params/replication.yaml`: ``model: params/replication_networks.py:lime_resnet50``.
"""

from pathlib import Path

from torch import nn
from torchvision import transforms

from xailib.networks.classifier import load_classifier

_NORMALISED = [
    transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
]
Loaded = tuple[nn.Module, transforms.Compose, tuple[str, ...]]


def lime_resnet50(weights: str | Path = "IMAGENET1K_V2") -> Loaded:
    """Squash the photograph to 256 x 256, keep the centre 224 x 224 (lime's tutorial)."""
    classifier = load_classifier("resnet50", weights, device="cpu")
    squashed = [transforms.Resize((256, 256)), transforms.CenterCrop(224)]
    return classifier.module, transforms.Compose([*squashed, *_NORMALISED]), classifier.class_names


def cam_resnet50(weights: str | Path = "IMAGENET1K_V1") -> Loaded:
    """See the whole photograph at its own size (grad-cam's example script)."""
    classifier = load_classifier("resnet50", weights, device="cpu")
    return classifier.module, transforms.Compose(_NORMALISED), classifier.class_names


# What these fetch when no file is given: `xailib.report.run.preflight` asks for it before a run.
lime_resnet50.fetches = [("resnet50", "IMAGENET1K_V2")]  # type: ignore[attr-defined]
cam_resnet50.fetches = [("resnet50", "IMAGENET1K_V1")]  # type: ignore[attr-defined]
