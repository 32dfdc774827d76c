"""Intervals hold what they say, and tests and corrections equal literal ones."""

import numpy as np
import pytest
from scipy import stats

from xailib.compare.intervals import (
    compared_shares,
    crossed_interval,
    decided,
    holm,
    mean_interval,
    no_more_than,
    paired,
    pseudo_values,
    share_interval,
)

TRIALS = 4000


def drawn(name, count, seed=0):
    """Made-up paired differences of mean zero: (count, trials)."""
    rng = np.random.default_rng(seed)
    shape = count, TRIALS
    if name == "normal":
        return rng.normal(size=shape)
    if name == "bounded":
        return rng.beta(2, 5, shape) - rng.beta(2, 5, shape)
    return rng.exponential(size=shape) - 1


def held(limits, truth=0.0):
    low, high = limits
    return np.mean((low <= truth) & (truth <= high))


@pytest.mark.parametrize("count", [6, 10, 20])
@pytest.mark.parametrize(("name", "least"), [("normal", 0.94), ("bounded", 0.94), ("skewed", 0.88)])
def test_of_few_photographs_the_interval_holds_the_mean(name, count, least):
    """As often as it says; where differences are skewed, more often than the bootstrap's."""
    values = drawn(name, count)
    ours = held(mean_interval(values))
    draws = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), size=400)
    theirs = held(np.quantile(draws @ values / count, (0.025, 0.975), axis=0))
    assert least <= ours <= 0.965
    assert theirs < ours - (0.01 if count == 20 else 0.025)


def test_the_interval_is_students():
    values = np.random.default_rng(2).normal(size=(9, 2))
    low, high = mean_interval(values)
    peer = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], [peer.low, peer.high])
    assert [float(end) for end in mean_interval(np.full(4, 0.5))] == [0.5, 0.5]
    assert all(np.isnan(end).all() and end.shape == (2,) for end in mean_interval(values[:1]))


@pytest.mark.parametrize(("spread", "least"), [(0.0, 0.94), (0.5, 0.9), (2.0, 0.93)])
def test_draws_that_photographs_share_are_part_of_the_interval(spread, least):
    """The reviewers' counterexample: over photographs alone, one draw's luck looks certain."""
    rng = np.random.default_rng(0)
    shape = 1000, 6, 5
    values = rng.normal(size=shape) + rng.normal(size=(1000, 6, 1))
    values += spread * rng.normal(size=(1000, 1, 5))
    ours = held(np.array([crossed_interval(one) for one in values]).T)
    alone = held(mean_interval(values.mean(axis=2).T))
    assert ours >= least
    assert alone < (0.75 if spread == 2 else 1)


def test_the_crossed_interval_is_a_literal_one():
    values = np.random.default_rng(1).normal(size=(6, 4)) + np.arange(6)[:, None]
    rows = 4 * ((values.mean(1) - values.mean()) ** 2).sum() / 5
    columns = 6 * ((values.mean(0) - values.mean()) ** 2).sum() / 3
    additive = values.mean(1)[:, None] + values.mean(0) - values.mean()
    rest = ((values - additive) ** 2).sum() / 15
    variance = max(rows + columns - rest, rows, columns) / 24
    freedom = variance**2 / ((rows / 24) ** 2 / 5 + (columns / 24) ** 2 / 3)
    half = stats.t.ppf(0.975, freedom) * variance**0.5
    mean = values.mean()
    assert crossed_interval(values) == pytest.approx((mean - half, mean + half))
    assert crossed_interval(values[:, :1]) == pytest.approx(
        tuple(map(float, mean_interval(values[:, 0])))
    )
    assert crossed_interval(np.full((3, 2), 0.5)) == (0.5, 0.5)
    assert np.isnan(crossed_interval(values[:1])).all()


def test_a_paired_difference():
    gap = np.array([0.3, -0.1, 0.2, np.nan, 0.4, 0.25, 0.31])
    found = paired(gap)
    known = gap[~np.isnan(gap)]
    assert (found.mean, found.count) == (known.mean(), 6)
    assert found.p == stats.wilcoxon(known).pvalue
    assert (found.low, found.high) == tuple(map(float, mean_interval(known)))
    assert (paired(np.zeros(7)).p, paired(np.zeros(7)).high) == (1, 0)
    assert np.isnan(paired(np.array([0.1])).low)
    none = paired(np.array([np.nan]))
    assert none.count == 0
    assert np.isnan([none.mean, none.low, none.high, none.p]).all()


