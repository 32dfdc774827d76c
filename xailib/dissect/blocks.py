"""Recordings: a row for each probe image, in blocks that are written once, whole, and shared.

What is recorded of a block, a fixed number of photographs, is a folder named by the hash of what
decides it (the network, its layers, the images): ``00.npy`` and so on, one for each table, and last
``block.json``, its manifest. So an interrupted recording is resumed at its first missing block,
jobs that share a probe set write into one folder, and images added at the end leave the full blocks
before them as they are. Nothing here needs torch.
"""

import hashlib
import io
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, Shaped

from xailib.errors import InputError
from xailib.files import sha256_of, write_atomic
from xailib.networks.counting import passed, passes

if TYPE_CHECKING:
    from xailib.images.probe import ProbeSet

log = logging.getLogger(__name__)

IMAGES = 1024  # of a block, about
_WHOLE = 16  # photographs: so many fill batches to the last, whatever the number of crops
_VERSION = 4  # of the layout, of what pooling means, and of what decides a pass
_MANIFEST = "block.json"
Batch = Mapping[str, np.ndarray]  # from table to its next rows
Tell = Callable[[int, int], None]  # of how many images are done, and how many there are


def block_photographs(crops: int) -> int:
    """Return of how many photographs, each with its crops, a block is.

    About `IMAGES` images, and a multiple of a batch: each image is in the batch it is in alone.
    """
    return max(_WHOLE, IMAGES // (1 + crops) // _WHOLE * _WHOLE)


class Recording(Mapping[str, np.ndarray]):
    """What blocks hold, one behind the other: from a layer's name to its (probe, units) table.

    A table of one block is that file's memory map; one of several is put together when it is asked
    for, while `blocks_of` and `rows` read no more than they return.

    Parameters
    ----------
    blocks : sequence of Path
        The blocks' folders, at least one, in the order of their images.
    """

    def __init__(self, blocks: Sequence[Path]) -> None:
        if not blocks:
            raise InputError("probe: no image can be used")
        self.blocks = tuple(blocks)
        sizes = [_manifest_of(block)["images"] for block in blocks]
        self._ends = np.cumsum(sizes)
        self._files = {n: _file(i) for i, n in enumerate(_manifest_of(blocks[0])["tables"])}

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "probe units"]:
        blocks = list(self.blocks_of(name))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def images(self) -> int:
        """Rows of each table."""
        return int(self._ends[-1])

    @property
    def ids(self) -> tuple[str, ...]:
        """The probe images' ids, row by row."""
        return tuple(self.ids_at(np.arange(self.images)))

    def ids_at(self, index: Int64[np.ndarray, " rows"]) -> list[str]:
        """Return the ids of some images, from the blocks that hold them."""
        return list(self._gather(index, lambda block: np.array(_manifest_of(block)["ids"], object)))

    def rows(
        self, name: str, index: Int64[np.ndarray, " rows"]
    ) -> Shaped[np.ndarray, "rows units"]:
        """Return some rows of a table, from the blocks that hold them."""
        return self._gather(index, partial(self._read, name))

    def blocks_of(self, name: str) -> Iterator[Shaped[np.ndarray, "block units"]]:
        """Yield a table block by block, each as a read-only memory map."""
        yield from map(partial(self._read, name), self.blocks)

    def _read(self, name: str, block: Path) -> Shaped[np.ndarray, "block units"]:
        found: np.ndarray = np.load(block / self._files[name], mmap_mode="r")
        return found

    def _gather(
        self, index: Int64[np.ndarray, " rows"], read: Callable[[Path], np.ndarray]
    ) -> Shaped[np.ndarray, "rows ..."]:
        numbers = np.searchsorted(self._ends, index, side="right")
        parts = []
        for number in np.unique(numbers).tolist():
            values = read(self.blocks[number])
            parts.append(values[index[numbers == number] - self._ends[number] + len(values)])
        return np.concatenate(parts)[numbers.argsort(kind="stable").argsort()]


