from dataclasses import replace

import numpy as np
import pytest
from conftest import explanation, lime_explanation

from xailib.errors import InputError
from xailib.explain.explanation import Explanation, scaled
from xailib.images.frames import Frame

RAW = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
LIME = lime_explanation(np.arange(48).reshape(6, 8) // 8, list(RAW[:, 0].astype(float)))
SAMPLES = {"shown": RAW.T > 0, "scores": RAW[0], "block": 2}
FRAME = Frame((12, 16), (6, 8), (0, 0, 6, 8))


@pytest.mark.parametrize(
    "before",
    [
        explanation(RAW, frame=FRAME, parameters={"layer": "bn2"}),
        LIME,
        replace(LIME, superpixels=replace(LIME.superpixels, **SAMPLES)),
    ],
    ids=["cam", "lime", "lime with samples"],
)
def test_saving_and_loading_changes_nothing(tmp_path, before):
    before.save(tmp_path / "x.npz")
    after = Explanation.load(tmp_path / "x.npz")
    pairs = [(vars(before), vars(after))]
    if before.superpixels:
        pairs.append((vars(before.superpixels), vars(after.superpixels)))
    for kept, read in pairs:
        assert kept.keys() == read.keys()
        for name in kept.keys() - {"superpixels"}:
            np.testing.assert_array_equal(read[name], kept[name], strict=True)


def test_equal_explanations_are_equal_files(tmp_path):
    for name in "ab":
        explanation(np.eye(4)).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04broken"])
def test_a_damaged_file_is_one_clear_line(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read"):
        Explanation.load(path)


def test_maps_must_fit_their_frame_and_be_finite():
    with pytest.raises(InputError, match="not the frame's"):
        explanation(np.zeros((3, 3)), frame=Frame.whole(4, 4))
    with pytest.raises(InputError, match="not finite"):
        explanation(np.zeros((2, 2)), saliency=np.full((2, 2), np.nan, np.float32))


def test_scaling():
    raw = np.array([[-2, 0], [1, 4]], np.float32)
    np.testing.assert_allclose(scaled(raw, signed=True), raw / 4)
    np.testing.assert_allclose(scaled(raw, signed=False), (raw + 2) / 6)
    assert not scaled(np.ones((2, 2), np.float32), signed=False).any()
    assert not scaled(np.zeros((2, 2), np.float32), signed=True).any()


def test_ranking_by_sign():
    parts = lime_explanation(np.array([[0, 1, 2, 3]]), [0.2, -0.9, 0.5, 0.0]).superpixels
    assert parts.ranked(2) == [1, 2]
    assert parts.ranked(9, "positive") == [2, 0]
