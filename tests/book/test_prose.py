"""No number in the book's prose comes from a keyboard."""

import re

import pytest
from conftest import ROOT

PAGES = sorted((ROOT / "book").rglob("*.md"))
# Where digits may stand: code, what the build puts in, equations, citations, the targets of links,
# options and arguments of directives, years, and names that have a digit.
ALLOWED = (
    r"(?s)^```+\w*\n.*?^```+$", r"`[^`\n]+`", r"\{\{.*?\}\}", r"(?s)\$\$.*?\$\$", r"\$[^$\n]+\$",
    r"\{cite(:\w)?\}`[^`]+`", r"\]\([^)]*\)", r"^:+\{.*$", r"^:[\w-]+:.*$", r"^\(.*\)=$",
    r"\b(19|20)\d\d\b", r"\bLIME [12]\b", r"\bPython 3\.11 to 3\.13\b", r"\bSHA-256\b",
)  # fmt: skip


def digits_in(text: str) -> list[str]:
    """Return the lines of prose that have a digit outside the allowed places."""
    text = re.sub(r"^```+\{result-figure\}.*$", "```{figure}", text, flags=re.MULTILINE)
    # A figure's caption is prose: only other fenced blocks are code.
    text = re.sub(r"^```+\{figure\}\n(.*?)^```+$", r"\1", text, flags=re.DOTALL | re.MULTILINE)
    for place in ALLOWED:
        text = re.sub(place, "", text, flags=re.MULTILINE)
    return [line for line in text.splitlines() if re.search(r"\d", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_digit_in_prose(page):
    assert digits_in(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The overlap is 0.31.", 1),
        ("It holds for 8 of 10 photographs.", 1),
        ("In 2016 `top_k=20`, {{ lime_images }} and $x_1 + 2$ [there](page_2.md).", 0),
        ("```bash\nmake -j2\n```\nThree findings.", 0),
        ("```{result-figure} 4_agreement/side\n:name: f1\n\nA caption with 3 photographs.\n```", 1),
        ("LIME 1 was described by {cite:t}`ribeiro2016`.", 0),
    ],
)
def test_the_rule_itself(text, count):
    assert len(digits_in(text)) == count


def test_each_work_of_the_bibliography_has_a_doi():
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"^@", text, flags=re.MULTILINE) if entry.strip()]
    without = [
        e.split("{")[1].split(",")[0] for e in entries if not re.search(r"\bdoi = \{10\.", e)
    ]
    assert without == ["balwani2024", "holm1979"]  # a repository; older than its journal's DOIs
