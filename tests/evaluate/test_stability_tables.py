"""Repeatability: tables from samples of a known function, and their figures."""

from dataclasses import replace

import numpy as np
import pytest
from linear import SUPERPIXELS, parts, run
from nets import classifier, photograph

from xailib.compare.iou import iou
from xailib.errors import InputError
from xailib.evaluate.stability import (
    compared_sizes,
    cuts_table,
    designs_table,
    disjoint_runs,
    needed,
    photographs_table,
    runs_table,
    weights_table,
)
from xailib.explain.cam.methods import explain_cam
from xailib.explain.explanation import Explanation
from xailib.explain.lime import explain_lime
from xailib.explain.sampling import antithetic
from xailib.explain.stability import fit, stability
from xailib.images.frames import Frame
from xailib.report.figures.stability import designs_chart, runs_chart, selection_map, weights_chart


def explanation(samples, noise=1.0, image="one", **options):
    model = parts(*run(samples, noise, **options))
    raw = model.weights[model.segments].astype(np.float32)
    frame = Frame.whole(*raw.shape)
    return Explanation(
        "lime", image, "0" * 64, "net", 0, "thing", 0.5, frame, raw, raw, True, 0, {}, model
    )


def test_a_long_run_is_cut_into_runs_that_share_only_the_whole_view():
    one = explanation(330)
    shown, scores = one.superpixels.shown, one.superpixels.scores
    found = disjoint_runs(one, 100)
    assert found.shape == (3, SUPERPIXELS)
    for place, weights in enumerate(found):
        rows = [0, *range(100 * place + 1, 100 * place + 100)]
        expected = fit(shown[rows], scores[rows], np.ones((1, 100), int))[0]
        np.testing.assert_allclose(weights, expected)


def test_runs_agree_more_the_longer_they_are():
    table = runs_table([explanation(2000)], [50, 200, 1000, 2000], 5)
    assert table["samples"].tolist() == [50, 200, 1000]  # one run of 2000 has no other
    assert table["pairs"].tolist() == [780, 45, 1]
    for measure in ("iou", "shared", "rank_correlation"):
        assert table[measure].is_monotonic_increasing
    assert table["scatter"].is_monotonic_decreasing
    assert table["halves"].notna().all()
    with pytest.raises(InputError, match="sizes: the long runs are too short"):
        runs_table([explanation(90)], [50])


def test_compared_sizes_are_those_that_all_photographs_have():
    pools = [explanation(800), explanation(400, image="two")]
    table = runs_table(pools, [50, 100, 100, 200, 400], 5)  # a size given twice counts once
    assert compared_sizes(table) == (50, 200)
    assert compared_sizes(table[table["image"] == "one"]) == (50, 400)


def test_designs_are_measured_against_independent_samples():
    pools = {
        "independent": [explanation(1024, 0.0, pairs=1.0)],
        "antithetic": [explanation(1024, 0.0, pairs=1.0, design=antithetic)],
    }
    table = designs_table(pools, 128).set_index("design")
    assert table.loc["independent", "passes"] == 1
    assert table.loc["antithetic", "passes"] < 0.6
    assert (table["runs"] == 8).all()
    with pytest.raises(InputError, match="samples: 1 run"):
        designs_table(pools, 1000)
    with pytest.raises(InputError, match="pools: antithetic of 'one' has no independent samples"):
        designs_table({"antithetic": pools["antithetic"]}, 128)


