"""Photographs: named packaged ones, files, folders and lists, as upright 8-bit RGB.

Every way to name photographs ends in `load_images`; every one that cannot be used is either
one clear error (asked for alone) or a `Failure` beside the others (asked for among several).
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from xailib.downloads.registry import Artefact, artefacts
from xailib.errors import InputError, near_matches, unknown_name
from xailib.images.decode import check_size, frozen, read_file, upright
from xailib.images.packaged import PACKAGES, Place, packaged

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif"}
    | {".tiff", ".webp"}
)
# Folders that systems make beside photographs, with copies of them; and whatever starts with a dot.
_SYSTEM = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
PUBLISHED = "published"  # the photographs of the report that we replicate
HELD_BYTES = 1_000_000_000  # of pixels that an image set caches; the rest is read again


@dataclass(frozen=True)
class Photograph:
    """One image, upright, as 8-bit RGB."""

    id: str  #: stable, unique within its image set, the packaged name or the file's stem
    pixels: UInt8[np.ndarray, "height width 3"]  #: sRGB values, not writeable
    source: str  #: ``package:name``, a path, or ``array``
    sha256: str  #: of the file, as ``sha256sum`` prints it; of an array, of its pixels
    class_index: int | None = None  #: the true ImageNet-1k class, where the source states it

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Failure:
    """A requested photograph that could not be used: its name, and why not."""

    source: str
    reason: str


@dataclass(frozen=True)
class Stored:
    """A photograph that was looked at, and is read again each time it is used."""

    id: str
    place: Place
    sha256: str

    def read(self) -> Photograph:
        """Return the photograph; raise if the file has changed or gone."""
        found = _opened(self.place)
        if found.sha256 != self.sha256:
            raise InputError(f"images: {self.place.source!r} changed while in use; load it again")
        return replace(found, id=self.id)


@dataclass(frozen=True)
class ImageSet(Sequence[Photograph]):
    """Photographs in the requested order, and a list of failures.

    The pixels of the first ones are held, up to `HELD_BYTES`; the others are read when used, so
    that a folder may hold any number.
    """

    photographs: tuple[Photograph | Stored, ...]
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.photographs)

    def __iter__(self) -> Iterator[Photograph]:
        return map(_read, self.photographs)

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        """Return the photograph with this position or this id."""
        if isinstance(key, str):
            for photograph in self.photographs:
                if photograph.id == key:
                    return _read(photograph)
            raise unknown_name("image", key, self.ids)
        found = self.photographs[key]
        return tuple(map(_read, found)) if isinstance(key, slice) else _read(found)

    @property
    def ids(self) -> tuple[str, ...]:
        """The photographs' ids, in order."""
        return tuple(photograph.id for photograph in self.photographs)

    @property
    def hashes(self) -> dict[str, str]:
        """The photographs' hashes, by id."""
        return {photograph.id: photograph.sha256 for photograph in self.photographs}


def load_images(source: str | Path | Iterable[str | Path]) -> ImageSet:
    """Load photographs by name, file, folder, or a list of these.

    Parameters
    ----------
    source : str, path, or list of them
        A packaged photograph (``"chelsea"``), all of a package's (``"foolbox"``,
        ``"scikit-image"``, ``"scikit-learn"``), a file, or a folder, which is searched with its
        subfolders (links too, each folder once) for files whose suffix is in `SUFFIXES`, in the
        order of their paths; hidden files and folders are passed over. A packaged name wins over
        a file of the same name: write ``./chelsea`` for the file.

    Returns
    -------
    ImageSet
        Upright 8-bit RGB photographs: EXIF orientation applied, transparency composited on
        white, colours converted to sRGB by the file's own profile, 16 bits scaled to 8, the first
        frame of an animation. A file that is named twice is listed once. What cannot be used
        becomes a `Failure`, and so does the same photograph under another name; the others are
        still loaded.

    Raises
    ------
    InputError
        If nothing can be used: the one reason, or the first of them and their number.
    """
    photographs: dict[str, Photograph | Stored] = {}
    failures: list[Failure] = []
    shown: dict[tuple[tuple[int, int], bytes], str] = {}
    held = 0
    for found in iter_images(source):
        if isinstance(found, Failure):
            failures.append(found)
            continue
        content = found.size, hashlib.sha256(found.pixels.ravel().data).digest()
        if shown.setdefault(content, found.id) != found.id:
            same = f"is the same photograph as {shown[content]!r}; used once"
            failures.append(Failure(found.source, f"images: {found.source!r} {same}"))
            continue
        photographs[found.id] = found
        held += found.pixels.nbytes
        if held > HELD_BYTES and Path(found.source).is_file():  # not under another text
            place = Place(found.id, Path(found.source), found.source, found.class_index)
            photographs[found.id] = Stored(found.id, place, found.sha256)
    if not photographs:
        raise none_usable([failure.reason for failure in failures])
    return ImageSet(tuple(photographs.values()), tuple(failures))


