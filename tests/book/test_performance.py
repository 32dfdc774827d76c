"""The page on performance: figures kept row by row, and a verdict that follows from them."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "book" / "_ext")]

import cards  # noqa: E402
import cases  # noqa: E402
import growth_figure  # noqa: E402
import measure  # noqa: E402
import performance  # noqa: E402
import run  # noqa: E402
import store  # noqa: E402
from nets import classifier, photograph  # noqa: E402

from xailib.report.figures.publish import GROUND  # noqa: E402

KEPT = ROOT / "book/_data/performance"


def row(key="lime", network="resnet50", **changes):
    """One comparison as `run.compare` gives it."""
    found = {
        "network": network,
        "weights": "random",
        "key": key,
        "comparison": "LIME, 1000 samples",
        "peer": "lime, eager",
        "ours_peak_mb": 100.0,
        "peer_peak_mb": 300.0,
        "largest_difference": 1e-6,
        "memory_to_peer": 0.3,
        "cores_used_elsewhere": 0.02,
        "ratio_to_usual_pass": 1.05,
        "ours_seconds": 40.0,
        "peer_seconds": 88.0,
        "engine": "openvino",
        "repeats": 5,
    }
    for name, value in {"ratio_to_peer": 2.2, "ratio_to_limit": 1.1}.items():
        found |= {name: value, f"{name}_min": value - 0.1, f"{name}_max": value + 0.1}
    return {**found, **changes}


def sizes(power):
    return [
        {
            "grows": "samples",
            "method": "LIME",
            "value": value,
            "seconds": 0.01 * value**power,
            "peak_mb": 90.0,
            "repeats": 3,
            "cores_used_elsewhere": 0.0,
        }
        for value in (100, 400, 1600)
    ]


def described(date):
    return {**measure.machine(), "image": "chelsea", "date": date}


def test_a_partial_run_renews_its_own_rows_only(tmp_path):
    rows = [row("lime"), row("scorecam_layer4"), row("lime", "tf_efficientnet_lite0")]
    store.merge(tmp_path, "ratios", rows, described("2026-01-01"))
    store.merge(tmp_path, "growth", sizes(1), described("2026-01-01"))
    store.merge(tmp_path, "ratios", [row("lime", ratio_to_peer=3.0)], described("2026-01-02"))
    table = pd.read_csv(tmp_path / "ratios.csv")
    assert list(table["key"]) == ["lime", "scorecam_layer4", "lime"]  # in their places
    assert list(table["ratio_to_peer"]) == [3.0, 2.2, 2.2]
    assert list(table["run"]) == ["2026-01-02", "2026-01-01", "2026-01-01"]
    runs = json.loads((tmp_path / "manifest.json").read_text())["runs"]
    assert list(runs) == ["2026-01-01", "2026-01-02"]
    assert runs["2026-01-02"]["packages"]["torch"]
    store.merge(tmp_path, "ratios", rows, described("2026-01-03"))  # no row is of the second
    runs = json.loads((tmp_path / "manifest.json").read_text())["runs"]
    assert list(runs) == ["2026-01-01", "2026-01-03"]
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["growth.csv", "manifest.json", "ratios.csv"]


ASKED = """network,key,comparison,column,asked
resnet50,lime,"LIME, 1000 samples",ratio_to_peer,2
resnet50,lime,"LIME, 1000 samples",ratio_to_limit,1.15
resnet50,lime,"LIME, 1000 samples",memory_to_peer,0.5
resnet50,scorecam_layer4,ScoreCAM,ratio_to_peer,1.8
"""


def page(folder, **changes):
    """The page's parts for one comparison."""
    (folder / "asked.csv").write_text(ASKED)
    store.merge(folder, "ratios", [row(**changes)], described("2026-01-01"))
    store.merge(folder, "growth", sizes(1), described("2026-01-01"))
    return performance.texts(folder)


