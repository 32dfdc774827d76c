"""Tiny networks of the kinds that classifiers come in, and a photograph for them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from xailib.images.load import Photograph, from_array
from xailib.networks import forward, layers
from xailib.networks.classifier import Classifier
from xailib.networks.preprocessing import Preprocessing

SIDE = 32
CATEGORIES = 5


def as_they_are(scores: Tensor) -> Tensor:
    return scores


class Plain(nn.Module):
    """Convolutions, average pool, dropout, linear, and `out`: as a ResNet or EfficientNet ends."""

    def __init__(self, classes=CATEGORIES, channels=3, out=as_they_are) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(12, classes)
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc(self.drop(torch.flatten(self.pool(self.body(self.stem(x))), 1))))


class Skipping(nn.Module):
    """What lies behind `body` also reads what lies in front of it."""

    in_place = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Conv2d(6, 6, 3, 1, 1)
        self.mix = nn.Conv2d(12, 10, 3, 2, 1)
        self.fc = nn.Linear(10 * 4, CATEGORIES)

    def forward(self, x: Tensor) -> Tensor:
        before = self.act(self.stem(x))
        after = self.body(before)
        if self.in_place:
            after += before
        else:
            after = after + before
        both = self.act(torch.cat([before, after], dim=1))
        last = nn.functional.max_pool2d(self.act(self.mix(both)), 4)
        return self.fc(last.reshape(x.shape[0], -1))


class InPlace(Skipping):
    """The same, with the output of `body` changed after the fact."""

    in_place = True


class Stubborn(Plain):
    """A network whose tail cannot be replayed for several pictures from one record."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x)
        features *= 2
        pooled = self.pool(self.body(features))
        return self.fc(torch.flatten(pooled * (1 + pooled.amax((1, 2, 3), keepdim=True)), 1))


def seeded(make, seed: int = 0) -> nn.Module:
    """Build a network from a seed, with batch norms that have seen something."""
    torch.manual_seed(seed)
    module = make().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 2)
    return module


def vit() -> nn.Module:
    import timm

    sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return timm.models.VisionTransformer(num_classes=CATEGORIES, **sizes)


def swin() -> nn.Module:
    import timm

    sizes = {"img_size": SIDE, "patch_size": 4, "embed_dim": 12, "window_size": 4}
    sizes |= {"depths": (1, 1), "num_heads": (2, 2)}
    return timm.models.SwinTransformer(num_classes=CATEGORIES, **sizes)


def classifier(make=Plain, seed: int = 0, device: str = "cpu") -> Classifier:
    """A classifier of 32 x 32 pictures with five categories."""
    module = seeded(make, seed).to(device)
    example = torch.zeros(1, 3, SIDE, SIDE, device=device)
    traces = layers.trace(module, example)
    return Classifier(
        name=getattr(make, "__name__", "net").lower(),
        module=module,
        preprocessing=Preprocessing((SIDE, SIDE), SIDE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
        class_names=tuple(f"thing {index}" for index in range(CATEGORIES)),
        weights="random",
        weights_sha256=f"{seed:064d}",
        device=torch.device(device),
        cam_layer=layers.default_cam_layer(module, traces, CATEGORIES),
        dissect_layers=(),
    )


def offer_engines(monkeypatch, faster: bool = True, **set_ups) -> None:
    """Let these be all engines, and each be found faster than eager, or none."""
    monkeypatch.setattr(forward, "_candidates", lambda _module: list(set_ups))
    monkeypatch.setattr(forward, "SET_UPS", set_ups)
    monkeypatch.setattr(forward, "_faster", lambda *_: faster)


def photograph(seed: int = 0) -> Photograph:
    """A photograph with some blobs of colour and noise, 32 x 32."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3)).repeat(8, axis=0).repeat(8, axis=1)
    noise = rng.integers(-20, 20, coarse.shape)
    return from_array(np.clip(coarse + noise, 0, 255).astype(np.uint8), f"blobs-{seed}")


def noise(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Random colours, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | None = None, **options) -> Path:
    """Write an image file, of noise unless pixels are given, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise() if pixels is None else pixels).save(path, **options)
    return path


def photographs_in(folder: Path, count: int) -> Path:
    """Make a folder with as many photographs, p00.png and on; return it."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(photograph(number).pixels).save(folder / f"p{number:02d}.png")
    return folder


class Colours:
    """An encoder without a network: a picture's mean colour, and for each text some colour."""

    name = "colours"
    label = "mean colours"
    sha256 = "0" * 64

    def encode_images(self, pictures):
        return self._unit(np.array([p.pixels.mean((0, 1)) for p in pictures], np.float32))

    def encode_texts(self, texts):
        return self._unit(np.random.default_rng(0).normal(size=(len(texts), 3)).astype(np.float32))

    def _unit(self, rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
