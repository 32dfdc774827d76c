"""Probe images: what a network is shown to find out what its units respond to.

A probe set knows its images before any of them is needed, and reads them one at a time.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from xailib.errors import InputError
from xailib.images.archives import ARCHIVES, fetch_images
from xailib.images.decode import MIN_SIDE
from xailib.images.load import Failure, Photograph, iter_images
from xailib.images.packaged import packaged_names

PACKAGED = "packaged"
_SCALE = (0.08, 1.0)  # share of the photograph's area, as in Inception's training
_RATIO = (3 / 4, 4 / 3)  # width over height


@dataclass(frozen=True)
class ProbeImage:
    """One probe image: a photograph, or a part of one."""

    id: str  #: unique in its probe set, the photograph's id with the crop's number behind it
    file: str  #: the packaged name or the path that `xailib.images.load` reads
    sha256: str  #: of the photograph's file
    #: The photograph's ImageNet-1k class, where its source, its name or its folder states it. A
    #: small crop may no longer show it.
    class_index: int | None = None
    label: str | None = None  #: its sub-folder, if any, which is the class in an ImageFolder tree
    #: (top, left, height, width), the part of the photograph; None for all of it
    box: tuple[int, int, int, int] | None = None
    place: int = 0  #: the photograph's position among all that were listed, usable or not


@dataclass(frozen=True)
class ProbeSet:
    """Probe images in a fixed order, and the files that could not be used."""

    source: str  #: where they came from
    images: tuple[ProbeImage, ...]  #: in order; iterating reads them
    failures: tuple[Failure, ...] = ()  #: files that were skipped

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Photograph]:
        return self.photographs()

    @property
    def ids(self) -> tuple[str, ...]:
        """The images' ids, in order."""
        return tuple(image.id for image in self.images)

    @property
    def class_indices(self) -> frozenset[int]:
        """The ImageNet-1k classes that are known to be in the set."""
        return frozenset(i.class_index for i in self.images if i.class_index is not None)

    @property
    def sha256(self) -> str:
        """Hash of what the set shows and in which order, whatever its folder."""
        lines = (f"{i.id} {i.sha256} {i.box}" for i in self.images)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def part(self, start: int, stop: int) -> "ProbeSet":
        """Return the images from position `start` on and before `stop`."""
        return replace(self, images=self.images[start:stop])

    def photographs(self) -> Iterator[Photograph]:
        """Yield the images in order, read on demand; raise for a file that has changed or gone."""
        whole: Photograph | None = None
        for image in self.images:
            if whole is None or whole.sha256 != image.sha256:
                found = next(iter_images([image.file]))
                if isinstance(found, Failure):
                    raise InputError(f"probe: {image.file!r} is gone: {found.reason}")
                if found.sha256 != image.sha256:
                    raise InputError(f"probe: {image.file!r} changed while in use; load it again")
                whole = found
            pixels = whole.pixels
            if image.box is not None:
                top, left, height, width = image.box
                pixels = pixels[top : top + height, left : left + width]
            yield replace(whole, id=image.id, pixels=pixels, class_index=image.class_index)

    def photograph(self, image_id: str) -> Photograph:
        """Return one image by its id."""
        for place, known in enumerate(self.ids):
            if known == image_id:
                return next(self.part(place, place + 1).photographs())
        raise InputError(f"probe: no image {image_id!r} in {self.source}")


def load_probe(
    source: str | Path | Iterable[str | Path] = PACKAGED, crops: int = 0, seed: int = 0
) -> ProbeSet:
    """Make a probe set: every file is opened once, and those that cannot be used are noted.

    Parameters
    ----------
    source : str, path, or list of them
        ``"packaged"``, all packaged photographs; ``"broden"`` or ``"imagenet-sample"``, fetched
        from their published addresses and cached; or whatever `xailib.images.load.load_images`
        takes: a folder is searched with its sub-folders, whose names become labels.
    crops : int
        Parts cropped from each photograph besides the whole: 8 to 100 % of its area, sides 3:4 to
        4:3, both drawn log-uniformly, wherever they fit.
    seed : int
        For the crops. Those of a photograph do not depend on which others there are.

    Raises
    ------
    InputError
        If no file can be used.
    UnavailableError
        If a published set cannot be fetched: how to supply it.
    """
    if crops < 0:
        raise InputError(f"crops: {crops} is negative")
    sources = [source] if isinstance(source, str | Path) else list(source)
    names = [name for one in sources for name in _places(one)]
    label = " + ".join(str(one) for one in sources)
    found = _probe(label, iter_images(names), sources, crops, seed)
    if not found.images:
        failures = found.failures
        reason = f": {failures[0].reason}" if failures else ""
        raise InputError(f"probe: no image of {len(failures)} can be used{reason}")
    return found


