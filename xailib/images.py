"""Photographs: named packaged ones, files, folders and lists, as upright 8-bit RGB.

Every way to name photographs ends in `load_images`; every one that cannot be used is either
one clear error (asked for alone) or a `Failure` beside the others (asked for among several).
"""

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from xailib.errors import InputError, near_matches, unknown_name
from xailib.packaged import PACKAGES, Place, packaged

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif"}
    | {".tiff", ".webp"}
)
# What Pillow may try: among its other formats are some that start another program (EPS).
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
PUBLISHED = "published"  # the photographs of the report that we replicate
MIN_SIDE = 16  # pixels; anything smaller shows nothing that could be explained
MAX_PIXELS = 89_478_485  # Pillow's own threshold for a decompression bomb
MAX_BYTES = 500_000_000  # of a file; what MAX_PIXELS needs without any compression is less


@dataclass(frozen=True)
class Photograph:
    """One picture, upright, as 8-bit RGB.

    Attributes
    ----------
    id : str
        Stable and unique within its image set: the packaged name or the file's stem.
    pixels : (height, width, 3) uint8
        sRGB values, not writeable.
    source : str
        Where it came from: ``package:name``, a path, or ``array``.
    sha256 : str
        Hash of the file's bytes (of the pixels, for an array): what ``sha256sum`` prints.
    category : int or None
        The true ImageNet-1k category, 0 to 999, where the source states it.
    """

    id: str
    pixels: UInt8[np.ndarray, "height width 3"]
    source: str
    sha256: str
    category: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Failure:
    """A photograph that was asked for and could not be used: what was named, and why not."""

    source: str
    reason: str


@dataclass(frozen=True)
class ImageSet(Sequence[Photograph]):
    """Photographs in the order asked for, and the failures that stand beside them."""

    photographs: tuple[Photograph, ...]
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.photographs)

    def __iter__(self) -> Iterator[Photograph]:
        return iter(self.photographs)

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        """Return the photograph with this position or this id."""
        if isinstance(key, str):
            for photograph in self.photographs:
                if photograph.id == key:
                    return photograph
            raise unknown_name("image", key, self.ids)
        return self.photographs[key]

    @property
    def ids(self) -> tuple[str, ...]:
        """The photographs' ids, in order."""
        return tuple(photograph.id for photograph in self.photographs)


def load_images(source: str | Path | Iterable[str | Path]) -> ImageSet:
    """Load photographs by name, file, folder, or a list of these.

    Parameters
    ----------
    source : str, path, or list of them
        A packaged photograph (``"chelsea"``), all of a package's (``"foolbox"``,
        ``"scikit-image"``, ``"scikit-learn"``), a file, or a folder, which is searched with its
        subfolders (links too, each folder once) for files whose suffix is in `SUFFIXES`, in the
        order of their paths. A
        packaged name wins over a file of the same name: write ``./chelsea`` for the file.

    Returns
    -------
    ImageSet
        Upright 8-bit RGB photographs: EXIF orientation applied, transparency composited on
        white, 16 bits scaled to 8, the first frame of an animation. A file that is named twice
        is kept once. What cannot be used becomes a `Failure`, and the others are still loaded.

    Raises
    ------
    InputError
        If nothing can be used: the one reason, or the first of them and their number.
    """
    photographs: dict[str, Photograph] = {}
    failures: list[Failure] = []
    for found in iter_images(source):
        if isinstance(found, Failure):
            failures.append(found)
        else:
            photographs[found.id] = found
    if not photographs:
        others = f" (and {len(failures) - 1} more failed)" if len(failures) > 1 else ""
        raise InputError(failures[0].reason + others)
    return ImageSet(tuple(photographs.values()), tuple(failures))


def iter_images(source: str | Path | Iterable[str | Path]) -> Iterator[Photograph | Failure]:
    """Yield what `load_images` would load, one at a time, so that a large folder fits in memory.

    Ids are made unique by adding the first eight digits of the hash to a name already taken.

    Raises
    ------
    InputError
        If `source` is an empty list.
    """
    names = [source] if isinstance(source, str | Path) else list(source)
    if not names:
        raise InputError("images: the list is empty; name at least one photograph")
    taken: dict[str, str] = {}  # id: hash
    for name in names:
        try:
            places = _places(name)
        except (OSError, RuntimeError) as error:  # too long a name, an unknown user's home
            yield Failure(str(name), f"images: {str(name)[:80]!r} cannot be looked up: {error}")
            continue
        except InputError as error:
            yield Failure(str(name), str(error))
            continue
        for place in places:
            try:
                photograph = _read(place)
            except InputError as error:
                yield Failure(place.source, str(error))
                continue
            if photograph.id in taken and taken[photograph.id] != photograph.sha256:
                photograph = replace(photograph, id=f"{photograph.id}-{photograph.sha256[:8]}")
            if photograph.id not in taken:
                taken[photograph.id] = photograph.sha256
                yield photograph


