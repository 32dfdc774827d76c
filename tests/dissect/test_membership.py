"""Concepts by membership, against WordNet's own lineage and against sets made by hand."""

import csv
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from xailib.dissect.membership import (
    Membership,
    class_ids,
    compositions,
    hypernyms,
    lineage,
    membership_of,
    rows_by_concept,
)
from xailib.errors import InputError
from xailib.images.probe import ProbeImage, ProbeSet
from xailib.networks.zoo import imagenet_classes, places365_scenes


def probe_of(*images):
    """Return a probe set that knows classes (numbers) and scenes (words) and has no files."""
    made = [
        ProbeImage(
            str(place),
            "none",
            "0" * 64,
            one if isinstance(one, int) else None,
            one if isinstance(one, str) else None,
            place=place,
        )
        for place, one in enumerate(images)
    ]
    return ProbeSet("made", tuple(made))


def test_the_table_is_wordnets(shared):
    """Against a table of the same hypernyms that was made apart from ours."""
    with (shared / "labels" / "imagenet_hypernyms.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["wnid"] for row in rows] == list(class_ids())
    for row in rows:
        above = {part.split()[0] for part in row["hypernyms"].split(" > ")}
        assert set(lineage(row["wnid"])[1:]) == above


def test_the_table_has_wordnets_licence_and_every_class():
    from importlib import resources

    text = resources.files("xailib.dissect").joinpath("hypernyms.tsv").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in text
    assert len(class_ids()) == len(set(class_ids())) == len(imagenet_classes())
    assert set(class_ids()) < set(hypernyms())
    assert all(set(above) < set(hypernyms()) for _, above in hypernyms().values())


def test_a_photograph_is_of_its_class_and_of_all_above():
    tench, goldfish, kitchen = 0, 1, "kitchen"
    found = rows_by_concept(probe_of(tench, goldfish, kitchen, None))
    assert found["n01440764"] == [0]
    assert found["n02512053"] == found["n00015388"] == [0, 1]  # fish, animal
    assert found["scene:kitchen"] == found["scene:indoor"] == [2]
    assert all(3 not in rows for rows in found.values())
    near = lineage("n01440764")
    assert [near.index(one) for one in ("n02512053", "n00015388")] == sorted(
        near.index(one) for one in ("n02512053", "n00015388")
    )


def test_folders_without_a_scene_of_their_name_are_what_their_scenes_agree_on():
    found = rows_by_concept(probe_of("airport", "desert", "stadium", "cats"))
    assert found["scene:airport"] == [0]
    assert found["scene:indoor"] == [0]  # airport terminal
    assert found["scene:outdoor"] == [1, 2]
    assert found["scene:mountain and desert"] == [1]
    assert found["scene:cats"] == [3]


def test_of_equal_sets_the_most_specific_stays_and_small_or_large_ones_go():
    probe = probe_of(*[0] * 3, *[1] * 3, *["kitchen"] * 6)
    found = membership_of(probe, least=3, most=0.5)
    assert {"tench", "goldfish", "kitchen"} < set(found.names)
    assert "cyprinid" in found.names  # both, and the fish above it are no other set
    assert not {"fish", "animal", "vertebrate"} & set(found.names)
    assert len({mask.tobytes() for mask in found.masks}) == len(found)
    assert dict(zip(found.names, found.kinds, strict=True))["tench"] == "animal"
    assert set(membership_of(probe, least=6).names) == {"cyprinid", "kitchen"}
    assert set(membership_of(probe, least=1, most=0.3).names) == {"tench", "goldfish"}
    with pytest.raises(InputError, match="has 7 of them"):
        membership_of(probe, least=7)


def test_names_are_unique_over_all_classes():
    found = membership_of(probe_of(*range(1000)), least=1, most=1.0)
    assert len(set(found.names)) == len(found) > 1300, Counter(found.names).most_common(1)
    assert sum(name.startswith("crane (") for name in found.names) == 2


def test_a_parent_is_the_smallest_set_around():
    masks = np.zeros((5, 8), bool)
    masks[0, :6] = masks[1, :2] = masks[2, 2:4] = masks[3, :1] = masks[4, 7] = True
    found = Membership(tuple("abcde"), tuple("abcde"), ("animal",) * 5, masks).related()
    assert (found == found.T).all()
    pairs = {f"{'abcde'[i]}{'abcde'[j]}" for i, j in np.argwhere(found) if i < j}
    assert pairs == {"ab", "ac", "bc", "bd"}


def test_compositions_are_the_sets_they_name():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 60)) < 0.4
    made = Membership(tuple("abcd"), tuple("abcd"), ("animal", "animal", "food", "food"), masks)
    found = compositions(made, least=1, most=0.9)
    sets = dict(zip("abcd", masks, strict=True))
    ways = {"OR": np.logical_or, "AND": np.logical_and, "AND NOT": lambda a, b: a & ~b}
    assert len(found) == 6 + 6 + 12
    for name, mask in zip(found.names, found.masks, strict=True):
        one, way, other = re.fullmatch(r"(\w) (OR|AND NOT|AND) (\w)", name).groups()
        np.testing.assert_array_equal(mask, ways[way](sets[one], sets[other]))
    with pytest.raises(InputError, match="at most 300"):
        compositions(Membership(("a",) * 301, ("a",) * 301, ("food",) * 301, np.eye(301) > 0))


def test_the_scenes_stand_in_the_networks_order(shared):
    names = (shared / "models" / "places365.txt").read_text().split("\n")[:365]
    scenes = places365_scenes()
    assert [scene.name for scene in scenes] == [name.replace("_", " ") for name in names]
    assert all(a.name < b.name for a, b in pairwise(s for s in scenes if "/" not in s.name))
    assert {scene.setting for scene in scenes} == {"indoor", "outdoor"}
    for scene in scenes:
        said = scene.name.rpartition("/")[2]
        assert said not in ("indoor", "outdoor") or scene.setting == said
