"""Tables with one row a probe image, recorded once, resumable, and safe to use again.

A recording is a folder: ``manifest.json`` says what it is of, and one file for each table holds
its rows, image after image. Rows are appended batch by batch, so the shortest file tells how far
a recording that was killed had come.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from xailib.errors import InputError
from xailib.files import sha256_of, storage, write_atomic
from xailib.images.probe import ProbeSet
from xailib.networks.counting import passed, passes

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_ROWS = 4096  # copied at a time
Batch = Mapping[str, np.ndarray]  # from table to its next rows
Part = tuple[int, int, Path, dict[str, Any]]  # its first row, the one behind its last, what it is


def record(
    folder: Path,
    wanted: Mapping[str, Any],
    batches: Callable[[int], Iterable[Batch]],
    **found: Any,
) -> dict[str, Any]:
    """Record what `batches` yields, unless the folder holds it; go on where it holds a part.

    Parameters
    ----------
    folder : Path
        One folder for one recording.
    wanted : mapping
        What decides the rows, as JSON values, with ``dtype`` and ``images``, the number of rows.
    batches : callable
        From the first image that is wanted to the rows of this and the following ones, always
        the same tables.
    **found
        Further entries for the finished manifest.

    Returns
    -------
    dict
        The manifest: `wanted`, ``units`` (columns of each table), ``sha256`` of each, `found`.

    Raises
    ------
    InputError
        If the folder holds something else, the disk is too small, or values exceed ``dtype``.
    StorageError
        If the disk is full, or may not be written to: run again to go on.
    """
    manifest, before = _start(folder, wanted), passes()
    if not manifest.get("complete"):
        for rows in batches(_resume(folder, manifest)):
            if "units" not in manifest:
                manifest["units"] = [values.shape[1] for values in rows.values()]
                _check_space(folder, manifest)
                _write_manifest(folder, manifest)
            _append(folder, rows, manifest["dtype"])
        manifest |= {"complete": True, "sha256": _hashes(folder, manifest), **found}
        _write_manifest(folder, manifest)
    # Each row was one pass, whenever it was made.
    passed(max(0, manifest["images"] - (passes() - before).made), kept=True)
    return manifest


def table(folder: Path, manifest: Mapping[str, Any], index: int) -> Shaped[np.ndarray, "_ _"]:
    """Return a finished recording's table by its number, read from the disk as it is used."""
    shape = (manifest["images"], manifest["units"][index])
    return np.memmap(_file(folder, index), dtype=manifest["dtype"], mode="r", shape=shape)


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of a recording.

    Raises
    ------
    InputError
        If there is none, or a damaged one.
    """
    try:
        found: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"folder: {str(folder)!r} holds no recording") from error
    return found


def from_parts(
    probe: ProbeSet,
    wanted: Mapping[str, Any],
    parts: Iterable[Path],
    start: int,
    compute: Callable[[int, int], Iterable[Batch]],
) -> Iterator[Batch]:
    """Yield rows from image `start` on: copied where a part of them is recorded, else computed.

    Parameters
    ----------
    probe : ProbeSet
        All images of the recording.
    wanted : mapping
        As for `record`.
    parts : iterable of Path
        Folders that may hold finished recordings of the same thing, each of some of these images
        that follow one another. One that is of something else, or damaged, is passed over.
    start : int
        The first image that is wanted.
    compute : callable
        From an image's position, and the one to stop before, to the rows of these.
    """
    for first, end, folder, manifest in _usable(probe, wanted, parts):
        if start < first:
            yield from compute(start, first)
            start = first
        tables = [table(folder, manifest, index) for index in range(len(manifest["units"]))]
        for row in range(start, end, _ROWS):
            part = slice(row - first, min(row + _ROWS, end) - first)
            yield {str(index): values[part] for index, values in enumerate(tables)}
        start = max(start, end)
    if start < len(probe):
        yield from compute(start, len(probe))


def _usable(probe: ProbeSet, wanted: Mapping[str, Any], parts: Iterable[Path]) -> list[Part]:
    """Return the parts that are recorded, in the order of their first images."""
    places = {name: place for place, name in enumerate(probe.ids)}
    same = {key: value for key, value in wanted.items() if key not in ("probe", "images")}
    found: list[Part] = []
    for folder in parts:
        try:
            manifest = manifest_of(folder)
        except InputError:
            continue
        first = places.get(manifest.get("first", ""))
        if first is None or any(manifest.get(key) != value for key, value in same.items()):
            continue
        end = first + manifest["images"]
        whole = manifest.get("complete") and manifest["sha256"] == _hashes(folder, manifest)
        if whole and probe.part(first, end).sha256 == manifest["probe"]:
            found.append((first, end, folder, manifest))
    return sorted(found, key=lambda part: part[:2])


def _start(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of the recording in a folder, a new one if the folder has none."""
    file = folder / _MANIFEST
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"folder: {str(folder)!r} holds something else; name a new one")
        folder.mkdir(parents=True, exist_ok=True)
        _write_manifest(folder, wanted)
        return dict(wanted)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"folder: {str(file)!r} is damaged: {error}; delete the folder to record anew"
        ) from error
    differing = [key for key, value in wanted.items() if found.get(key) != value]
    if differing:
        which = ", ".join(f"{k} ({found.get(k)}, not {wanted[k]})" for k in differing)
        raise InputError(
            f"folder: {str(folder)!r} holds another recording: {which}; name another folder"
        )
    if found.get("complete") and found.get("sha256") != _hashes(folder, found):
        log.warning("folder: %r is damaged; it is recorded anew", str(folder))
        for index in range(len(found.get("units", []))):
            _file(folder, index).unlink(missing_ok=True)
        return dict(wanted)
    return found


def _resume(folder: Path, manifest: Mapping[str, Any]) -> int:
    """Cut every table's file to the rows that all of them have; return how many these are."""
    if "units" not in manifest:
        return 0
    sizes = _row_bytes(manifest)
    done = min(_length(folder, index) // size for index, size in enumerate(sizes))
    for index, size in enumerate(sizes):
        with _file(folder, index).open("ab") as file:
            file.truncate(done * size)
    return done


def _append(folder: Path, rows: Batch, dtype: str) -> None:
    for index, (name, values) in enumerate(rows.items()):
        if np.abs(values).max() > np.finfo(dtype).max:
            raise InputError(f"dtype: {name!r} exceeds {dtype}; record it as float32")
        path = _file(folder, index)
        # Written, not mapped: on a full disk that is an error here, and not a fatal fault.
        with storage(path), path.open("ab") as file:
            file.write(values.astype(dtype).tobytes())


def _check_space(folder: Path, manifest: Mapping[str, Any]) -> None:
    needed = sum(_row_bytes(manifest)) * manifest["images"]
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"folder: {str(folder)!r} has {free / 1e6:.0f} MB free, "
            f"{needed / 1e6:.0f} MB are needed"
        )


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_atomic(folder / _MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _hashes(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Return the hash of each table's file, empty where it is missing."""
    files = [_file(folder, index) for index in range(len(manifest.get("units", [])))]
    return [sha256_of(file) if file.is_file() else "" for file in files]


def _row_bytes(manifest: Mapping[str, Any]) -> list[int]:
    return [units * np.dtype(manifest["dtype"]).itemsize for units in manifest["units"]]


def _file(folder: Path, index: int) -> Path:
    return folder / f"table{index:02d}.bin"  # a layer's name is no safe file name


def _length(folder: Path, index: int) -> int:
    file = _file(folder, index)
    return file.stat().st_size if file.is_file() else 0
