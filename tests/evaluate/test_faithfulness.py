"""Faithfulness against literal loops, grad-cam's ROAD, Quantus, and a network known by formula."""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import explanation, lime_explanation
from nets import SIDE, classifier, photograph
from scipy.stats import ttest_1samp, wilcoxon
from torch import nn

from xailib.compare.intervals import holm
from xailib.compare.masks import area_mask
from xailib.errors import InputError
from xailib.evaluate import perturbation as pixels
from xailib.evaluate.faithfulness import (
    explanation_curves,
    faithfulness_curves,
    maps_of,
    neutral_colour,
)
from xailib.evaluate.scores import compare_with_baselines, curve_scores
from xailib.images.load import from_array
from xailib.report.figures import faithfulness as faithfulness_figures

TARGET = 3
EAGER = {"engine": "eager"}
RNG = np.random.default_rng(5)
UNTIED = RNG.permutation(SIDE * SIDE).reshape(SIDE, SIDE).astype(np.float32)


class Half(nn.Module):
    """The target's logit is `slope` times the mean of the left half; the others are zero."""

    slope = 4.0

    def forward(self, x):
        logits = torch.zeros(len(x), 5)
        logits[:, TARGET] = self.slope * x[..., : SIDE // 2].mean((1, 2, 3))
        return logits


@pytest.fixture(scope="module")
def net():
    return classifier()


@pytest.fixture(scope="module")
def half():
    return replace(classifier(), module=Half())


@pytest.fixture(scope="module")
def photo():
    return photograph()


def curve(table, measure, method="map"):
    part = table[(table["measure"] == measure) & (table["method"] == method)]
    return part["fraction"].to_numpy(), part["score"].to_numpy()


def explained(net, photo, raw=UNTIED, **changes):
    known = {"image": photo.id, "image_sha256": photo.sha256, "classifier": net.id}
    return explanation(raw, **{**known, **changes})


def probability(net, batch):
    with torch.no_grad():
        return net.module(batch).softmax(1)[:, TARGET].numpy()


# Orders


@pytest.mark.parametrize("levels", [2, 7, 1024])
def test_the_order_is_that_of_masks_of_equal_area(levels):
    saliency = RNG.integers(0, levels, (SIDE, SIDE)).astype(np.float32)
    order = pixels.pixel_order(saliency)
    for count in (0, 1, 100, 700, 1024):
        np.testing.assert_array_equal(order < count, area_mask(saliency, count))


def test_regions_are_ordered_by_their_mean():
    saliency = RNG.random((20, 13)).astype(np.float32)  # 8 divides neither side
    order = pixels.region_order(saliency, 8)
    assert set(order.ravel()) == set(range(2 * 2))  # 20 / 8 and 13 / 8, rounded
    means = [saliency[order == place].mean() for place in range(4)]
    assert means == sorted(means, reverse=True)
    for place in range(4):  # rectangles
        rows, columns = np.nonzero(order == place)
        assert (np.ptp(rows) + 1) * (np.ptp(columns) + 1) == len(rows)


def test_opponents_know_nothing_of_the_network():
    blob = pixels.centred_blob((20, 30))
    assert np.unravel_index(blob.argmax(), blob.shape) in {(9, 14), (9, 15), (10, 14), (10, 15)}
    np.testing.assert_allclose(blob, blob[::-1, ::-1])
    one, same, other = (pixels.random_field((56, 56), (s, 0)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.9
    # Smooth: neighbours differ by far less than two pixels anywhere.
    assert (
        np.abs(np.diff(one, axis=1)).mean() < 0.3 * np.abs(one.ravel() - one.ravel()[::-1]).mean()
    )


# Curves


def test_a_network_known_by_formula(half):
    """White picture: the logit is what is left of the left half, whatever else is deleted."""
    white = from_array(np.full((SIDE, SIDE, 3), 255, np.uint8), "white")
    level = half.input_tensor(half.view(white).pixels[None]).mean().item()
    columns = np.broadcast_to(np.arange(SIDE, dtype=np.float32), (SIDE, SIDE))
    maps = {"left first": -columns, "right first": columns.copy()}
    table = faithfulness_curves(half, white, TARGET, maps, steps=16, percentiles=[], **EAGER)
    for method, left in (
        ("left first", lambda f: np.clip(1 - 2 * f, 0, 1)),
        ("right first", lambda f: np.clip(2 - 2 * f, 0, 1)),
    ):
        fractions, found = curve(table, "deletion", method)
        np.testing.assert_allclose(fractions, np.arange(17) / 16)
        logit = np.exp(Half.slope * level * left(fractions))
        np.testing.assert_allclose(found, logit / (logit + 4), atol=1e-5)


def test_flipping_equals_a_literal_loop(net, photo):
    table = faithfulness_curves(net, photo, TARGET, {"map": UNTIED}, steps=6, side=4, **EAGER)
    view = net.view(photo).pixels
    noise = np.random.default_rng(0).integers(0, 256, view.shape, np.uint8)
    means = UNTIED.reshape(8, 4, 8, 4).mean((1, 3))
    flipped, scores = view.copy(), []
    regions = sorted(np.ndindex(8, 8), key=lambda at: -means[at])[: round(0.16 * 64)]
    for count in range(len(regions) + 1):
        if count:
            y, x = regions[count - 1]
            block = np.s_[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            flipped[block] = noise[block]
        scores.append(net.probabilities(flipped[None])[0, TARGET])
    fractions, found = curve(table, "flipping")
    counts = np.round(fractions * 64).astype(int)
    assert (counts[0], counts[-1], len(counts)) == (0, 10, 7)
    np.testing.assert_allclose(found, np.array(scores)[counts], atol=1e-6)
    value = curve_scores(table).set_index("measure")["value"]["flipping"]
    assert value == pytest.approx(np.mean([scores[0] - scores[n] for n in counts]), abs=1e-6)


def test_only_the_order_counts(net, photo):
    scaled = UNTIED / UNTIED.max()
    maps = {"map": scaled, "cubed": scaled**3 * 5 - 2, "reversed": -scaled}
    table = faithfulness_curves(net, photo, TARGET, maps, steps=4, percentiles=[60], **EAGER)
    wide = table.pivot_table(index=["measure", "fraction"], columns="method", values="score")
    # ROAD reads the order; flipping reads means of regions, which a cube may order otherwise.
    wide = wide.drop("flipping", level="measure")
    np.testing.assert_array_equal(wide["map"], wide["cubed"])
    assert not np.allclose(wide["map"], wide["reversed"])


# ROAD


def test_road_equals_grad_cams(net, photo, monkeypatch):
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    monkeypatch.setattr(pixels, "ROAD_NOISE", 0.0)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # grad-cam's noise
    percentiles = [10, 50, 80, 95]
    whole = net.input_tensor(net.view(photo).pixels[None]).contiguous()
    road = ROADCombined(percentiles)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's tensors in numpy's functions
        goal = [ClassifierOutputSoftmaxTarget(TARGET)]
        expected = road(whole, UNTIED[None], goal, net.module)[0]
    table = faithfulness_curves(
        net, photo, TARGET, {"map": UNTIED}, steps=1, percentiles=percentiles, **EAGER
    )
    value = curve_scores(table).set_index("measure")["value"]["road"]
    assert abs(expected) > 1e-4
    assert value == pytest.approx(expected, abs=1e-6)


def test_road_solves_once_for_all_maps_and_both_ends(net, photo, monkeypatch):
    """On a GPU each solution costs hundreds of steps that wait for one another."""
    counts = []

    def counted(image, kept, imputed=pixels.imputed):
        counts.append(len(kept))
        return imputed(image, kept)

    monkeypatch.setattr(pixels, "imputed", counted)
    maps = {"map": UNTIED, "other": pixels.centred_blob((SIDE, SIDE))}
    faithfulness_curves(net, photo, TARGET, maps, steps=4, batch_size=256, engine="eager")
    assert counts == [8]  # two maps, from both ends, at two percentiles


def test_road_of_ties_replaces_the_stated_share(net, photo):
    """grad-cam's threshold would take the whole picture, and leave nothing to impute from."""
    tied = np.zeros((SIDE, SIDE), np.float32)
    tied[:4] = 1
    maps = {"map": tied}
    table = faithfulness_curves(net, photo, TARGET, maps, steps=1, percentiles=[25, 75], **EAGER)
    for measure in ("road_most", "road_least"):
        fractions, scores = curve(table, measure)
        assert fractions == pytest.approx([0.75, 0.25], abs=1e-3)
        assert np.isfinite(scores).all()


PLACES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("solve", ["_factorised", "_by_conjugate_gradients"])
def test_imputed_pictures_are_grad_cams(monkeypatch, solve, place):
    """Masks of holes, of rims, of all but a pixel and of nothing, all at once."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    picture = torch.randn(3, 40, 52, generator=torch.Generator().manual_seed(1))
    places = torch.from_numpy(pixels.pixel_order(pixels.random_field((40, 52), (1, 2))))
    kept = torch.stack([places >= 600, places < 1000, places > 0, places < 1, places >= 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's tensors in numpy's functions
        theirs = [NoisyLinearImputer(0.0)(picture, mask.float()) for mask in kept[:-1]]
    expected = torch.stack([*theirs, picture])
    if place == "cpu":
        monkeypatch.setattr(pixels, "_factorised", getattr(pixels, solve))
    found = pixels.imputed(picture.to(place), kept.to(place)).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(found.movedim(1, -1)[kept], expected.movedim(1, -1)[kept])


@pytest.mark.parametrize("place", PLACES[1:])
def test_swapped_pictures_wait_for_nothing(place):
    picture = torch.rand(1, 3, SIDE, SIDE, device=place)
    perturbed = pixels.Perturbed(picture, picture + 1, {"map": UNTIED})
    trials = [t for t in pixels.plan(["map"], (SIDE, SIDE)) if "road" not in t.measure]
    perturbed.batch(trials)
    try:
        torch.cuda.set_sync_debug_mode("error")
        perturbed.batch(trials)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("place", PLACES[1:])
def test_a_gpu_gives_the_cpus_curves(net, photo, place):
    moved = replace(net, module=copy.deepcopy(net.module).to(place), device=torch.device(place))
    maps = {"map": UNTIED, "other": pixels.centred_blob((SIDE, SIDE))}
    one, other = (faithfulness_curves(c, photo, TARGET, maps, **EAGER) for c in (net, moved))
    np.testing.assert_allclose(other.pop("score"), one.pop("score"), atol=1e-3)
    pd.testing.assert_frame_equal(one, other)


def test_the_seed_decides_all_that_is_random(net, photo):
    options = {"steps": 3, "percentiles": [50], "draws": 2, **EAGER}
    given = [explained(net, photo)]
    one, same, other = (
        explanation_curves(net, photo, given, seed=seed, **options) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, same)
    for measure, method in (
        ("flipping", "gradcam"),
        ("road_most", "gradcam"),
        ("deletion", "random"),
    ):
        assert not np.allclose(curve(one, measure, method)[1], curve(other, measure, method)[1])
    unseeded = [curve(t, "deletion", "gradcam")[1] for t in (one, other)]
    np.testing.assert_array_equal(*unseeded)


# Explanations


def test_explanations_stand_beside_the_baselines(net, photo):
    segments = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) // 128  # eight stripes
    known = {"image": photo.id, "image_sha256": photo.sha256, "classifier": net.id}
    lime = lime_explanation(segments, [3, -5, 1, -2, 0.5, 2, -1, 0.1], **known)
    cam = explained(net, photo)
    table = explanation_curves(net, photo, [lime, cam], steps=8, percentiles=[], draws=3, **EAGER)
    assert list(dict.fromkeys(table["method"])) == ["lime", "gradcam", "random", "centre"]
    assert set(table["image"]) == {photo.id}
    assert set(table["target"]) == {"thing 3"}
    # LIME by signed weight: stripe 0 first, stripe 1, which opposes most, last.
    assert lime.saliency.min() < 0
    picture = net.input_tensor(net.view(photo).pixels[None])
    order = [0, 5, 2, 4, 7, 6, 3, 1]
    expected = [probability(net, picture)[0]]
    for stripe in order:
        picture = picture.clone()
        picture[..., 4 * stripe : 4 * stripe + 4, :] = 0
        expected.append(probability(net, picture)[0])
    np.testing.assert_allclose(curve(table, "deletion", "lime")[1], expected, atol=1e-6)
    # The random baseline is the mean of its draws.
    place = int(photo.sha256[:8], 16)
    draws = {str(d): pixels.random_field((SIDE, SIDE), (0, d, place)) for d in range(3)}
    single = faithfulness_curves(net, photo, TARGET, draws, steps=8, percentiles=[], **EAGER)
    mean = np.mean([curve(single, "insertion", d)[1] for d in draws], axis=0)
    np.testing.assert_allclose(curve(table, "insertion", "random")[1], mean, atol=1e-6)


def test_the_true_map_beats_the_baselines_and_its_opposite_does_not(half):
    truth = np.zeros((SIDE, SIDE), np.float32)
    truth[:, : SIDE // 2] = 1
    tables = []
    for seed in range(12):  # by Holm's rule, eight photographs could decide none of 20 tests
        bright = photograph(seed)
        bright = from_array(bright.pixels // 4 + 190, f"bright-{seed}")
        given = [
            explained(half, bright, truth, method="truth"),
            explained(half, bright, 1 - truth, method="opposite"),
        ]
        tables.append(explanation_curves(half, bright, given, steps=8, percentiles=[50], **EAGER))
    compared = compare_with_baselines(curve_scores(pd.concat(tables)))
    verdicts = compared.set_index(["measure", "method", "baseline"])["verdict"]
    for measure in ("deletion", "flipping"):  # what insertion and ROAD fill in is as bright
        for baseline in ("random", "centre"):
            assert verdicts[measure, "truth", baseline] == "better"
            assert verdicts[measure, "opposite", baseline] == "worse"


def test_maps_are_brought_into_the_view(net, photo):
    from xailib.images.frames import Frame

    small = explained(net, photo, UNTIED[:16, :16], frame=Frame((32, 32), (16, 16), (0, 0, 16, 16)))
    assert maps_of(net, photo, [small])["gradcam"].shape == (SIDE, SIDE)
    part = explained(net, photo, UNTIED[:16, :16], frame=Frame((32, 32), (32, 32), (0, 0, 16, 16)))
    with pytest.raises(InputError, match="gradcam does not cover the view"):
        maps_of(net, photo, [part])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ([{}, {"image_sha256": "0" * 64, "image": "dog"}], "different photographs"),
        ([{}, {"classifier": "other@123"}], "two networks"),
        ([{}, {"target": 1, "target_name": "thing 1"}], "two targets"),
        ([{}, {}], "'gradcam' is taken"),
        ([{}, {"method": "random"}], "'random' is taken"),
        ([{"image_sha256": "0" * 64}], "not the photograph 'blobs-0'"),
        ([{"classifier": "other@123"}], "explains the network other@123, not plain@0000"),
        ([], "none given"),
    ],
)
def test_what_does_not_belong_together_raises(net, photo, given, line):
    with pytest.raises(InputError, match=line):
        explanation_curves(net, photo, [explained(net, photo, **changes) for changes in given])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"steps": 0}, "steps: 0"),
        ({"draws": 0}, "draws: 0"),
        ({"percentiles": [50, 100]}, "road_percentiles: 50, 100"),
        ({"percentiles": [0]}, "road_percentiles: 0"),
        ({"engine": "warp"}, "engine"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_parameters_out_of_range_raise(net, photo, options, line):
    with pytest.raises(InputError, match=line):
        explanation_curves(net, photo, [explained(net, photo)], **options)


def test_wrong_maps_raise(net, photo):
    with pytest.raises(InputError, match="map is \\(8, 8\\), not the view's \\(32, 32\\)"):
        faithfulness_curves(net, photo, TARGET, {"map": np.ones((8, 8), np.float32)})
    with pytest.raises(InputError, match="not finite"):
        faithfulness_curves(net, photo, TARGET, {"map": UNTIED * np.float32("nan")})
    with pytest.raises(InputError, match="target"):
        faithfulness_curves(net, photo, 99, {"map": UNTIED})


def test_the_neutral_colour_is_what_the_network_sees_as_zero(net):
    colour = neutral_colour(net)
    assert np.abs(colour / 255 - (0.4, 0.5, 0.6)).max() <= 0.5 / 255 + 1e-6
    view = np.zeros((4, 4, 3), np.uint8)
    shown = pixels.deleted(view, np.arange(16, dtype=np.float32).reshape(4, 4), 0.25, colour)
    assert (shown[3] == colour).all()
    assert not shown[:3].any()


# Tables


def made_up(**values):
    """Scores by method of any number of photographs."""
    same = {"target": "t", "measure": "deletion", "better": "lower"}
    rows = [
        {"image": str(i), "method": m, "value": v, **same}
        for m, column in values.items()
        for i, v in enumerate(column)
    ]
    return pd.DataFrame(rows)


def test_comparison_equals_scipys_tests():
    drawn = {
        m: RNG.normal(level, 1, 12) for m, level in (("a", -2), ("random", 0), ("centre", 0.2))
    }
    table = compare_with_baselines(made_up(**drawn)).set_index(["method", "baseline"])
    assert list(table.index) == [("a", "random"), ("centre", "random"), ("a", "centre")]
    for (method, baseline), row in table.iterrows():
        gap = drawn[method] - drawn[baseline]
        assert row["images"] == 12
        assert row["difference"] == pytest.approx(gap.mean())
        assert row["p"] == pytest.approx(wilcoxon(gap).pvalue)
        peer = ttest_1samp(gap, 0).confidence_interval()
        assert (row["low"], row["high"]) == pytest.approx((peer.low, peer.high))
    np.testing.assert_array_equal(table["p_adjusted"], holm(table["p"].to_numpy()))
    assert table.loc[("a", "random"), "verdict"] == "better"  # lower
    assert table.loc[("centre", "random"), "verdict"] == "undecided"


def test_few_or_equal_photographs_decide_nothing():
    single = compare_with_baselines(made_up(a=[0.1], random=[0.9], centre=[0.9]))
    assert single["low"].isna().all()
    assert set(single["verdict"]) == {"undecided"}
    equal = compare_with_baselines(made_up(a=[0.5] * 9, random=[0.5] * 9, centre=[0.5] * 9))
    assert set(equal["p"]) == {1.0}
    assert set(equal["verdict"]) == {"undecided"}


def test_one_photograph_does_not_turn_a_verdict_around():
    """The ranks say lower in all but one, whose size alone makes the mean higher."""
    gap = np.array([*np.linspace(-0.02, -0.01, 13), 1.0])
    scores = made_up(a=gap, random=np.zeros(14))
    row = compare_with_baselines(scores, ["random"]).iloc[0]
    assert row["p_adjusted"] < 0.05
    assert row["difference"] > 0
    assert row["verdict"] == "undecided"


def test_only_photographs_that_both_have_are_compared():
    scores = made_up(a=[1.0, 2.0, 3.0], random=[0.0, 0.0], centre=[0.0] * 3)
    table = compare_with_baselines(scores).set_index(["method", "baseline"])
    assert table.loc[("a", "random"), ["images", "difference"]].tolist() == [2, 1.5]
    assert table.loc[("a", "centre"), ["images", "difference"]].tolist() == [3, 2]


def test_a_comparison_without_photographs_is_no_test():
    few = {m: RNG.normal(size=9) for m in ("a", "random")}
    scores = made_up(**few)
    elsewhere = made_up(b=[0.1] * 9).assign(image=lambda table: "x" + table["image"])
    alone = compare_with_baselines(scores, ["random"])
    table = compare_with_baselines(pd.concat([scores, elsewhere]), ["random"]).set_index("method")
    assert table.loc["a", "p_adjusted"] == alone["p_adjusted"].item() == alone["p"].item() < 1
    assert (table.loc["b", "images"], table.loc["b", "verdict"]) == (0, "undecided")
    assert np.isnan(table.loc["b", "p_adjusted"])
    none = compare_with_baselines(pd.concat([scores[9:], elsewhere]), ["random"])
    assert none["p_adjusted"].isna().all()


def test_wrong_tables_raise():
    with pytest.raises(InputError, match="no method 'centre'"):
        compare_with_baselines(made_up(a=[1.0], random=[0.0]))
    with pytest.raises(InputError, match="nothing to compare"):
        compare_with_baselines(made_up(random=[0.0]), ["random"])


# Figures


@pytest.fixture(scope="module")
def tables(net):
    photos = [photograph(seed) for seed in range(3)]
    curves = pd.concat(
        explanation_curves(net, photo, [explained(net, photo)], steps=4, percentiles=[50], **EAGER)
        for photo in photos
    )
    return curves, compare_with_baselines(curve_scores(curves))


def test_charts_show_every_method_and_measure(tables, tmp_path):
    curves, comparison = tables
    figure = faithfulness_figures.curves_chart(curves)
    assert [axis.get_title() for axis in figure.axes] == [
        "deletion",
        "insertion",
        "region flipping",
    ]
    wide = curves[curves["measure"] == "deletion"].pivot_table(
        index="method", columns="fraction", values="score"
    )
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(drawn["Grad-CAM"], wide.loc["gradcam"])
    assert set(drawn) == {"Grad-CAM", "random field", "centred blob"}
    figure.savefig(tmp_path / "curves.svg")
    figure = faithfulness_figures.differences_chart(comparison)
    assert [axis.get_title() for axis in figure.axes][-1] == "ROAD"
    marks = [line for line in figure.axes[0].lines if line.get_marker() in "oD"]
    shown = sorted(float(x) for line in marks for x in line.get_xdata())
    deletion = comparison[comparison["measure"] == "deletion"]
    np.testing.assert_allclose(shown, sorted(-deletion["difference"]))  # lower is better
    figure.savefig(tmp_path / "differences.svg")


def test_what_does_not_beat_a_baseline_is_named():
    rows = [
        {"method": m, "baseline": b, "measure": measure, "verdict": verdict}
        for m, b, measure, verdict in (
            ("lime", "random", "road", "undecided"),
            ("scorecam", "random", "deletion", "worse"),
            ("gradcam", "random", "deletion", "better"),
            ("lime", "random", "deletion", "undecided"),
            ("gradcam", "centre", "road", "better"),
        )
    ]
    table = pd.DataFrame(rows)
    said = faithfulness_figures.not_beaten(table, "random")
    assert said == "deletion: ScoreCAM (worse), LIME; ROAD: LIME"
    assert faithfulness_figures.not_beaten(table, "centre") == ""


def test_the_film_strip_prints_each_score(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    figure = faithfulness_figures.film_strip(
        [[picture] * 2], [[0.91, 0.08]], ["0 %", "50 %"], ["a"]
    )
    assert [axis.get_xlabel() for axis in figure.axes] == ["0.91", "0.08"]
    figure.savefig(tmp_path / "strip.png")
    with pytest.raises(InputError, match="film_strip"):
        faithfulness_figures.film_strip([[picture]], [[0.9, 0.1]], ["0 %"], ["a"])
