"""The how-tos for own material: what the book prints there runs."""

import re

import nets
import numpy as np
import pytest
from conftest import ROOT

from xailib.compare.iou import lime_cam_agreement
from xailib.explain.lime import explain_lime


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
