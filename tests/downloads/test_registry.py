"""The registry of what can be fetched: each row whole, and the same as the publishers say."""

import csv
import re
import warnings
from pathlib import Path

import pooch
import pytest
from conftest import ROOT

from xailib.downloads import registry
from xailib.downloads.names import PLACES365
from xailib.downloads.registry import artefact, artefacts
from xailib.errors import InputError
from xailib.images.archives import ARCHIVES


def rows() -> list[dict[str, str]]:
    with (ROOT / "xailib" / "downloads" / "registry.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_row_is_a_file_with_a_place_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = artefacts()
    assert len(found) == len(rows()) == len({one.file for one in found})
    for one, row in zip(found, rows(), strict=True):
        assert one.name == row["name"]
        assert one.addresses == tuple(row["addresses"].split())
        assert all(re.match(r"https?://[\w.]+/", address) for address in one.addresses), one
        assert re.fullmatch(r"([0-9a-f]{64})?", one.sha256), one
        assert one.file.is_relative_to(tmp_path)
        assert one.what, one
        assert one.instead, one
        assert one.licence, one
        assert one.stated_in, one
        assert one.expected is None or one.expected[1] in ("stated", "measured")
        assert not one.here


def test_a_set_states_one_licence():
    by_set: dict[str, set[str]] = {}
    for one in artefacts():
        by_set.setdefault(one.name.partition(":")[0], set()).add(one.licence)
    assert set(by_set) == {*ARCHIVES, "20k", PLACES365, "clip", "published", "cosy"}
    assert all(len(licences) == 1 for licences in by_set.values())


def test_what_a_sets_first_row_says_holds_for_the_others(monkeypatch, tmp_path):
    """Except for what is a file's own: its hash and its bytes."""
    empty = dict.fromkeys(rows()[0], "")
    own = {"sha256": "0" * 64, "bytes": "3", "size": "x"}
    first = {**empty, "name": "a:1", "licence": "MIT", **own}
    text = ",".join(empty) + "\n"
    for row in (first, {**empty, "name": "a:2"}, {**empty, "name": "a:3", "licence": "none"}):
        text += ",".join(row.values()) + "\n"
    (tmp_path / "registry.csv").write_text(text)
    monkeypatch.setattr(registry, "files", lambda _: tmp_path)
    one, two, three = registry._rows()
    assert (two["licence"], three["licence"]) == ("MIT", "none")
    assert (one["bytes"], two["bytes"], two["sha256"]) == ("3", "", "")


def test_files_are_found_by_their_name_or_their_sets():
    assert [one.name for one in artefacts(PLACES365)] == [PLACES365]
    assert artefact(PLACES365).path.endswith(".pth.tar")
    assert len(artefacts("published")) == 62
    with pytest.raises(InputError, match="did you mean broden"):
        artefacts("brodn")


def test_clips_rows_are_its_packages():
    with warnings.catch_warnings(action="ignore"):  # it imports the deprecated pkg_resources
        clip = pytest.importorskip("clip")
    theirs = {f"clip:{name}": address for name, address in clip.clip._MODELS.items()}
    assert {one.name: one.addresses[0] for one in artefacts("clip")} == theirs
    for one in artefacts("clip"):
        assert one.sha256 == one.addresses[0].split("/")[-2]
        assert one.file == Path("~/.cache/clip").expanduser() / Path(one.addresses[0]).name
