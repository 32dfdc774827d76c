"""The kept tables on units: they agree with each other, and say what the issue asked to beat."""

import numpy as np
import pytest

from xailib.dissect.kinds import compare_kind
from xailib.report.figures import units as figures

SAME = {"layer3": 0.29, "layer4": 0.23, "fc": 0.46}  # of an early trial, from both halves


@pytest.fixture(scope="module")
def kept():
    return figures.kept()


def test_they_are_small_and_hold_no_picture():
    files = figures.kept_files()
    assert sum(file.stat().st_size for file in files) < 1_500_000
    assert {file.suffix for file in files} == {".csv", ".json"}


def test_layers_are_the_sums_of_their_units(kept):
    tables, manifest = kept
    images = manifest["probe"]["images"]
    assert images == len(manifest["images"])
    counts = tables["units"]["histogram"].str.split().map(lambda row: sum(map(int, row)))
    assert set(counts) == {images}
    assert (tables["units"]["p"] < 0.05).tolist() == tables["units"]["certified"].tolist()
    grouped = tables["units"].groupby(["network", "layer"], sort=False)
    for row in tables["layers"].itertuples():
        part = grouped.get_group((row.network, row.layer))
        assert (row.units, row.certified) == (len(part), part["certified"].sum())
        assert row.same == pytest.approx((part["concept"] == part["again"]).mean(), abs=1e-3)
        assert row.low <= row.share <= row.high
    for text in tables["units"]["top"]:
        assert len(set(text.split())) == 5


def test_they_beat_the_trial_and_random_weights_do_not(kept):
    layers = kept[0]["layers"]
    assert (layers["control"] <= 0.05).all()
    mine = layers[layers["network"] == "ImageNet"].set_index("layer")
    hidden = mine.loc[["layer3", "layer4"]]
    assert hidden["certified"].sum() / hidden["units"].sum() >= 0.60
    assert mine.loc["fc", "share"] >= 0.92
    for layer, same in SAME.items():
        assert mine.loc[layer, "same"] > same
        assert mine.loc[layer, "related"] >= mine.loc[layer, "same"]


def test_a_network_of_places_carries_more_scenes_than_one_of_objects(kept):
    units, names = kept[0]["units"], kept[1]["networks"]
    tables = [figures.reliable(units[units["network"] == name]) for name in names]
    kinds = dict(zip(units["concept"].str.casefold(), units["kind"], strict=True))
    found = compare_kind(*(table.dropna(subset="concept") for table in tables), kinds)
    assert found.odds_low > 1
    assert found.p < 0.01


def test_published_units_are_counted_as_published(kept):
    tables, _ = kept
    sizes = tables["points"].groupby("network").size()
    assert sizes.to_dict() == {"resnet18": 1768, "resnet18_places365": 1133}
    for network in sizes.index:
        found = figures.published(tables, network).groupby(["layer", "concept"]).size()
        told = tables["published"].query("network == @network").set_index(["layer", "concept"])
        np.testing.assert_array_equal(found.sort_index(), told["units"].sort_index())


def test_methods_are_compared_on_the_same_units(kept):
    methods = kept[0]["methods"]
    assert methods.groupby("layer")["method"].nunique().min() >= 5
    assert methods.groupby("layer")["units"].nunique().max() == 1
    for column in ("score", "correlation", "cosine", "auprc", "f1", "iou"):
        assert (methods[f"{column}_low"] <= methods[column]).all()
        assert (methods[column] <= methods[f"{column}_high"]).all()
