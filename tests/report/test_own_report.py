"""A whole report as a user makes it: own photographs without boxes, an own network."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from browsing import PAGES
from conftest import ROOT
from faults_table import says
from PIL import Image

from xailib.report.params.profiles import TASKS
from xailib.report.run.results import load_table

pytestmark = pytest.mark.site
NETWORK = """
import torch
from torch import nn
from torchvision import transforms

def load(weights=None):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    steps = transforms.Resize(48), transforms.CenterCrop(48), transforms.ToTensor()
    return net.eval(), transforms.Compose(steps), ["Katze", "犬", "a bird", "fish & chips"]
"""
# So little that it says nothing: what counts is that every page comes out.
PARAMETERS = {
    "model": "my_net.py:load", "images": ["dalmatian"], "seed": 0, "num_samples": 40,
    "num_features": 3, "methods": ["gradcam", "scorecam"], "encoder": "conse:tf_efficientnet_lite0",
    "segmentation": "felzenszwalb",  # one superpixel where nothing is to be seen
    "probe": ["album"], "crops": 0, "top_k": 2, "first": 2, "sparse_first": 2, "redraws": 1,
    "stages": 2, "lime_samples": 20, "others": ["lime", "edges"], "sparse": ["lime", "scorecam"],
    "steps": 4, "road_percentiles": [80], "draws": 1, "long_runs": 1, "pool": 200,
    "sizes": [50, 100], "design_pool": 64, "design_size": 32, "cut_samples": 30,
}  # fmt: skip
REASON = "is not an image that Pillow reads"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with a profile, a network and five photographs, one of them none."""
    folder = tmp_path_factory.mktemp("own") / "project"
    folder.mkdir()
    (folder / "notebooks").mkdir()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        cleared = nbformat.read(notebook, 4)
        for cell in cleared.cells:
            cell.get("outputs", []).clear()  # a developer's
        nbformat.write(cleared, folder / "notebooks" / notebook.name)
    shutil.copytree(ROOT / "book", folder / "book")
    for name in ("_toc.yml", "_config.yml", "CITATION.cff"):
        shutil.copy(ROOT / name, folder)
    (folder / "my_net.py").write_text(NETWORK)
    (folder / "album").mkdir()
    for seed, name in enumerate(("犬", "猫", "Beach (1)")):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (6, 6, 3)).repeat(14, axis=0).repeat(16, axis=1)
        pixels = np.clip(coarse + rng.integers(-20, 20, coarse.shape), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "album" / f"{name}.jpg")
    Image.new("RGB", (96, 84), (90, 90, 90)).save(folder / "album" / "plain.png")
    (folder / "album" / "kaputt.jpg").write_text("no picture")
    (folder / "params").mkdir()
    (folder / "params" / "mine.yaml").write_text(yaml.safe_dump(PARAMETERS))
    return folder


