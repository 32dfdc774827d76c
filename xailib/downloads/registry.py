"""What can be fetched by name: the rows of ``registry.csv``.

A row is a file: its name, where it is cached (``folder`` starts at the user's cache folder), its
addresses in the order tried, its bytes and who says so, its SHA-256 where the publisher states
one, its licence and who states it, and how to supply it by hand. Rows may share a name, as the
files of the replicated report do. The part of a name before a colon is its set; what a set's
first row says holds for its other rows where these say nothing (hashes and bytes excepted).
Files of torchvision's and timm's networks are in `xailib.downloads.names`.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from xailib.downloads.fetch import Watch, cache_folder, fetch
from xailib.errors import UnavailableError, unknown_name

_SHARED = ("what", "folder", "size", "licence", "stated in", "instead")


@dataclass(frozen=True)
class Artefact:
    """A file, or an unpacked folder, that is fetched the first time."""

    name: str  #: as ``xailib fetch`` takes it
    what: str  #: for people
    addresses: tuple[str, ...]  #: where it comes from, any of which will do
    files: tuple[Path, ...]  #: where it is stored if it came from the address of that position
    instead: str  #: how to supply it by hand
    path: str = ""  #: within its set's folder
    sha256: str = ""  #: as its publisher states it, or its start; empty where none is stated
    licence: str = "none stated"  #: as its publisher states it
    stated_in: str = ""  #: where that is (Markdown)
    #: bytes to fetch, and who says so, ``"stated"`` by its publisher or ``"measured"`` by us
    expected: tuple[int, str] | None = None
    #: fetches it, where that is more than one file from an address
    get: Callable[[Watch | None], Path] | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        """Where it is stored, or would be first if it has not been fetched."""
        return next((file for file in self.files if file.exists()), self.files[0])

    @property
    def here(self) -> bool:
        """Whether it has been fetched."""
        return self.file.exists()

    @property
    def bytes(self) -> int | None:
        """Its size in bytes; None if it has not been fetched."""
        if not self.here:
            return None
        parts = [self.file] if self.file.is_file() else self.file.rglob("*")
        return sum(part.stat().st_size for part in parts if part.is_file())

    def fetch(
        self, watch: Watch | None = None, check: Callable[[Path], object] | None = None
    ) -> Path:
        """Return the file, fetching it if it is not there; see `xailib.downloads.fetch.fetch`.

        `UnavailableError` says in one line why none of the addresses gave it, and how to supply it.
        """
        if self.get:
            return self.get(watch)
        tried = []
        for address, file in zip(self.addresses, self.files, strict=True):
            if self.here and file != self.file:
                continue
            try:
                return fetch(address, file, sha256=self.sha256, check=check, watch=watch)
            except UnavailableError as error:
                tried.append(f"{address} ({error})")
        reasons = "; ".join(tried)
        raise UnavailableError(f"{self.what}: could not fetch {reasons}; {self.instead}")


def artefacts(name: str = "") -> list[Artefact]:
    """Return the registry's files: all, or those of a name or a set."""
    rows = _rows()
    found = [row for row in rows if name in ("", row["name"], row["set"])]
    if not found:
        raise unknown_name("fetch", name, dict.fromkeys(row["name"] for row in rows))
    return [_artefact(row) for row in found]


def artefact(name: str) -> Artefact:
    """Return the one file of this name."""
    (found,) = (one for one in artefacts(name) if one.name == name)
    return found


def _rows() -> list[dict[str, str]]:
    with files("xailib.downloads").joinpath("registry.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    firsts: dict[str, dict[str, str]] = {}
    for row in rows:
        row["set"] = row["name"].partition(":")[0]
        first = firsts.setdefault(row["set"], row)
        row |= {column: row[column] or first[column] for column in _SHARED}
    return rows


def _artefact(row: dict[str, str]) -> Artefact:
    addresses = tuple(row["addresses"].split())
    file = cache_folder() / Path(row["folder"]).expanduser() / row["file"]
    return Artefact(
        row["name"],
        row["what"],
        addresses,
        (file,) * len(addresses),
        row["instead"].format(file=file),
        row["file"],
        row["sha256"],
        row["licence"],
        row["stated in"],
        (int(row["bytes"]), row["size"]) if row["bytes"] else None,
    )