def probe_of(photographs: Iterable[tuple[str, str]], crops: int = 0, seed: int = 0) -> ProbeSet:
    """Make the part of a probe set that photographs, each an id and a name, give; it may be empty.

    `load_probe` gives the same images, but for what a folder's name would say.
    """
    read = ((unique, next(iter_images([name]))) for unique, name in photographs)
    named = (f if isinstance(f, Failure) else replace(f, id=unique) for unique, f in read)
    return _probe("a part", named, (), crops, seed)


def _probe(
    source: str,
    photographs: Iterable[Photograph | Failure],
    sources: Sequence[str | Path],
    crops: int,
    seed: int,
) -> ProbeSet:
    images: list[ProbeImage] = []
    failures: list[Failure] = []
    folders = [root for root in (Path(one).expanduser() for one in sources) if root.is_dir()]
    for place, found in enumerate(photographs):
        if isinstance(found, Failure):
            failures.append(found)
        else:
            images += _whole_and_crops(found, place, folders, crops, seed)
    return ProbeSet(source, tuple(images), tuple(failures))


def _whole_and_crops(
    found: Photograph, place: int, folders: Sequence[Path], crops: int, seed: int
) -> Iterator[ProbeImage]:
    package, _, packaged = found.source.partition(":")
    file = packaged if package in packaged_names() else found.source
    label = _label(file, folders)
    class_index = _class_index(found, label)
    yield ProbeImage(found.id, file, found.sha256, class_index, label, None, place)
    for number, box in enumerate(_boxes(found, crops, seed), start=1):
        crop_id = f"{found.id}-crop{number:03d}"
        yield ProbeImage(crop_id, file, found.sha256, class_index, label, box, place)


def _places(source: str | Path) -> Sequence[str | Path]:
    if source == PACKAGED:
        return list(packaged_names())
    if source in ARCHIVES:
        return [fetch_images(str(source))]
    return [source]


def _label(file: str, folders: Sequence[Path]) -> str | None:
    """Return the sub-folder, of one of these folders, that contains a file."""
    for root in folders:
        if Path(file).is_relative_to(root):
            inside = Path(file).relative_to(root).parent.as_posix()
            return None if inside == "." else inside
    return None


@cache
def class_ids() -> dict[str, int]:
    """Return the ImageNet classes' indices by WordNet's ids, in order."""
    import timm.data  # only here: it brings torch, which no command needs to plan its jobs

    names = timm.data.ImageNetInfo("imagenet-1k").label_names()
    return {name: index for index, name in enumerate(names)}


def _class_index(photograph: Photograph, label: str | None) -> int | None:
    """Return the class that the source states, or a WordNet id in the name or folder."""
    if photograph.class_index is not None:
        return photograph.class_index
    stated = class_ids().get(photograph.id.split("_")[0])
    return stated if stated is not None else class_ids().get((label or "").split("/")[-1])


def _boxes(photograph: Photograph, count: int, seed: int) -> list[tuple[int, int, int, int]]:
    """Draw parts of a photograph, the same ones whenever it is among the probe images."""
    rng = np.random.default_rng([seed, int(photograph.sha256[:15], 16)])
    height, width = photograph.size
    boxes = []
    for _ in range(count):
        area = height * width * np.exp(rng.uniform(*np.log(_SCALE)))
        ratio = np.exp(rng.uniform(*np.log(_RATIO)))
        tall = int(np.clip(round(np.sqrt(area / ratio)), MIN_SIDE, height))
        wide = int(np.clip(round(np.sqrt(area * ratio)), MIN_SIDE, width))
        top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
        boxes.append((int(top), int(left), tall, wide))
    return boxes
