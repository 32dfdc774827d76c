"""Probe sets: crops, labels, failures, hashes; published archives over a local server."""

import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler

import numpy as np
import pooch
import pytest
from faults_table import shown
from PIL import Image
from serving import serving

from xailib.errors import InputError, UnavailableError
from xailib.images import archives as published_sets
from xailib.images.archives import Archive, fetch_images
from xailib.images.probe import load_probe


def save(path, seed=0, size=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def tree(tmp_path):
    save(tmp_path / "set" / "kitchen" / "a.png", 0)
    save(tmp_path / "set" / "sky" / "b.png", 1)
    save(tmp_path / "set" / "n01440764" / "c.png", 2)
    (tmp_path / "set" / "sky" / "broken.png").write_bytes(b"no image")
    return tmp_path / "set"


def test_a_tree_gives_labels_categories_and_failures(tree):
    probe = load_probe(tree)
    assert probe.ids == ("a", "c", "b")
    assert [image.label for image in probe.images] == ["kitchen", "n01440764", "sky"]
    assert probe.categories == {0}
    assert len(probe.failures) == 1
    assert "broken.png" in probe.failures[0].source
    assert [p.id for p in probe] == list(probe.ids)


def test_crops_are_parts_of_the_photograph_and_the_same_each_time(tree):
    probe, again = load_probe(tree, crops=20, seed=3), load_probe(tree, crops=20, seed=3)
    assert len(probe) == 3 * 21
    assert probe.sha256 == again.sha256 != load_probe(tree, crops=20, seed=4).sha256
    whole = probe.photograph("a").pixels
    seen = list(probe)
    for image, photograph in zip(probe.images, seen, strict=True):
        assert photograph.id == image.id
        assert min(photograph.size) >= 16
        if image.id.startswith("a-"):
            top, left, height, width = image.box
            expected = whole[top : top + height, left : left + width]
            assert (photograph.pixels == expected).all()
    areas = [p.pixels.shape[0] * p.pixels.shape[1] / (48 * 64) for p in seen]
    assert min(areas) < 0.2
    assert max(areas) == 1


def test_a_photographs_crops_do_not_depend_on_the_others(tree):
    alone = load_probe(tree / "sky" / "b.png", crops=5)
    among = [image.box for image in load_probe(tree, crops=5).images if image.id.startswith("b")]
    assert [image.box for image in alone.images] == among


def test_iterating_from_the_middle_is_the_rest(tree):
    probe = load_probe(tree, crops=4)
    rest = [p.id for p in probe.photographs(7)]
    assert rest == list(probe.ids[7:])


def test_the_hash_is_of_the_content_not_of_the_folder(tree, tmp_path):
    before = load_probe(tree).sha256
    tree.rename(tmp_path / "elsewhere")
    assert load_probe(tmp_path / "elsewhere").sha256 == before


def test_a_file_that_changes_or_goes_is_noticed(tree):
    probe = load_probe(tree)
    save(tree / "kitchen" / "a.png", 9)
    with pytest.raises(InputError, match="changed while in use"):
        list(probe)
    (tree / "kitchen" / "a.png").unlink()
    with pytest.raises(InputError, match="is gone"):
        list(probe)


def test_packaged_photographs():
    probe = load_probe()
    assert len(probe) >= 20
    assert 949 in probe.categories  # a strawberry
    assert not probe.failures


def test_clear_errors(tmp_path):
    with pytest.raises(InputError, match="crops: -1"):
        load_probe(crops=-1)
    (tmp_path / "only.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no image of 1 can be used"):
        load_probe(tmp_path)
    with pytest.raises(InputError, match="probe: no image 'zebra'"):
        load_probe().photograph("zebra")


class Server(BaseHTTPRequestHandler):
    """Serves one file, by ranges; breaks off after `limit` bytes."""

    def __init__(self, data, limit, asked, *arguments):
        self.data, self.limit, self.asked = data, limit, asked
        super().__init__(*arguments)

    def do_GET(self):
        ranged = self.headers.get("Range")
        self.asked.append(ranged)
        start = int(ranged.removeprefix("bytes=").rstrip("-")) if ranged else 0
        if start >= len(self.data):
            self.send_error(416)
            return
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start : start + self.limit.pop(0)])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    with ExitStack() as servers:

        def start(data, limit, asked):
            handler = partial(Server, data, limit, asked)
            _, address = servers.enter_context(serving(handler))
            return f"{address}/set.zip"

        yield start


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Like Broden: an index names the photographs, masks lie beside them."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name in ("x/one.jpg", "x/two.jpg", "x/one_mask.png"):
            file = save(tmp_path / name, len(name))
            made.write(file, f"broden/images/{name}")
        made.writestr("broden/index.csv", "image,split\nx/one.jpg,train\nx/two.jpg,val\n")
    return path.read_bytes()


