import numpy as np
import pytest
from conftest import explanation, lime_explanation
from scipy.stats import hypergeom
from sklearn.metrics import jaccard_score

from xailib.compare.chance import chance_iou
from xailib.compare.iou import check_comparable, iou, lime_cam_agreement
from xailib.errors import InputError
from xailib.images.frames import Frame

RNG = np.random.default_rng(0)
SEGMENTS = np.arange(100).reshape(10, 10) // 10


def test_iou_equals_scikit_learns():
    for share in (0.1, 0.5, 0.9):
        a, b = RNG.random((2, 20, 20)) < share
        assert iou(a, b) == pytest.approx(jaccard_score(a.ravel(), b.ravel()))


def test_iou_of_special_masks():
    mask = np.eye(4, dtype=bool)
    none = np.zeros((4, 4), bool)
    assert iou(mask, mask) == 1
    assert iou(mask, ~mask) == 0
    assert iou(mask, none) == 0
    assert np.isnan(iou(none, none))
    with pytest.raises(InputError, match="shapes"):
        iou(mask, np.zeros((2, 2), bool))


def test_chance_equals_scipys_distribution():
    total, a, b = 5000, 1800, 700
    overlap = np.arange(b + 1)
    probability = hypergeom(total, a, b).pmf(overlap)
    expected = (probability * overlap / (a + b - overlap)).sum()
    assert chance_iou(a, b, total) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(chance_iou(0, 0, total))


def test_a_map_agrees_with_the_mask_it_is_made_of():
    weights = list(np.linspace(1, -1, 10))
    lime = lime_explanation(SEGMENTS, weights)
    cam = explanation(lime.raw)
    table = lime_cam_agreement([lime], [cam], num_features=3).set_index("lime")
    assert table.loc["LIME 1", "iou"] == 1
    assert table.loc["LIME 1", "lime_area"] == table.loc["LIME 1", "cam_area"] == 0.3
    assert table.loc["LIME 2", "opposing"] > 0
    assert table.loc["LIME 2", "iou"] < 1


def test_the_value_rule_cuts_by_value():
    lime = lime_explanation(SEGMENTS, [1.0] * 10)
    cam = explanation(np.linspace(0, 1, 100).reshape(10, 10))
    table = lime_cam_agreement([lime], [cam], rule="value", threshold=0.25)
    assert table["cam_area"].tolist() == [0.75, 0.75]
    with pytest.raises(InputError, match="rule"):
        lime_cam_agreement([lime], [cam], rule="size")


def test_maps_are_brought_into_one_frame():
    """A heatmap of the whole photograph is cropped to LIME's view before it is cut."""
    crop = Frame((20, 20), (20, 20), (5, 5, 10, 10))
    lime = lime_explanation(SEGMENTS, list(np.linspace(1, 0.1, 10)), frame=crop)
    whole = np.full((20, 20), 5.0, np.float32)  # brightest outside LIME's view
    whole[5:15, 5:15] = lime.raw
    table = lime_cam_agreement([lime], [explanation(whole)], num_features=4)
    assert table["iou"].tolist() == [1, 1]
    part = explanation(np.zeros((5, 5)), frame=Frame((20, 20), (20, 20), (0, 0, 5, 5)))
    with pytest.raises(InputError, match="does not cover"):
        lime_cam_agreement([lime], [part])


def test_one_lime_for_each_photograph():
    limes = [lime_explanation(SEGMENTS, [1.0] * 10, seed=seed) for seed in (0, 1)]
    with pytest.raises(InputError, match="limes: two of"):
        lime_cam_agreement(limes, [explanation(np.eye(10))])


def test_what_cannot_be_compared_raises():
    lime = lime_explanation(SEGMENTS, [1.0] * 10)
    cam = np.zeros((10, 10))
    with pytest.raises(InputError, match="two networks"):
        lime_cam_agreement([lime], [explanation(cam, classifier="other@def")])
    with pytest.raises(InputError, match="two targets"):
        lime_cam_agreement([lime], [explanation(cam, target=4, target_name="lynx")])
    with pytest.raises(InputError, match="no photograph has both"):
        lime_cam_agreement([lime], [explanation(cam, image_sha256="0" * 64)])
    with pytest.raises(InputError, match="different photographs"):
        check_comparable(lime, explanation(cam, image_sha256="0" * 64))
    check_comparable(lime, explanation(cam, classifier="other"), allow={"classifier"})
