"""Pairs of maps, what chance would give them, boxes, intervals."""

import numpy as np
import pytest
from conftest import explanation, lime_explanation
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from xailib.compare.chance import against, moved_iou, shuffled_iou
from xailib.compare.iou import iou
from xailib.compare.localisation import inside, load_boxes, localisation
from xailib.compare.masks import area_mask
from xailib.compare.pairs import (
    BASELINES,
    OPPOSES,
    SUPPORTS,
    maps_of,
    pair_table,
    summary,
    sweep_table,
)
from xailib.errors import InputError
from xailib.images.frames import Frame
from xailib.images.packaged import packaged_names
from xailib.report.figures.agreement import baseline_chart, matrix_chart, sweep_chart

RNG = np.random.default_rng(1)
SEGMENTS = np.arange(400).reshape(20, 20) // 40  # ten bands of two rows


def blobs(seed: int, size=(20, 20)) -> np.ndarray:
    noise = np.random.default_rng(seed).random(size)
    return gaussian_filter(noise, 3, mode="wrap").astype(np.float32)


def group(image: str = "cat", seed: int = 0, **changes):
    changes = {"image": image, "image_sha256": image * 8, **changes}
    lime = lime_explanation(SEGMENTS, list(np.linspace(1, -1, 10)), **changes)
    return [lime, explanation(blobs(seed), **changes)]


def test_moves_are_all_moves():
    a, b = RNG.random((2, 5, 6)) < 0.4
    slow = [
        iou(a, np.roll(mirrored, (down, across), (0, 1)))
        for mirrored in (b, b[::-1], b[:, ::-1], b[::-1, ::-1])
        for down in range(5)
        for across in range(6)
    ]
    assert np.sort(moved_iou(a, b)) == pytest.approx(np.sort(slow))
    with pytest.raises(InputError, match="shapes"):
        moved_iou(a, b.T)
    with pytest.raises(InputError, match="empty"):
        moved_iou(a & False, b & False)


def test_shuffled_superpixels_equal_a_slow_shuffle():
    mask = blobs(3) > 0.5
    area = 120  # three of ten bands of 40 pixels
    found = shuffled_iou(SEGMENTS, mask, area, draws=3000)
    slow = [iou(np.isin(SEGMENTS, RNG.permutation(10)[:3]), mask) for _ in range(3000)]
    assert found.mean() == pytest.approx(np.mean(slow), abs=0.01)
    assert np.quantile(found, 0.975) == pytest.approx(np.quantile(slow, 0.975), abs=0.03)
    with pytest.raises(InputError, match="area: 401"):
        shuffled_iou(SEGMENTS, mask, 401)


def test_smooth_maps_that_have_nothing_to_do_with_each_other_are_not_called_better_than_chance():
    """The null that keeps blobs must cover its own; scattered pixels are far too narrow."""
    below = []
    for seed in range(60):
        a, b = (area_mask(blobs(k), 100) for k in (2 * seed, 2 * seed + 1))
        below.append(against(iou(a, b), moved_iou(a, b))["p"] <= 0.05)
    assert np.mean(below) <= 0.12


def test_a_map_against_itself_is_far_above_its_null():
    a = area_mask(blobs(5), 100)
    found = against(1.0, moved_iou(a, a))
    assert found["p"] < 0.01
    assert found["null_low"] <= found["null_mean"] <= found["null_high"] < 1


def test_limes_signs_are_two_maps_in_one_frame():
    maps = maps_of(group(), num_features=3)
    assert [one.name for one in maps] == [SUPPORTS, OPPOSES, "gradcam"]
    assert {one.area for one in maps} == {0.3}
    assert np.array_equal(maps[0].values, -maps[1].values)
    assert np.array_equal(maps[0].mask(0.3), SEGMENTS < 3)
    assert np.array_equal(maps[1].mask(0.3), SEGMENTS > 6)


