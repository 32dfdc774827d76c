"""quickshift by tensor operations against scikit-image's."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.color import rgb2lab
from skimage.segmentation import quickshift as peer

from xailib.explain import quickshift as ours

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def crops(side):
    """Square crops of packaged photographs, at full resolution."""
    images = data.astronaut(), data.chelsea(), data.coffee()
    return [image[40 : 40 + side, 60 : 60 + side] for image in images]


def flat_areas():
    """Flat areas and straight edges: nearly all distances have an equal."""
    rows, columns = np.indices((64, 64))
    squares = ((rows // 16 + columns // 16) % 2 * 90 + 80).astype(np.uint8)
    flat = np.full((64, 64, 3), 120, np.uint8)
    return [flat, np.stack([squares] * 3, -1), np.stack([squares, 255 - squares, squares], -1)]


def found(images, device="cpu", ratio=0.2, **options):
    options = {"kernel_size": 4, "max_dist": 200, "rng": 0, **options}
    colours = [ours.colours(image, ratio) for image in images]
    return ours.quickshift(colours, device=device, **options).cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("images", "options"),
    [
        (crops(224)[:1], {}),
        ([image[:60, :83] for image in crops(96)], {"rng": 3}),
        ([image[:60, :83] for image in crops(96)], {"kernel_size": 2, "max_dist": 8}),
        (crops(60), {"kernel_size": 1.5, "max_dist": 5, "ratio": 1.0}),
        (crops(60), {"kernel_size": 5, "max_dist": 10, "ratio": 1.0, "rng": 42}),
        (flat_areas(), {}),
        (flat_areas(), {"rng": 1}),
    ],
)
def test_superpixels_are_scikit_image_s(device, images, options):
    """Also where it breaks ties."""
    superpixels = found(images, device, **options)
    settings = {"ratio": 0.2, "kernel_size": 4, "max_dist": 200, "rng": 0, **options}
    for image, one in zip(images, superpixels, strict=True):
        np.testing.assert_array_equal(one, peer(image, **settings))


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
