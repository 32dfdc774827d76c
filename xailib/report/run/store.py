"""Finished results in a place that all machines reach: a bucket, or a folder (by fsspec).

The store has the layout of ``results/``. A manifest is written there last and taken away first, and
each file that is fetched has to have the hash that its manifest says: what is half there, or was
changed, is as good as absent.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xailib.errors import InputError, UnavailableError, first_line
from xailib.files import atomic, sha256_of, storage, write_atomic
from xailib.report.run.addresses import file_system
from xailib.report.run.results import MANIFEST, damaged, intact

log = logging.getLogger(__name__)

BESIDE = ("log.txt", "cost.json")  # of a job; no manifest names them


class _UnfitError(Exception):
    """A stored file is not there, or not what its manifest says."""


class Store:
    """Finished results below one address, by the names that they have below a folder here.

    Parameters
    ----------
    url : str
        As fsspec takes it: ``s3://bucket/prefix`` (needs s3fs), ``gs://bucket/prefix`` (gcsfs),
        ``file:///shared/folder`` or a plain path. Credentials are the machine's own.
    root : Path
        What lies below it here lies below `url` there: ``results``, of the project.

    Raises
    ------
    InputError
        For an address that cannot be a store's, see `xailib.report.run.addresses.file_system`.
    UnavailableError
        If the package for such addresses is missing.
    """

    def __init__(self, url: str, root: Path) -> None:
        self._system, self._place = file_system(url)
        self.url = url
        self._root = Path(os.path.abspath(root))  # noqa: PTH100  links stay as they are

    def push(self, folder: Path, *, quick: bool = False) -> None:
        """Copy a finished result there, unless it is there already.

        Parameters
        ----------
        folder : Path
            Where it lies here.
        quick : bool
            Whether files of the right size there are taken for right, and not read.

        Raises
        ------
        InputError
            If the folder holds no finished result, or a damaged one. What is there stays.
        UnavailableError
            If the store does not take it; give the command again later.
        """
        manifest = b""
        with contextlib.suppress(OSError):
            manifest = (folder / MANIFEST).read_bytes()
        outputs = _parsed(manifest).get("outputs")
        if not outputs:
            raise InputError(f"store: {str(folder)!r} holds no finished result")
        with self._telling():
            self._push(folder, manifest, outputs, quick)

    def _push(self, folder: Path, manifest: bytes, outputs: Mapping[str, str], quick: bool) -> None:
        last = self._there(folder / MANIFEST)
        if self._read(last) == manifest and self._whole(folder, outputs, quick):
            return
        try:
            _check_names(folder, outputs)  # or nobody would take it from there
        except _UnfitError as error:
            raise InputError(f"store: the manifest in {str(folder)!r} {error}") from error
        if names := damaged(folder, {"outputs": outputs}):
            raise InputError(f"store: {names[0]!r} in {str(folder)!r} is damaged; run again")
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(last)
        beside = [name for name in BESIDE if (folder / name).is_file()]
        for name in [*outputs, *beside]:
            self._system.put_file(str(folder / name), self._there(folder / name))
        self._system.pipe_file(last, manifest)

    def _whole(self, folder: Path, outputs: Mapping[str, str], quick: bool) -> bool:
        """Tell whether all files of a result are there as they should be."""
        places = {name: self._there(folder / name) for name in outputs}
        try:
            for name, place in places.items():  # soon told, for all, before any is read
                if self._system.size(place) != (folder / name).stat().st_size:
                    return False
            return quick or all(self._sha256(places[name]) == outputs[name] for name in outputs)
        except FileNotFoundError:
            return False

    def _sha256(self, place: str) -> str:
        with self._system.open(place, "rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest()

    def pull(
        self, folder: Path, wanted: Callable[[Mapping[str, Any]], bool] = lambda _manifest: True
    ) -> bool:
        """Take a finished result from there; return whether it is here now.

        What is here stays as it is until all that is there has come and was found whole.

        Parameters
        ----------
        folder : Path
            Where it belongs.
        wanted : callable
            Of its manifest: whether it is any use. If not, nothing here is touched.

        Raises
        ------
        InputError
            If the folder is outside of the results.
        UnavailableError
            If the store does not answer.
        """
        here = folder / MANIFEST
        with self._telling():
            found = self._read(self._there(here))
        manifest = _parsed(found)
        if found is None or not manifest or not wanted(manifest):
            return False
        with contextlib.suppress(OSError):  # no manifest here, or not any more
            if here.read_bytes() == found and intact(folder, manifest):
                return True
        try:
            with self._telling(), storage(here):
                _check_names(folder, manifest["outputs"])
                self._take(folder, manifest["outputs"])
                write_atomic(here, found)
        except _UnfitError as error:
            log.warning("store: %s of %s %s; it is not used", folder.name, self.url, error)
            return False
        return True

    def _take(self, folder: Path, outputs: Mapping[str, str]) -> None:
        """Fetch a result's files, and only when all are as they should be, move them in."""
        places = {folder / name: self._there(folder / name) for name in outputs}
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull.", dir=folder) as aside:
            fetched: dict[Path, Path] = {}
            for (path, place), sha256 in zip(places.items(), outputs.values(), strict=True):
                if not _is(path, sha256):
                    fetched[path] = Path(aside, str(len(fetched)))
                    self._fetch(place, fetched[path], path.name, sha256)
            for name in BESIDE:
                with contextlib.suppress(_UnfitError):
                    self._fetch(self._there(folder / name), Path(aside, name), name)
                    fetched[folder / name] = Path(aside, name)
            for path, file in fetched.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                file.replace(path)

    def _there(self, path: Path) -> str:
        """Return where a file of the results lies in the store."""
        name = Path(os.path.relpath(path, self._root))  # a manifest's names may lead upwards
        if name.parts[0] == os.pardir:
            raise InputError(f"store: {str(path)!r} is not below {str(self._root)!r}")
        return f"{self._place}/{name.as_posix()}"

    def _read(self, place: str) -> bytes | None:
        try:
            return bytes(self._system.cat_file(place))
        except FileNotFoundError:
            return None

    def _fetch(self, place: str, path: Path, name: str, sha256: str = "") -> None:
        """Copy a file here, if it is there as it was written; without a hash, as it is."""
        digest = hashlib.sha256()
        with atomic(path) as file:
            try:
                with self._system.open(place, "rb") as source:
                    shutil.copyfileobj(source, _Both(file, digest))
            except FileNotFoundError as error:
                raise _UnfitError(f"misses {name!r}") from error
            if sha256 and digest.hexdigest() != sha256:
                raise _UnfitError(f"has another {name!r} than its manifest says")

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn whatever a file system raises into one line."""
        try:
            yield
        except (_UnfitError, InputError, UnavailableError):
            raise
        except Exception as error:
            raise UnavailableError(f"store: {self.url}: {first_line(error)}") from error


class _Both:
    """Takes what is written for a file and for its hash."""

    def __init__(self, file: Any, digest: Any) -> None:
        self._file, self._digest = file, digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return int(self._file.write(data))


def _check_names(folder: Path, outputs: Mapping[str, Any]) -> None:
    """Raise if a manifest names what a job does not write: whoever wrote it is not to be trusted.

    A job writes into its own folder, and into that of its task, but not into another job's.
    """
    top = folder.parents[1] if folder.parent.name == "jobs" else folder
    top, own = Path(os.path.abspath(top)), Path(os.path.abspath(folder))  # noqa: PTH100
    for name, sha256 in outputs.items():
        path = Path(os.path.abspath(folder / name))  # noqa: PTH100  the name, links unfollowed
        parts = path.relative_to(top).parts if path.is_relative_to(top) else ()
        good = (
            "\0" not in name
            and parts
            and path.resolve().is_relative_to(top.resolve())
            and (parts[0] != "jobs" or (own != top and path.is_relative_to(own)))
            and not any(part.startswith(".") for part in parts)
            and path.name.lower() != MANIFEST
            and not path.is_dir()
        )
        if not good:
            raise _UnfitError(f"names {name!r}, which is no file of its own")
        if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise _UnfitError(f"names {name!r} without a SHA-256")


def _is(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False


def _parsed(found: bytes | None) -> dict[str, Any]:
    """Return a manifest with outputs, or nothing: half a file is none."""
    try:
        manifest = json.loads(found or b"")
    except ValueError:
        return {}
    good = isinstance(manifest, dict) and isinstance(manifest.get("outputs"), dict)
    return manifest if good else {}