def none_usable(reasons: Sequence[str], name: str = "images") -> InputError:
    """Return the error of the parameter `name` if no photograph can be used: the first reason."""
    others = f" (and {len(reasons) - 1} more failed)" if len(reasons) > 1 else ""
    return InputError(f"{name}: {reasons[0].removeprefix('images: ')}{others}")


def iter_images(source: str | Path | Iterable[str | Path]) -> Iterator[Photograph | Failure]:
    """Yield what `load_images` would load, one at a time, so that a large folder fits in memory.

    Ids are made unique by adding the first eight digits of the hash to a name already taken.
    """
    return unique(map(read_place, find_images(source)))


def find_images(source: str | Path | Iterable[str | Path]) -> Iterator[Place | Failure]:
    """Yield the files that `load_images` would read, and the names that match none."""
    names = [source] if isinstance(source, str | Path) else list(source)
    if not names:
        raise InputError("images: the list is empty; name at least one photograph")
    return _places(names)


def _places(names: Iterable[str | Path]) -> Iterator[Place | Failure]:
    for name in names:
        try:
            places = places_of(name)
        except (OSError, RuntimeError) as error:  # too long a name, an unknown user's home
            yield Failure(str(name), f"images: {str(name)[:80]!r} cannot be looked up: {error}")
        except InputError as error:
            yield Failure(str(name), str(error))
        else:
            yield from places


def read_place(place: Place | Failure) -> Photograph | Failure:
    """Return the photograph in a file, or why there is none; a `Failure` is returned as it is."""
    if isinstance(place, Failure):
        return place
    try:
        return _opened(place)
    except InputError as error:
        return Failure(place.source, str(error))


def unique(found: Iterable[Photograph | Failure]) -> Iterator[Photograph | Failure]:
    """Yield each photograph once, under an id that no other one has."""
    taken: dict[str, str] = {}  # id: hash
    for photograph in found:
        if isinstance(photograph, Failure):
            yield photograph
            continue
        if photograph.id in taken and taken[photograph.id] != photograph.sha256:
            photograph = replace(photograph, id=f"{photograph.id}-{photograph.sha256[:8]}")
        if photograph.id not in taken:
            taken[photograph.id] = photograph.sha256
            yield photograph


def from_array(pixels: UInt8[np.ndarray, "height width 3"], name: str) -> Photograph:
    """Return an array of sRGB values, not too small, as a photograph hashed by its pixels."""
    check_size(name, (pixels.shape[1], pixels.shape[0]))
    return Photograph(name, frozen(pixels), "array", hashlib.sha256(pixels.tobytes()).hexdigest())


