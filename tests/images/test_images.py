import io
import os

import numpy as np
import pytest
from PIL import Image

from xailib.errors import InputError
from xailib.images.decode import MAX_PIXELS, MIN_SIDE
from xailib.images.load import (
    Failure,
    from_array,
    iter_images,
    load_images,
)
from xailib.images.packaged import packaged_names


def save(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


def only(path):
    return load_images(path)[0].pixels


def test_packaged_photographs_have_their_category():
    foolbox = load_images("foolbox")
    assert len(foolbox) == 20
    assert foolbox["dalmatian"].class_index == 251
    assert len({photograph.sha256 for photograph in foolbox}) == 20
    assert load_images("chelsea")[0].class_index is None


def test_every_packaged_name_loads():
    names = [name for group in packaged_names().values() for name in group]
    assert load_images(names).ids == tuple(names)


def test_hash_is_that_of_the_file(photo_file):
    import hashlib

    assert load_images(photo_file)[0].sha256 == hashlib.sha256(photo_file.read_bytes()).hexdigest()


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
    path = save(stored, tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(only(path), picture)


def test_gray_and_palette_become_rgb(tmp_path):
    gray = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    path = save(Image.fromarray(gray), tmp_path / "gray.png")
    np.testing.assert_array_equal(only(path), np.repeat(gray[..., None], 3, axis=2))
    palette = Image.new("P", (32, 32))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (16, 0, 32, 32))
    pixels = only(save(palette, tmp_path / "palette.png"))
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[0, 31].tolist() == [200, 100, 50]


def test_transparency_is_composited_on_white(tmp_path):
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[16:, :, 3] = 255
    pixels = only(save(Image.fromarray(rgba), tmp_path / "alpha.png"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[31, 0].tolist() == [200, 0, 0]
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([9, 9, 9])
    pixels = only(save(palette, tmp_path / "clear.png", transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb(tmp_path):
    path = save(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), tmp_path / "print.jpg")
    red = only(path)[0, 0]
    assert red[0] > 200
    assert red[1] < 60


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    pixels = only(save(Image.fromarray(values), tmp_path / "deep.png"))
    np.testing.assert_array_equal(pixels[..., 0], np.round(values / 257).astype(np.uint8))


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert only(path)[0, 0].tolist() == [255, 0, 0]


def corrupt(path):
    path.write_bytes(b"\xff\xd8\xff\xe0 this is no jpeg")


def truncated(path):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    path.write_bytes(stream.getvalue()[:3000])


def one_pixel(path):
    Image.new("RGB", (1, 1)).save(path)


def bomb(path):
    Image.new("1", (10_000, 10_000)).save(path)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [corrupt, truncated, one_pixel, bomb, empty])
def test_a_bad_file_is_one_clear_line_naming_it(tmp_path, spoil):
    path = tmp_path / "bad.png"
    spoil(path)
    with pytest.raises(InputError, match=r"bad\.png") as caught:
        load_images(path)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    assert MAX_PIXELS < 10_000 * 10_000
    path = tmp_path / "bomb.png"
    bomb(path)
    with pytest.raises(InputError, match="100 megapixels"):
        load_images(path)


@pytest.mark.parametrize("spoil", [corrupt, truncated, one_pixel, bomb, empty])
def test_among_others_a_bad_file_is_a_failure(tmp_path, photo_file, spoil):
    bad = tmp_path / "bad.png"
    spoil(bad)
    found = load_images([bad, photo_file, "chelsea", tmp_path / "absent.png"])
    assert found.ids == ("photo", "chelsea")
    assert [failure.source for failure in found.failures] == [
        str(bad),
        str(bad.parent / "absent.png"),
    ]


def test_wrong_names_get_near_matches(tmp_path, photo_file):
    with pytest.raises(InputError, match="dalmatian"):
        load_images("dalmation")
    with pytest.raises(InputError, match=r"photo\.png"):
        load_images(tmp_path / "foto.png")
    with pytest.raises(InputError, match="empty"):
        load_images([])


@pytest.mark.parametrize("name", ["", "x" * 400, "~nobody-of-this-name/x.png"])
def test_what_is_no_name_is_one_clear_line(name):
    with pytest.raises(InputError, match="images: "):
        load_images(name)
    assert len(load_images([name, "chelsea"]).failures) == 1


def test_an_empty_folder_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match="holds no image"):
        load_images(tmp_path)


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


def test_names_with_spaces_and_foreign_letters(tmp_path, picture):
    path = tmp_path / "mein süßes Tier 猫.png"
    Image.fromarray(picture).save(path)
    assert load_images(str(path)).ids == ("mein süßes Tier 猫",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_says_so(photo_file):
    photo_file.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        load_images(photo_file)


def test_iteration_is_lazy(tmp_path, photo_file):
    stream = iter_images([photo_file, tmp_path / "absent.png"])
    assert next(stream).id == "photo"
    assert isinstance(next(stream), Failure)


def test_an_array_must_be_large_enough():
    with pytest.raises(InputError, match=f"at least {MIN_SIDE}"):
        from_array(np.zeros((2, 40, 3), np.uint8), "thin")
