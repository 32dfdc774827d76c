"""The book's table of parameters says what the notebooks' models say."""

import json
import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))

from parameters import table

from xailib.report.params.schema import MANAGED, NOTEBOOKS, explained, parameters


def test_each_parameter_of_each_notebook_stands_in_the_table():
    rows = table().splitlines()
    assert len(rows) == len(set(rows))
    for task in NOTEBOOKS:
        for name, told in parameters(task).items():
            start = f"| `{name}` | `{json.dumps(told['default'])}` | "
            found = [row for row in rows if row.startswith(start) and f"/{task})" in row]
            assert len(found) == (name not in MANAGED), (task, name)
            assert all(explained(told) in row for row in found), (task, name)


def test_a_long_default_is_said_once():
    assert table().count(json.dumps(parameters("2_lime")["images"]["default"])) == 1
