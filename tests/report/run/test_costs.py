"""What jobs cost: noted, estimated from last time or from a table, and shown on its page."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import ROOT

sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "book" / "_ext")]

import costing  # noqa: E402
import scale  # noqa: E402

from xailib.explain.cam import explain_cam  # noqa: E402
from xailib.images.load import load_images  # noqa: E402
from xailib.networks.classifier import load_classifier  # noqa: E402
from xailib.networks.counting import passes  # noqa: E402
from xailib.report.cli import sweeping  # noqa: E402
from xailib.report.cli.timing import paces_of  # noqa: E402
from xailib.report.params.profiles import load_profile  # noqa: E402
from xailib.report.run import costs, plan  # noqa: E402
from xailib.report.run.costs import (  # noqa: E402
    Cost,
    Pace,
    estimates,
    longest_first,
    units,
    wall,
)
from xailib.report.run.plan import Job  # noqa: E402


@pytest.fixture
def profile(monkeypatch, tmp_path):
    """The smoke profile, with results of its own."""
    monkeypatch.chdir(ROOT)
    found = load_profile("smoke", {"images": ["chelsea", "coffee", "rocket"], "num_samples": 50})
    monkeypatch.setattr(type(found), "folder", lambda _, task: tmp_path / task)
    return found


def estimate(profile, job):
    return estimates(profile, [job])[job.name]


def note(folder, **found):
    """What a job has left of its cost."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"kind": "2_lime explain", "units": 100, "seconds": 8.0, "memory": 5e8, "disk": 1e6}
    whole["network"] = "tf_efficientnet_lite0"
    (folder / "cost.json").write_text(json.dumps({**whole, **found}))


def test_where_nothing_has_run_an_estimate_is_a_line_of_the_table(profile):
    for task in plan.SHARDS:
        for job in plan.plan(profile, task, shard=2):
            cost = estimate(profile, job)
            assert min(cost.seconds, cost.memory, cost.disk) > 0
            assert not cost.here
    two, one = plan.plan(profile, "2_lime", shard=2)[:2]
    row = costs._table()["2_lime explain"]
    assert (units(profile, two), units(profile, one)) == (100, 50)
    for name in ("seconds", "memory", "disk"):
        assert getattr(estimate(profile, one), name) == row[name] + 50 * row[f"{name}_each"]
    # Of those that explain the first images alone, these count.
    embedded = load_profile("embedded")
    samples = 8000 + 4000 + 2 * (2 * 1024 + 2 * 250)  # of long runs, designs and segmentations
    for task, count in (("5_faithfulness", 10), ("7_sanity", 6), ("9_stability", samples)):
        job = plan.plan(embedded, task)[-1]
        assert units(embedded, job) == count
    one_image = replace(embedded, parameters={"images": ["chelsea"]})
    assert units(one_image, job) == 8000 + 2 * 1024 + 2 * 250
    # A task in one piece is its explanations and its page.
    (whole,), (*parts, page) = (plan.plan(profile, "3_cam", shard=size) for size in (None, 3))
    assert (units(profile, parts[0]), units(profile, page)) == (9, 3)  # heatmaps, and images
    together = [estimate(profile, job) for job in (*parts, page)]
    assert estimate(profile, whole).seconds == sum(cost.seconds for cost in together)
    assert estimate(profile, whole).memory == max(cost.memory for cost in together)


def test_what_has_run_takes_as_long_as_last_time(profile):
    first, second, page = plan.plan(profile, "2_lime", shard=2)
    before = estimate(profile, page)
    note(first.folder(profile))
    assert estimate(profile, first) == Cost(8.0, 5e8, 1e6, here=True)
    # The other part, of one image, takes half of that; the page is no part.
    assert estimate(profile, second) == Cost(4.0, 5e8, 5e5, here=True)
    assert estimate(profile, page) == before
    note(second.folder(profile), units=50, seconds=7.0, memory=6e8)
    assert estimate(profile, second) == Cost(7.0, 6e8, 1e6, here=True)
    third = replace(second, name="2_lime.0002")
    mean = estimate(profile, third)
    assert (mean.seconds, mean.memory, mean.disk) == pytest.approx((5.0, 6e8, 2e6 / 3))
    # Twice as many samples take twice as long.
    doubled = replace(profile, parameters={**profile.parameters, "num_samples": 100})
    assert estimate(doubled, first).seconds == 16.0
    # A whole notebook that has run is no page that finds all explained.
    note(page.folder(profile), kind="2_lime notebook")
    assert estimate(profile, page) == before
    # Nor does another network take as long.
    other = replace(profile, parameters={**profile.parameters, "model": "resnet18"})
    assert not estimate(other, first).here
    # Nor is what is torn used.
    (first.folder(profile) / "cost.json").write_text("{")
    assert estimate(profile, first).seconds == pytest.approx(14.0)
    assert set(estimates(profile, [first, page])) == {"2_lime.0000", "2_lime"}
    # Work that has no images takes what it took.
    table = Job("2_lime.table", "2_lime", "table")
    note(table.folder(profile), kind="2_lime table", units=0)
    assert estimate(profile, table).seconds == 8.0


