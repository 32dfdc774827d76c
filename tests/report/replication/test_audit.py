import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

from xailib.compare.chance import chance_iou
from xailib.compare.intervals import mean_interval
from xailib.compare.iou import iou
from xailib.compare.masks import area_mask
from xailib.dissect import kinds
from xailib.errors import InputError
from xailib.images.frames import resize
from xailib.report.figures import replication as audit_figures
from xailib.report.params.profiles import Profile
from xailib.report.replication import audit
from xailib.report.replication import tables as stored
from xailib.report.replication.published import (
    CAMS,
    LIMES,
    Published,
    load_labels,
    load_published,
    locate,
    registry,
    table1,
)
from xailib.report.run.plan import Job
from xailib.report.run.results import read_manifest
from xailib.report.run.staleness import inputs as inputs_now


def case(seed=0, height=300, width=260, image="cat"):
    """One photograph's masks and maps: two boxes of superpixels and smooth maps, by chance."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-1, 2, (7, 7)).astype(np.int8)
    both = np.repeat(np.repeat(coarse, 32, 0), 32, 1)
    cams = {}
    for cam in CAMS:
        smooth = resize(rng.random((8, 8), np.float32), (height, width), "bilinear")
        smooth = np.maximum(smooth - 0.3, 0)
        cams[cam] = smooth / smooth.max()
    limes = {"LIME 1": np.maximum(both, 0), "LIME 2": both}
    return Published(image, Path("none"), 0.0, 0.0, limes, cams)


@pytest.fixture(scope="module")
def cases():
    return [case(seed, 300 + 10 * seed, image=f"cat{seed}") for seed in range(3)]


@pytest.fixture(scope="module")
def theirs(shared):
    return load_published(locate(shared / "published"))


@pytest.fixture(scope="module")
def tables(theirs, shared):
    return stored.compute(theirs, load_labels(locate(shared / "published")))


def literal_iou(mask1, mask2):
    """The report's own procedure, from its notebook ``task-4/iou.ipynb``."""
    shape = max(mask1.shape, mask2.shape, key=lambda x: x[0] * x[1])
    one, two = (
        cv2.resize(mask.astype("float32"), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
        for mask in (mask1, mask2)
    )
    return np.logical_and(one, two).sum() / np.logical_or(one, two).sum()


# The published table


def test_the_reports_own_code_gives_the_same(theirs):
    for one in theirs:
        for lime in LIMES:
            ours = iou(*audit.masks(one, lime, "gradcam"))
            assert ours == pytest.approx(
                literal_iou(one.limes[lime], one.cams["gradcam"]), abs=5e-5
            )


def test_the_table_measures_the_area_of_limes_mask(tables):
    steps = tables["steps"]
    first = steps[(steps["step"] == "published") & (steps["cam"] == "gradcam")]
    assert first["cam_area"].between(0.9, 1).all()
    assert np.corrcoef(first["iou"], first["lime_area"])[0, 1] > 0.98
    assert (first["iou"] - first["lime_area"]).abs().max() < 0.03


def test_the_corrected_means(tables):
    summary = tables["summary"].set_index("cam")
    expected = {"gradcam": 0.315, "ablationcam": 0.310, "scorecam": 0.307}
    for cam, mean in expected.items():
        assert summary.loc[cam, "iou"] == pytest.approx(mean, abs=0.005)
        assert summary.loc[cam, "chance"] == pytest.approx(0.191, abs=0.005)
        assert summary.loc[cam, "low"] < mean < summary.loc[cam, "high"]
    corrected = tables["corrected"]
    below = corrected[corrected["iou"] <= corrected["chance"]]["image"]
    assert set(below) == {"kite", "vulture"}


def test_the_cams_ranks_and_the_opposing_superpixels(tables):
    ranks = tables["ranks"].groupby(["first", "second"])["spearman"].agg(["min", "max"])
    near, far = ranks.loc["gradcam", "ablationcam"], ranks.loc["gradcam", "scorecam"]
    assert near.tolist() == pytest.approx([0.92, 0.99], abs=0.005)
    assert far.tolist() == pytest.approx([0.63, 0.93], abs=0.005)
    opposing = tables["opposing"].set_index("image")
    assert opposing.loc["flamingo", "pixels"] == 18_584
    assert len(opposing) == 6


# Each repair, on maps of our own


def test_as_published_everything_that_is_not_zero_counts():
    one = case()
    chosen, cut = audit.masks(one, "LIME 2", "gradcam")
    assert chosen.shape == cut.shape == (300, 260)
    np.testing.assert_array_equal(cut, one.cams["gradcam"] > 0)
    grown = resize(one.limes["LIME 2"].astype(np.float32), (300, 260), "bilinear")
    np.testing.assert_array_equal(chosen, grown != 0)


def test_a_mask_enlarged_by_nearest_neighbours_does_not_grow():
    grown, _ = audit.masks(case(), "LIME 1", "gradcam")
    kept, _ = audit.masks(case(), "LIME 1", "gradcam", ["edges"])
    share = (case().limes["LIME 1"] != 0).mean()
    assert kept.mean() == pytest.approx(share, abs=0.005)
    assert grown.mean() > share + 0.01
    assert (grown | kept == grown).mean() > 0.999


def test_the_frame_is_the_middle_of_the_squashed_photograph():
    one = case(height=512, width=1024)
    inside = np.zeros((512, 1024), np.float32)
    inside[32:480, 64:960] = 1  # 16 of 256 pixels are cut at each side
    framed = replace(one, cams={"gradcam": inside})
    _, cut = audit.masks(framed, "LIME 1", "gradcam", ["frame"])
    assert cut.shape == (224, 224)
    assert cut.all()
    outside = replace(one, cams={"gradcam": 1 - inside})
    _, cut = audit.masks(outside, "LIME 1", "gradcam", ["frame"])
    assert not cut[1:-1, 1:-1].any()


@pytest.mark.parametrize("others", [(), ("frame",), ("edges",), ("frame", "signs")])
def test_equal_area_is_equal(others):
    chosen, cut = audit.masks(case(), "LIME 2", "scorecam", ["area", *others])
    assert chosen.sum() == cut.sum() > 0


def test_signs_apart_leaves_what_supports():
    chosen, _ = audit.masks(case(), "LIME 2", "gradcam", ["signs", "frame"])
    np.testing.assert_array_equal(chosen, case().limes["LIME 2"] == 1)


# The tables


def test_steps_add_up_and_stand_alone(cases):
    table = audit.steps(cases)
    cumulative = table[table["mode"] == "cumulative"]
    assert len(cumulative) == 5 * 3 * 2 * 3
    assert set(table[table["mode"] == "alone"]["cam"]) == {"gradcam"}
    last = cumulative[cumulative["step"] == "signs"].set_index(["image", "lime", "cam"])
    for one in cases:
        chosen = one.limes["LIME 2"] == 1
        saliency = audit.lime_frame(one).from_photograph(one.cams["ablationcam"])
        cut = area_mask(saliency, int(chosen.sum()))
        row = last.loc[one.image, "LIME 2", "ablationcam"]
        assert row["iou"] == iou(chosen, cut)
        assert row["chance"] == chance_iou(int(chosen.sum()), int(chosen.sum()), 224 * 224)


def test_corrected_is_the_step_of_equal_area_beside_other_photographs(cases):
    table = audit.corrected(cases).set_index(["image", "cam"])
    steps = audit.compare(cases, ("frame", "area")).query("lime == 'LIME 1'")
    for row in steps.itertuples():
        assert table.loc[(row.image, row.cam), "iou"] == row.iou
    one, *rest = cases
    chosen = one.limes["LIME 1"] == 1
    by_hand = [
        iou(
            chosen,
            area_mask(audit.lime_frame(r).from_photograph(r.cams["scorecam"]), int(chosen.sum())),
        )
        for r in rest
    ]
    assert table.loc[(one.image, "scorecam"), "others"] == pytest.approx(np.mean(by_hand))


def test_the_disc_in_the_middle_is_one():
    disc = area_mask(audit._centred(101, 101), 2000)
    y, x = np.nonzero(disc)
    assert (y.mean(), x.mean()) == pytest.approx((50, 50), abs=0.05)
    assert np.hypot(y - 50, x - 50).max() == pytest.approx(np.sqrt(2000 / np.pi), abs=1)


def test_the_sweep_starts_at_the_published_threshold(cases):
    table = audit.sweep(cases).set_index(["cam", "threshold"])
    framed = audit.compare(cases, ["frame"]).query("lime == 'LIME 1'")
    for cam, row in framed.groupby("cam")[["iou", "chance"]].mean().iterrows():
        assert table.loc[(cam, 0), "iou"] == pytest.approx(row["iou"])
        assert table.loc[(cam, 0), "chance"] == pytest.approx(row["chance"])
        assert table.loc[(cam, 0.5), "cam_area"] < table.loc[(cam, 0), "cam_area"]


def test_ranks_are_spearmans(cases):
    for row in audit.rank_agreement(cases).itertuples():
        one = next(c for c in cases if c.image == row.image)
        first, second = (
            stats.rankdata(audit.lime_frame(one).from_photograph(one.cams[cam]))
            for cam in (row.first, row.second)
        )
        expected = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert row.spearman == pytest.approx(expected)


def test_opposing_superpixels_alone(cases):
    table = audit.opposing(cases).set_index("image")
    for one in cases:
        against = one.limes["LIME 2"] == -1
        assert table.loc[one.image, "pixels"] == against.sum()
        assert table.loc[one.image, "share"] == against.sum() / (one.limes["LIME 2"] != 0).sum()
    none = replace(one, limes=dict.fromkeys(LIMES, one.limes["LIME 1"]))
    assert audit.opposing([none]).empty


def test_the_summary_counts_and_averages():
    table = pd.DataFrame(
        {"image": list("abcdef"), "cam": "gradcam", "iou": [0.5, 0.4, 0.3, 0.6, 0.1, 0.2]}
    ).assign(chance=0.25, others=[0.1, 0.5, 0.2, 0.3, 0.2, 0.1], centre=0.0)
    row = audit.summary(table).iloc[0]
    assert row["iou"] == pytest.approx(0.35)
    assert row["over_chance"] == pytest.approx(0.1)
    assert (row["above_chance"], row["above_others"], row["above_centre"]) == (4, 4, 6)
    assert row["chance_p"] == stats.wilcoxon(table["iou"] - 0.25).pvalue
    assert (row["low"], row["high"]) == tuple(mean_interval(table["iou"].to_numpy()))
    p = sorted(row[f"{name}_p"] for name in audit.BASELINES)
    adjusted = sorted(row[f"{name}_adjusted"] for name in audit.BASELINES)
    assert adjusted[0] == pytest.approx(min(1, 3 * p[0]))


# What the project keeps


def test_the_tables_kept_are_a_fresh_computation(tables):
    kept, manifest = stored.load()
    for name in stored.NAMES:
        pd.testing.assert_frame_equal(
            kept[name], tables[name], check_dtype=False, rtol=0, atol=2e-6
        )
    assert manifest["files"] == registry()


def test_the_tables_kept_show_the_published_numbers_too():
    steps = stored.load()[0]["steps"]
    first = steps[(steps["step"] == "published") & (steps["cam"] == "gradcam")]
    ours = first.pivot(index="image", columns="lime", values="iou").round(4)
    printed = table1().set_index("image").loc[ours.index]
    np.testing.assert_array_equal(ours.to_numpy(), printed[["iou1", "iou2"]].to_numpy())


def test_the_published_output_units_are_called_scenes_and_objects():
    """Counted from the kept table, so also without the files; of all units, not of those known."""
    table = stored.load()[0]["kinds"]
    units = table.groupby(["network", "layer"])["units"].sum()
    assert units["resnet18"].to_dict() == {"fc": 1000, "layer3": 256, "layer4": 512}
    assert units["resnet18_places365"].to_dict() == {"fc": 365, "layer3": 256, "layer4": 512}
    fc = table[(table["layer"] == "fc") & (table["kind"] == "scene")].set_index("network")["share"]
    assert fc["resnet18_places365"] > 3 * fc["resnet18"]


def test_the_files_kept_are_small_and_say_what_made_them():
    files = stored.files()
    assert sum(file.stat().st_size for file in files) < 60_000
    manifest = json.loads(files[-1].read_text())
    assert manifest["commit"] == "aa31b27237f90561e58ab8c5b6246ee753770b08"
    assert {"computed", "project", "versions", "files"} <= set(manifest)


def test_stored_and_loaded(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "folder", lambda: tmp_path)
    labels = pd.DataFrame({"layer": ["fc", "fc"], "concept": ["sky", "zzz"]})
    tables = stored.compute(cases, {"net": labels})
    assert tables["kinds"]["kind"].tolist() == ["scene", kinds.UNKNOWN]
    stored.store(tables)
    found, manifest = stored.load()
    for name, table in tables.items():
        pd.testing.assert_frame_equal(found[name], table, check_dtype=False, rtol=0, atol=1e-6)
    assert manifest["versions"]["numpy"] == np.__version__
    (tmp_path / "sweep.csv").unlink()
    with pytest.raises(InputError, match="holds no stored tables"):
        stored.load()


def test_without_a_network_the_page_shows_the_tables_kept(tmp_path, monkeypatch):
    """The notebook, with an empty cache and a proxy that nobody runs."""
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "XDG_CACHE_HOME": str(tmp_path)}
    words = [ROOT / "notebooks" / "6_replication.ipynb", tmp_path / "out.ipynb"]
    words += ["-p", "out_dir", tmp_path / "run", "--no-progress-bar"]
    command = [str(Path(sys.executable).with_name("papermill")), *map(str, words)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "report's files are unavailable here" in (tmp_path / "out.ipynb").read_text()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["source"], metrics["equal"], metrics["numbers"]) == ("kept", 20, 20)
    assert (tmp_path / "run" / "figures" / "steps.svg").is_file()
    assert not list((tmp_path / "run" / "figures").glob("*.webp"))
    monkeypatch.chdir(ROOT)
    manifest = read_manifest(tmp_path / "run")
    inputs, job = manifest["inputs"], Job("6_replication", "6_replication")
    assert inputs_now(Profile("mine", {}), job, manifest) == inputs  # so it is used again
    files = {str(file.resolve().relative_to(ROOT)) for file in stored.files()}
    assert set(inputs["files"]) == files  # the same in another copy of the project


