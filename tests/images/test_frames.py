import numpy as np
import pytest
import torch
from nets import noise
from PIL import Image
from torchvision.models import ResNet50_Weights, ViT_B_16_Weights

from xailib.errors import InputError
from xailib.images.frames import Frame, change_frame
from xailib.networks.preprocessing import Preprocessing, from_torchvision, from_transform

SIZES = [(64, 64), (333, 500), (683, 1024), (1200, 300)]
CENTRE = Frame((512, 512), (256, 256), (16, 16, 224, 224))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weights", [ResNet50_Weights.IMAGENET1K_V2, ViT_B_16_Weights.DEFAULT])
def test_preprocessing_equals_torchvisions(size, weights):
    preset = weights.transforms()
    ours = from_torchvision(preset)
    pixels = noise(*size)
    expected = preset(Image.fromarray(pixels))
    actual = ours.normalise(torch.from_numpy(ours.crop(pixels)[None]))[0]
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_a_measured_transform_equals_the_stated_one(size):
    preset = ResNet50_Weights.IMAGENET1K_V2.transforms()
    stated, measured = from_torchvision(preset), from_transform(preset)
    assert measured.frame(*size) == stated.frame(*size)
    pixels = noise(*size)
    np.testing.assert_array_equal(measured.crop(pixels), stated.crop(pixels))
    batch = torch.from_numpy(stated.crop(pixels)[None])
    torch.testing.assert_close(
        measured.normalise(batch), stated.normalise(batch), atol=1e-3, rtol=0
    )


def test_a_thin_panorama_is_refused_before_it_is_resized():
    with pytest.raises(InputError, match="too long and thin"):
        Preprocessing((8, 8), 8, (0.5,) * 3, (0.5,) * 3).frame(16, 5_000_000)


def test_there_and_back_is_the_same_map():
    waves = np.sin(np.linspace(0, 20, 224, dtype=np.float32))
    values = np.outer(waves, waves)
    there = CENTRE.to_photograph(values)
    assert there.shape == (512, 512)
    assert np.isnan(there[:32]).all()
    assert np.isfinite(there[32:480, 32:480]).all()
    back = CENTRE.from_photograph(np.nan_to_num(there))
    np.testing.assert_allclose(back[2:-2, 2:-2], values[2:-2, 2:-2], atol=0.01)


def test_a_point_stays_where_it_is():
    """A bright spot in the view lands on the same place of the photograph."""
    spot = np.zeros((224, 224), np.float32)
    spot[100:104, 60:64] = 1
    y, x = np.argwhere(np.nan_to_num(CENTRE.to_photograph(spot)) > 0.9).mean(0)
    assert abs(y - 2 * (16 + 101.5) - 0.5) <= 1
    assert abs(x - 2 * (16 + 61.5) - 0.5) <= 1


def test_changing_frames():
    whole = Frame.whole(512, 512)
    ramp = np.tile(np.linspace(0, 1, 512, dtype=np.float32), (512, 1))
    cropped = change_frame(ramp, whole, CENTRE)
    np.testing.assert_allclose(cropped[0], ramp[0, 32:480].reshape(224, 2).mean(1), atol=2e-3)
    assert np.isnan(change_frame(cropped, CENTRE, whole)).any()
    with pytest.raises(InputError, match="different sizes"):
        change_frame(ramp, whole, Frame.whole(10, 10))


def test_a_crop_outside_is_refused():
    with pytest.raises(InputError, match="does not lie inside"):
        Frame((10, 10), (10, 10), (5, 0, 10, 10))
    with pytest.raises(InputError, match="not the frame's"):
        CENTRE.to_photograph(np.zeros((3, 3), np.float32))


def test_squashing_changes_the_shape():
    squash = Preprocessing((16, 16), (20, 20), (0.5,) * 3, (0.5,) * 3)
    assert squash.frame(100, 400) == Frame((100, 400), (20, 20), (2, 2, 16, 16))
    assert squash.crop(noise(100, 400)).shape == (16, 16, 3)
