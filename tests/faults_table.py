"""The book's table of bad input and faults: what the user sees is what the tests match.

A plugin of pytest, too: it notes which rows each test matches, and a session of whole files fails
if a row's own test has passed without matching it.
"""

import csv
import re
from collections import defaultdict

import pytest
from conftest import ROOT

TABLE = ROOT / "book" / "_data" / "faults.csv"
_now: set[str] = set()  # rows that the running test has asked for
_seen: defaultdict[str, set[str]] = defaultdict(set)  # by test, all its parameters together
_wrong: list[str] = []


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
    _now.add(key)
    return ".*".join(re.escape(part) for part in text.split("…"))


def unmatched(seen: dict[str, set[str]]) -> list[str]:
    """Return a line for each row whose test, among the files seen, did not match it."""
    files = {test.partition("::")[0] for test in seen}
    return [
        f"{row['name']}: {row['test']} did not match this row of {TABLE.name}"
        for row in rows()
        if row["test"].partition("::")[0] in files and row["name"] not in seen.get(row["test"], ())
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    _now.clear()
    yield
    item.user_properties.append(("rows", sorted(_now)))  # also from a worker of xdist


def pytest_runtest_logreport(report):
    test = re.split(r"[\[@]", report.nodeid)[0]
    _seen[test] |= set(dict(report.user_properties).get("rows", ()))
    if report.skipped:  # here it cannot be tried
        _seen[test] |= {row["name"] for row in rows() if row["test"] == test}


def pytest_sessionfinish(session):
    config = session.config
    part = (
        config.option.keyword
        or config.getoption("lf", False)
        or any("::" in name for name in config.args)
    )
    if not (hasattr(config, "workerinput") or part or session.testsfailed or session.shouldstop):
        _wrong.extend(unmatched(_seen))
        session.exitstatus = int(bool(_wrong)) or session.exitstatus


def pytest_terminal_summary(terminalreporter):
    for line in _wrong:
        terminalreporter.write_line(line, red=True)
