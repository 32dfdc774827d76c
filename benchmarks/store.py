"""Where the figures are kept: small tables that the site shows, renewed row by row.

``ratios.csv`` has one row a comparison, ``growth.csv`` one a size,
``workers.csv`` and ``long.csv`` what `scale.py` measures; ``manifest.json`` beside them says of
each run that any row comes from where, when and with what it was measured.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xailib.files import write_atomic

FOLDER = Path(__file__).parents[1] / "book/_data/performance"
KEYS = {  # what is renewed together
    "ratios": ["network", "key"],
    "growth": ["grows"],
    "workers": ["task"],
    "long": ["task"],
}
MANIFEST = "manifest.json"


def merge(
    folder: Path, name: str, rows: Sequence[Mapping[str, object]], run: Mapping[str, Any]
) -> None:
    """Put rows into a table, in place of those with the same key, and their run into the manifest.

    The manifest is written first with the old runs still in it, and last without those that no
    row names any more: a run that is stopped in between leaves every row with its origin.
    """
    new = pd.DataFrame(rows).assign(run=run["date"])
    old = _read(folder / f"{name}.csv").reindex(columns=new.columns)
    renewed, known = {*_keys(new, name)}, list(dict.fromkeys(_keys(old, name) + _keys(new, name)))
    stays = np.array([key not in renewed for key in _keys(old, name)], bool)
    table = pd.concat([old[stays], new]) if stays.any() else new
    places = [known.index(key) for key in _keys(table, name)]
    table = table.iloc[np.argsort(places, kind="stable")]
    runs = {**_runs(folder), run["date"]: dict(run)}
    _write_runs(folder, runs)
    write_atomic(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    named = {date for table in KEYS for date in _read(folder / f"{table}.csv").get("run", ())}
    _write_runs(folder, {date: runs[date] for date in sorted(named) if date in runs})


def _keys(table: pd.DataFrame, name: str) -> list[tuple]:
    return list(table[KEYS[name]].itertuples(index=False, name=None))


def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def _runs(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    return json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else {}


def _write_runs(folder: Path, runs: Mapping[str, Any]) -> None:
    write_atomic(folder / MANIFEST, json.dumps({"runs": runs}, indent=1) + "\n")
