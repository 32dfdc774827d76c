"""LIME's true error, by games whose weights and Shapley values are known."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from xailib.errors import InputError
from xailib.evaluate.truth import (
    LISTED,
    all_masks,
    design_errors,
    exact_lime,
    exact_shapley,
    passes_for,
    stable_errors,
)
from xailib.explain.lime_engine import fit_as_lime
from xailib.explain.sampling import DESIGNS

RNG = np.random.default_rng(0)
WEIGHTS = np.array([0.4, -0.2, 0.1, 0.05, 0.3])
SHOWN = all_masks(5)
LINEAR = (SHOWN @ WEIGHTS + 0.1).astype(np.float32)
PAIRS = LINEAR + 0.2 * SHOWN[:, 0] * SHOWN[:, 1]
RANDOM = RNG.random(32)


def test_masks_are_numbered_by_their_bits():
    assert SHOWN[6].tolist() == [0, 1, 1, 0, 0]
    assert SHOWN[-1].all()


def test_a_linear_game_has_its_own_weights():
    np.testing.assert_allclose(exact_lime(LINEAR), WEIGHTS, atol=1e-6)
    np.testing.assert_allclose(exact_shapley(LINEAR), WEIGHTS, atol=1e-6)


def test_exact_weights_are_where_lime_goes():
    """lime's own code, with each mask ten thousand times, so that its penalty is nothing."""
    order = np.roll(np.arange(32), 1)  # the whole view first
    data, scores = SHOWN[order], RANDOM[order][:, None]
    expected = [
        fit_as_lime(
            np.tile(data, (times, 1)), np.tile(scores, (times, 1)), np.random.RandomState(0)
        )
        for times in (50, 500)
    ]
    gaps = [np.abs(weights[0][0] - exact_lime(RANDOM)).max() for weights in expected]
    assert gaps[1] < 2e-3
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.1)


def test_shapley_values_are_means_over_orders():
    found = []
    for order in permutations(range(5)):
        mask, gain = 0, np.zeros(5)
        for superpixel in order:
            gain[superpixel] = RANDOM[mask | 1 << superpixel] - RANDOM[mask]
            mask |= 1 << superpixel
        found.append(gain)
    np.testing.assert_allclose(exact_shapley(RANDOM), np.mean(found, axis=0), atol=1e-12)
    assert exact_shapley(RANDOM).sum() == pytest.approx(RANDOM[-1] - RANDOM[0])


@pytest.mark.parametrize("design", [*DESIGNS, *LISTED])
def test_errors_fall_to_nothing_with_samples(design):
    """For every design: none is biased, the weighted one included."""
    scores = np.tile(PAIRS, 8) + 0.1 * RNG.random(256)
    table = design_errors({"a": scores}, [design], [100, 1000, 20_000], runs=10)
    errors = table["error"].to_numpy()
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.05


def test_pairs_cancel_in_pairs_and_blocks():
    tables = {"a": np.tile(PAIRS, 8)}  # three superpixels that do nothing
    table = design_errors(tables, [*DESIGNS, *LISTED], [64, 256, 1000], runs=60)
    passes = passes_for(table)
    assert passes["independent"] == pytest.approx(1000)
    assert passes["orthogonal"] < passes["antithetic"] < 900
    assert passes["paired"] < 600  # of 256 masks none is missing for long


def test_passes_for_an_error_by_a_power_law():
    factors = {"independent": 2, "half": 2**0.5, "twice": 8**0.5}
    rows = [("a", d, n, c / n**0.5) for d, c in factors.items() for n in (250, 1000)]
    found = passes_for(pd.DataFrame(rows, columns=["image", "design", "samples", "error"]))
    assert found.to_dict() == pytest.approx({"independent": 1000, "half": 500, "twice": 2000})


def test_stopping_when_stable_costs_less_where_it_is_easy():
    noise = 3 * RNG.random(256)
    easy = np.tile(LINEAR, 8)
    table = stable_errors({"easy": easy, "hard": noise}, ["independent", "orthogonal"], 3, runs=2)
    stops = table.set_index(["image", "design"])["samples"]
    assert stops["easy", "orthogonal"] == 250
    assert stops["hard", "independent"] > 250


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (lambda: exact_lime(RANDOM[:31]), "scores: 31 are not those of all masks"),
        (lambda: design_errors({"a": RANDOM}, ["pared"], [64]), "did you mean paired"),
    ],
)
def test_wrong_input_is_one_line(work, line):
    with pytest.raises(InputError, match=line):
        work()
