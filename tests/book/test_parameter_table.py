"""The book's table of parameters says what the notebooks' models say."""

import json
import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))

from parameters import table

from xailib.report.params.schema import MANAGED, NOTEBOOKS, explained, parameters

CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["myst_parser", "parameters"]
exclude_patterns = ["_build"]
"""


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


def test_sphinx_makes_a_table_of_it_whose_links_are_to_the_pages(tmp_path):
    from sphinx.application import Sphinx

    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "conf.py").write_text(CONF)
    (tmp_path / "index.md").write_text("# A\n")
    (tmp_path / "book" / "rerun.md").write_text("# B\n\n```{parameters}\n```\n")
    for task in NOTEBOOKS:
        (tmp_path / "notebooks" / f"{task}.md").write_text(f"# {task}\n")
    warnings = (tmp_path / "warnings").open("w+")
    out = tmp_path / "_build"
    Sphinx(tmp_path, tmp_path, out, out, "html", status=None, warning=warnings).build()
    text = (out / "book" / "rerun.html").read_text()
    assert text.count("<tr") == len(table().splitlines()) - 1
    assert "conse:CLASSIFIER[+mpnet]" in text
    for task in NOTEBOOKS:
        assert f'href="../notebooks/{task}.html"' in text
    warnings.seek(0)
    assert "rerun.md" not in warnings.read().replace("rerun.md: WARNING: document isn't", "")
