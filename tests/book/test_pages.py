"""What is mended in the pages that Sphinx writes."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))

import pages


@pytest.mark.parametrize(
    ("written", "mended"),
    [
        ("<td>37%</td>", "<td>37\N{NO-BREAK SPACE}%</td>"),
        ("a <b>95 %</b> interval", "a <b>95\N{NO-BREAK SPACE}%</b> interval"),
        ('<img alt="5%" src="a%201%.x">', '<img alt="5\N{NO-BREAK SPACE}%" src="a%201%.x">'),
        ('<a href="1%20a" style="top: 5%">%</a>', None),
        ("<style>p { top: 5%; }</style>", None),
        ("<pre>95% <b>5 %</b></pre>", None),
        ('<script>\n"5%"</script>', None),
        ('<a title="a > b" style="top: 5%">x</a>', None),
        ("<td>-0.2</td> (-1 to +2)", "<td>−0.2</td> (−1 to +2)"),
        ("<code>-1</code> a-1, 2026-11-26, make -j2", None),
        ("<!-- 5% --><p>https://h/a1%20b</p>", None),
    ],
)  # fmt: skip
def test_a_number_and_its_per_cent_sign_stand_apart_and_together(tmp_path, written, mended):
    once = pages.mend(written, tmp_path)
    assert once == (mended or written)
    assert pages.mend(once, tmp_path) == once


def test_names_that_share_an_entry_stay_names():
    lines = ["    low, high : float", "        Its limits, high : low.", "a, b, c : int"]
    pages.keep_together(None, "class", "x", None, None, lines)
    assert lines == ["    low,high : float", "        Its limits, high : low.", "a,b,c : int"]