def test_no_difference_is_shown_only_by_small_ones():
    small = np.linspace(-0.02, 0.02, 10)
    assert no_more_than(small, 0.05) == 1 / 2**10  # all on the inner side of both ends
    assert no_more_than(small + 0.05, 0.05) > 0.1
    assert no_more_than(-small - 0.05, 0.05) > 0.1
    assert np.isnan(no_more_than(np.full(6, 0.05), 0.05))


def test_pseudo_values_average_to_the_mean_over_pairs_if_all_are_there():
    """By the jackknife's definition: all pairs against those without one photograph."""
    rng = np.random.default_rng(4)
    pairs = rng.random((6, 6))
    pairs[np.diag_indices(6)] = np.nan
    found = pseudo_values(pairs)
    literal = [
        6 * np.nanmean(pairs) - 5 * np.nanmean(np.delete(np.delete(pairs, i, 0), i, 1))
        for i in range(6)
    ]
    np.testing.assert_allclose(found, literal)
    assert found.mean() == pytest.approx(np.nanmean(pairs))
    more = np.full((7, 7), np.nan)  # a photograph that is in no pair says nothing
    more[:6, :6] = pairs
    np.testing.assert_allclose(pseudo_values(more), found)
    assert np.isnan(pseudo_values(pairs[:2, :2])).all()
    pairs[0, 1] = pairs[1, 0] = np.nan
    assert pseudo_values(pairs).mean() != pytest.approx(np.nanmean(pairs), abs=1e-6)


def test_the_interval_of_a_mean_over_pairs_holds_it():
    rng = np.random.default_rng(5)
    inside = 0
    for values in rng.normal(size=(500, 6)):
        pairs = np.abs(values[:, None] - values)  # of normal numbers: 2 / sqrt(pi) on average
        np.fill_diagonal(pairs, np.nan)
        inside += held(mean_interval(pseudo_values(pairs)), 2 / np.pi**0.5)
    assert 0.88 <= inside / 500 <= 0.97


def test_shares():
    low, high = share_interval(3, 10)
    z = stats.norm.ppf(0.975)  # Wilson: shares whose score test does not refuse what was found
    for end in (low, high):
        assert abs(0.3 - end) == pytest.approx(z * np.sqrt(end * (1 - end) / 10))
    assert share_interval(10, 10)[0] < 1


def test_compared_shares_are_newcombes_and_fishers():
    """His own example (1998, table II, method 10): 56 of 70 against 48 of 80."""
    found = compared_shares(56, 70, 48, 80)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert (found.mean, found.count) == (pytest.approx(0.2), 150)
    assert found.p == stats.fisher_exact([[56, 14], [48, 32]]).pvalue
    turned = compared_shares(48, 80, 56, 70)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    for none in (compared_shares(0, 0, 3, 9), compared_shares(3, 9, 0, 0)):
        assert none.count == 9
        assert np.isnan([none.mean, none.low, none.high, none.p]).all()


def test_holm_is_the_stepwise_rule():
    rng = np.random.default_rng(6)
    for p in rng.beta(0.3, 1, size=(50, 6)):
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.2):
            refused = set()
            for left, test in zip(range(6, 0, -1), np.argsort(p), strict=True):
                if p[test] * left >= level:
                    break
                refused.add(int(test))
            assert set(np.flatnonzero(adjusted < level).tolist()) == refused
    assert holm(np.array([0.01, np.nan, 0.04])).tolist()[::2] == [0.02, 0.04]
    assert np.isnan(holm(np.array([0.01, np.nan]))[1])


def test_without_any_effect_a_page_hardly_decides_anything():
    """Of ten tests a page, uncorrected, one in three pages would decide something."""
    rng = np.random.default_rng(7)
    pages = alone = 0
    for page in rng.normal(size=(60, 10, 10)):
        found = [paired(values) for values in page]
        low, high, p = (
            np.array([getattr(one, name) for one in found]) for name in ("low", "high", "p")
        )
        pages += decided(low, high, holm(p)).any()
        alone += decided(low, high, p).any()
    assert pages <= 6
    assert alone > 12


def test_interval_and_test_have_to_agree():
    assert decided(0.1, 0.2, 0.01) == 1
    assert decided(-0.2, -0.1, 0.01) == -1
    assert decided(0.1, 0.2, 0.05) == 0
    assert decided(-0.1, 0.2, 0.01) == 0
    assert decided(float("nan"), float("nan"), 0.01) == 0
    assert decided(np.ones(2), np.ones(2), np.array([0.01, np.nan])).tolist() == [1, 0]
