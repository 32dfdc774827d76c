"""The explorer's pictures and scores, and how a published figure looks on a dark page."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import explanation, lime_explanation
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from xailib.images.frames import Frame
from xailib.images.load import ImageSet
from xailib.report.figures import explorer
from xailib.report.figures import style as figures
from xailib.report.figures.publish import GROUND, KEPT, darkened, publish, svg, table_html
from xailib.report.run.results import start_run

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (40, 60, 3), np.uint8)
FRAME = Frame((40, 60), (20, 30), (0, 5, 20, 20))
SEGMENTS = np.repeat([[0] * 10 + [1] * 10], 20, axis=0)


@pytest.fixture
def pair():
    lime = lime_explanation(SEGMENTS, [0.5, -0.2], frame=FRAME)
    raw = np.zeros((20, 20), np.float32)
    raw[2, 17] = 1
    return lime, explanation(raw, frame=FRAME)


def test_views_are_enlarged_and_say_where_a_map_is_highest(pair):
    lime, cam = pair
    views = explorer.views_of(PIXELS, lime, [cam], num_features=1)
    assert {view.pixels.shape for view in views} == {(440, 440, 3)}
    assert [view.method for view in views] == ["", *["lime"] * 3, *["gradcam"] * 2]
    assert "highest in the upper right" in views[4].alt
    assert "on 50% of the view" in views[2].alt
    assert np.array_equal(
        views[0].pixels, Frame((40, 60), (440, 660), (0, 110, 440, 440)).show(PIXELS)
    )


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [(0, 0, "upper left"), (4, 4, "centre"), (8, 4, "lower centre"), (4, 8, "middle right")],
)
def test_place_in_words(row, column, words):
    values = np.zeros((9, 9), np.float32)
    values[row, column] = 1
    assert explorer.place(values) == words


def test_scores_of_one_photograph_only():
    pairs = [("cat", "LIME 1", 0.4), ("cat", "LIME 2", 0.5), ("dog", "LIME 1", 0.6)]
    agreement = pd.DataFrame(pairs, columns=["image", "lime", "iou"])
    agreement = agreement.assign(cam="gradcam", chance=0.1)
    rows = [("cat", "lime", 0.2), ("cat", "gradcam", 0.3), ("cat", "random", 0.9)]
    scores = pd.DataFrame([*rows, ("dog", "lime", 0.7)], columns=["image", "method", "value"])
    scores = scores.assign(measure="deletion")
    boxed = pd.DataFrame({"image": ["cat"], "map": ["lime+"], "precision": [0.8]})
    table = explorer.scores_of("cat", agreement, scores, boxed).set_index("method")
    assert list(table.index) == ["lime", "gradcam", "random"]
    assert list(table["deletion"]) == [0.2, 0.3, 0.9]
    assert table.loc["gradcam", "iou"] == 0.4
    assert np.isnan(table.loc["lime", "iou"])
    assert table.loc["lime", "inside"] == 0.8
    assert explorer.scores_of("cat", agreement, scores, None)["inside"].isna().all()


def test_a_photographs_files_and_words(tmp_path, pair):
    lime, cam = pair
    run = start_run(tmp_path, "10_explore", {}, ImageSet(()))
    views = explorer.views_of(PIXELS, lime, [cam], num_features=1)
    table = pd.DataFrame({"method": ["lime", "gradcam"], "name": ["LIME", "Grad-CAM"]})
    table = table.reindex(columns=["method", *explorer.HEADINGS])
    explorer.publish_photograph(run, lime, views, table)
    manifest = run.finish()
    pictures = [name for name in manifest["outputs"] if name.endswith(".webp")]
    assert len(pictures) == len(views)
    assert (tmp_path / "figures" / "explore-cat.csv").read_text().startswith("method,")
    assert json.dumps(manifest)  # nothing of numpy's in it


def test_anchors_are_plain_and_each_photographs_own():
    assert explorer.anchor("bull-mastiff") == "explore-bull-mastiff"
    names = ["My photo_1é", "my-photo-1-", "犬", "猫", "-"]
    found = [explorer.anchor(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"explore-[a-z0-9-]+", one) for one in found)


def test_grays_turn_over_for_the_dark_and_back():
    figure = figures.gallery([[PIXELS]], ["view"], ["a label"]).figure
    axis = figure.axes[0]
    kept = axis.text(0, 0, "on the picture", color="white", gid=KEPT)
    line = axis.plot([0, 1], [0, 1], color="#0072B2")[0]
    mark = axis.plot(0, 0, "D", color="black", mfc="white")[0]  # its edge follows its colour
    before = [text.get_color() for text in figure.findobj(match=type(kept))]
    with darkened(figure):
        assert np.allclose(figure.get_facecolor()[:3], to_rgb(GROUND))
        assert min(to_rgb(axis._left_title.get_color())) > 0.8
        assert kept.get_color() == "white"
        assert line.get_color() == "#0072B2"
        assert min(to_rgb(mark.get_markeredgecolor())) > 0.8
        assert max(to_rgb(mark.get_markerfacecolor())) < 0.2
    assert [text.get_color() for text in figure.findobj(match=type(kept))] == before
    assert np.allclose(figure.get_facecolor()[:3], 1)


def test_ticks_that_another_layout_brings_back_are_turned_too():
    figure = Figure()
    axis = figure.subplots()
    axis.set_xticks([0, 1, 2])
    figure.draw_without_rendering()
    axis.set_xticks([0, 1])
    with darkened(figure):
        axis.set_xticks([0, 1, 2])
        figure.draw_without_rendering()
        assert all(min(to_rgb(text.get_color())) > 0.8 for text in axis.get_xticklabels())


def test_a_picture_that_was_not_computed_is_a_word_that_turns_with_the_ground():
    figure = figures.gallery([[PIXELS, None]], ["trained", "random"], ["a label"]).figure
    shown, missing = figure.axes
    assert len(shown.images) == 1
    assert not missing.images
    words = {text.get_text(): text for text in missing.texts}
    with darkened(figure):
        assert min(to_rgb(words["not computed"].get_color())) > 0.5


@pytest.mark.parametrize("raster", [True, False])
def test_a_published_figure_is_kept_with_its_data(tmp_path, raster):
    run = start_run(tmp_path, "2_lime", {}, ImageSet(()))
    figure = figures.panels([PIXELS], ["view"])
    data = pd.DataFrame({"a": [1], "b": [1 / 3]})
    publish(run, figure, "one", "A caption.", "An alternative.", data, raster=raster)
    folder = tmp_path / "figures"
    if raster:
        corner = [Image.open(folder / f"one{w}.webp").getpixel((2, 2)) for w in ("", "-dark")]
        assert min(corner[0]) > 250
        assert max(corner[1]) < 40
    else:
        assert [file.name for file in folder.glob("*.svg")] == ["one.svg"]
    assert (folder / "one.csv").read_text() == "a,b\n1,0.333333\n"


def test_a_chart_in_the_dark_is_as_if_it_had_been_drawn_there(tmp_path, browser):
    figure = Figure(figsize=(3, 2), facecolor="white")
    axis = figure.subplots()
    axis.imshow(np.full((4, 6, 3), 0.7), extent=(0, 1, 0, 1), aspect="auto")
    axis.bar([1, 2], [1, 2], color=["0.8", "black"], edgecolor="0.2")
    axis.plot([1, 2], [0.123456, 2], "o--", color="0.5", mfc="none")
    axis.plot([1, 2], [2, 0], color="#0072B2", label="a method")
    axis.scatter([1, 1.5], [1.5, 1.7], color=["0.6", "#D55E00"])
    for place, colour in ((0.2, "black"), (0.6, "white")):
        axis.text(0.1, place, "on an image", color=colour, gid=KEPT, fontsize=7.5)
    axis.legend()
    drawn = svg(figure, "chart")
    assert "scale(0.075 -0.075)" in drawn  # letters keep their shape
    (tmp_path / "chart.svg").write_text(drawn)
    figure.savefig(tmp_path / "light.svg")
    with darkened(figure):
        figure.savefig(tmp_path / "dark.svg")
    page = browser.new_page()
    seen = {}
    for name in ("chart.svg", "light.svg", "chart.svg#dark", "dark.svg"):
        (tmp_path / "page.html").write_text(f'<body style="margin: 0"><img src="{name}">')
        page.goto((tmp_path / "page.html").as_uri())
        shot = page.locator("img").screenshot()
        seen[name] = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), int)
    page.close()
    for own, drawn in (("chart.svg", "light.svg"), ("chart.svg#dark", "dark.svg")):
        assert (np.abs(seen[own] - seen[drawn]) > 24).mean() < 1e-3, own  # edges, by rounding
    assert seen["chart.svg#dark"][2, 2].max() < 40
    assert svg(figure, "chart") == (tmp_path / "chart.svg").read_text()


def test_numbers_in_tables_have_the_signs_of_print():
    words = ["a-1", "+0.5", "-0-", "", "-0.00 to +0.51", "-0.20 to -0.00"]
    table = pd.DataFrame({"n": [-0.004, 0.004, -0.006, np.nan, 1.0, 0.0], "word": words})
    html = table_html(table, "t", {"n": "n", "word": "word"}, {"n": "{:+.2f}"})
    assert re.findall("<td[^>]*>(.*?)</td>", html) == [
        "0.00", "a-1", "0.00", "+0.5", "−0.01", "-0-", "–", "",
        "+1.00", "0.00 to +0.51", "0.00", "−0.20 to 0.00",
    ]  # fmt: skip
