"""Where the evidence run's tables lie, and how they are stored and read.

Apart from what makes them, so that a page that reads them does not depend on that code.
"""

import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xailib.files import write_atomic
from xailib.project import project_root

TABLES = ("values", "pairs", "photographs")


def folder() -> Path:
    """Return where the kept tables are."""
    return project_root() / "book" / "_data" / "evidence"


def load(place: Path | None = None) -> dict[str, pd.DataFrame]:
    """Return the kept tables by name; none where there are none."""
    if not files(place):
        return {}
    return {name: pd.read_csv((place or folder()) / f"{name}.csv.gz") for name in TABLES}


def load_manifest(place: Path | None = None) -> dict[str, Any]:
    """Return what the kept tables say of how they were made; nothing where there are none."""
    file = (place or folder()) / "manifest.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def files(place: Path | None = None) -> list[Path]:
    """Return the files of the kept tables: what pages that draw from them depend on."""
    return sorted((place or folder()).glob("*.csv.gz"))


def save(tables: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any], place: Path) -> None:
    """Write the tables, the same bytes for the same tables, and their manifest."""
    for name, table in tables.items():
        data = io.BytesIO()
        with gzip.GzipFile(fileobj=data, mode="wb", mtime=0) as file:
            file.write(table.to_csv(index=False, float_format="%.6g").encode())
        write_atomic(place / f"{name}.csv.gz", data.getvalue())
    write_atomic(place / "manifest.json", json.dumps(manifest, indent=1) + "\n")
