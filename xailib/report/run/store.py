"""Finished results in a place that all machines reach: a bucket, a folder (by fsspec), or bytes.

A store has the layout of ``results/``. A manifest is written there last and removed first, and
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

from xailib.errors import InputError, UnavailableError, first_line, near_matches
from xailib.files import atomic, sha256_of, storage, write_atomic
from xailib.report.run.plan import COST, LOG
from xailib.report.run.results import MANIFEST, damaged, intact

log = logging.getLogger(__name__)

ALLOWED = "give a folder, file:///FOLDER, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
_BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "oss", "oci")
_READ_ONLY = ("http", "https", "data")


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
        The local folder that `url` mirrors: ``results``, of the project.
    files : mapping, optional
        Instead of an address: content by name, as from `as_bytes` on another machine.

    Raises
    ------
    InputError
        For an address that cannot be a store's.
    UnavailableError
        If the package for such addresses is missing, or its machine does not answer.
    """

    def __init__(self, url: str, root: Path, files: Mapping[str, bytes] | None = None) -> None:
        self.url = url or "what another machine sends"
        self._system, self._place = _file_system(url) if files is None else (_in_memory(files), "")
        self._root = Path(os.path.abspath(root))  # noqa: PTH100  links stay as they are

    def push(self, folder: Path, *, quick: bool = False) -> None:
        """Copy a finished result there from its folder here, unless it is there already.

        With ``quick``, files of the right size there are taken for right, and not read.

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
        if not (outputs := _parsed(manifest).get("outputs")):
            raise InputError(f"store: {str(folder)!r} holds no finished result")
        with self._in_one_line():
            last = self._there(folder / MANIFEST)
            if self._read(last) == manifest and self._whole(folder, outputs, quick):
                return
            try:
                _check_names(folder, outputs)  # or no other machine would accept it
            except _UnfitError as error:
                raise InputError(f"store: the manifest in {str(folder)!r} {error}") from error
            if names := damaged(folder, {"outputs": outputs}):
                raise InputError(f"store: {names[0]!r} in {str(folder)!r} is damaged; run again")
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(last)
            beside = [name for name in (LOG, COST) if (folder / name).is_file()]
            for name in [*outputs, *beside]:
                self._system.put_file(str(folder / name), self._there(folder / name))
            self._system.pipe_file(last, manifest)

    def _whole(self, folder: Path, outputs: Mapping[str, str], quick: bool) -> bool:
        """Return whether all files of a result are there as they should be."""
        places = {name: self._there(folder / name) for name in outputs}
        try:
            for name, place in places.items():  # quick for all, before any is read
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
        """Take a finished result from there into its folder; return whether it is here now.

        What is here stays as it is until all that is there has come and was found whole. Of a
        manifest, ``wanted`` says whether it is any use; if not, nothing here is touched.

        Raises
        ------
        InputError
            If the folder is outside of the results.
        UnavailableError
            If the store does not answer.
        """
        here = folder / MANIFEST
        with self._in_one_line():
            found = self._read(self._there(here))
        manifest = _parsed(found)
        if found is None or not manifest or not wanted(manifest):
            return False
        with contextlib.suppress(OSError):  # no manifest here, or not any more
            if here.read_bytes() == found and intact(folder, manifest):
                return True
        try:
            with self._in_one_line(), storage(here):
                _check_names(folder, manifest["outputs"])
                self._take(folder, manifest["outputs"])
                write_atomic(here, found)
        except _UnfitError as error:
            log.warning("store: %s of %s %s; it is not used", folder.name, self.url, error)
            return False
        return True

    def _take(self, folder: Path, outputs: Mapping[str, str]) -> None:
        """Fetch a result's files, and only when all are as they should be, move them in."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull.", dir=folder) as aside:
            fetched: dict[Path, Path] = {}
            for name, sha256 in outputs.items():
                if damaged(folder, {"outputs": {name: sha256}}):
                    fetched[folder / name] = Path(aside, str(len(fetched)))
                    self._fetch(folder / name, fetched[folder / name], sha256)
            for name in (LOG, COST):
                with contextlib.suppress(_UnfitError):
                    self._fetch(folder / name, Path(aside, name))
                    fetched[folder / name] = Path(aside, name)
            for path, file in fetched.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                file.replace(path)

    def _there(self, path: Path) -> str:
        """Return the path of a result's file in the store."""
        name = Path(os.path.relpath(path, self._root))  # a manifest's names may lead upwards
        if name.parts[0] == os.pardir:
            raise InputError(f"store: {str(path)!r} is not below {str(self._root)!r}")
        return f"{self._place}/{name.as_posix()}"

    def _read(self, place: str) -> bytes | None:
        try:
            return bytes(self._system.cat_file(place))
        except FileNotFoundError:
            return None

    def _fetch(self, path: Path, to: Path, sha256: str = "") -> None:
        """Copy a file here, if it is there as it was written; without a hash, as it is."""
        with atomic(to) as file:
            try:
                with self._system.open(self._there(path), "rb") as source:
                    shutil.copyfileobj(source, file)
            except FileNotFoundError as error:
                raise _UnfitError(f"misses {path.name!r}") from error
        if sha256 and sha256_of(to) != sha256:
            raise _UnfitError(f"has another {path.name!r} than its manifest says")

    @contextlib.contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Turn whatever a file system raises into one line."""
        try:
            yield
        except (_UnfitError, InputError, UnavailableError):
            raise
        except Exception as error:
            raise UnavailableError(f"store: {self.url}: {first_line(error)}") from error


def as_bytes(folder: Path, root: Path) -> dict[str, bytes]:
    """Return a finished result as content by name, to send; nothing if it is not finished."""
    store = Store("", root, {})
    with contextlib.suppress(InputError):
        store.push(folder)
    return {name: store._system.cat_file(name) for name in store._system.store}


def _in_memory(files: Mapping[str, bytes]) -> Any:
    """Return a file system of its own in memory."""
    from fsspec.implementations.memory import MemoryFileSystem

    system = MemoryFileSystem(skip_instance_cache=True)
    system.store, system.pseudo_dirs = {}, [""]  # fsspec's own are of all its instances
    system.pipe(dict(files))
    return system


def _file_system(url: str) -> tuple[Any, str]:
    """Return the file system behind an address, and the place in it; no bucket is asked for."""
    from fsspec.core import url_to_fs
    from fsspec.registry import available_protocols

    if problem := _problem(url, available_protocols()):
        raise InputError(f"store: {url!r} {problem}; {ALLOWED}")
    try:
        system, place = url_to_fs(url)
    except ImportError as error:
        why = error if any(error.args) else "its package is not installed"
        raise UnavailableError(f"store: {url!r} cannot be used: {why}; or {ALLOWED}") from error
    except OSError as error:
        raise UnavailableError(f"store: {url!r} cannot be used: {first_line(error)}") from error
    except Exception as error:  # whatever a protocol's own package raises
        raise InputError(f"store: {url!r}: {first_line(error)}; {ALLOWED}") from error
    if getattr(system, "local_file", False):
        own = Path(place)
        there = next(path for path in (own, *own.absolute().parents) if path.exists())
        if not there.is_dir():
            what = "is a file" if there == own else f"lies below {str(there)!r}, which is a file"
            raise InputError(f"store: {url!r} {what}; {ALLOWED}")
        if not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"store: {url!r}: {str(there)!r} cannot be written to; {ALLOWED}")
        system.auto_mkdir = True
    return system, place.rstrip("/")


def _problem(url: str, known: list[str]) -> str:
    """Return what is wrong with an address by its words alone, or nothing."""
    address = url.rpartition("::")[2]  # behind what fsspec puts before it, as simplecache::
    protocol, sign, rest = address.partition("://")
    if not sign:
        word, colon, _ = address.partition(":")
        return f"has no // behind {word}:" if colon and word in known else ""
    if protocol not in known:
        close = near_matches(protocol, known)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        return f"has no protocol that fsspec knows{hint}"
    if protocol in _READ_ONLY:
        return "cannot be written to"
    bare = protocol in _BUCKETS and not rest.split("/")[0]
    return "names no bucket or folder" if bare or not rest.strip("/") else ""


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


def _parsed(found: bytes | None) -> dict[str, Any]:
    """Return a manifest with outputs, or nothing: half a file is none."""
    try:
        manifest = json.loads(found or b"")
    except ValueError:
        return {}
    good = isinstance(manifest, dict) and isinstance(manifest.get("outputs"), dict)
    return manifest if good else {}
