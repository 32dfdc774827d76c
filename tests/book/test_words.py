"""Prose uses the field's words: what readers of the site, the README and the API must not meet."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest
from conftest import ROOT

# What is banned (ignoring case), and the field's word for it.
BANNED = {
    r"pictur(e|es|ed)\b": "image; photograph for the input",
    r"categor(y|ies)\b(?!:\w)": "class (of a network), concept (of a unit)",
    r"(cannot|can|to) be had\b": "is (un)available",
    r"(un)?foreseen\b": "estimated",
    r"puts? out\b": "outputs",
    r"gone on with\b|goes on (where|at)\b|went on where\b": "resumed",
    r"shared out\b": "sharded",
    r"sureness\b|(is|are|how|as \*\*)sure\b|chosen again\b": "selection frequency",
    r"cut at\b|(an)?other cut\b|same cut\b|cuts? into superpixels\b": "thresholded; segmentation",
    r"floor\b": "null baseline",
    r"(draws?|drawn|drew|by) lots\b": "random draws",
    r"whole numbers?\b": "integer",
    r"less (LIME|Grad-CAM|ScoreCAM|ImageNet|Places365|…|that of|(its|the) (IoU|mean))": "minus",
    r"what (\w+ kinds of )?chance (would )?gives?\b|by chance alone\b": "chance level",
    r"knows? nothing\b": "uninformative baseline",
    r"speaks? (for|against|of)\b": "supports, opposes",
    r"(cannot|could not) (be told|tell)\b|told apart\b": "cannot be separated, cannot support",
    r"is told (of|by)\b|are told (of|by)\b": "reported; callback",
    r"kept apart\b|signs apart\b": "separated",
    r"(false|strong) opponent\b": "baseline",
    r"taken away\b|put back\b": "removed, inserted",
    r"own extremes\b": "scaled to its own range",
    r"compares? places\b": "comparable within a map, not between maps",
    r"beside (every|each|it|them|the)( \w+)? stands?\b": "is reported with",
    r"held against\b": "compared with",
    r"(is|are) mended\b|mends?\b": "fixed",
    r"over the wire\b": "over the network",
    r"(un)?likeness\b": "similarity",
    r"at hand\b": "available locally, included",
    r"neither here nor\b": "unavailable",
    r"(is|are) for once\b": "apply to this run only",
    r"made anew\b|computed anew\b|starts? anew\b": "recomputed, restarts",
    r"(the|our|a|other|first|its) peers?\b": "reference package",
    r"bare limit\b": "lower bound",
    r"breaks off\b": "is interrupted",
    r"never sees? a network\b": "does not need a network",
}
# Where prose is looked for, and which: "text" is Markdown, "cells" a notebook's Markdown and the
# sentences in its code, "sentences" strings of code other than docstrings, "all" these too.
FOLDERS = {
    "README.md": "text",
    "CONTRIBUTING.md": "text",
    "book/**/*.md": "text",
    "notebooks/*.py": "cells",
    "book/_ext/*.py": "sentences",
    # Docstrings and messages, too: add a folder when its words are done.
    "xailib/*.py": "all",
    "xailib/compare/*.py": "all",
    "xailib/dissect/*.py": "all",
    "xailib/downloads/*.py": "all",
    "xailib/encoders/*.py": "all",
    "xailib/evaluate/*.py": "all",
    "xailib/explain/**/*.py": "all",
    "xailib/images/*.py": "all",
    "xailib/report/**/*.py": "all",
}
FENCED = r"(?ms)^(```+)(\{[\w-]*figure\})?(.*?)^\1[ \t]*$"  # a figure's body is its caption
CODE = r"(?m)`[^`\n]+`|^:[\w-]+:|\]\([^)]*\)"


def sentences(code: str, docstrings: bool) -> Iterator[str]:
    """Yield the strings with blanks in a program; what a format puts in is …."""
    tree = ast.parse(code)
    parts = {part for f in ast.walk(tree) if isinstance(f, ast.JoinedStr) for part in f.values}
    expressions = {s.value for s in ast.walk(tree) if isinstance(s, ast.Expr)}
    skipped = parts if docstrings else parts | expressions
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
            text = "".join(map(str, values))
        elif isinstance(node, ast.Constant) and node not in skipped:
            text = node.value if isinstance(node.value, str) else ""
        else:
            continue
        if " " in text:
            yield text


def prose(file: Path, kind: str) -> Iterator[str]:
    """Yield the texts of a file that people read."""
    text = file.read_text(encoding="utf-8")
    if kind == "text":
        yield text
    elif kind == "cells":
        for cell in jupytext.read(file).cells:
            if cell.cell_type == "markdown":
                yield cell.source
            elif "parameters" not in cell.metadata.get("tags", ()):
                yield from sentences(cell.source, False)
    else:
        yield from sentences(text, kind == "all")


def banned(text: str) -> list[str]:
    """Return each banned word in a text, with its surroundings and the field's word."""
    text = re.sub(FENCED, lambda block: block[3] if block[2] else " ", text)
    text = " ".join(re.sub(CODE, " ", text).split())
    return [
        f"{text[max(0, found.start() - 30) : found.end() + 20]!r}: {better}"
        for words, better in BANNED.items()
        for found in re.finditer(rf"(?i)\b({words})", text)
    ]


@pytest.mark.parametrize("pattern", FOLDERS)
def test_prose_uses_the_field_s_words(pattern):
    files = sorted(ROOT.glob(pattern))
    assert files
    found = {
        str(file.relative_to(ROOT)): words
        for file in files
        if (words := [word for text in prose(file, FOLDERS[pattern]) for word in banned(text)])
    }
    assert found == {}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The heatmap is cut at\nthe area of LIME's mask.", 1),
        ("A Picture of each category: `picture`.", 2),
        ("Weights that cannot be had, and what chance would give.", 2),
        ("share of units with a scene, … less …", 1),
        ("no less than three; cut into pieces; the image's class", 0),
        ("```python\npicture = category\n```\nAn image.", 0),
        ("```{result-figure} a/b\n:alt: x\n\nA picture.\n```\nA picture.\n```\npicture\n```", 2),
    ],
)
def test_the_rule_itself(text, count):
    assert len(banned(text)) == count


def test_sentences_are_found_in_code_and_docstrings_when_asked():
    code = 'def f(x):\n    """A picture."""\n    return f"of {x} category" + "no_prose"\n'
    assert list(sentences(code, False)) == ["of … category"]
    assert sorted(sentences(code, True)) == ["A picture.", "of … category"]
