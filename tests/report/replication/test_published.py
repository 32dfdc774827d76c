import os
from hashlib import sha256
from urllib.parse import unquote

import numpy as np
import pooch
import pytest
import torch

from xailib.downloads import registry as downloads
from xailib.errors import InputError
from xailib.images.load import published_photographs
from xailib.report.replication import arrays, published
from xailib.report.replication.arrays import read_array
from xailib.report.replication.published import load_published, locate, registry, table1


def saved(folder, value):
    torch.save(value, folder / "a.pth")
    return folder / "a.pth"


class Hostile:
    """Unpickling this runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


# Arrays


@pytest.mark.parametrize("kind", ["?", "i1", "u1", "<i2", "<i4", "<i8", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_torch_saves_is_read_as_it_was(tmp_path, kind, order):
    values = np.arange(24).reshape(2, 3, 4).astype(kind, order=order)
    found = read_array(saved(tmp_path, values))
    assert found.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, values)


def test_nothing_that_a_file_names_is_run(tmp_path):
    mark = tmp_path / "ran"
    file = saved(tmp_path, Hostile(f"touch {mark}"))
    with pytest.raises(InputError, match=r"'a\.pth' holds what is not allowed$"):
        read_array(file)
    assert not mark.exists()
    torch.load(file, weights_only=False)  # the test's own check: this does run it
    assert mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        *([1, 2], {"a": 1}, None, "text", np.dtype("f4"), np.load),
        *(np.array([{}]), np.zeros(1, object), np.array(["x"]), np.zeros(2, "f4,i4")),
    ],
    ids=lambda value: type(value).__name__,  # a function's own words hold its address
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path, value):
    with pytest.raises(InputError, match=r"array: 'a\.pth' holds"):
        read_array(saved(tmp_path, value))


def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="unpacks to more than 10000 bytes"):
        read_array(saved(tmp_path, np.zeros(2000)))


def test_damaged_files_give_an_array_or_one_clear_line(tmp_path):
    file = saved(tmp_path, np.arange(6.0).reshape(2, 3))
    data, rng, refused = file.read_bytes(), np.random.default_rng(0), 0
    altered = [bytearray(data) for _ in range(100)]
    for one in altered:
        one[rng.integers(len(data))] = rng.integers(256)
    for one in (b"", b"no archive", data[:-9], *altered):
        file.write_bytes(one)
        try:
            read_array(file)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20
    with pytest.raises(InputError, match=r"array: no file '.*absent'"):
        read_array(tmp_path / "absent")


# Where the files are


@pytest.fixture
def two_files(tmp_path, monkeypatch):
    """A folder with the two files that the registry is made to list, and a cache of its own."""
    folder = tmp_path / "theirs"
    (folder / "task-2").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "task-2" / name).write_text(f"content {name}")
    rows = [
        {
            **dict.fromkeys(("bytes", "size", "stated in"), ""),
            "name": "published",
            "set": "published",
            "folder": "published",
            "licence": "none",
            "what": "files of the report",
            "instead": "give published=FOLDER",
            "file": f"task-2/{name}",
            "addresses": f"http://127.0.0.1:9/task-2/{name}",  # nobody listens
            "sha256": sha256(f"content {name}".encode()).hexdigest(),
        }
        for name in ("a", "b")
    ]
    monkeypatch.setattr(downloads, "_rows", lambda: rows)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    return folder


def test_a_local_folder_is_checked(two_files):
    found = locate(two_files)
    assert {k: v.read_text() for k, v in found.items()} == {
        "task-2/a": "content a",
        "task-2/b": "content b",
    }
    (two_files / "task-2" / "b").write_text("another")
    with pytest.raises(InputError, match="holds another version than commit aa31b27 of task-2/b"):
        locate(two_files)
    (two_files / "task-2" / "a").unlink()
    with pytest.raises(InputError, match="lacks task-2/a"):
        locate(two_files)
    with pytest.raises(InputError, match=r"no folder '.*nowhere'; leave it empty"):
        locate(two_files / "nowhere")


def test_at_hand_means_without_fetching(two_files, tmp_path):
    assert published.available(two_files)
    (two_files / "task-2" / "a").unlink()
    assert not published.available(two_files)
    assert not published.available()
    for one in downloads.artefacts("published"):
        one.file.parent.mkdir(parents=True, exist_ok=True)
        one.file.write_text(f"content {one.path[-1]}")
    assert published.available()
    assert {one.file for one in downloads.artefacts("published")} == set(locate().values())


def test_a_clone_of_the_repository_serves_too(two_files, tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir()
    two_files.rename(clone / "Assignment-4")
    assert locate(clone)["task-2/a"].read_text() == "content a"


# What is listed, and what is there


def test_the_lists_belong_together():
    paths = registry()
    assert all(len(hash_) == 64 and int(hash_, 16) for hash_ in paths.values())
    table = table1()
    assert len(table) == 10
    assert {f"task-2/images/{file}" for file in table["file"]} == {
        one.path for one in published_photographs()
    }
    assert len(paths) == 10 * (1 + 2 + 3) + 2
    assert set(published.LABELS.values()) < set(paths)
    place = f"/{published.REPOSITORY}/{published.COMMIT}/{published.FOLDER}/"
    for one in downloads.artefacts("published"):
        assert unquote(one.addresses[0]).endswith(place + one.path)


def test_the_files_themselves(shared):
    found = locate(shared / "published")
    for one in downloads.artefacts("published"):
        assert one.expected == (found[one.path].stat().st_size, "measured")
    cases = load_published(found)
    assert [case.image for case in cases] == table1()["image"].tolist()
    for case in cases:
        assert set(np.unique(case.limes["LIME 1"])) == {0, 1}
        assert {mask.shape for mask in case.limes.values()} == {(224, 224)}
        assert len({cam.shape for cam in case.cams.values()}) == 1
        assert all(cam.min() == 0 and 0.999 < cam.max() <= 1 for cam in case.cams.values())
    for path in found:
        if path.endswith(".pth") and ("flamingo" in path or "kite" in path):
            theirs = torch.load(found[path], weights_only=False)  # files of a known hash
            np.testing.assert_array_equal(read_array(found[path]), theirs)