# Figures


def test_figures_show_the_tables(cases):
    steps, corrected = audit.steps(cases), audit.corrected(cases)
    chart = audit_figures.step_chart(steps)
    assert [axis.get_title() for axis in chart.axes] == list(LIMES)
    line = chart.axes[0].get_lines()[0]
    means = steps[(steps["mode"] == "cumulative") & (steps["lime"] == "LIME 1")]
    means = means[means["cam"] == "gradcam"].groupby("step", sort=False)["iou"].mean()
    np.testing.assert_allclose(line.get_ydata(), means.to_numpy())
    points = audit_figures.area_chart(steps).axes[0].collections
    assert [len(part.get_offsets()) for part in points] == [3, 3]
    sweep = audit.sweep(cases)
    left, right = audit_figures.sweep_chart(sweep).axes
    scorecam = sweep[sweep["cam"] == "scorecam"]
    assert left.lines[4].get_ydata().tolist() == scorecam["iou"].tolist()
    assert left.lines[5].get_ydata().tolist() == scorecam["chance"].tolist()
    assert right.lines[2].get_ydata().tolist() == scorecam["cam_area"].tolist()
    names = audit_figures.corrected_chart(corrected).axes[0].get_yticklabels()
    assert [name.get_text() for name in names] == [one.image for one in cases]


def test_a_row_of_the_gallery_shows_where_masks_meet():
    one = case()
    picture = np.full((300, 260, 3), 100, np.uint8)
    row = audit_figures.row(one, picture)
    assert len(row) == len(audit_figures.TITLES)
    assert [shown.shape[:2] for shown in row] == [(224, 224)] * 2 + [(300, 300)] + [(224, 224)] * 3
    lime = np.array([[True, True], [False, False]])
    shown = audit_figures.two_masks(np.zeros((2, 2, 3), np.uint8), lime, lime.T, "gradcam")
    both, orange, blue, neither = shown.reshape(4, 3).astype(int)
    assert np.ptp(both) == np.ptp(neither) == 0  # in gray
    assert both[0] > 150 > 50 > neither[0]
    assert orange[0] > orange[1] > orange[2]
    assert blue[2] > blue[1] > blue[0]
