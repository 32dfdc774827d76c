"""How sure LIME is: refits against scikit-learn and lime, predictions against real runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lime.lime_image import LimeImageExplainer
from linear import SUPERPIXELS, parts, run
from nets import classifier, photograph
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances

from xailib.errors import InputError
from xailib.explain import stability as module
from xailib.explain.lime import explain_lime, explain_lime_targets
from xailib.explain.sampling import DESIGNS, antithetic, independent, orthogonal
from xailib.explain.stability import (
    bootstrap_counts,
    closeness,
    fit,
    half_weights,
    mask_iou,
    mask_is_stable,
    rank_correlation,
    shared,
    stability,
    supporters,
)
from xailib.networks.classifier import Classifier


@pytest.mark.parametrize("design", DESIGNS)
def test_the_fit_is_lime_s_own(design):
    found = explain_lime(classifier(), photograph(), num_samples=60, design=design).superpixels
    np.testing.assert_allclose(
        fit(found.shown, found.scores, np.ones((1, 60), int))[0], found.weights, atol=1e-6
    )


def test_closeness_is_lime_s_kernel_of_the_cosine_distance():
    shown = np.random.default_rng(0).random((20, 7)) < 0.5
    shown[0], shown[5] = True, False
    distances = pairwise_distances(shown.astype(int), shown[:1].astype(int), metric="cosine")
    expected = LimeImageExplainer(kernel_width=0.25).base.kernel_fn(distances.ravel())
    np.testing.assert_allclose(closeness(shown), expected, rtol=1e-12)


@pytest.mark.parametrize("most", [2**18, 500], ids=["at once", "a few samples at a time"])
def test_counts_are_repeated_samples(monkeypatch, most):
    monkeypatch.setattr(module, "_PAIRS", most)
    shown, scores = run(90, 0.3)
    counts = np.random.default_rng(0).integers(0, 3, (40, 90))
    found = fit(shown, scores + 100, counts)
    for weights, count in zip(found, counts, strict=True):
        rows = np.repeat(np.arange(90), count)
        peer = Ridge(alpha=1).fit(shown[rows], scores[rows], closeness(shown)[rows])
        np.testing.assert_allclose(weights, peer.coef_, rtol=0, atol=1e-11)
    if torch.cuda.is_available():
        on_a_gpu = fit(shown, scores + 100, counts, "cuda")
        np.testing.assert_allclose(on_a_gpu, found, rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", [1, 2, 7])
def test_the_second_halves_are_fitted_to_the_other_samples(block):
    shown, scores = run(90, 0.3)
    one = np.zeros((module.REFITS, -(-90 // block) - 1), int)
    one[:, ::2] = 1
    left = 1 - np.random.default_rng(module.SEED).permuted(one, axis=1)[0]
    count = np.repeat(np.r_[1, left], block)[:90]
    _, other = half_weights(shown, scores, block)
    np.testing.assert_allclose(other[0], fit(shown, scores, count[None])[0], atol=1e-11)


def test_the_interval_covers_what_other_runs_give():
    runs = [run(300, 1.0, seed) for seed in range(40)]
    weights = np.array([fit(*one, np.ones((1, 300), int))[0] for one in runs])
    covered = []
    for one in runs[:20]:
        found = stability(parts(*one))
        covered.append((found.low <= weights.mean(0)) & (weights.mean(0) <= found.high))
    assert 0.9 <= np.mean(covered) <= 0.99
    widths = found.high - found.low
    assert widths.mean() / 3.92 == pytest.approx(weights.std(0, ddof=1).mean(), rel=0.15)


def test_halves_agree_as_much_as_real_runs_of_half_the_length():
    runs = [fit(*run(150, 1.0, seed), np.ones((1, 150), int))[0] for seed in range(40)]
    chosen = supporters(np.array(runs), 10)
    real = shared(chosen[::2], chosen[1::2]).mean()
    ranks = rank_correlation(np.array(runs[::2]), np.array(runs[1::2])).mean()
    found = [stability(parts(*run(300, 1.0, seed))) for seed in range(100, 112)]
    assert np.mean([one.shared for one in found]) == pytest.approx(real, abs=0.05)
    assert np.mean([one.rank_correlation for one in found]) == pytest.approx(ranks, abs=0.05)


def test_without_noise_stable_and_with_nothing_but_noise_not():
    clear, noisy = run(400, 1e-6), run(400, 100.0)
    found = stability(parts(*clear))
    assert found.stable
    assert found.shared == found.shared_low == found.iou == 1
    assert found.rank_correlation == pytest.approx(1)
    assert set(found.selection_frequency) == {0, 1}
    assert mask_is_stable(*clear, 10)
    assert not stability(parts(*noisy)).stable
    assert not mask_is_stable(*noisy, 10)


def test_the_mask_is_that_of_lime_mask():
    weights = np.array([[0.1, 0.4, -0.5, 0.3, -0.1]])
    assert supporters(weights, 2).tolist() == [[False, True, False, True, False]]
    assert supporters(weights, 5).tolist() == [[True, True, False, True, False]]
    one, other = supporters(weights, 2), supporters(weights, 3)
    assert mask_iou(one, other, np.array([5, 1, 9, 4, 9]))[0] == 5 / 10
    assert shared(one, other)[0] == 2 / 3
    nothing = np.zeros((1, 5), bool)
    assert shared(nothing, nothing)[0] == mask_iou(nothing, nothing, np.ones(5, int))[0] == 1


def test_a_network_that_does_not_answer_has_no_ranks():
    shown, _ = run(60, 0.0)
    found = stability(parts(shown, np.full(60, 0.25)))
    assert np.isnan(found.rank_correlation)
    some = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(rank_correlation(some, some[:, ::-1]), [-1, np.nan])


@pytest.mark.parametrize("block", [1, 2, 7])
def test_blocks_stay_together_and_the_first_is_always_there(block):
    counts = bootstrap_counts(30, block)
    assert counts.shape[1] == 30
    assert (counts[:, :block] == 1).all()
    for start in range(0, 30, block):
        assert (counts[:, start : start + block] == counts[:, [start]]).all()
    shown, scores = run(30, 0.0)
    one, other = half_weights(shown, scores, block)
    assert one.shape == other.shape == (100, SUPERPIXELS)


@pytest.mark.parametrize("design", DESIGNS)
def test_auto_stops_at_what_a_fixed_number_would_give(design):
    net, photo = classifier(), photograph()
    options = {"segments": "slic", "num_features": 2, "design": design}
    found = explain_lime(net, photo, 1, num_samples="auto", max_samples=1500, **options)
    count = len(found.superpixels.shown)
    assert count < 1500
    assert stability(found.superpixels, 2).stable
    assert found.parameters["num_samples"] == "auto"
    assert found.parameters["stopped"] == "stable"
    if design == "independent":  # the others draw blocks
        fixed = explain_lime(net, photo, 1, num_samples=count, **options)
        np.testing.assert_array_equal(found.superpixels.shown, fixed.superpixels.shown)
        np.testing.assert_allclose(found.raw, fixed.raw, atol=1e-6)


def test_auto_stops_at_the_cap_and_the_engine_of_the_first_samples_serves_all(monkeypatch):
    asked, real = [], Classifier.forward_batches

    def scored(self, make, count, *, engine, **options):
        asked.append(engine)
        return replace(real(self, make, count, engine="eager", **options), engine="fused")

    monkeypatch.setattr(Classifier, "forward_batches", scored)
    options = {"num_samples": "auto", "max_samples": 260, "num_features": 1, "segments": "slic"}
    capped = explain_lime(classifier(), photograph(), 4, **options)
    assert asked == ["auto", "fused"]
    assert capped.parameters["engine"] == "fused"
    assert len(capped.superpixels.shown) == 260
    assert capped.parameters["stopped"] == "max_samples"
    assert not stability(capped.superpixels, 1).stable


def test_auto_waits_for_every_target():
    net, photo = classifier(), photograph()
    options = {"num_samples": "auto", "max_samples": 1000, "num_features": 2, "segments": "slic"}
    alone = [explain_lime(net, photo, target, **options) for target in (0, 1)]
    together = explain_lime_targets(net, photo, (0, 1), **options)
    counts = [len(one.superpixels.shown) for one in alone]
    assert {len(one.superpixels.shown) for one in together} == {max(counts)}


@pytest.mark.parametrize("design", DESIGNS.values())
def test_every_superpixel_is_shown_in_half_of_the_samples(design):
    rows = design(np.random.RandomState(0), 4096, SUPERPIXELS)
    assert rows.shape == (4096, SUPERPIXELS)
    np.testing.assert_allclose(rows.mean(axis=0), 0.5, atol=0.04)
    signs = 2 * rows - 1
    np.testing.assert_allclose(signs.T @ signs / 4096, np.eye(SUPERPIXELS), atol=0.08)


def test_pairs_are_opposites_and_blocks_are_orthogonal():
    for design in (antithetic, orthogonal):
        rows = design(np.random.RandomState(0), 64, SUPERPIXELS)
        np.testing.assert_array_equal(rows[::2], 1 - rows[1::2])
    signs = 2 * rows - 1
    np.testing.assert_array_equal(signs.T @ signs, 64 * np.eye(SUPERPIXELS, dtype=int))


@pytest.mark.parametrize("design", [antithetic, orthogonal])
def test_opposite_samples_scatter_less_where_superpixels_act_in_pairs(design):
    def scatter(how):
        runs = [run(200, 0.0, seed, how, pairs=1.0) for seed in range(20)]
        return np.var([fit(*one, np.ones((1, 200), int))[0] for one in runs], axis=0).mean()

    assert scatter(design) < 0.5 * scatter(independent)


def test_errors():
    good = parts(*run(40, 0.1))
    with pytest.raises(InputError, match="it stores no samples"):
        stability(replace(good, shown=None, scores=None))
    with pytest.raises(InputError, match="8 samples cannot be split"):
        stability(replace(good, shown=good.shown[:8], scores=good.scores[:8]))
    with pytest.raises(InputError, match="num_features: 0"):
        stability(good, 0)
