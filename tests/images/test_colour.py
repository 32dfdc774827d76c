"""Embedded colour profiles: the pixels are sRGB, whatever the file's own colours are."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from xailib.images.load import load_images

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Display P3's primaries, adapted to D50.
PRIMARIES = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}


def profile(primaries, gamma: float) -> bytes:
    """sRGB's own profile with other primaries, and a plain power as its curves."""
    found = bytearray(SRGB)
    for entry in range(struct.unpack(">I", SRGB[128:132])[0]):
        name, start, _ = struct.unpack(">4sII", SRGB[132 + 12 * entry : 144 + 12 * entry])
        if name in primaries:
            found[start + 8 : start + 20] = fixed(*primaries[name])
        if name in (b"rTRC", b"gTRC", b"bTRC"):  # a parametric curve: gamma, a, b, c, d
            assert SRGB[start : start + 4] == b"para"
            found[start + 12 : start + 32] = fixed(gamma, 1, 0, 0, 0)
    return bytes(found)


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


GAMMA = 563 / 256  # 2.2, as profiles have it
P3 = profile(PRIMARIES, GAMMA)
PLAIN = Image.new("RGB", (20, 20), (200, 60, 40))


def shown(tmp_path, image, suffix=".png", **options):
    path = tmp_path / f"p{suffix}"
    image.save(path, **options)
    return load_images(path)[0].pixels[0, 0].tolist()


def expected(colour) -> list[int]:
    """The conversion by hand: linear light, P3's primaries to sRGB's, sRGB's curve."""
    srgb = {  # adapted to D50
        b"rXYZ": (0.43607, 0.22249, 0.01392),
        b"gXYZ": (0.38515, 0.71687, 0.09708),
        b"bXYZ": (0.14307, 0.06061, 0.71410),
    }
    own, out = (np.array(list(kind.values())).T for kind in (PRIMARIES, srgb))
    light = np.linalg.solve(out, own @ (np.array(colour) / 255) ** GAMMA).clip(0, 1)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * curve).astype(int).tolist()


def test_colours_of_another_profile_become_srgb(tmp_path):
    assert shown(tmp_path, PLAIN, icc_profile=P3) == [219, 37, 13]
    assert shown(tmp_path, PLAIN) == [200, 60, 40]
    for colour in ((10, 200, 100), (250, 240, 20), (128, 128, 128), (30, 60, 90)):
        found = shown(tmp_path, Image.new("RGB", (20, 20), colour), icc_profile=P3)
        np.testing.assert_allclose(found, expected(colour), atol=2)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".jpg", {"quality": 100, "subsampling": 0}), (".webp", {"lossless": True}), (".tif", {})],
)
def test_in_any_kind_of_file(tmp_path, suffix, options):
    found = shown(tmp_path, PLAIN, suffix, icc_profile=P3, **options)
    np.testing.assert_allclose(found, [219, 37, 13], atol=4)


def test_palettes_and_transparency(tmp_path):
    assert shown(tmp_path, PLAIN.quantize(4), icc_profile=P3) == [219, 37, 13]
    clear = PLAIN.convert("RGBA")
    assert shown(tmp_path, clear, icc_profile=P3) == [219, 37, 13]
    clear.putalpha(0)
    assert shown(tmp_path, clear, icc_profile=P3) == [255, 255, 255]
    # The colour that is transparent is one of the file, not of sRGB.
    assert shown(tmp_path, PLAIN, icc_profile=P3, transparency=(200, 60, 40)) == [255, 255, 255]


def test_srgb_by_name_changes_no_bit_and_a_useless_profile_nothing(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    gray = noise.convert("L")
    for name, image, data in (
        ("srgb", noise, SRGB),
        ("damaged", noise, b"no profile"),
        ("of three colours", gray, P3),
    ):
        image.save(tmp_path / f"{name}.png", icc_profile=data)
        found = load_images(tmp_path / f"{name}.png")[0].pixels
        np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
