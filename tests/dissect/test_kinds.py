"""Kinds of concept: counts, and one network's share against another's."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from xailib.dissect.kinds import UNKNOWN, compare_concepts, compare_kind, counted, kinds_of
from xailib.errors import InputError
from xailib.report.figures.units import kinds_chart

KINDS = {"kitchen": "scene", "sky": "scene", "dog": "animal"}


def labels(**layers):
    rows = [
        {"layer": layer, "unit": unit, "concept": concept}
        for layer, concepts in layers.items()
        for unit, concept in enumerate(concepts)
    ]
    return pd.DataFrame(rows)


FIRST = labels(early=["sky"] * 9, mid=["Dog", "dog", "sky", "blur"], out=["dog"] * 6)
SECOND = labels(mid=["kitchen", "sky", "dog"], out=["Kitchen", "sky", "sky", "dog", "dog"])


def test_kinds_are_counted_by_layer():
    found = kinds_of(FIRST, KINDS).set_index(["layer", "kind"])
    assert found.loc[("mid", "animal"), "units"] == 2
    assert found.loc[("mid", UNKNOWN), "share"] == 0.25
    assert found.groupby("layer")["share"].sum().to_list() == pytest.approx([1, 1, 1])


def test_dead_units_and_several_networks():
    dead = FIRST.assign(dead=FIRST["concept"] == "sky")
    table = counted({"one": dead, "two": SECOND}, KINDS)
    assert table.groupby("network")["units"].sum().to_dict() == {"one": 9, "two": 8}
    assert "early" not in table.loc[table["network"] == "one", "layer"].tolist()


def test_the_comparison_is_fishers_test_of_the_last_layers():
    found = compare_kind(FIRST, SECOND, KINDS)
    counts = (found.first, found.first_units, found.second, found.second_units)
    assert counts == (1, 10, 5, 8)
    # Two-sided, by its definition: all tables with the same margins that are no likelier.
    chances = hypergeom(18, 6, 8).pmf(np.arange(7))
    assert found.p == pytest.approx(chances[chances <= chances[5] * (1 + 1e-9)].sum())
    assert found.odds_low < found.odds < found.odds_high
    assert found.odds > 1 > 1 / found.odds > compare_kind(SECOND, FIRST, KINDS).odds * 0.99
    assert compare_kind(FIRST, SECOND, KINDS, last=1).first_units == 6
    assert compare_kind(FIRST, FIRST, KINDS).p == 1


def test_counts_and_comparison_leave_out_the_same_dead_units():
    last = FIRST[FIRST["layer"].isin(["mid", "out"])]
    dead = last.assign(dead=[False, True, False, False, True, True, *[False] * 4])
    found = compare_kind(dead, SECOND.assign(dead=False), KINDS)
    alive = compare_kind(dead[~dead["dead"]].drop(columns="dead"), SECOND, KINDS)
    assert found == alive
    assert (found.first, found.first_units) == (1, 7)
    assert found.first_units == kinds_of(dead, KINDS)["units"].sum()
    out = dead.assign(dead=dead["layer"] == "out")  # a dead layer has no other in its place
    assert compare_kind(FIRST.assign(dead=FIRST["layer"] == "out"), SECOND, KINDS).first_units == 4
    with pytest.raises(InputError, match="first: the table has no unit in its last layers"):
        compare_kind(out, SECOND, KINDS, last=1)


def test_what_cannot_be_compared_is_named():
    with pytest.raises(InputError, match="kind: unknown name 'scenes'; did you mean scene"):
        compare_kind(FIRST, SECOND, KINDS, "scenes")
    with pytest.raises(InputError, match="last: 0"):
        compare_kind(FIRST, SECOND, KINDS, last=0)
    with pytest.raises(InputError, match="second: the table has no unit"):
        compare_kind(FIRST, FIRST[:0], KINDS)


def test_a_chart_shows_each_network_and_layer():
    (axis,) = kinds_chart({"one": kinds_of(FIRST, KINDS), "two": kinds_of(SECOND, KINDS)}).axes
    bars = ["one, early", "one, mid", "one, out", "two, mid", "two, out"]
    assert [label.get_text() for label in axis.get_yticklabels()] == bars


def test_concepts_of_two_networks_are_compared_layer_by_layer():
    one = pd.DataFrame({"layer": ["a"] * 4 + ["out"] * 2})
    one["concept"] = ["dog", "dog", "sky", None, "dog", "cat"]
    two = pd.DataFrame({"layer": ["b"] * 3 + ["out"], "concept": ["sky", "sea", "sea", None]})
    found = compare_concepts(one, two)
    assert found["layer"].tolist() == ["a and b", "out"]
    first = found.iloc[0]
    assert (first["concepts_first"], first["concepts_second"], first["shared"]) == (2, 2, 1)
    assert first["share_first"] == first["share_second"] == pytest.approx(1 / 3)
    assert first["low_first"] < 1 / 3 < first["high_first"]
    assert (first["only_first"], first["only_second"]) == ("dog", "sea")
    assert np.isnan(found["low_second"][1])
