"""The how-tos for own material: what the book prints there runs."""

import re

import nets
import numpy as np
import pytest
from conftest import ROOT

from xailib.compare.iou import lime_cam_agreement
from xailib.explain.lime import explain_lime
from xailib.images.probe import ProbeImage, ProbeSet


def printed(heading: str) -> str:
    """Return the first Python block below a heading of the page."""
    text = (ROOT / "book" / "extend.md").read_text(encoding="utf-8")
    return re.search(rf"^## {heading}$.*?^```python\n(.*?)^```$", text, re.M | re.S)[1]


def test_the_method_of_the_how_to_runs_and_compares():
    names = {}
    exec(compile(printed("Another method"), "extend.md", "exec"), names)
    classifier, photograph = nets.classifier(), nets.photograph()
    found = names["explain_brightness"](classifier, photograph)
    view = classifier.view(photograph)
    assert np.array_equal(found.raw, view.pixels.mean(axis=2).astype(np.float32))
    assert (found.saliency.min(), found.saliency.max()) == (0, 1)
    lime = explain_lime(classifier, photograph, num_samples=20, segments="slic")
    table = lime_cam_agreement([lime], [found])
    assert set(table["cam"]) == {"brightness"}


def test_the_labels_of_the_how_to_are_certified_where_they_should_be():
    rng = np.random.default_rng(0)
    probe = ProbeSet(
        "made",
        tuple(
            ProbeImage(str(n), "none", "0" * 64, label=word, place=n)
            for n, word in enumerate(["kitchen", "beach", "sky"] * 60)
        ),
    )
    beach = np.arange(180) % 3 == 1
    units = np.column_stack([beach + 0.3 * rng.normal(size=180), rng.normal(size=180)])
    names = {"probe": probe, "units": units}
    names |= {n: rng.normal(size=(180, 200)) for n in ("random_units", "other_random_units")}
    exec(compile(printed("Labels without an encoder"), "extend.md", "exec"), names)
    assert names["reliable"][["unit", "concept"]].to_numpy().tolist() == [[0, "beach"]]


def checked_commands(text: str) -> int:
    """Count a page's commands of papermill, each with parameters that its notebook has."""
    import papermill

    commands = re.findall(r"papermill (notebooks/\w+\.ipynb) out\.ipynb (.*)", text)
    for notebook, words in commands:
        names = [a or b for a, b in re.findall(r"-p (\w+) |-y '(\w+):", words)]
        assert names
        assert set(names) <= set(papermill.inspect_notebook(str(ROOT / notebook))), words
    return len(commands)


@pytest.mark.parametrize("what", ["network", "image set", "probe set", "concept list", "encoder"])
def test_each_how_to_has_a_command_with_parameters_that_exist(what):
    text = (ROOT / "book" / "extend.md").read_text(encoding="utf-8")
    (part,) = re.findall(rf"^## Another {what}$(.*?)(?=^## )", text, re.M | re.S)
    assert checked_commands(part)


def test_each_command_of_the_page_on_running_again_names_parameters_that_exist():
    assert checked_commands((ROOT / "book" / "rerun.md").read_text(encoding="utf-8"))