def test_the_time_of_a_plan_by_hand():
    found = [Job("a", "a"), Job("b", "b"), Job("c", "c", needs=("a", "b", "z")), Job("d", "d")]
    seconds = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}
    assert wall(found, seconds, 1) == 10
    assert wall(found, seconds, 2) == 5  # d behind b, c behind a
    assert wall(found, seconds, 9) == 5
    assert wall([], {}, 2) == 0


def test_the_longest_way_to_the_end_begins_first():
    found = [Job("a", "a"), Job("b", "b"), Job("c", "c"), Job("d", "d", needs=("a", "z"))]
    seconds = {"a": 1.0, "b": 5.0, "c": 1.0, "d": 5.0}
    assert [job.name for job in longest_first(found, seconds)] == ["a", "b", "d", "c"]
    # What may take any time, and what it waits for, come first of all.
    del seconds["d"]
    assert [job.name for job in longest_first(found, seconds)] == ["a", "d", "b", "c"]
    assert longest_first([], {}) == []


def test_what_has_no_estimate_is_told_in_words(profile, monkeypatch, capsys):
    known = {kind: of for kind, of in costs._table().items() if not kind.startswith("9_stability")}
    monkeypatch.setattr(costs, "_table", lambda: known)
    jobs = [Job("2_lime", "2_lime"), Job("9_stability", "9_stability")]
    for model in ("tf_efficientnet_lite0", "resnet18"):
        sweeping._show(load_profile("embedded", {"model": model}), jobs, jobs, 1, False, {})
        output = capsys.readouterr().out
        (line,) = [line for line in output.splitlines() if line.startswith("9_stability")]
        assert line.count("no estimate") == 3
        assert "To do: 2 of 2 jobs (no estimate: 9_stability, not counted); about" in output
        assert "1 times are of one processor, as measured on" in output
        assert "?" not in output
        others = "Not timed; may take many times as much: resnet18."
        assert (others in output) == (model == "resnet18")


# The network's passes, timed here.


NETWORK = """
from torch import nn
from torchvision import transforms

def load(weights=None):
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.SiLU()
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    steps = transforms.Resize(48), transforms.CenterCrop(48), transforms.ToTensor()
    return net.eval(), transforms.Compose(steps), ["a", "b", "c", "d"]
"""


@pytest.fixture
def own(profile, tmp_path):
    """The profile with a network of its own."""
    (tmp_path / "net.py").write_text(NETWORK)
    return replace(profile, parameters={**profile.parameters, "model": f"{tmp_path}/net.py:load"})


def test_a_heatmap_is_estimated_by_the_passes_that_it_makes(own):
    found, wrong = paces_of(own, ["2_lime", "3_cam", "4_agreement"])
    assert (set(found), wrong) == ({"2_lime", "3_cam"}, {})  # the third has no network
    assert min(found["3_cam"].eager, found["3_cam"].fast, found["3_cam"].tail) >= 0
    classifier = load_classifier(own.parameters["model"])
    before = passes().made
    explain_cam(classifier, load_images("chelsea")[0], "scorecam")
    made = passes().made - before - 1  # one for the maps and the target
    pace = Pace(eager=0.5, fast=2.0, tail=0.25, channels=found["3_cam"].channels)
    assert pace.channels == 12
    assert made == 12
    assert pace.heatmap("scorecam") == 12 * 2.0
    assert pace.heatmap("ablationcam") == 0.5 + 12 * 0.25
    assert pace.heatmap("gradcam") == 1.5
    # Twice the pace is twice the passes' time; pages are drawn as before.
    own = replace(own, parameters={**own.parameters, "methods": ["scorecam"]})
    jobs = [*plan.plan(own, "2_lime", shard=2), *plan.plan(own, "3_cam", shard=2)]
    slow = {task: replace(pace, fast=4.0) for task in ("2_lime", "3_cam")}
    first, second = (
        estimates(own, jobs, paces) for paces in (dict.fromkeys(("2_lime", "3_cam"), pace), slow)
    )
    more = {name: second[name].seconds - first[name].seconds for name in first}
    assert more["2_lime.0000"] == pytest.approx(2 * 50 * 2.0)  # images, samples, seconds
    assert more["3_cam.0000"] == pytest.approx(2 * 12 * 2.0)
    assert more["2_lime"] == more["3_cam"] == 0


@pytest.mark.parametrize(
    ("task", "values", "line"),
    [
        ("2_lime", {"target": "no such class"}, "target: unknown name 'no such class'"),
        ("3_cam", {"layer": "nowhere"}, "nowhere"),
        ("2_lime", {"model": "resnet18", "weights": __file__}, "test_costs.py"),
        ("2_lime", {"outputs": "binary"}, "outputs: 'binary' is for a single output"),
    ],
)
def test_what_only_the_loaded_network_can_tell_is_told_before_a_kernel_starts(
    own, tmp_path, task, values, line
):
    found, wrong = paces_of(replace(own, parameters={**own.parameters, **values}), [task])
    assert found == {}
    assert line in wrong[task]
    assert wrong[task].startswith("InputError: ")  # by which the command's exit code is 2