def report(folder: Path) -> subprocess.CompletedProcess:
    """What extend.md tells for another image set, two notebooks at a time as the Makefile."""
    command = [str(Path(sys.executable).with_name("xailib")), "report", "mine", "--workers", "2"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, "-p", "images: [album]"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def made(project):
    return report(project)


def words(folder: Path, page: str) -> str:
    """What a page of the built site says."""
    text = (folder / "_build" / "html" / f"{page}.html").read_text(encoding="utf-8")
    text = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    article = text[text.index("<article") : text.index("</article>")]
    return " ".join(html.unescape(re.sub("<[^>]*>", "", article)).split())


def numberless(text: str) -> str:
    """A page's words without the numbers of figures, which those on other pages move."""
    return re.sub(r"Fig\. \d+", "Fig.", text)


def test_a_whole_report_on_own_photographs_without_boxes(project, made):
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    for page in PAGES:
        assert "no results" not in words(project, page)
    findings = words(project, "notebooks/8_findings")
    left_out = findings[findings.rindex("Not tested") :]  # first it stands in the folded code
    assert "Grad-CAM is more compact. Needs boxes around the objects" in left_out
    assert "Counting opposing superpixels" not in left_out  # which was tested
    agreement = words(project, "notebooks/4_agreement")
    assert "None of these photographs has a bounding box" in agreement
    assert "left out of all means and counts: LIME of plain: the map is constant" in agreement
    for task in ("2_lime", "3_cam", "4_agreement", "7_sanity", "9_stability", "10_explore"):
        text = words(project, f"notebooks/{task}")
        assert "kaputt.jpg" in text, task
        assert REASON in text, task
        assert "犬" in text, task
    assert made.stdout.count(REASON) == made.stdout.count("not explained: ") > 0
    (folder,) = (project / "results").iterdir()
    places = [f.stem for f in folder.glob("10_explore/figures/explore-*.csv")]
    assert len(set(places)) == 4  # two names in another script, two places


def test_the_results_are_read_as_the_book_and_the_readme_tell(project, made, monkeypatch):
    assert made.returncode == 0
    monkeypatch.chdir(project)
    (folder,) = (project / "results").iterdir()
    place, book = f"results/{folder.name}", (ROOT / "book" / "rerun.md").read_text("utf-8")
    for text in (book, (ROOT / "README.md").read_text("utf-8")):
        code = re.search(r"^## Read the results$.*?^```python\n(.*?)^```$", text, re.M | re.S)[1]
        names = {}
        exec(code.replace("results/mine", place).replace("my-results", place), names)
        table, maps, masks = names["table"], names["maps"], names["masks"]
        assert set() < set(table["image"]) <= set(masks)  # but for those with empty masks
        assert {(image, method) for image in masks for method in PARAMETERS["methods"]} == set(maps)
        for (image, _), values in maps.items():
            assert values.shape == masks[image].shape == (48, 48)
            assert 0 <= values.min() <= values.max() <= 1
            assert set(np.unique(masks[image])) <= {0, 1}
    # Each column is explained, and none that is not there.
    rows = re.findall(r"^\| `(\w+)`, `([\w-]+)` \| .*? \| (.*) \|$", book, re.M)
    assert [task for task, *_ in rows] == ["2_lime", "3_cam", "4_agreement", "4_agreement"]
    for task, name, columns in rows:
        table = load_table(f"{place}/{task}", name)
        told = set(re.findall(r"`(\w+)`", columns))
        assert told == set(table.columns), name


def test_a_page_that_fails_says_why_and_the_others_are_built(project, made):
    assert made.returncode == 0
    file = project / "notebooks" / "4_agreement.ipynb"
    notebook = nbformat.read(file, 4)
    notebook.cells.insert(-1, nbformat.v4.new_code_cell("raise ValueError('`13` is <unlucky>')"))
    nbformat.write(notebook, file)
    before = words(project, "notebooks/2_lime")
    old = project / "_build" / "html" / "of-an-earlier-site.html"
    old.touch()
    failed = report(project)
    assert not old.exists()
    assert failed.returncode == 1, failed.stderr
    index = project / "_build" / "html" / "index.html"
    assert "not built cleanly" not in failed.stderr, failed.stderr
    assert failed.stdout.splitlines()[-1] == f"Report: {index}"
    assert says("page_fails", failed.stderr)
    assert all(task in failed.stderr.splitlines()[-1] for task in ("8_findings", "10_explore"))
    text = words(project, "notebooks/4_agreement")
    assert text.startswith("Agreement")
    assert "ValueError: `13` is <unlucky> (see results/mine+images=album-" in text
    partial = project / re.search(r"\(see (\S+)\)", text)[1]
    assert "unlucky" in json.dumps(json.loads(partial.read_text()))
    assert "IoU" not in text  # nothing of the earlier run
    for task in ("8_findings", "10_explore"):
        assert "needs 4_agreement" in words(project, f"notebooks/{task}")
    whole = set(TASKS) - {"4_agreement", "8_findings", "10_explore"}
    assert all("no results" not in words(project, f"notebooks/{task}") for task in whole)
    assert numberless(words(project, "notebooks/2_lime")) == numberless(before)
    first = words(project, "book/index")
    assert first.count("4_agreement has no results; its page shows the reason") == 2
    assert first.count("8_findings has no results; its page shows the reason") == 1
