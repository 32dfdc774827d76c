import numpy as np
import pytest
from conftest import explanation, lime_explanation
from lime.lime_image import ImageExplanation

from xailib.compare.masks import area_mask, lime_mask, value_mask
from xailib.errors import InputError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [1, 3, 10, 40])
@pytest.mark.parametrize("signs", ["positive", "both"])
def test_lime_masks_equal_limes_own(count, signs):
    segments = np.arange(400).reshape(20, 20) // 20
    weights = RNG.normal(size=20)
    theirs = ImageExplanation(np.zeros((20, 20, 3)), segments)
    theirs.local_exp[3] = sorted(enumerate(weights), key=lambda x: abs(x[1]), reverse=True)
    _, expected = theirs.get_image_and_mask(
        3, positive_only=signs == "positive", num_features=count
    )
    ours = lime_mask(lime_explanation(segments, list(weights)), count, signs)
    np.testing.assert_array_equal(ours, expected)


def test_ties_prefer_no_side():
    mask = area_mask(np.zeros((100, 100), np.float32), 5000)
    assert abs(mask[:50].mean() - 0.5) < 0.05
    assert abs(mask[:, :50].mean() - 0.5) < 0.05


def test_what_has_no_mask_is_refused():
    saliency = np.zeros((4, 4), np.float32)
    with pytest.raises(InputError, match="gradcam has no superpixels"):
        lime_mask(explanation(saliency))
    with pytest.raises(InputError, match="num_features"):
        lime_mask(lime_explanation(np.zeros((2, 2), int), [1.0]), 0)
    with pytest.raises(InputError, match="pixels: 17"):
        area_mask(saliency, 17)
    with pytest.raises(InputError, match="threshold: 1"):
        value_mask(saliency, 1.0)


def test_value_masks_exclude_the_threshold():
    np.testing.assert_array_equal(
        value_mask(np.array([[0, 0.5, 1]], np.float32), 0.5), [[False, False, True]]
    )