@pytest.mark.parametrize("task", ["2_lime", "5_faithfulness", "9_stability", "3_cam"])
def test_a_network_that_nothing_can_explain_is_told_before_a_kernel_starts(own, tmp_path, task):
    blind = "def load():\n    net, *rest = seeing()\n    nn.init.zeros_(net[-1].weight)\n"
    code = NETWORK.replace("def load", "def seeing") + blind + "    return net, *rest\n"
    (tmp_path / "net.py").write_text(code)
    found, wrong = paces_of(own, [task])
    assert found == {}
    assert wrong[task].startswith("InputError: methods: none works; ")


def test_what_takes_long_is_told_with_what_would_be_shorter(capsys):
    jobs = [Job("2_lime", "2_lime"), Job("3_cam", "3_cam"), Job("10_explore", "10_explore")]
    seconds = {"2_lime": 50.0, "3_cam": 400.0, "10_explore": 9.0}
    given = {"2_lime": {"num_samples": 640}, "3_cam": {"methods": ["gradcam", "scorecam"]}}
    profile = SimpleNamespace(values=lambda task: given.get(task, {}))
    sweeping._warn_of_time(profile, jobs[:1], seconds, 1)
    assert capsys.readouterr().err == ""
    sweeping._warn_of_time(profile, jobs, seconds, 1)
    assert capsys.readouterr().err == (
        "About 8 min: 3_cam 7 min, 2_lime 50 s, 10_explore 9 s. Shorter: fewer images, "
        "-p methods=[gradcam], -p num_samples=200.\n"
    )
    given["2_lime"]["num_samples"], given["3_cam"]["methods"] = 200, ["layercam"]
    sweeping._warn_of_time(profile, jobs, seconds, 1)
    assert capsys.readouterr().err.endswith("Shorter: fewer images.\n")  # it is short already


# The page.


def fake_runs(folder):
    """A run of LIME on two images, as its manifest tells it."""
    run = folder / "smoke" / "2_lime"
    manifest = {"inputs": {"images": {"a": "", "b": ""}}, "passes": {"made": 90, "kept": 101}}
    for place in (run, run / "jobs" / "2_lime.0000"):
        note(place, seconds=3.0)
        (place / "manifest.json").write_text(json.dumps(manifest))
    return folder / "smoke"


def test_the_page_shows_what_was_noted(tmp_path):
    runs = fake_runs(tmp_path)
    (row,) = costing.tasks(runs).to_dict("records")
    assert (row["images"], row["passes"]) == (2, 191)
    assert (row["seconds"], row["memory"], row["disk"]) == (6.0, 5e8, 1e6)
    # Parts of an earlier run that nothing was taken from do not count.
    manifest = json.loads((runs / "2_lime/manifest.json").read_text())
    manifest["passes"] = {"made": 191, "kept": 0}
    (runs / "2_lime/manifest.json").write_text(json.dumps(manifest))
    assert costing.tasks(runs)["seconds"].tolist() == [3.0]
    # The page has no other part; that it builds without a warning is asked of the whole site.
    texts = costing.texts(runs)
    assert "<td>191</td>" in texts["cost_tasks"]
    assert "10,000 images were explained by LIME" in texts["cost_long"]
    assert set(re.findall(r"{{ (\w+) }}", (ROOT / "book/cost.md").read_text())) == set(texts)
    # Nor is a cost made up where none was noted.
    (runs / "2_lime/cost.json").unlink()
    assert costing.texts(runs)["cost_tasks"] == "*No runs to show.*"


def test_imagenet_is_a_multiplication(tmp_path):
    found = costing.tasks(fake_runs(tmp_path))
    (row,) = costing.multiplied(found).to_dict("records")
    hours = 3.0 * 1_281_167 / 3600  # 3 s an image
    assert float(row["seconds/image"]) == 3.0
    assert float(row["hours, 1 machine"]) == pytest.approx(hours, rel=0.01)
    assert float(row["hours, 64 machines"]) == pytest.approx(hours / 64, rel=0.01)
    assert float(row["disk, GB"]) == pytest.approx(0.5e-3 * 1_281_167, rel=0.01)


def test_what_is_measured_is_kept_with_its_origin(tmp_path):
    table = pd.DataFrame([{"task": "2_lime", "workers": 1, "seconds": 10.0}])
    scale.keep(tmp_path, "workers", table)
    kept = pd.read_csv(tmp_path / "workers.csv")
    assert set(json.loads((tmp_path / "manifest.json").read_text())["runs"]) == {*kept["run"]}
    runs = json.loads((costing.FOLDER / "manifest.json").read_text())["runs"]
    tables = [pd.read_csv(costing.FOLDER / f"{name}.csv") for name in ("long", "workers")]
    assert set(runs) == {date for table in tables for date in table["run"]}
