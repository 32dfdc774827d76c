"""Photographs as people have them: odd shapes, kinds, names, folders; and files that are none."""

import gc
import hashlib
import io
import os
import re
import tracemalloc

import cv2
import numpy as np
import pytest
from faults_table import shown
from nets import classifier, noise, save
from PIL import Image
from processes import as_nobody

from xailib.errors import InputError
from xailib.explain.cam.methods import explain_cam
from xailib.explain.lime import explain_lime
from xailib.images import decode
from xailib.images import load as images
from xailib.images.load import Failure, from_array, iter_images, load_images
from xailib.images.packaged import packaged_names


def only(path):
    return load_images(path)[0].pixels


@pytest.mark.parametrize("size", [(40, 400), (400, 40), (16, 1600), (16, 16), (17, 23)])
def test_any_proportions_are_explained(size):
    net, found = classifier(), from_array(noise(*size), "thin")
    by_lime = explain_lime(net, found, num_samples=20, segments="slic")
    for explanation in (explain_cam(net, found), by_lime):
        assert explanation.saliency.shape == (32, 32)
        seen = explanation.frame.to_photograph(explanation.saliency)
        assert seen.shape == size
        assert np.isfinite(seen).any()


def test_beyond_a_hundred_to_one_is_refused():
    with pytest.raises(InputError, match=shown("too_thin")):
        explain_cam(classifier(), from_array(noise(16, 1700), "thin"))


def test_a_plain_colour_has_nothing_to_explain():
    plain = from_array(np.full((40, 40, 3), 128, np.uint8), "plain")
    found = explain_lime(classifier(), plain, num_samples=20)
    assert np.isfinite(found.saliency).all()


@pytest.mark.parametrize("kind", ["I;16B", "I;16", "colour", "gray"])
def test_sixteen_bits_in_colour_and_gray(tmp_path, kind):
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    path = tmp_path / ("x.tif" if kind.startswith("I") else "x.png")
    if kind == "gray":
        save(path, values)
    elif kind == "colour":  # 48 bits a pixel, which Pillow cannot write
        cv2.imwrite(str(path), np.repeat(values[..., None], 3, axis=2))
    else:
        data = values.astype(">u2") if kind == "I;16B" else values
        Image.frombytes(kind, (32, 32), data.tobytes()).save(path)
    error = 1 if kind == "colour" else 0  # of 48 bits, Pillow drops the lower ones
    np.testing.assert_allclose(only(path)[..., 0], np.round(values / 257), atol=error)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_an_animation_or_several_pages_give_the_first(tmp_path, suffix):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    red, _, blue = only(path)[0, 0]
    assert red > 240
    assert blue < 15


@pytest.mark.parametrize("suffix", ["heic", "avif", "jfif"])
def test_phones_kinds_of_file(tmp_path, suffix):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    path = tmp_path / f"phone.{suffix}"
    kind = {"heic": "HEIF", "avif": "AVIF", "jfif": "JPEG"}[suffix]
    Image.fromarray(pixels).save(path, kind, quality=95)
    assert np.abs(load_images(tmp_path)[0].pixels.astype(int) - pixels).mean() < 4


def test_heic_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    pytest.importorskip("pillow_heif").register_heif_opener()
    save(tmp_path / "phone.heic", noise(64, 64), format="HEIF")
    monkeypatch.setattr(decode, "_heif", lambda: ())
    with pytest.raises(InputError, match=shown("heic")):
        load_images(tmp_path / "phone.heic")


PLAIN = ["a b  c", "naïve café", "猫と犬", "it's [1] #2 %41&", "-p", "x" * 200]
ODD = [(b"two\nlines", "two lines"), (b"\xff\xfe", "\ufffd\ufffd"), (b"a\x1b[2J", "a [2J")]


@pytest.mark.parametrize(("name", "told"), [*((name.encode(), name) for name in PLAIN), *ODD])
def test_any_name_is_a_name_and_told_as_text_of_one_line(tmp_path, name, told):
    """As pages, tables and terminals can show it; the file is found all the same."""
    file = save(tmp_path / "x.png").rename(tmp_path / os.fsdecode(name + b".png"))
    for given in (tmp_path, str(file)):
        (photograph,) = load_images(given)
        assert photograph.id == told
        assert photograph.source.encode() == f"{tmp_path}/{told}.png".encode()


def test_the_same_photograph_under_another_name_is_said_and_a_file_named_twice_is_one(tmp_path):
    for name in ("a.png", "copy of a.png", "deep/a.png"):
        save(tmp_path / name)
    save(tmp_path / "packed.png", compress_level=1)  # other bytes, the same pixels
    save(tmp_path / "other.png", noise(seed=1))
    found = load_images([tmp_path, tmp_path / "a.png"])
    assert found.ids == ("a", "other")  # deep/a.png is the same file by the same name
    for failure in found.failures:
        assert re.match(shown("same_photograph"), failure.reason)
    assert [failure.source.rpartition("/")[2] for failure in found.failures] == [
        "copy of a.png",
        "packed.png",
    ]


