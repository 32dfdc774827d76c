"""One image file as upright 8-bit RGB, or one line with the reason why not."""

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from xailib.errors import InputError

Pixels = UInt8[np.ndarray, "height width 3"]

MIN_SIDE = 16  # pixels; anything smaller shows nothing that could be explained
MAX_PIXELS = 89_478_485  # Pillow's own threshold for a decompression bomb
MAX_BYTES = 500_000_000  # of a file; MAX_PIXELS without any compression needs fewer
# What Pillow may try: among its other formats are some that start another program (EPS).
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def read_file(path: Path, name: str) -> tuple[Pixels, str]:
    """Return a file's pixels, not writeable, and the SHA-256 of its bytes.

    EXIF orientation is applied, transparency composited on white, colours are converted to sRGB by
    the profile in the file, 16 bits are scaled to 8, and of an animation the first frame is taken.
    What is no image, damaged, too large or too small, or cannot be read raises `InputError` with
    `name`.
    """
    with _readable(path, name):
        data = path.read_bytes()
    with _image(io.BytesIO(data), name) as image:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = _to_rgb(image)
    pixels.setflags(write=False)
    return pixels, hashlib.sha256(data).hexdigest()


def look(path: Path, name: str) -> None:
    """Raise what `read_file` would, as far as a file's header shows it."""
    with _readable(path, name), path.open("rb") as file, _image(file, name):
        pass


@contextmanager
def _image(file: io.BytesIO | io.BufferedReader, name: str) -> Iterator[Image.Image]:
    """Open an image that fits in memory; what is wrong with it, also in the block, is one line."""
    start = file.read(12)
    file.seek(0)
    formats = (*_FORMATS, *_heif())
    try:
        # It warns of damaged metadata and large sizes, which are checked below.
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats) as image:
            check_size(name, image.size)
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"images: {name!r} is too large: {error}") from error
    except UnidentifiedImageError as error:
        apple = start[4:8] == b"ftyp" and "HEIF" not in formats
        hint = "; it may be HEIC: pip install pillow-heif" if apple else ""
        raise InputError(f"images: {name!r} is not an image that Pillow reads{hint}") from error
    except Exception as error:  # a decoder may raise anything for damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"images: {name!r} is damaged: {reason}") from error


@contextmanager
def _readable(path: Path, name: str) -> Iterator[None]:
    """Raise for a file that is too large; in the block, the system's error becomes one line."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(
                f"images: {name!r} is a file of {size / 1e6:.0f} MB; "
                f"at most {MAX_BYTES / 1e6:.0f} are read"
            )
        yield
    except OSError as error:
        raise InputError(f"images: cannot read {name!r}: {error.strerror}") from error


@cache
def _heif() -> tuple[str, ...]:
    """Return the format of HEIC files, where the package that reads them is installed."""
    if not find_spec("pillow_heif"):
        return ()
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def upright(image: Image.Image, name: str) -> Pixels:
    """Return the pixels of an image in memory, as `read_file` returns those of a file."""
    check_size(name, image.size)
    try:
        return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # a decoder may raise anything for damaged bytes
        raise InputError(f"images: {name!r} is damaged: {error}") from error


def check_size(name: str, size: tuple[int, int]) -> None:
    """Raise unless a photograph of this (width, height) shows something and fits in memory."""
    width, height = size
    if min(size) < MIN_SIDE:
        raise InputError(
            f"images: {name!r} is {width} x {height} pixels; each side needs at least {MIN_SIDE}"
        )
    if width * height > MAX_PIXELS:
        raise InputError(
            f"images: {name!r} has {width * height / 1e6:.0f} megapixels; "
            f"at most {MAX_PIXELS / 1e6:.0f} are read, make it smaller first"
        )


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if image.mode.startswith("I") else 1
        if not np.isfinite(values).all():
            raise ValueError("values that are not finite")
        if values.min() < 0 or values.max() > top:
            raise ValueError(f"values of mode {image.mode!r} outside 0 to {top}")
        profile = image.info.get("icc_profile")
        image = Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))
        image.info["icc_profile"] = profile
    image = _in_srgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return an image whose colours are converted by its embedded profile, if it has a usable one.

    Transparency is kept. A profile that is sRGB, but for rounding, changes nothing.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    if image.mode in ("P", "PA", "1"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in ("L", "RGB") and image.has_transparency_data:
        image = image.convert(image.mode + "A")  # a transparent colour, found before it changes
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    plain = image.convert(image.mode.removesuffix("A")) if alpha else image
    convert = _conversion(profile, plain.mode)
    if convert is None:
        return image
    found = convert.apply(plain)
    if alpha:
        found.putalpha(alpha)
    return found


@lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion of a mode's values to sRGB; None if there is none, or nothing to do."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        convert = ImageCms.buildTransform(own, srgb, mode, "RGB")
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        bands = len(Image.new(mode, (1, 1)).getbands())
        values = np.stack(np.meshgrid(*[steps] * bands), axis=-1).reshape(1, -1, bands)
        tried = Image.fromarray(values.squeeze(-1) if bands == 1 else values, mode=mode)
        shown = convert.apply(tried)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # damaged, or for another colour mode than the image's
    if mode == "CMYK":
        return convert
    difference = np.asarray(shown, int) - np.asarray(tried.convert("RGB"), int)
    return convert if np.abs(difference).max() > 2 else None


def frozen(pixels: Pixels) -> Pixels:
    """Return a copy that cannot be changed."""
    pixels = np.array(pixels)
    pixels.setflags(write=False)
    return pixels
