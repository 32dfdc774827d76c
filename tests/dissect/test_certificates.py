"""Scores of units and concepts against independent ones, NeuronEval's tests, and honest nulls."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from xailib.dissect import certificates as ours
from xailib.errors import InputError


@pytest.fixture(scope="module")
def drawn():
    """Return activations with ties (as ReLU makes them) and concepts of many sizes."""
    rng = np.random.default_rng(0)
    activations = np.maximum(rng.normal(size=(200, 7)), 0).astype(np.float32)
    masks = rng.random((9, 200)) < rng.uniform(0.02, 0.6, (9, 1))
    masks[:, 0] = True
    return activations, masks


def savage(values):
    return -np.log(1 - stats.rankdata(values) / (len(values) + 1))


def literal(score, values, mask):
    """Return one unit's score for one concept by other people's code."""
    on = (values >= np.sort(values)[-10]) & (values > values.min())  # 5 % of 200
    if score == "auprc":  # ties are broken by position, which sklearn has no way to say
        order = np.empty(len(values))
        order[np.argsort(-values, kind="stable")] = -np.arange(len(values))
        return metrics.average_precision_score(mask, order)
    return {
        "top_down": lambda: np.corrcoef(savage(values), mask)[0, 1],
        "correlation": lambda: np.corrcoef(values, mask)[0, 1],
        "cosine": lambda: values @ mask / np.linalg.norm(values) / np.linalg.norm(mask),
        "auroc": lambda: metrics.roc_auc_score(mask, values),
        "f1": lambda: metrics.f1_score(mask, on),
        "iou": lambda: metrics.jaccard_score(mask, on),
    }[score]()


@pytest.mark.parametrize("score", ours.SCORES)
def test_all_at_once_is_each_alone(drawn, score):
    activations, masks = drawn
    found = ours.score_all(activations, masks, score)
    for unit, values in enumerate(activations.T):
        for concept, mask in enumerate(masks):
            assert found[unit, concept] == pytest.approx(literal(score, values, mask), abs=2e-5)


@pytest.mark.parametrize("score", ours.SCORES)
def test_a_dead_unit_and_an_empty_concept_score_nothing(drawn, score):
    activations, masks = drawn
    activations, masks = activations.copy(), masks.copy()
    activations[:, 2], masks[4] = 0, False
    found = ours.score_all(activations, masks, score)
    nothing = 0.5 if score == "auroc" else 0
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 4], nothing, atol=1e-6)
    if score != "auprc":  # which of equals orders by position
        np.testing.assert_allclose(found[2], nothing, atol=1e-6)


def test_what_cannot_be_scored_is_refused(drawn):
    activations, masks = drawn
    with pytest.raises(InputError, match="unknown name 'iuo'; did you mean iou"):
        ours.score_all(activations, masks, "iuo")
    with pytest.raises(InputError, match="masks:"):
        ours.score_all(activations, masks[:, 1:])
    with pytest.raises(InputError, match="not all are finite"):
        ours.score_all(np.where(activations == activations.max(), np.nan, activations), masks)
    with pytest.raises(InputError, match="untrained: 199 rows for 200"):
        ours.certify(activations, activations[1:], masks, draws=400)


def damaged(kind, masks, rng):
    """Return concepts without half of their images, or with as many wrong ones."""
    found = masks.copy()
    for mask, whole in zip(found, masks, strict=True):
        count = whole.sum()
        if kind == "missing":
            mask[rng.choice(np.flatnonzero(whole), count // 2, replace=False)] = False
        else:
            mask[rng.choice(np.flatnonzero(~whole), count, replace=False)] = True
    return found


@pytest.mark.parametrize("kind", ["missing", "extra"])
@pytest.mark.parametrize("score", ["top_down", "correlation", "cosine", "auprc", "f1", "iou"])
def test_neuronevals_sanity_tests(kind, score):
    """Units follow concepts, with noise: a damaged concept must score clearly less."""
    rng = np.random.default_rng(1)
    masks = rng.random((60, 1500)) < 0.05
    activations = masks.T + 0.4 * rng.normal(size=(1500, 60))
    whole = np.diag(ours.score_all(activations, masks, score))
    less = np.diag(ours.score_all(activations, damaged(kind, masks, rng), score))
    assert (less < whole).mean() > 0.95


def recall(activations, masks):
    return np.array([(ours.active(activations).T & mask).sum(1) / mask.sum() for mask in masks]).T


def precision(activations, masks):
    on = ours.active(activations).T
    return np.array([(on & mask).sum(1) / on.sum(1) for mask in masks]).T


@pytest.mark.parametrize(("kind", "score"), [("missing", recall), ("extra", precision)])
def test_neuronevals_sanity_tests_can_fail(kind, score):
    """Recall and precision each fail one of them, as NeuronEval found."""
    rng = np.random.default_rng(1)
    masks = rng.random((60, 1500)) < 0.05
    activations = masks.T + 0.4 * rng.normal(size=(1500, 60))
    less = np.diag(score(activations, damaged(kind, masks, rng)))
    assert (less < np.diag(score(activations, masks))).mean() < 0.95


def test_each_units_own_scores_are_those_of_all(drawn):
    activations, masks = drawn
    own = np.array([3, 0, 8, 1, 1, 5, 2])
    found = ours.of_each(activations, masks[own].T)
    for score in found:
        every = ours.score_all(activations, masks, score)
        np.testing.assert_allclose(found[score], every[np.arange(7), own], atol=2e-5)
    assert ours.of_each(activations, np.zeros_like(activations, bool)).isna().all().all()


def test_partial_are_the_correlation_of_residuals(drawn):
    activations, masks = drawn
    view = np.random.default_rng(2).normal(size=(200, 3))
    found = ours.partial(activations, masks, view)
    design = np.column_stack([np.ones(200), view])

    def left(values):
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    for unit, values in enumerate(activations.T):
        ranks = left(savage(values))
        for concept, mask in enumerate(masks):
            expected = np.corrcoef(ranks, left(mask.astype(float)))[0, 1]
            assert found[unit, concept] == pytest.approx(expected, abs=1e-5)
    inside = np.vstack([masks[:1], view.T[:1] > 0])
    explained = ours.partial(activations, inside, inside.T.astype(float))
    np.testing.assert_array_equal(explained, 0)


def made(rng, units, strength):
    """Return units that follow brightness, and of concepts what `strength` says."""
    masks = rng.random((30, 800)) < 0.08
    brightness = rng.normal(size=(800, 2))
    masks[0] = brightness[:, 0] > 1.3  # "sky", which brightness gives away
    mixing = brightness @ rng.normal(size=(2, units))
    return masks, brightness, mixing + strength * masks[rng.integers(1, 30, units)].T


def untrained(rng, brightness, units):
    noise = 0.8 * rng.normal(size=(len(brightness), units))
    return brightness @ rng.normal(size=(2, units)) + noise


def test_units_that_follow_concepts_are_certified_and_random_ones_are_not():
    rng = np.random.default_rng(3)
    masks, brightness, activations = made(rng, 150, 3.0)
    activations += 0.8 * rng.normal(size=activations.shape)
    view = ours.untrained_view(untrained(rng, brightness, 60), 4)
    null, control = (untrained(rng, brightness, 200) for _ in range(2))
    found = ours.certify(activations, null, masks, view=view, draws=400)
    chance = ours.certify(control, null, masks, view=view, draws=400)
    assert (ours.adjust(found["p"]) < ours.LEVEL).mean() > 0.9
    assert (ours.adjust(chance["p"]) < ours.LEVEL).mean() < 0.05
    assert (found["low"] < found["score"]).all()
    assert (found["score"] < found["high"]).all()
    # Without the view, the null of random labels alone would certify what brightness explains.
    blind = ours.certify(control, null, masks, draws=400)
    assert (ours.adjust(blind["p_label"]) < ours.LEVEL).mean() > 0.3
    assert (ours.adjust(blind["p"]) < ours.LEVEL).mean() < 0.05


def test_the_p_of_random_labels_is_that_of_shuffled_ones():
    rng = np.random.default_rng(4)
    masks = rng.random((5, 300)) < 0.1
    activations = rng.normal(size=(300, 40)) + 0.5 * masks[0][:, None]
    found = ours.certify(activations, rng.normal(size=(300, 10)), masks, draws=400)
    _, second = ours.halves(300)
    for row in found.head(8).itertuples():
        mask = masks[row.concept, second]
        values = activations[second, row.unit]
        shuffled = [np.corrcoef(savage(values), rng.permutation(mask))[0, 1] for _ in range(800)]
        assert row.p_label == pytest.approx(np.mean(np.array(shuffled) >= row.score), abs=0.05)


def test_dead_units_get_no_certificate_and_halves_are_disjoint():
    rng = np.random.default_rng(5)
    masks = rng.random((4, 100)) < 0.3
    activations = np.column_stack([np.zeros(100), masks[1]]).astype(float)
    found = ours.certify(activations, rng.normal(size=(100, 50)), masks, draws=400)
    assert found["dead"].tolist() == [True, False]
    assert found["p"][0] == 1
    assert found["concept"][1] == found["again"][1] == 1
    assert found["score"][1] == pytest.approx(1)
    first, second = ours.halves(101)
    assert sorted([*first, *second]) == list(range(101))


def test_constant_units_of_untrained_networks_are_no_part_of_the_null():
    """Where a deep network's activations shrink to rounding, they would certify anything."""
    rng = np.random.default_rng(6)
    masks = rng.random((4, 100)) < 0.3
    activations, null = rng.normal(size=(100, 3)), rng.normal(size=(100, 50))
    shrunk = null.copy()
    shrunk[:, 10:] = 0.03
    alone, padded = (
        ours.certify(activations, table, masks, draws=50) for table in (null[:, :10], shrunk)
    )
    assert alone["p_unit"].min() >= 1 / 11
    pd.testing.assert_frame_equal(alone, padded)
    with pytest.raises(InputError, match="untrained: all units are constant"):
        ours.certify(activations, shrunk[:, 10:], masks)


def test_agreement_and_its_chance_level():
    related = np.eye(3, dtype=bool)
    related[0, 1] = related[1, 0] = True
    first, second = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 2])
    found = ours.agreement(first, second, related)
    assert found == {
        "same": 0.5,
        "same_chance": pytest.approx((2 * 1 + 1 * 1 + 1 * 2) / 16),
        "related": 0.75,
        "related_chance": pytest.approx((2 * 2 + 1 * 2 + 1 * 2) / 16),
    }
