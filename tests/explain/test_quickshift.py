"""quickshift by tensor operations against scikit-image's."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.color import rgb2lab
from skimage.segmentation import quickshift as peer

from xailib.explain import quickshift as ours
from xailib.explain.lime import segmentation

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def crops(side):
    """Square crops of packaged photographs, at full resolution."""
    images = data.astronaut(), data.chelsea(), data.coffee()
    return [image[40 : 40 + side, 60 : 60 + side] for image in images]


def found(images, device="cpu", ratio=0.2, **options):
    options = {"kernel_size": 4, "max_dist": 200, "rng": 0, **options}
    colours = [ours.colours(image, ratio) for image in images]
    return ours.quickshift(colours, device=device, **options).cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
def test_equals_scikit_image_on_photographs(device):
    images = crops(224)[: None if device == "cuda" else 2]
    superpixels = found(images, device)
    for image, one in zip(images, superpixels, strict=True):
        np.testing.assert_array_equal(one, segmentation("quickshift", 0)(image))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options",
    [
        {"rng": 3},
        {"kernel_size": 2, "max_dist": 8},
        {"kernel_size": 1.5, "max_dist": 5, "ratio": 1.0},
        {"kernel_size": 5, "max_dist": 10, "ratio": 1.0, "rng": 42},
    ],
)
def test_equals_scikit_image_with_other_settings(device, options):
    images = [image[:60, :83] for image in crops(96)]
    superpixels = found(images, device, **options)
    settings = {"ratio": 0.2, "kernel_size": 4, "max_dist": 200, "rng": 0, **options}
    for image, one in zip(images, superpixels, strict=True):
        np.testing.assert_array_equal(one, peer(image, **settings))


@pytest.mark.parametrize("device", DEVICES)
def test_ties_are_broken_as_scikit_image_breaks_them(device):
    """Flat areas and straight edges: nearly all distances have an equal."""
    rows, columns = np.indices((64, 64))
    squares = ((rows // 16 + columns // 16) % 2 * 90 + 80).astype(np.uint8)
    flat = np.full((64, 64, 3), 120, np.uint8)
    images = [
        flat,
        np.stack([squares] * 3, axis=-1),
        np.stack([squares, 255 - squares, squares], -1),
    ]
    for seed in (0, 1):
        superpixels = found(images, device, rng=seed)
        for image, one in zip(images, superpixels, strict=True):
            expected = peer(image, ratio=0.2, kernel_size=4, max_dist=200, rng=seed)
            np.testing.assert_array_equal(one, expected)


def test_colours_are_scikit_image_s_to_the_last_bit():
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3), -1).reshape(
        -1, 52, 3
    )
    gray = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    for pixels in (*crops(224), every, gray):
        np.testing.assert_array_equal(ours.colours(pixels, 0.2), rgb2lab(pixels) * 0.2)


def test_computed_twice_where_distances_do_not_fit(monkeypatch):
    images, options = crops(32), {"kernel_size": 2, "max_dist": 5}
    together = found(images, **options)
    monkeypatch.setattr(ours, "_HELD", 1e6)
    np.testing.assert_array_equal(found(images, **options), together)
    assert len(np.unique(together[0])) > 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_card():
    images = [ours.colours(image, 0.2) for image in crops(64)]
    options = {"kernel_size": 4, "max_dist": 200, "rng": 0, "device": "cuda"}
    ours.quickshift(images, **options)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours.quickshift(images, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