def as_photograph(image: object) -> Photograph:
    """Return whatever stands for one image as a photograph.

    Parameters
    ----------
    image : Photograph, str, path, PIL image, array or tensor
        A name or file that `load_images` knows; a PIL image; an array (height, width, 3), or
        (height, width) of grays; a tensor (3, height, width). Numbers are uint8, or floating from
        0 to 1: the photograph, not what a transform has made of it.

    Raises
    ------
    InputError
        For anything else, and for several photographs.
    """
    if isinstance(image, Photograph):
        return image
    if isinstance(image, str | Path):
        places = list(find_images(image))
        if len(places) > 1:
            raise InputError(f"image: {str(image)!r} holds {len(places)} photographs; name one")
        return load_images(image)[0]
    name = "image"
    if isinstance(image, Image.Image):
        name = Path(getattr(image, "filename", "") or name).stem
        pixels = upright(image, name)
    elif hasattr(image, "detach") and hasattr(image, "movedim"):  # a tensor, without torch
        tensor: Any = image
        array = tensor.detach().cpu().float() if tensor.is_floating_point() else tensor.cpu()
        array = array[0] if array.ndim == 4 and len(array) == 1 else array
        pixels = _pixels(array.movedim(0, -1).numpy() if array.ndim == 3 else array.numpy())
    elif isinstance(image, np.ndarray):
        pixels = _pixels(image)
    else:
        raise InputError(
            f"image: a {type(image).__name__} is not an image; allowed: a path, a packaged name, "
            "a PIL image, an array (height, width, 3), a tensor (3, height, width)"
        )
    made = from_array(pixels, name)
    return replace(made, id=f"{name}-{made.sha256[:8]}")


def _pixels(values: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "height width 3"]:
    """Return an array of colours or grays as 8-bit RGB."""
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[-1] not in (1, 3):
        raise InputError(
            f"image: the shape {values.shape} is not (height, width, 3); of a tensor, "
            "(3, height, width)"
        )
    low, high = values.min(initial=0), values.max(initial=0)
    floating = np.issubdtype(values.dtype, np.floating)
    top = 1 if floating or values.dtype == bool else 255
    if not (low >= 0 and high <= top):
        raise InputError(
            f"image: values from {low:.4g} to {high:.4g} are not within 0 to {top}; give the "
            "photograph itself, not what a transform has made of it"
        )
    scaled = np.round(values * (255 / top)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(scaled, (*values.shape[:2], 3)))


def places_of(name: object) -> list[Place]:
    """Return the files that one name matches; raise if it matches none."""
    if not isinstance(name, str | Path) or not str(name):
        raise InputError(f"images: {name!r} is no name, file or folder")
    known = packaged()
    key = str(name)
    if key in known:
        return [known[key]]
    if key == PUBLISHED:
        found = [one.fetch() for one in published_photographs()]
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
        return [Place(_text(f.stem), f, _text(f)) for f in files]
    if path.is_file():
        return [Place(_text(path.stem), path, _text(path))]
    if any(sign in key for sign in "/\\.~"):
        siblings = [str(path.with_name(f.name)) for f in path.parent.glob("*")]
        close = near_matches(key, siblings)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"images: no file or folder {key!r}{hint}")
    raise unknown_name("images", key, [*known, *PACKAGES, PUBLISHED])


def _text(name: str | Path) -> str:
    """Return a file's name as text of one line, also where its bytes are none."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", os.fsencode(name).decode("utf-8", "replace"))


def published_photographs() -> list[Artefact]:
    """Return the photographs of the replicated report, nothing fetched."""
    return [one for one in artefacts(PUBLISHED) if one.path.startswith("task-2/images/")]


def _inside(folder: Path) -> list[Path]:
    """Return the image files in a folder and below, sorted; links count, each folder once.

    Hidden files and those of the system are skipped.
    """
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    unreadable: list[OSError] = []
    for root, below, names in os.walk(folder, followlinks=True, onerror=unreadable.append):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back, or a second one
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not hidden(name))
        found = (Path(root, name) for name in names if not hidden(name))
        images = (file for file in found if file.suffix.lower() in SUFFIXES)
        # What is there and no file, such as a pipe that would never end, is skipped too.
        files += [file for file in images if file.is_file() or not file.exists()]
    files += [Path(error.filename) for error in unreadable]  # reported when they are read
    return sorted(files)


def hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or made by a system."""
    return name.startswith(".") or name in _SYSTEM


def _read(photograph: Photograph | Stored) -> Photograph:
    return photograph.read() if isinstance(photograph, Stored) else photograph


def _opened(place: Place) -> Photograph:
    pixels, sha256 = read_file(place.path, place.source)
    return Photograph(place.id, pixels, place.source, sha256, place.class_index)