def from_array(pixels: UInt8[np.ndarray, "height width 3"], name: str) -> Photograph:
    """Return an array of sRGB values as a photograph; its hash is that of the pixels.

    Raises
    ------
    InputError
        If a side is shorter than `MIN_SIDE` pixels.
    """
    _check_size(name, (pixels.shape[1], pixels.shape[0]))
    return Photograph(name, _frozen(pixels), "array", hashlib.sha256(pixels.tobytes()).hexdigest())


def _places(name: object) -> list[Place]:
    """Return the files that one name stands for."""
    if not isinstance(name, str | Path) or not str(name):
        raise InputError(f"images: {name!r} is no name, file or folder")
    known = packaged()
    key = str(name)
    if key in known:
        return [known[key]]
    if key == PUBLISHED:
        from xailib import published  # only here: it may fetch them

        found = published.locate("", published.photographs()).values()
        return [Place(file.stem, file, str(file)) for file in found]
    if key in PACKAGES:
        if not find_spec(PACKAGES[key][0]):
            raise InputError(f"images: {key!r} is not installed; pip install {key}")
        return [place for place in known.values() if place.source.startswith(f"{key}:")]
    path = Path(name).expanduser()
    if path.is_dir():
        files = _inside(path)
        if not files:
            kinds = " ".join(sorted(SUFFIXES))
            raise InputError(f"images: the folder {key!r} holds no image ({kinds})")
        return [Place(f.stem, f, str(f)) for f in files]
    if path.is_file():
        return [Place(path.stem, path, str(path))]
    if any(sign in key for sign in "/\\.~"):
        siblings = [str(path.with_name(f.name)) for f in path.parent.glob("*")]
        close = near_matches(key, siblings)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"images: no file or folder {key!r}{hint}")
    raise unknown_name("images", key, [*known, *PACKAGES, PUBLISHED])


def _inside(folder: Path) -> list[Path]:
    """Return the image files in a folder and below, sorted; links are followed, each folder once."""
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root, below, names in os.walk(folder, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back, or a second one
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below.sort()
        found = (Path(root, name) for name in names)
        files += [f for f in found if f.suffix.lower() in SUFFIXES and not _special(f)]
    return sorted(files)


def _special(path: Path) -> bool:
    """Tell whether something is there that is no file, such as a pipe that would never end."""
    return path.exists() and not path.is_file()


def _read(place: Place) -> Photograph:
    """Read one file as upright 8-bit RGB, or raise one line that names it."""
    try:
        size = place.path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(
                f"images: {place.source!r} is a file of {size / 1e6:.0f} MB; "
                f"at most {MAX_BYTES / 1e6:.0f} are read"
            )
        data = place.path.read_bytes()
    except OSError as error:
        raise InputError(f"images: cannot read {place.source!r}: {error.strerror}") from error
    formats = (*_FORMATS, *_heif())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata and large sizes: checked below
            with Image.open(io.BytesIO(data), formats=formats) as image:
                _check_size(place.source, image.size)
                pixels = _to_rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"images: {place.source!r} is too large: {error}") from error
    except UnidentifiedImageError as error:
        apple = data[4:8] == b"ftyp" and "HEIF" not in formats
        hint = "; it may be HEIC: pip install pillow-heif" if apple else ""
        raise InputError(
            f"images: {place.source!r} is not an image that Pillow reads{hint}"
        ) from error
    except Exception as error:  # a decoder may raise anything for damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"images: {place.source!r} is damaged: {reason}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    return Photograph(place.id, _frozen(pixels), place.source, sha256, place.category)


@cache
def _heif() -> tuple[str, ...]:
    """Return the format of HEIC files, where the package that reads them is installed."""
    if not find_spec("pillow_heif"):
        return ()
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _check_size(name: str, size: tuple[int, int]) -> None:
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


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if image.mode.startswith("I") else 1
        if not np.isfinite(values).all():
            raise ValueError("values that are not finite")
        if values.min() < 0 or values.max() > top:
            raise ValueError(f"values of mode {image.mode!r} outside 0 to {top}")
        image = Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _frozen(pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    pixels = np.array(pixels)
    pixels.setflags(write=False)
    return pixels
