"""Concept lists: blanks, duplicates, case and encoding, the same way everywhere."""

import pytest

from xailib.dissect.concepts import KINDS, from_names, lexicon, load_concepts
from xailib.errors import InputError


def test_blanks_and_duplicates_are_left_out():
    found = from_names(["Cat", "", "  ", "cat", " hot   dog ", "HOT DOG", "café"], "a test")
    assert found.names == ("Cat", "hot dog", "café")


@pytest.mark.parametrize(
    "data",
    [
        "café\r\ncat\r\n\r\nCat".encode(),
        b"\xef\xbb\xbf" + "café\ncat\n".encode(),
        "café\ncat\n".encode("latin-1"),
    ],
    ids=["windows", "byte order mark", "latin-1"],
)
def test_a_file_reads_the_same_in_every_encoding(tmp_path, data):
    path = tmp_path / "words.txt"
    path.write_bytes(data)
    found = load_concepts(path)
    assert found.names == ("café", "cat")
    assert found.sha256 == from_names(["café", "cat"], "").sha256


def test_the_packaged_list_has_no_duplicates_and_known_kinds():
    found = load_concepts()
    assert len(lexicon()) == len(found)
    assert set(found.kinds.values()) == set(KINDS) == set(lexicon().values())
    assert len(found) > 1000
    assert "MIT" in found.source


def test_class_names_and_lists_of_sources():
    found = load_concepts(["categories:imagenet", "packaged"])
    assert found.names[0] == "tench"
    assert len(found) < 999 + len(lexicon())  # both have some of the names
    assert found.kinds["goldfish"] == "animal"
    assert len(load_concepts("categories:imagenet")) == 999  # ImageNet has two kinds of crane


def test_clear_errors(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(InputError, match=r"empty\.txt holds no concept"):
        load_concepts(empty)
    with pytest.raises(InputError, match="no file"):
        load_concepts(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="did you mean packaged"):
        load_concepts("packagd")
    with pytest.raises(InputError, match="holds no concept"):
        load_concepts([])
    utf16 = tmp_path / "utf16.txt"
    utf16.write_text("cat", encoding="utf-16")
    with pytest.raises(InputError, match="UTF-8 or Latin-1"):
        load_concepts(utf16)
