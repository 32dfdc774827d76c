"""Figures of any names, and of maps that say nothing."""

import io
import logging
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, explanation, lime_explanation
from markdown_it import MarkdownIt
from matplotlib.text import Text

from xailib.report.figures import explorer, units
from xailib.report.figures import style as figures
from xailib.report.figures.sanity import overlay

VIEW = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
SEGMENTS = np.arange(64).reshape(8, 8) // 16
CAM = explanation(np.eye(8))
NOTHING = np.zeros((8, 8), np.float32)
SILENT = explanation(np.eye(8), saliency=NOTHING, no_signal="all is constant")
NAMES = ["猫 と 犬", "$5 $6", r"$\frac{", "a_b", "_a_ *b*", "قطة", "{{x}}", "<b>&amp;", "[a](b)"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_drawn_and_written_as_it_is(name, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        figure = figures.gallery([[VIEW, None]], ["view", name], [name]).figure
        for kind in ("png", "svg"):
            figure.savefig(io.BytesIO(), format=kind)
    assert not caplog.records
    texts = [one for one in figure.findobj(Text) if one.get_text() == name]
    assert [one.get_parse_math() for one in texts] == [False, False]
    (inline,) = (t for t in MarkdownIt().parse(f"*{figures.verbatim(name)}*") if t.children)
    assert "".join(token.content for token in inline.children) == name
    kinds = {token.type for token in inline.children}
    assert kinds <= {"em_open", "text", "text_special", "em_close"}


def test_numbers_of_things_are_said_as_people_do():
    counts = [figures.many(count, "photograph") for count in (0, 1, 2)]
    assert counts == ["0 photographs", "1 photograph", "2 photographs"]
    for file in (ROOT / "notebooks").glob("*.py"):  # of a run's own photographs there may be one
        for count in re.findall(r"\{([^{}]*)\} photographs\b", file.read_text()):
            assert re.search(r"[A-Z]|kept|:,|metrics\['photographs'\]|row\.", count), (file, count)


@pytest.mark.parametrize("name", NAMES)
def test_images_that_are_not_used_are_named_as_they_are(name):
    failure = {"source": name, "reason": f"images: {name!r} is damaged"}
    more = [{"source": str(number), "reason": "is too thin"} for number in range(30)]
    text = figures.not_used([failure, failure, *more])
    items = [t for t in MarkdownIt().parse(text) if t.type == "inline"][1:]
    told = ["".join(token.content for token in item.children) for item in items]
    assert told[:2] == [f"{name!r} is damaged" if name in repr(name) else told[0], "0: is too thin"]
    assert told[-1] == "and 11 more"
    assert figures.not_used([]) == ""


def test_what_says_nothing_is_words_and_no_image():
    words = "no signal: all is constant"
    assert figures.drawn(VIEW, SILENT) == words
    assert overlay(VIEW, SILENT) == words
    assert overlay(VIEW, None) is None
    assert np.array_equal(figures.drawn(VIEW, CAM), figures.heat(VIEW, CAM.saliency))
    silent = lime_explanation(SEGMENTS, [1.0, -1.0, 2.0, 0.5], no_signal="all is constant")
    row = figures.lime_row(VIEW, silent, 2)
    assert row[1:] == [words, "no mask", "no mask"]
    figure = figures.gallery([row], ["view", "weights", "LIME 1", "LIME 2"], ["a label"]).figure
    said = [text.get_text().replace("\n", " ") for axis in figure.axes for text in axis.texts]
    assert [words in said, said.count("no mask")] == [True, 2]
    assert sum(len(axis.images) for axis in figure.axes) == 1


def test_the_page_says_which_maps_are_left_out():
    assert figures.left_out([CAM]) == ""
    said = figures.left_out([CAM, SILENT, explanation(np.eye(8), image="$x$", no_signal="b")])
    assert said.startswith("**No signal**")
    assert r"Grad-CAM of cat: all is constant; Grad-CAM of \$x\$: b." in said


def test_the_explorer_shows_what_says_nothing_without_colour():
    lime = lime_explanation(SEGMENTS, [1.0, -1.0, 2.0, 0.5])
    views = explorer.views_of(VIEW, lime, [SILENT], num_features=2)
    assert [view.label for view in views][-1] == "Grad-CAM: no signal"
    assert "all is constant" in views[-1].alt
    assert (np.ptp(views[-1].pixels.astype(int), axis=2) == 0).all()
    silent = lime_explanation(SEGMENTS, [1.0] * 4, no_signal="x")
    labels = [view.label for view in explorer.views_of(VIEW, silent, [CAM])]
    assert labels == ["photograph", "LIME: no signal", "Grad-CAM"]


def test_dead_units_are_in_no_count():
    concepts, dead = ["sky"] * 4 + ["dog", "cat"], [True] * 4 + [False] * 2
    labels = pd.DataFrame({"unit": range(6), "concept": concepts, "dead": dead})
    labels = labels.assign(layer="fc", similarity=1.0)
    (axis,) = units.concept_bars(labels).axes
    assert axis.get_title().endswith("2 units, 4 dead")
    assert [text.get_text() for text in axis.get_yticklabels()] == ["dog", "cat"]
    assert sum(bar.get_width() for bar in axis.patches) == 2
    (axis,) = units.similarity_scatter(labels).axes
    assert {text.get_text() for text in axis.get_legend().get_texts()} <= {"dog", "cat", "others"}