def test_the_page_adds_up_what_a_photograph_takes():
    lite = [
        row("lime", "tf_efficientnet_lite0", ours_seconds=10.0, peer_seconds=25.0),
        row("lime", "tf_efficientnet_lite0", peer=performance.CHANNELS_LAST, peer_seconds=900.0),
        row("ablation_bn2", "tf_efficientnet_lite0", ours_seconds=0.5, peer_seconds=30.0),
        row("ablation_blocks.4", "tf_efficientnet_lite0", ours_seconds=70.0),
        row("lime", "resnet50", ours_seconds=500.0),
    ]
    assert "not measured" in performance.together(pd.DataFrame(lite))
    lite.append(row("scorecam_bn2", "tf_efficientnet_lite0", ours_seconds=9.5, peer_seconds=25.0))
    assert (
        "20 s with xailib, 80 s with the reference packages, a speed-up of **4**"
        in performance.together(pd.DataFrame(lite))
    )


def test_the_best_that_passes_allow_is_the_peer_s_time_over_the_limit():
    shown = performance.comparisons(pd.DataFrame([row(ratio_to_peer=1.6, ratio_to_limit=1.25)]))
    assert list(shown["maximum speed-up"]) == ["2"]


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, 0),
        ({"ratio_to_peer": 1.99}, 1),
        ({"ratio_to_limit": 1.16}, 1),
        ({"memory_to_peer": 0.51}, 1),
        ({"ratio_to_peer": 1.0, "ratio_to_limit": 2.0}, 2),
        ({"largest_difference": 2e-4}, 3),  # a fast other result meets nothing
    ],
)
def test_the_page_says_what_is_not_met(tmp_path, changes, missed):
    found = page(tmp_path, **changes)
    assert found["performance_asked"].count(">no</td></tr>") == missed
    said = found["performance_verdict"]
    assert f"{3 - missed} of 4 performance targets are met." in said
    assert ("LIME, 1000 samples, resnet50: target" in said) is (missed > 0)
    assert (f"{missed} not met" in said) is (missed > 0)
    assert "1 not measured yet" in said


@pytest.mark.parametrize(("elsewhere", "warned"), [(0.02, False), (1.3, True), (np.nan, True)])
def test_the_page_warns_of_a_busy_machine(tmp_path, elsewhere, warned):
    found = page(tmp_path, cores_used_elsewhere=elsewhere)
    assert ("provisional" in found["performance_busy"]) is warned
    assert "–" not in found["performance_busy"]


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_how_time_grows(tmp_path, power):
    store.merge(tmp_path, "growth", sizes(power), described("2026-01-01"))
    (found,) = performance.exponents(pd.read_csv(tmp_path / "growth.csv")).to_dict("records")
    assert float(found["exponent of time"]) == pytest.approx(power, abs=0.01)
    assert found["peak memory, MB"] == "90 – 90"


def test_the_growth_figure_is_that_of_the_table(tmp_path):
    store.merge(tmp_path, "growth", sizes(1), described("2026-01-01"))
    growth_figure.draw(tmp_path)
    first = (tmp_path / "growth.svg").read_text()
    growth_figure.draw(tmp_path)
    assert (tmp_path / "growth.svg").read_text() == first
    assert "<!-- samples -->" in first
    assert f"--of-ffffff: {GROUND}" in first  # the white ground, in the dark


