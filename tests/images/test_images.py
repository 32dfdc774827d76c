import numpy as np
import pytest
from PIL import Image

from xailib.errors import InputError
from xailib.images.decode import MIN_SIDE
from xailib.images.load import from_array, load_images
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
    with pytest.raises(InputError, match=f"at least {MIN_SIDE}"):
        from_array(np.zeros((2, 40, 3), np.uint8), "thin")