def test_another_cut_is_compared_with_the_usual_one():
    pool, same = explanation(1000), explanation(100)
    parts = same.superpixels
    order = np.random.default_rng(0).permutation(SUPERPIXELS)  # other numbers, the same cut
    again = replace(
        parts,
        segments=order[parts.segments],
        weights=parts.weights[np.argsort(order)],
        shown=parts.shown[:, np.argsort(order)],
    )
    halved = replace(
        parts,
        segments=parts.segments // 2,
        weights=parts.weights[:10],
        shown=parts.shown[:, :10],
    )
    others = {"again": again, "halved": halved}
    others = {name: [replace(same, superpixels=other)] for name, other in others.items()}
    found = cuts_table([pool], others, 5).set_index("cut")
    assert found["same"].tolist() == pytest.approx([1, 1 / 2])  # each in one twice as large
    assert found["superpixels"].tolist() == [SUPERPIXELS, 10]
    runs = disjoint_runs(pool, 100)
    chosen = [np.isin(parts.segments, np.argsort(-weights)[:5]) for weights in runs]
    mask = np.isin(parts.segments, np.argsort(-parts.weights)[:5])
    assert found.loc["again", "iou"] == pytest.approx(np.mean([iou(mask, one) for one in chosen]))
    pairs = [iou(chosen[i], chosen[j]) for i in range(10) for j in range(i)]
    assert found["usual"].tolist() == pytest.approx([np.mean(pairs)] * 2)
    with pytest.raises(InputError, match="pools: 1 run of 600 samples"):
        cuts_table([pool], {"again": [explanation(600)]})
    with pytest.raises(InputError, match="pools: none is of 'two'"):
        cuts_table([pool], {"again": [explanation(100, image="two")]})


def test_needed_is_where_auto_stops():
    net, photo = classifier(), photograph()
    options = {"segments": "slic", "seed": 3}
    auto = explain_lime(net, photo, 1, num_samples="auto", num_features=2, **options)
    count = len(auto.superpixels.shown)
    assert count < 4000
    pool = explain_lime(net, photo, 1, num_samples=count + 300, **options)
    assert needed(pool, num_features=2) == count
    assert needed(explanation(400, 100.0)) is None


def test_what_an_explanation_says_of_itself():
    clear, noisy = explanation(400, 1e-6), explanation(400, 100.0, "two")
    table, details = photographs_table([clear, noisy], 10)
    assert table["image"].tolist() == ["one", "two"]
    assert table["stable"].tolist() == [True, False]
    assert table.loc[0, "sure"] == table.loc[0, "chosen"] == 10
    assert table.loc[1, "sure"] < 5
    assert table.loc[0, "needed"] == 250
    assert np.isnan(table.loc[1, "needed"])
    assert details[0].shared == table.loc[0, "shared"] == stability(clear.superpixels).shared
    bare = replace(clear, superpixels=replace(clear.superpixels, shown=None))
    with pytest.raises(InputError, match="lime of 'one' stores no samples"):
        photographs_table([bare])
    with pytest.raises(InputError, match=r"gradcam of .* stores no samples"):
        photographs_table([explain_cam(classifier(), photograph(), "gradcam")])


def test_figures_show_what_the_tables_say():
    one = explanation(800)
    table = runs_table([one], [100, 200, 400], 5)
    chart = runs_chart(table)
    np.testing.assert_allclose(chart.axes[0].lines[0].get_ydata(), table["shared"])
    np.testing.assert_allclose(chart.axes[1].lines[0].get_ydata(), table["iou"])
    found = stability(one.superpixels, 5)
    rows = weights_table(one, found, 5)
    assert (rows["weight"].to_numpy() == one.superpixels.weights[rows["superpixel"]]).all()
    upper = weights_chart(rows).axes[0]
    in_mask, others = (line.get_ydata() for line in upper.lines[1:3])
    assert len(in_mask) == 5
    assert in_mask.min() >= others.max()
    passes = designs_table({"independent": [one], "antithetic": [one]}, 100)
    bars = designs_chart(passes).axes[0].patches
    assert [bar.get_width() for bar in bars] == [1, 1]
    values = selection_map(one, found)
    assert values.shape == one.saliency.shape
    assert set(np.unique(values)) == set(found.selection_frequency.astype(np.float32))
    bare = replace(one, superpixels=None)
    with pytest.raises(InputError, match="lime has no superpixels"):
        selection_map(bare, found)
    with pytest.raises(InputError, match="lime of 'one' stores no samples"):
        weights_table(bare, found)