def test_links_are_followed_once_and_never_in_a_circle(tmp_path):
    save(tmp_path / "album" / "one.png")
    save(tmp_path / "elsewhere" / "two.png", noise(seed=1))
    (tmp_path / "album" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "album")
    (tmp_path / "album" / "self").symlink_to(tmp_path / "album")
    save(tmp_path / "third.png", noise(seed=2))
    (tmp_path / "album" / "three.png").symlink_to(tmp_path / "third.png")
    (tmp_path / "album" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = load_images(tmp_path / "album")
    assert sorted(found.ids) == ["one", "three", "two"]
    (failure,) = found.failures
    assert re.match(shown("broken_link"), failure.reason)


def test_a_pipe_among_photographs_is_no_photograph(tmp_path):
    save(tmp_path / "one.png")
    os.mkfifo(tmp_path / "endless.png")
    assert load_images(tmp_path).ids == ("one",)


def names_or_reasons(folder) -> str:
    """What becomes of each file in a folder, for a user without rights."""
    load_images("chelsea")  # all that is imported on the way is imported here

    def work():
        return "\n".join(
            found.reason if isinstance(found, Failure) else found.id
            for found in iter_images(folder)
        )

    return as_nobody(work)


def test_a_read_only_folder_is_enough(open_path):
    folder = open_path / "album"
    save(folder / "one.png").chmod(0o444)
    folder.chmod(0o555)
    before = sorted(open_path.rglob("*"))
    assert names_or_reasons(folder).split() == ["one"]
    assert sorted(open_path.rglob("*")) == before


def test_what_may_not_be_read_is_said(open_path):
    folder = open_path / "album"
    save(folder / "open.png")
    save(folder / "locked.png", noise(seed=1)).chmod(0)
    save(folder / "secret" / "x.png", noise(seed=2))
    (folder / "secret").chmod(0)
    lines = names_or_reasons(folder).splitlines()
    (folder / "secret").chmod(0o755)
    assert "open" in lines
    pattern = re.compile(shown("unreadable"))
    assert [bool(pattern.match(line)) for line in lines].count(True) == 2


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def of_one_number(value):
    return encoded(Image.fromarray(np.full((32, 32), value, np.float32)), "TIFF")


SPOILT = {
    "truncated": lambda: encoded(Image.fromarray(noise(64, 64)))[:3000],
    "truncated_jpeg": lambda: encoded(Image.fromarray(noise(64, 64)), "JPEG")[:2000],
    "no_image": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n",
    "empty_file": lambda: b"",
    "one_pixel": lambda: encoded(Image.new("RGB", (1, 1))),
    "bomb": lambda: encoded(Image.new("1", (10_000, 10_000))),
    "great_bomb": lambda: encoded(Image.new("1", (20_000, 20_000))),
    "beyond_range": lambda: of_one_number(2),
    "no_number": lambda: of_one_number(np.nan),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_file_is_one_line_alone_and_a_failure_among_others(tmp_path, kind):
    bad = tmp_path / "bad.png"
    bad.write_bytes(SPOILT[kind]())
    with pytest.raises(InputError, match=shown(kind)):
        load_images(bad)
    found = load_images([save(tmp_path / "good.png"), bad])
    assert found.ids == ("good",)
    (failure,) = found.failures
    assert re.match(shown(kind), failure.reason)


def test_a_bomb_is_not_unpacked(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(SPOILT["great_bomb"]())
    tracemalloc.start()
    assert isinstance(next(iter_images(bad)), Failure)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(decode.MAX_BYTES + 1)  # a hole: it takes no disk
    with pytest.raises(InputError, match=shown("huge_file")):
        load_images(tmp_path / "huge.jpg")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("no_file", "foto.png"),
        ("empty_folder", "empty"),
        ("empty_list", []),
        ("misspelt", "dalmation"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, monkeypatch, key, name):
    save(tmp_path / "photo.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    given = f"./{name}" if key in ("no_file", "empty_folder") else name
    with pytest.raises(InputError, match=shown(key)):
        load_images(given)


def test_packaged_photographs_have_their_category():
    foolbox = load_images("foolbox")
    assert len(foolbox) == 20
    assert foolbox["dalmatian"].class_index == 251
    assert len({photograph.sha256 for photograph in foolbox}) == 20
    assert load_images("chelsea")[0].class_index is None


def test_every_packaged_name_loads():
    names = [name for group in packaged_names().values() for name in group]
    assert load_images(names).ids == tuple(names)


def test_pixels_cannot_be_changed(photo_file):
    with pytest.raises(ValueError, match="read-only"):
        load_images(photo_file)[0].pixels[0, 0] = 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, picture, orientation):
    """Each stored orientation comes out as the upright picture."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](picture)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(only(tmp_path / "turned.png"), picture)


def palette(*colours):
    """The first colour above, and the second below, by its number."""
    image = Image.new("P", (32, 32))
    image.putpalette([value for colour in colours for value in colour])
    if len(colours) > 1:
        image.paste(1, (16, 0, 32, 32))
    return image


def gray():
    return Image.fromarray(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32))


def half_clear():
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[..., 0], rgba[16:, :, 3] = 200, 255
    return Image.fromarray(rgba)


def clear_palette():
    image = Image.fromarray(np.full((32, 32, 4), (200, 0, 0, 0), np.uint8)).convert("PA")
    return image.convert("RGBA").quantize()


@pytest.mark.parametrize(
    ("image", "options", "first", "last"),
    [
        (gray(), {}, [0] * 3, [255] * 3),
        (palette((10, 20, 30), (200, 100, 50)), {}, [10, 20, 30], [200, 100, 50]),
        (half_clear(), {}, [255] * 3, [200, 0, 0]),  # on white
        (palette((9, 9, 9)), {"transparency": 0}, [255] * 3, [255] * 3),
        (clear_palette(), {}, [255] * 3, [255] * 3),
    ],
)
def test_any_mode_becomes_rgb(tmp_path, image, options, first, last):
    image.save(tmp_path / "x.png", **options)
    pixels = only(tmp_path / "x.png")
    assert (pixels[0, 0].tolist(), pixels[-1, -1].tolist()) == (first, last)
    if image.mode == "L":
        np.testing.assert_array_equal(pixels, np.repeat(np.array(image)[..., None], 3, axis=2))


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    red = only(tmp_path / "print.jpg")[0, 0]
    assert red[0] > 200
    assert red[1] < 60


@pytest.mark.parametrize("name", ["", "x" * 400, "~nobody-of-this-name/x.png"])
def test_what_is_no_name_is_one_clear_line(name):
    with pytest.raises(InputError, match="images: "):
        load_images(name)
    assert len(load_images([name, "chelsea"]).failures) == 1


def test_a_folder_is_read_with_its_subfolders_in_order(tmp_path, picture):
    hidden = ("._2.png", ".ipynb_checkpoints/2.png", "b/__MACOSX/2.png", "a/@eaDir/2.png")
    for shift, name in enumerate(("b/2.png", "a/1.jpg", "c.PNG", *hidden)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture + np.uint8(shift)).save(path)
    (tmp_path / "a" / "bad.png").write_bytes(b"?")
    found = load_images(tmp_path)
    assert found.ids == ("1", "2", "c")
    assert len(found.failures) == 1


def test_equal_names_of_different_files_stay_apart(tmp_path, picture):
    for folder, shift in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture + np.uint8(shift)).save(tmp_path / folder / "x.png")
    first, second = load_images(tmp_path).ids
    assert first == "x"
    assert second.startswith("x-")


def test_an_array_must_be_large_enough():
    with pytest.raises(InputError, match=f"at least {decode.MIN_SIDE}"):
        from_array(np.zeros((2, 40, 3), np.uint8), "thin")


@pytest.fixture(scope="module")
def thousands(tmp_path_factory):
    """2,500 different photographs: one JPEG with a number behind its end."""
    folder = tmp_path_factory.mktemp("many")
    stream = io.BytesIO()
    Image.fromarray(noise(64, 96)).save(stream, "JPEG")
    for number in range(2500):
        (folder / f"{number:05d}.jpg").write_bytes(stream.getvalue() + b"%05d" % number)
    return folder


def test_thousands_are_streamed_in_flat_memory(thousands):
    """What comes later in the folder needs no more memory than what came first."""
    tracemalloc.start()
    peaks = []
    for count, found in enumerate(iter_images(thousands), start=1):
        assert not isinstance(found, Failure)
        del found
        if count in (250, 2500):
            gc.collect()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
    tracemalloc.stop()
    assert count == 2500
    assert peaks[1] - peaks[0] < 1.25e6  # names and hashes; their pixels would be 40 MB
    assert peaks[1] < 30e6


def test_a_set_holds_some_and_reads_the_others_again(tmp_path, monkeypatch):
    for seed in range(5):
        save(tmp_path / f"{seed}.png", noise(seed=seed))
    expected = {p.id: p.pixels for p in load_images(tmp_path)}
    monkeypatch.setattr(images, "HELD_BYTES", 2 * noise().nbytes)
    found = load_images(tmp_path)
    assert [type(p).__name__ for p in found.photographs] == ["Photograph"] * 2 + ["Stored"] * 3
    for one in found:
        np.testing.assert_array_equal(one.pixels, expected[one.id])
    assert (
        found["4"].sha256
        == found[4].sha256
        == hashlib.sha256((tmp_path / "4.png").read_bytes()).hexdigest()
    )
    assert [p.id for p in found[1:4]] == ["1", "2", "3"]
    save(tmp_path / "4.png", noise(seed=9))
    with pytest.raises(InputError, match=shown("changed")):
        found["4"]