def test_what_is_no_pair_is_refused():
    lime, cam = group()
    other = explanation(blobs(0), target=9, target_name="dog", image_sha256=lime.image_sha256)
    with pytest.raises(InputError, match="two targets"):
        maps_of([lime, other])
    assert len(maps_of([lime, other], allow=["target"])) == 3
    with pytest.raises(InputError, match="two of 'cat' are called 'gradcam'"):
        maps_of([lime, cam, other], allow=["target"])
    with pytest.raises(InputError, match="did you mean target"):
        maps_of([lime, other], allow=["targets"])
    with pytest.raises(InputError, match="none given"):
        maps_of([])
    with pytest.raises(InputError, match="no photograph has two"):
        pair_table(maps_of([cam]))


def test_other_photographs_maps_are_cut_at_the_same_area():
    """By their own, larger or smaller, they would overlap less, and a pair would look better."""
    maps = [one for k, image in enumerate("abc") for one in maps_of(group(image, k), 2 + 2 * k)]
    assert [one.area for one in maps[::3]] == [0.2, 0.4, 0.5]  # of five that support
    table = pair_table(maps, draws=50).set_index(["image", "a", "b"])
    own, heats = maps[0].mask(0.2), [maps[k] for k in (5, 8)]
    expected = np.mean([iou(own, area_mask(heat.values, 80)) for heat in heats])
    assert table.loc[("a", SUPPORTS, "gradcam"), "others"] == expected
    with pytest.raises(InputError, match=r"area: 1\.5 is not a share"):
        sweep_table(maps, [1.5])


def test_superpixels_are_respected_in_either_order():
    lime, cam = group()
    one = pair_table(maps_of([lime, cam], 3), draws=50)
    assert one["others"].isna().all()  # there is one photograph
    assert len(summary(one)) == 2
    turned = pair_table(maps_of([cam, lime], 3), draws=50)
    assert set(one["null"]) == set(turned["null"]) == {"superpixels"}
    for name in ("iou", "null_mean", "null_low", "null_high", "p"):
        assert one[name].tolist() == turned[name].tolist()
    heatmaps = maps_of([cam, explanation(blobs(3), method="scorecam", image_sha256="cat" * 8)])
    assert set(pair_table(heatmaps)["null"]) == {"moves"}


def test_the_table_of_pairs():
    maps = [one for k, image in enumerate("abc") for one in maps_of(group(image, k), 3)]
    table = pair_table(maps, draws=200)
    assert len(table) == 3 * 2  # a heatmap with either sign; the signs themselves are no pair
    row = table.iloc[0]
    a, b = maps[0], maps[2]
    assert row["iou"] == iou(a.mask(0.3), b.mask(0.3))
    assert row["spearman"] == pytest.approx(spearmanr(a.values.ravel(), b.values.ravel())[0])
    assert row["others"] == pytest.approx(
        np.mean([iou(a.mask(0.3), maps[k].mask(0.3)) for k in (5, 8)])
    )
    means = summary(table)
    assert list(means["images"]) == [3, 3]
    gap = (table["iou"] - table["others"])[table["a"] == SUPPORTS].mean()
    assert means.iloc[0]["others_over"] == pytest.approx(gap)
    # All six tests of the table together, by Holm's rule in words.
    raw, adjusted = (
        np.sort(means[[f"{name}_{kind}" for name in BASELINES]].to_numpy(), axis=None)
        for kind in ("p", "adjusted")
    )
    steps = [min(1, (6 - place) * p) for place, p in enumerate(raw)]
    assert adjusted.tolist() == pytest.approx([max(steps[: n + 1]) for n in range(6)])
    sweep = sweep_table(maps, (0.3, 1.0))
    assert (sweep[sweep["area"] == 1]["iou"] == 1).all()
    assert sweep[(sweep["area"] == 0.3) & (sweep["image"] == "a")].iloc[0]["iou"] == row["iou"]