def test_what_is_kept_names_its_origin():
    """The figures of the page: every row's run is described, every demand can be measured.

    That it builds without a warning is asked of the whole site.
    """
    runs = json.loads((KEPT / "manifest.json").read_text())["runs"]
    tables = {name: pd.read_csv(KEPT / f"{name}.csv") for name in ("ratios", "growth")}
    assert set(runs) == {date for table in tables.values() for date in table["run"]}
    for described in runs.values():
        assert {"processor", "cores", "threads", "memory_gb", "packages", "load", "commit"} <= set(
            described
        )
    assert set(tables["growth"]["grows"]) == {
        "samples",
        "superpixels",
        "channels",
        "image side",
        "images",
    }
    texts = performance.texts(KEPT)
    written = set(re.findall(r"{{ (\w+) }}", (ROOT / "book/performance.md").read_text()))
    assert written == set(texts)
    for key in tables["ratios"]["comparison"]:
        assert f">{key}</td>" in texts["performance_table"]
    assert "performance targets are met" in texts["performance_verdict"]
    for demand in pd.read_csv(KEPT / "asked.csv").to_dict("records"):
        assert demand["key"] in cases.cases(demand["network"], 1000)
        assert demand["column"] in performance.WORDS
        assert demand["column"] in tables["ratios"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"lime", "lime_channels_last", "ablation_layer4", "ablation_layer3", "growth"}),
        (["--only", "ablation_layer4,ablation_layer3"], {"ablation_layer4", "ablation_layer3"}),
        (["--only", "growth"], {"growth"}),
        (["--network", "tf_efficientnet_lite0"], set()),
    ],
)
def test_parts_run_alone(words, expected):
    options = run.parsed(words)
    keys = [*cases.cases("resnet50", 10), "growth"]
    found = {key for key in keys if run.chosen(options, "resnet50", key)}
    assert found - {"scorecam_layer4"} == expected
    assert options.output == KEPT
    assert run.parsed(["--quick"]).output != KEPT


def test_an_unknown_part_ends_the_program_before_any_work(capsys):
    with pytest.raises(SystemExit):
        run.parsed(["--only", "ablation"])
    assert "--only: unknown: ablation" in capsys.readouterr().err


def test_a_comparison_of_a_tiny_network(monkeypatch):
    monkeypatch.setattr(measure.gc, "collect", lambda: 0)  # half a second each, beside other tests
    net, photo = classifier(), photograph()
    for case in (
        cases.lime_case(net, photo, 20),
        cases.lime_case(net, photo, 20, fast=True),
        cases.ablation_case(net, photo, "body"),
        cases.ablation_case(net, photo, "stem"),
        cases.score_case(net, photo, "body"),
    ):
        found = run.compare(net, case, 2)
        assert found["largest_difference"] < 1e-4
        assert found["ratio_to_peer_min"] <= found["ratio_to_peer"] <= found["ratio_to_peer_max"]
        assert found["ratio_to_usual_pass"] <= found["ratio_to_limit"]


def test_a_card_s_rows_become_four_tables(tmp_path):
    single = {"lime, batches of 10": 2.0, "lime, batches of 256": 1.5, "bare passes, tf32": 0.1}
    single |= {"ours, exact": 0.5, "ours, tf32": 0.15, "ours, half": 0.1}
    stream = {"ours": 2.0, "images_per_second": 12.0, "bare passes, auto": 1.6}
    equal = {"images": 20, "lime_weights": 4e-6, "gradcam": 1e-6, "ablationcam": 1e-6}
    equal |= {"segments_differ": 0, "other_masks": 1}
    rows = {"LIME, one image": single, "LIME, stream of 24, tf32": stream}
    rows |= {"equal to the CPU, tf32": equal, "soft-WPMI": {"failed": "out of memory"}}
    against = {"network": "resnet18", "images": 100, "other_classes": 0, "other_masks": 8}
    against |= {"median_gap": 0.0154, "largest_gap": 0.109}
    rows |= {"LIME of 100 images against exact, half": against}
    card = {"cores": 16, "torch": "2.11", "rows": rows}
    (tmp_path / "gpu.json").write_text(json.dumps({"NVIDIA X": card}))
    one, many, same, exact = (table for _, table in cards.gpus(tmp_path / "gpu.json"))
    assert one.to_dict("records")[0]["reference"] == "lime, batches of 256"
    assert one.to_dict("records")[0]["speed-up, tf32"] == "10.0"
    assert list(many["measured"]) == ["12.0 images/s, 1.25 × the time of the forward passes"]
    assert same.to_dict("records")[0]["LIME masks that differ"] == 1
    assert exact.to_dict("records")[0]["weights, largest"] == "1e-01"
    assert list(exact["precision"]) == ["half"]
    assert list(cards.gpus(tmp_path / "none.json")) == []
