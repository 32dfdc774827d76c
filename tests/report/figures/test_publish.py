"""A table as a reader meets it."""

import pandas as pd
import pytest

from xailib.images.load import ImageSet
from xailib.report.figures import publish
from xailib.report.run.results import start_run


@pytest.fixture
def shown(monkeypatch, tmp_path):
    seen = []
    run = start_run(tmp_path, "2_lime", {}, ImageSet(()))
    monkeypatch.setattr(publish, "display", lambda data, **_options: seen.append(data["text/html"]))

    def show(rows, **headings):
        table = pd.DataFrame({"m": ["a", "b"] * (rows // 2), "v": range(rows)})
        publish.publish_table(run, table, "t", "words", headings, {"v": "{:.1f}"})
        return seen[-1]

    return show


def test_a_long_table_is_folded_below_the_means_of_its_methods(shown):
    html = shown(14, m="method", v="value")
    means, fold, rows = html.partition("<details><summary>All 14 rows</summary>")
    assert fold
    assert [row for row in ("6.0", "7.0") if row in means] == ["6.0", "7.0"]  # of 0..12, of 1..13
    assert means.count("<tr>") == 3
    assert rows.count("<tr>") == 15
    # Not a short one; and where there are no methods there are no means.
    assert "<details>" not in shown(12, m="method", v="value")
    assert shown(14, m="unit", v="value").startswith("<details>")