def record(
    folder: str | Path,
    wanted: Mapping[str, Any],
    probe: "ProbeSet",
    read: Callable[["ProbeSet"], Iterator[Any]],
    compute: Callable[[Iterator[Any], int], Iterable[Batch]],
    tell: Tell | None = None,
) -> Recording:
    """Record the blocks of a probe set that a folder does not hold yet.

    ``wanted`` is what decides the rows besides the images, as JSON values, with ``dtype``; ``read``
    gives the images of a part of the probe set, in order; ``compute`` makes rows of the images of a
    block and their number, batch by batch, always of the same tables; ``tell`` hears how many of
    them are read. `InputError` is raised if the disk is too small, `StorageError` if it is full, or
    may not be written to: run again to resume.
    """
    folder, before = Path(folder).expanduser(), passes()
    wanted = {"version": _VERSION, **wanted}
    parts = {}
    for part in _cut(probe):
        words = json.dumps([wanted, part.sha256], sort_keys=True)
        parts[folder / hashlib.sha256(words.encode()).hexdigest()[:16]] = part
    missing = {block: part for block, part in parts.items() if not _whole(block)}
    left = sum(map(len, missing.values()))
    # One reader for all blocks: it reads the next one's images while this one's are shown.
    images = read(replace(probe, images=tuple(i for part in missing.values() for i in part.images)))
    if tell:
        images = _told(images, left, tell)
    for block, part in missing.items():
        tables = _tables(compute(islice(images, len(part)), len(part)), wanted["dtype"])
        _check_space(folder, left * sum(table[0].nbytes for table in tables.values()))
        _store(block, {**wanted, "probe": part.sha256, "ids": part.ids}, tables)
        left -= len(part)
    # Each row was one pass, whenever it was made.
    passed(max(0, len(probe) - (passes() - before).made), kept=True)
    return Recording(list(parts))


def _told(images: Iterator[Any], total: int, tell: Tell) -> Iterator[Any]:
    for count, image in enumerate(images):
        tell(count, total)
        yield image


def files_of(block: Path) -> list[Path]:
    """Return the files that a block consists of."""
    return [*sorted(block.glob("*.npy")), block / _MANIFEST]


def _cut(probe: "ProbeSet") -> Iterator["ProbeSet"]:
    """Yield the parts of a probe set that are blocks, wherever a photograph could not be used."""
    most = max(Counter(image.place for image in probe.images).values())
    size = block_photographs(most - 1)
    for _, images in groupby(probe.images, lambda image: image.place // size):
        yield replace(probe, images=tuple(images))


def _whole(block: Path) -> bool:
    """Return whether a block is there as it was written."""
    if not (block / _MANIFEST).is_file():
        return False
    try:
        hashes = _manifest_of(block)["sha256"]
        same = all(sha256_of(block / name) == sha256 for name, sha256 in hashes.items())
    except (InputError, OSError):
        same = False
    if not same:
        log.warning("folder: %r is damaged; it is recorded again", str(block))
    return same


def _tables(batches: Iterable[Batch], dtype: str) -> dict[str, np.ndarray]:
    """Return the rows of all batches by table; what `dtype` cannot hold, in float32."""
    rows: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        for name, values in batch.items():
            rows.setdefault(name, []).append(values)
    tables, kind = {}, np.finfo(dtype)
    for name, parts in rows.items():
        table = np.concatenate(parts)
        largest = np.abs(table).max(0)  # no overflow, and no unit that all but fades
        fits = (largest <= kind.max) & ((largest == 0) | (largest >= kind.tiny))
        tables[name] = table.astype(dtype if fits.all() else np.float32)
    return tables


def _store(block: Path, wanted: Mapping[str, Any], tables: Mapping[str, np.ndarray]) -> None:
    """Write a block, its manifest last."""
    hashes = {}
    for number, table in enumerate(tables.values()):
        data = io.BytesIO()  # `np.save` into a file does not say why the disk refuses
        np.save(data, table)
        hashes[_file(number)] = hashlib.sha256(data.getbuffer()).hexdigest()
        write_atomic(block / _file(number), data.getvalue())
    shapes = {name: table.shape for name, table in tables.items()}
    manifest = {**wanted, "images": len(wanted["ids"]), "tables": shapes, "sha256": hashes}
    write_atomic(block / _MANIFEST, json.dumps(manifest, indent=1))


def _check_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"folder: {str(folder)!r} has {free / 1e6:.0f} MB free, "
            f"{needed / 1e6:.0f} MB are needed"
        )


def _manifest_of(block: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((block / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"folder: {str(block)!r} holds no recording") from error
    return found


def _file(number: int) -> str:
    return f"{number:02d}.npy"  # a layer's name is no safe file name