def left(folder):
    """What lies in a folder, besides the locks of who fetches."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_a_published_set_is_fetched_in_parts_and_only_its_photographs_kept(
    archive, serve, tmp_path, monkeypatch
):
    asked = []
    address = serve(archive, [100, len(archive)], asked)
    known = {"broden": Archive((address,), 2, "broden/index.csv")}
    monkeypatch.setattr(published_sets, "ARCHIVES", known)
    folder = fetch_images("broden", tmp_path / "cache")
    assert asked == [None, "bytes=100-"]
    assert load_probe(folder).ids == ("one", "two")
    assert fetch_images("broden", tmp_path / "cache") == folder
    assert len(asked) == 2
    assert left(tmp_path / "cache") == ["broden", "hashes.txt"]


def test_two_that_fetch_one_set_unpack_it_once(archive, serve, tmp_path, monkeypatch):
    asked = []
    known = {"broden": Archive((serve(archive, [len(archive)], asked),), 2, "broden/index.csv")}
    monkeypatch.setattr(published_sets, "ARCHIVES", known)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: fetch_images("broden", tmp_path / "cache"), "12"))
    assert load_probe(folders[0]).ids == load_probe(folders[1]).ids == ("one", "two")
    assert asked == [None]


def test_another_archive_later_is_refused(archive, serve, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    address = serve(archive, [len(archive), len(archive)], [])
    known = {"broden": Archive((address,), 2, "broden/index.csv")}
    monkeypatch.setattr(published_sets, "ARCHIVES", known)
    fetch_images("broden", cache)
    shutil.rmtree(cache / "broden")
    noted = cache / "hashes.txt"
    noted.write_text("0" * 64 + noted.read_text()[64:])
    with pytest.raises(UnavailableError, match=r"another SHA-256 than noted at first use"):
        fetch_images("broden", cache)
    assert not (cache / "broden").exists()


@pytest.mark.parametrize(
    ("name", "most", "key"),
    [("../../out.jpg", 10**6, "archive_path"), ("in.jpg", 10, "archive_size")],
)
def test_an_archive_cannot_leave_its_folder_or_fill_the_disk(tmp_path, name, most, key):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as made:
        made.writestr(name, b"x" * 100)
    with pytest.raises(UnavailableError, match=shown(key)):
        published_sets.unpack(tmp_path / "s.zip", Archive((), 1, most=most), tmp_path / "a" / "s")
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize("kind", ["damaged", "too few"])
def test_a_damaged_archive_is_refused_and_removed(archive, serve, tmp_path, monkeypatch, kind):
    damaged = bytearray(archive)
    damaged[200] ^= 255
    data = bytes(damaged) if kind == "damaged" else archive
    address = serve(data, [len(data)], [])
    known = {"s": Archive((address,), 2 if kind == "damaged" else 3, "broden/index.csv")}
    monkeypatch.setattr(published_sets, "ARCHIVES", known)
    with pytest.raises(UnavailableError, match="the archive is damaged"):
        fetch_images("s", tmp_path / "cache")
    assert left(tmp_path / "cache") == []  # no hash is noted either


def test_a_server_that_does_not_answer_is_named(tmp_path, monkeypatch):
    known = {"s": Archive(("http://127.0.0.1:9/absent.zip",), 1)}
    monkeypatch.setattr(published_sets, "ARCHIVES", known)
    with pytest.raises(UnavailableError, match=r"could not fetch s: http://127.*put the archive"):
        fetch_images("s", tmp_path)
    with pytest.raises(InputError, match="unknown name 'brodn'"):
        fetch_images("brodn", tmp_path)
