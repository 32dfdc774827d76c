"""Probe sets: crops, labels, failures, hashes; published archives over a local server."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pooch
import pytest
from faults_table import shown
from nets import noise, save
from serving import Place, offering

from xailib.downloads import registry
from xailib.errors import InputError, UnavailableError
from xailib.images import archives as published_sets
from xailib.images.archives import Archive, fetch_images
from xailib.images.probe import load_probe


@pytest.fixture
def tree(tmp_path):
    for seed, name in enumerate(("kitchen/a.png", "sky/b.png", "n01440764/c.png")):
        save(tmp_path / "set" / name, noise(seed=seed))
    (tmp_path / "set" / "sky" / "broken.png").write_bytes(b"no image")
    return tmp_path / "set"


def test_a_tree_gives_labels_categories_and_failures(tree):
    probe = load_probe(tree)
    assert probe.ids == ("a", "c", "b")
    assert [image.label for image in probe.images] == ["kitchen", "n01440764", "sky"]
    assert probe.class_indices == {0}
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


def test_the_hash_is_of_the_content_not_of_the_folder(tree, tmp_path):
    before = load_probe(tree).sha256
    tree.rename(tmp_path / "elsewhere")
    assert load_probe(tmp_path / "elsewhere").sha256 == before


def test_a_file_that_changes_or_goes_is_noticed(tree):
    probe = load_probe(tree)
    save(tree / "sky" / "b.png", noise(seed=9))
    walk = iter(probe)  # one at a time
    assert (next(walk).id, next(walk).id) == ("a", "c")
    with pytest.raises(InputError, match=shown("probe_changed")):
        next(walk)
    (tree / "kitchen" / "a.png").unlink()
    with pytest.raises(InputError, match="is gone"):
        list(probe)


def test_packaged_photographs():
    probe = load_probe()
    assert len(probe) >= 20
    assert 949 in probe.class_indices  # a strawberry
    assert not probe.failures


def test_clear_errors(tmp_path):
    with pytest.raises(InputError, match="crops: -1"):
        load_probe(crops=-1)
    (tmp_path / "only.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no image of 1 can be used"):
        load_probe(tmp_path)
    with pytest.raises(InputError, match="probe: no image 'zebra'"):
        load_probe().photograph("zebra")


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Makes an archive a published set, and returns what its server was asked for."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    with ExitStack() as servers:

        def start(data, images=2, first=""):
            place = Place(data)
            address = servers.enter_context(offering(place))
            row = {
                **dict.fromkeys(("folder", "bytes", "size", "sha256", "stated in"), ""),
                "name": "s", "set": "s", "what": "probe images s", "licence": "none",
                "file": "s.zip", "instead": "put the archive at {file}",
                "addresses": f"{first} {address}/set.zip",
            }  # fmt: skip
            monkeypatch.setattr(registry, "_rows", lambda: [row])
            known = {"s": Archive(images, "broden/index.csv")}
            monkeypatch.setattr(published_sets, "ARCHIVES", known)
            return place.asked

        yield start


@pytest.fixture
def archive(tmp_path):
    """Like Broden: an index names the photographs, masks lie beside them."""
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name in ("x/one.jpg", "x/two.jpg", "x/one_mask.png"):
            file = save(tmp_path / name, noise(seed=len(name)))
            made.write(file, f"broden/images/{name}")
        made.writestr("broden/index.csv", "image,split\nx/one.jpg,train\nx/two.jpg,val\n")
    return path.read_bytes()


def left(folder):
    """What lies in a folder, besides the locks of who fetches."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_of_a_published_set_only_its_photographs_are_kept(archive, offer, tmp_path):
    asked = offer(archive)
    folder = fetch_images("s")
    assert folder == tmp_path / "cache" / "s"
    assert published_sets.probe_archive("s").here
    assert load_probe(folder).ids == ("one", "two")
    assert fetch_images("s") == folder
    assert len(asked) == 1
    assert left(tmp_path / "cache") == ["hashes.txt", "s"]


def test_where_one_address_fails_the_next_is_tried(archive, offer):
    asked = offer(archive, first="http://127.0.0.1:9/set.zip")
    assert load_probe(fetch_images("s")).ids == ("one", "two")
    assert len(asked) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_an_archive_that_was_put_there_is_unpacked(archive, offer, tmp_path, whole):
    """A damaged one is fetched anew from the next address."""
    asked = offer(archive, first="http://127.0.0.1:9/set.zip")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "s.zip").write_bytes(archive if whole else archive[:99])
    assert load_probe(fetch_images("s")).ids == ("one", "two")
    assert len(asked) == (0 if whole else 1)
    assert left(tmp_path / "cache") == ["hashes.txt", "s"]


def test_two_that_fetch_one_set_unpack_it_once(archive, offer):
    asked = offer(archive)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(fetch_images, "ss"))
    assert load_probe(folders[0]).ids == load_probe(folders[1]).ids == ("one", "two")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("name", "most", "key"),
    [("../../out.jpg", 10**6, "archive_path"), ("in.jpg", 10, "archive_size")],
)
def test_an_archive_cannot_leave_its_folder_or_fill_the_disk(
    tmp_path, monkeypatch, name, most, key
):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as made:
        made.writestr(name, b"x" * 100)
    monkeypatch.setattr(published_sets, "MOST", most)
    with pytest.raises(UnavailableError, match=shown(key)):
        published_sets.unpack(tmp_path / "s.zip", Archive(1), tmp_path / "a" / "s")
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize("kind", ["damaged", "too few"])
def test_a_damaged_archive_is_refused_and_removed(archive, offer, tmp_path, kind):
    damaged = bytearray(archive)
    damaged[200] ^= 255
    offer(bytes(damaged) if kind == "damaged" else archive, 2 if kind == "damaged" else 3)
    with pytest.raises(UnavailableError, match="the archive is damaged"):
        fetch_images("s")
    assert left(tmp_path / "cache") == []  # no hash is noted either
