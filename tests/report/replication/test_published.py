import io
import os
import pickle
import zipfile
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


def archive(path, data, entries=("x/data.pkl",)):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in entries:
            file.writestr(name, data)
    return path


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
    torch.save(values, tmp_path / "a.pth")
    found = read_array(tmp_path / "a.pth")
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol_and_both_of_numpys_names(tmp_path, protocol):
    values = np.array([[-1, 0], [1, 300]])
    data = pickle.dumps(values, protocol)
    assert b"numpy._core" in data
    older = data.replace(b"numpy._core", b"numpy.core") if protocol < 4 else data
    for number, one in enumerate((data, older)):
        np.testing.assert_array_equal(read_array(archive(tmp_path / f"{number}", one)), values)


def test_nothing_that_a_file_names_is_run(tmp_path):
    mark = tmp_path / "ran"
    data = pickle.dumps(Hostile(f"touch {mark}"), 2)
    with pytest.raises(InputError, match=r"names (posix|nt)\.system, which is not allowed"):
        read_array(archive(tmp_path / "a.pth", data))
    assert not mark.exists()
    pickle.loads(data)  # the test's own check: this does run it
    assert mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core", "multiarray._reconstruct"),
        ("xailib.report.replication.arrays", "zipfile.ZipFile"),
        ("_codecs", "decode"),
    ],
)
def test_other_names_are_refused(tmp_path, module, name):
    data = b"\x80\x04" + pickle.dumps(module, 4)[11:-1] + pickle.dumps(name, 4)[11:-1] + b"\x93."
    with pytest.raises(InputError, match=f"names {module}.{name}, which is not allowed"):
        read_array(archive(tmp_path / "a.pth", data))


@pytest.mark.parametrize("values", [[1, 2], {"a": 1}, None, "text", np.dtype("f4")])
def test_what_is_no_array_is_refused(tmp_path, values):
    with pytest.raises(InputError, match=r"array"):
        read_array(archive(tmp_path / "a.pth", pickle.dumps(values, 2)))


@pytest.mark.parametrize("values", [np.array([{}]), np.array(["x"]), np.zeros(2, "f4,i4")])
def test_arrays_of_other_things_are_refused(tmp_path, values):
    with pytest.raises(InputError, match="not of numbers"):
        read_array(archive(tmp_path / "a.pth", pickle.dumps(values, 2)))


def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_BYTES", 10_000)
    path = archive(tmp_path / "a.pth", pickle.dumps(np.zeros(2000), 4))
    assert path.stat().st_size < 1000
    with pytest.raises(InputError, match="unpacks to more than 10000 bytes"):
        read_array(path)


def test_damaged_files_are_one_clear_line(tmp_path):
    (tmp_path / "text").write_text("no archive")
    two = archive(tmp_path / "two", b"", ("a/data.pkl", "b/data.pkl"))
    cases = {
        tmp_path / "absent": "cannot read",
        tmp_path / "text": "holds no plain array",
        two: "holds 2 files data.pkl",
        archive(tmp_path / "empty", b""): "holds no plain array",
    }
    for path, reason in cases.items():
        with pytest.raises(InputError, match=reason) as caught:
            read_array(path)
        assert "\n" not in str(caught.value)


def test_altered_bytes_give_an_array_or_one_clear_line(tmp_path):
    data = pickle.dumps(np.arange(6.0).reshape(2, 3), 2)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        altered = bytearray(data)
        altered[rng.integers(len(data))] = rng.integers(256)
        try:
            read_array(archive(tmp_path / "a.pth", bytes(altered)))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


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
        assert all(cam.min() == 0 and 0.999 < cam.max() <= 1 for cam in case.cams.values())
    # Independent: torch's own restricted unpickler, told what to allow.
    from numpy._core.multiarray import _reconstruct

    older = (_reconstruct, "numpy.core.multiarray._reconstruct")
    allowed = [older, np.ndarray, np.dtype, *map(type, (np.dtype("i8"), np.dtype("f4")))]
    for path in found:
        if path.endswith(".pth") and ("flamingo" in path or "kite" in path):
            with torch.serialization.safe_globals(allowed):
                theirs = torch.load(io.BytesIO(found[path].read_bytes()), weights_only=True)
            np.testing.assert_array_equal(read_array(found[path]), theirs)