def test_shared_zeros_do_not_make_maps_agree():
    a, b = np.zeros((2, 40, 40), np.float32)
    a[0, 0], b[39, 39] = 1, 1
    assert iou(area_mask(a, 400), area_mask(b, 400)) == pytest.approx(1 / 7, abs=0.04)
    assert iou(area_mask(a, 400), area_mask(a.copy(), 400)) == 1


def test_boxes_follow_the_frame():
    frame = Frame((100, 200), (50, 100), (0, 25, 50, 50))
    box = inside([(0.5, 0.0, 1.0, 0.5)], frame)
    assert box.shape == (50, 50)
    assert box[:25, 25:].all()
    assert box.sum() == 25 * 25


def test_localisation_of_maps_that_know_and_do_not_know():
    boxes = {"cat": [(0.0, 0.0, 0.5, 1.0)]}
    knows = np.zeros((20, 20), np.float32)
    knows[:, :10] = RNG.random((20, 10)) + 0.1
    maps = maps_of([explanation(knows), explanation(knows[:, ::-1], method="scorecam")])
    table = localisation(maps, boxes).set_index("map")
    assert table.loc["gradcam", ["pointing", "energy", "precision"]].tolist() == [1, 1, 1]
    assert table.loc["scorecam", ["pointing", "energy", "precision"]].tolist() == [0, 0, 0]
    assert (table["box"] == 0.5).all()
    assert localisation(maps, {}).empty


def test_packaged_boxes_are_of_packaged_photographs():
    boxes = load_boxes()
    assert set(boxes) <= set(packaged_names()["foolbox"])
    assert load_boxes("") == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("image,left\ncat,0", "no column top, right, bottom"),
        ("image,left,top,right,bottom\ncat,0.5,0,0.4,1", "not left < right"),
        ("image,left,top,right,bottom\ncat,a,0,0.4,1", "cannot read .*to float: 'a'"),
        ("image,left,top,right,bottom\ncat,0,0,40,1", "shares of the photograph"),
    ],
)
def test_wrong_boxes_are_named(tmp_path, text, line):
    file = tmp_path / "boxes.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=line):
        load_boxes(file)
    with pytest.raises(InputError, match="cannot read"):
        load_boxes(tmp_path / "absent.csv")


def test_figures_show_the_tables():
    maps = []
    for k, image in enumerate("ab"):
        known = {"image": image, "image_sha256": image * 8}
        third = explanation(blobs(9 + k), method="scorecam", **known)
        maps += maps_of([*group(image, k), third], 3)
    means = summary(pair_table(maps, draws=50)).set_index(["a", "b"])
    axis = matrix_chart(means.reset_index()).axes[0]
    texts = np.array([text.get_text() for text in axis.texts]).reshape(4, 4)
    assert (np.diag(texts) == "1").all()
    assert texts[0, 1] == texts[1, 0] == "–"  # the two signs are no pair
    row = means.loc[("gradcam", "scorecam")]
    assert texts[2, 3] == f"{row['iou']:.2f}"
    assert texts[3, 2] == f"{row['spearman']:.2f}".replace("-", "−")
    axis = baseline_chart(means.reset_index()).axes[0]
    assert [bar.get_width() for bar in axis.patches] == means["iou"].tolist()
    drawn = [line.get_xdata().tolist() for line in axis.lines]
    assert drawn == [means[name].tolist() for name in ("chance", "null_mean", "others")]
    sweep = sweep_table(maps, (0.2, 0.4))
    left, right = sweep_chart(sweep).axes
    assert [len(panel.lines) for panel in (left, right)] == [3, 2]  # the last is chance
    cams = sweep[(sweep["a"] == "gradcam") & (sweep["b"] == "scorecam")]
    expected = cams.groupby("area")["iou"].mean()
    np.testing.assert_allclose(right.lines[0].get_ydata(), expected)
