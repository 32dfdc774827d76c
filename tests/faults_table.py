"""The book's table of bad input and faults: what the user sees is what the tests match."""

import csv
import re

from conftest import ROOT

TABLE = ROOT / "book" / "_data" / "faults.csv"


def rows() -> list[dict[str, str]]:
    """Return the table's rows."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shown(key: str) -> str:
    """Return the pattern of the one line that the table promises for a row; ``…`` is anything."""
    return "^" + _pattern(key) + r"\Z"


def says(key: str, output: str) -> bool:
    """Tell whether an output holds that line, and no traceback."""
    return bool(re.search(_pattern(key), output)) and "Traceback" not in output


def _pattern(key: str) -> str:
    (text,) = (row["what you see"] for row in rows() if row["name"] == key)
    return ".*".join(re.escape(part) for part in text.split("…"))
