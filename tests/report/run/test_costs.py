"""What a run costs: passes counted and foreseen, and the page that sets them side by side."""

import functools
import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import partial
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from nets import classifier, photograph

sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "book" / "_ext")]

import costing  # noqa: E402
import scale  # noqa: E402
import scale_figure  # noqa: E402
import scaling  # noqa: E402

from xailib.dissect.activations import record_activations  # noqa: E402
from xailib.errors import InputError  # noqa: E402
from xailib.evaluate.randomisation import cascade  # noqa: E402
from xailib.explain.cam.methods import explain_cam  # noqa: E402
from xailib.explain.lime import explain_lime  # noqa: E402
from xailib.images.load import ImageSet  # noqa: E402
from xailib.images.probe import load_probe  # noqa: E402
from xailib.networks.classifier import load_classifier  # noqa: E402
from xailib.networks.counting import Passes, passed, passes  # noqa: E402
from xailib.report.params.profiles import Profile, declared, load_profile  # noqa: E402
from xailib.report.run.expected import _NETWORKS, expected_passes  # noqa: E402
from xailib.report.run.results import read_manifest, start_run  # noqa: E402


def counted(work, *words, **options):
    """What we count, and what the network's own hook sees: pictures in whole passes."""
    net, seen = classifier(), []
    hook = net.module.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    before = passes()
    work(net, *words, **options)
    hook.remove()
    return (passes() - before).made, sum(seen)


def test_counted_is_what_the_network_was_shown(tmp_path):
    photo = photograph()
    made, seen = counted(explain_lime, photo, num_samples=30, engine="eager")
    assert made == seen
    assert 2 < made <= 1 + 30  # equal samples are shown once
    for method, most in (("gradcam", 1), ("scorecam", 1 + 12)):
        made, seen = counted(explain_cam, photo, method, layer="body", engine="eager")
        assert made == seen, method
        assert 1 <= made <= most, method
    made, seen = counted(record_activations, ["fc"], some_probe(), folder=tmp_path / "recording")
    assert made == seen == 5


def test_counted_is_what_randomising_shows():
    # Three stages: the output layer, and two with batch norms, which see mirror images too.
    net, seen = classifier(), []
    watch = torch.nn.modules.module.register_module_forward_hook
    hook = watch(lambda m, i, _o: seen.append(len(i[0])) if type(m) is type(net.module) else None)
    before = passes()
    list(cascade(net, [photograph(0), photograph(1)], 3))
    hook.remove()
    order = 1
    assert (passes() - before).made == sum(seen) == order + 3 * 2 + 2 * 4


def some_probe():
    probe = load_probe("packaged", 0)
    return type(probe)("some", probe.images[:5])


def test_a_recording_that_is_there_is_kept(tmp_path):
    found = []
    for _ in range(2):
        before = passes()
        record_activations(classifier(), ["fc"], some_probe(), folder=tmp_path / "recording")
        found.append(passes() - before)
    assert found == [Passes(made=5), Passes(kept=5)]


def test_the_manifest_tells_what_was_made_and_what_was_kept(tmp_path):
    photos = ImageSet((photograph(0), photograph(1)))
    told = []
    for count in (1, 2):  # an interrupted run, and the next one
        run = start_run(tmp_path / "run", "2_lime", {}, photos)
        make = partial(explain_lime, classifier(), num_samples=20, seed=0)
        run.explanations(photos[:count], "lime", {}, make)
        run.finish()
        told.append(Passes(**read_manifest(tmp_path / "run")["passes"]))
    first, second = told
    assert first.kept == 0
    assert second.kept == first.made > 2
    assert second.made > 2
    assert second.all == second.made + second.kept


def test_no_count_is_lost_between_threads():
    before = passes()
    threads = [Thread(target=lambda: [passed(1) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passes() - before == Passes(made=8000)


TWO = ["chelsea", "coffee"]


@pytest.fixture
def foreseen(monkeypatch):
    monkeypatch.chdir(ROOT)
    smoke = load_profile("smoke").parameters
    return lambda task, **values: expected_passes(Profile("smoke", {**smoke, **values}), task)


def test_foreseen_by_hand(foreseen):
    assert foreseen("2_lime", images=TWO, num_samples=100) == 2 * 101
    assert foreseen("2_lime", until_stable=True, max_samples=50) == 2 * 51
    assert foreseen("3_cam", images=TWO, methods=["gradcam", "layercam"]) == 2 * (1 + 1 + 1)
    assert foreseen("3_cam", images=TWO, methods=["scorecam"]) == 2 * (1 + 1280 + 1)
    assert foreseen("3_cam", methods=["ablationcam"], layer="blocks.6") is None
    assert foreseen("3_cam", model="net.py:tiny") is None
    assert foreseen("4_agreement") == 0
    few = foreseen("1_clip_dissect", probe=["chelsea"], crops=3)
    assert few == 4 * 3  # the network, the control, the encoder
    # Three orders (LIME, Grad-CAM, the random one) and the blob, in four steps of three kinds.
    values = {"images": TWO, "methods": ["gradcam"], "draws": 1, "steps": 4}
    inner = 4 * (3 + 3 + 4)  # deletion and insertion end where all methods do, flipping does not
    shared = 2 + 2 + 1
    assert foreseen("5_faithfulness", road_percentiles=[], **values) == 2 * (inner + shared)
    assert foreseen("5_faithfulness", road_percentiles=[80], **values) == 2 * (
        inner + shared + 4 * 2
    )


def of_embedded(task, **values):
    found = load_profile("embedded").parameters
    return expected_passes(Profile("embedded", {**found, **values}), task)


def test_long_runs_are_foreseen_by_hand(foreseen):
    # The long run, one of either design, and two other cuts; one pass each tells the category.
    assert foreseen("9_stability") == (1 + 300) + 2 * (1 + 128) + 2 * (1 + 50) == 661
    # Two photographs: the second one's run is half as long.
    two = (1 + 8000) + (1 + 4000) + 2 * (2 * (1 + 1024) + 2 * (1 + 250))
    assert of_embedded("9_stability") == two == 17_106
    assert of_embedded("9_stability", images=["chelsea"]) == 8001 + 2 * 1025 + 2 * 251
    assert foreseen("9_stability", pool=101, long_runs=5, designs=[]) == 102 + 51 + 2 * 2 * 51


def test_sanity_is_foreseen_by_hand(foreseen):
    # Of a photograph: the prediction; maps of three categories and of three random networks (the
    # first stage, and two draws of the last) by Grad-CAM and AblationCAM, whose passes three
    # categories share, and of edges; and by ScoreCAM and LIME for them and one random network.
    by_each = 1 + (1 + 3) * 1 + (1 + 3) * 1 + (3 + 3) * 1
    by_sparse = (1 + 1280) + (1 + 1280) + (1 + 40) + (1 + 40)
    # Two draws: scores of two networks, of which one has batch norms, with mirror images.
    random = 2 * (1 + (1 + 2))
    assert foreseen("7_sanity") == 2 * (by_each + by_sparse + random) == 5334
    # Five stages and another draw of the last, six photographs, of which three for the sparse two.
    by_each = 1 + (1 + 6) * 1 + (1 + 6) * 1 + (3 + 6) * 1 + (3 + 6) * 2
    by_sparse = (1 + 1280) + (1 + 1280) + (1 + 200) + (1 + 200)
    by_each += 2 * (1 + 4 * (1 + 2))
    assert of_embedded("7_sanity") == 6 * by_each + 3 * by_sparse == 9300
    assert of_embedded("7_sanity", middle=True) == 9300 + 3 * (1281 + 201)
    assert of_embedded("7_sanity", images=TWO, sparse_first=9) == 2 * (by_each + by_sparse)
    assert of_embedded("7_sanity", model="net.py:tiny") is None


def cells(task, start, stop, names):
    """Execute a part of a notebook as it is now."""
    text = (ROOT / "notebooks" / f"{task}.py").read_text()
    begin = text.index(start)
    exec(compile(text[begin : text.index(stop, begin)], task, "exec"), names)


class Told:
    """Stands for a notebook's run, network and methods: adds up what each call would show."""

    categories = (0, 1, 2)
    identity = None

    def __init__(self, samples=0):
        self.shown = 0
        # A map of one category, and what several share.
        self.maps = {"gradcam": (2, 0), "ablationcam": (1, 0), "scorecam": (1, 1280)}
        self.maps |= {"lime": (1, samples), "edges": (1, 0), "guided": (3, 0)}

    def explanations(self, photographs, _method, _key, make):
        return [make(photograph) for photograph in photographs]

    def explain_lime(self, _classifier, photograph, *, num_samples, **_options):
        self.shown += 1 + num_samples
        return type("Found", (), {"image_sha256": photograph.sha256})

    def predict(self, _photograph, count):
        self.shown += 1
        return [type("Found", (), {"index": index}) for index in range(count)]

    def explain_targets(self, _classifier, _photograph, method, targets, **_options):
        each, shared = self.maps[method]
        self.shown += each * len(targets) + shared
        return list(targets)

    def cascade(self, stages, checked):
        for stage in stages:
            self.shown += len(checked) * (1 if stage.index == 1 else 3)
            yield stage, self


class Named(list):
    """Photographs, by number and by name."""

    def __getitem__(self, key):
        return key if isinstance(key, str) else super().__getitem__(key)


def share(profile, task):
    found = load_profile(profile).share(task)
    names = Named(type("Photograph", (), {"id": name, "sha256": name}) for name in found["images"])
    return {**declared(task), **found}, names


@pytest.mark.parametrize("profile", ["smoke", "embedded"])
def test_notebooks_do_what_is_foreseen(profile, monkeypatch):
    """Their own lines are executed, with counts in place of networks."""
    monkeypatch.chdir(ROOT)
    values, photographs = share(profile, "9_stability")
    told = Told()
    names = {**values, "options": {"segments": "quickshift", "hide_color": 0, "seed": 0}}
    names |= {"run": told, "classifier": told, "explain_lime": told.explain_lime}
    names |= {"suppress": suppress, "InputError": InputError}
    names["long"] = photographs[: values["long_runs"]]
    cells("9_stability", "def sampled(", "# %%", names)
    assert told.shown == expected_passes(load_profile(profile), "9_stability")

    values, photographs = share(profile, "7_sanity")
    told = Told(values["lime_samples"])
    names = {**values, "options": {}, "run": told, "classifier": told, "cache": functools.cache}
    names |= {"photographs": photographs, "used": [*values["methods"], *values["others"]]}
    cells("7_sanity", "checked = ", "classifier = ", names)
    cells("7_sanity", "few = ", "if len(used)", names)
    stages = [type("Stage", (), {"index": n, "name": ""}) for n in range(1, values["stages"] + 1)]
    names["cascades"] = [told.cascade(stages, names["checked"]) for _ in range(values["redraws"])]
    names["explain_targets"] = told.explain_targets
    cells("7_sanity", "ranked = ", "# %%", names)
    cells("7_sanity", "names = {0", "# %%", names)
    assert told.shown == expected_passes(load_profile(profile), "7_sanity")


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_what_is_known_of_networks_is_so(name):
    net, seen = load_classifier(name, device="cpu"), []
    view = net.preprocessing.crop(np.zeros((300, 300, 3), np.uint8))
    hook = net.layer(net.cam_layer).register_forward_hook(lambda _m, _i, o: seen.append(o))
    with torch.inference_mode():
        net.module(net.input_tensor(view[None]))
    hook.remove()
    assert (seen[0].shape[1], view.shape[0]) == _NETWORKS[name]


# The page.


def sizes(power=1.0):
    cases = {
        scaling.READ: (10, 1000),
        scaling.UNITS: (100, 10_000),
        scaling.CONCEPTS: (1000, 100_000),
    }
    return pd.DataFrame(
        [
            {"growing": name, "size": n, "seconds": 1e-3 * n**power, "mb": 5.0,
             "cores_used_elsewhere": 0.0}
            for name, ends in cases.items()
            for n in ends
        ]
    )  # fmt: skip


def workers():
    rows = [
        ("2_lime", 1, 10.0, 2, 1.0, 1.0),
        ("2_lime", 2, 5.5, 2, 1.8, 0.9),
        ("2_lime", 4, 5.5, 2, 1.8, 0.45),
    ]
    columns = ["task", "workers", "seconds", "cores", "speedup", "efficiency"]
    return pd.DataFrame(rows, columns=columns).assign(cores_used_elsewhere=0.0)


def values(table):
    return dict(zip(table["quantity"], table["value"], strict=True))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_power_by_which_time_grows(power):
    found = scaling.growth(sizes(power))
    assert found["grows as its power"].astype(float).to_numpy() == pytest.approx(power, abs=0.01)


def test_the_extrapolation_by_hand():
    given = scaling.assumed()
    value = dict(zip(given["name"], given["value"], strict=True))
    found = values(scaling.extrapolated(given, sizes(), workers()))
    assert found["efficiency of many workers"] == "0.90"  # of two, which the two cores allow
    shown = 2 * 1_281_167
    assert found["pictures shown to networks"] == f"{shown:,}"
    hours = shown / (1000 * 64 * 0.9) / 3600
    assert float(found["hours, if the GPUs are what is short"]) == pytest.approx(hours, rel=0.01)
    reading = shown / (1000 * 8 * 64 * 0.9) / 3600  # 1 ms each
    assert float(found["hours, if the cores that read photographs are"]) == pytest.approx(
        reading, rel=0.01
    )
    # The slower one decides what comes from the disks.
    rate = float(found["GB a second from the disks at the slower of these"])
    assert rate == pytest.approx(1000 * 64 * 0.9 * value["bytes"] / 1e9, rel=0.01)
    # More GPUs at the same speed, and an efficiency that is not measured.
    more = given.assign(value=given["value"].where(given["name"] != "gpus", 128))
    other = values(scaling.extrapolated(more, sizes(), None))
    assert other["efficiency of many workers"] == "0.90"
    assert float(other["hours, if the GPUs are what is short"]) == pytest.approx(
        hours / 2, rel=0.01
    )


def test_labelling_is_foreseen_from_two_cases():
    """Made of known constants, which have to come out again."""
    a, b = 3e-9, 7e-9
    cases = {
        scaling.UNITS: (10_000, scaling.FEW_CONCEPTS, 10_000),
        scaling.CONCEPTS: (scaling.FEW_UNITS, 100_000, 100_000),
    }
    rows = [
        (name, size, a * scaling.PROBE * concepts + b * units * concepts)
        for name, (units, concepts, size) in cases.items()
    ]
    table = pd.DataFrame(rows, columns=["growing", "size", "seconds"])
    found = scaling._labelling(table, 80_000, 4000, 20_000)
    assert found == pytest.approx(a * 80_000 * 20_000 + b * 4000 * 20_000)


def fake_runs(folder, **cost):
    """A run of LIME on two photographs, as its manifest tells it."""
    run = folder / "smoke" / "2_lime"
    run.mkdir(parents=True)
    request = {"parameters": {"images": ["chelsea", "coffee"], "num_samples": 100}}
    passes = {"made": 90, "kept": 101}
    (run / "manifest.json").write_text(json.dumps({"request": request, "passes": passes}))
    for place in (run, run / "jobs" / "2_lime.0000"):
        place.mkdir(exist_ok=True, parents=True)
        (place / "cost.json").write_text(json.dumps({"processor": 3.0, "memory": 5e8, "disk": 1e6}))
    return folder / "smoke"


def test_the_page_sets_found_beside_foreseen(tmp_path):
    runs = fake_runs(tmp_path)
    (row,) = costing.tasks(runs).to_dict("records")
    assert (row["passes_foreseen"], row["passes_found"], row["kept"]) == (202, 191, 101)
    assert (row["seconds_found"], row["memory_found"], row["disk_found"]) == (6.0, 5e8, 1e6)
    assert row["seconds_foreseen"] > 0
    text = costing.texts(runs, tmp_path)
    assert "shown 191 pictures, and 202 were foreseen" in text["cost_verdict"]
    assert "202 / 191 (0.946)" in text["cost_tasks"]
    # Shards of an earlier run that nothing was taken from do not count.
    manifest = json.loads((runs / "2_lime/manifest.json").read_text())
    manifest["passes"] = {"made": 191, "kept": 0}
    (runs / "2_lime/manifest.json").write_text(json.dumps(manifest))
    assert costing.tasks(runs)["seconds_found"].tolist() == [3.0]
    # Nor is a cost made up where none was noted.
    (runs / "2_lime/cost.json").unlink()
    assert costing.tasks(runs)["seconds_found"].isna().all()
    assert "– (" not in costing.texts(runs, tmp_path)["cost_tasks"]


def test_the_page_says_what_to_run(tmp_path):
    shutil.copy(scaling.FOLDER / "assumed.csv", tmp_path)
    text = costing.texts(tmp_path / "none", tmp_path)
    assert "xailib run" in text["cost_verdict"]
    assert text["cost_figure"] == ""
    for name, words in (("sizes", "grow"), ("workers", "workers 1 2 4 8"), ("long", "lime 10000")):
        assert f"scale.py {words} --keep" in text[f"cost_{name}"]


def test_what_is_measured_is_kept_and_drawn(tmp_path):
    scale.keep(tmp_path, "sizes", sizes())
    assert not (tmp_path / "scale.svg").exists()
    scale.keep(tmp_path, "workers", workers())
    first = (tmp_path / "scale.svg").read_bytes()
    scale_figure.draw(tmp_path)
    assert (tmp_path / "scale.svg").read_bytes() == first
    kept = pd.read_csv(tmp_path / "workers.csv")
    assert kept["run"].nunique() == 1
    assert set(json.loads((tmp_path / "manifest.json").read_text())["runs"]) == {
        *kept["run"], *pd.read_csv(tmp_path / "sizes.csv")["run"]
    }  # fmt: skip


def test_the_page_builds_strictly(tmp_path):
    source, out = tmp_path / "book", tmp_path / "html"
    folder = source / "_data" / "scale"
    folder.mkdir(parents=True)
    shutil.copy(scaling.FOLDER / "assumed.csv", folder)
    shutil.copy(ROOT / "book/cost.md", source / "index.md")
    for name, table in (("sizes", sizes()), ("workers", workers())):
        scale.keep(folder, name, table)
    runs = fake_runs(tmp_path)
    (source / "conf.py").write_text(
        f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(ROOT / 'book/_ext')!r})\n"
        "import costing\n"
        f"myst_substitutions = costing.texts(Path({str(runs)!r}), Path({str(folder)!r}))\n"
        "extensions = ['myst_nb', 'shown']\nmyst_enable_extensions = ['deflist', 'substitution']\n"
        "nb_execution_mode = 'off'\n"
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", source, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (out / "index.html").read_text()
    assert "{{" not in page
    assert 'src="_images/scale.svg"' in page
    assert 'src="_images/scale-dark.svg"' in page
    assert "<td>202 / 191 (0.946)</td>" in page
    assert "<td>1,281,167</td>" in page
    assert "lime 10000 --keep" in re.sub("<[^>]*>", "", page)  # which is not kept yet


def test_what_is_kept_names_its_origin():
    file = scaling.FOLDER / "manifest.json"
    tables = [t for name in ("sizes", "workers", "long") if (t := scaling.kept(name)) is not None]
    runs = json.loads(file.read_text())["runs"] if file.is_file() else {}
    assert set(runs) == {date for table in tables for date in table["run"]}


@pytest.mark.site
def test_networks_are_shown_what_was_foreseen(site):
    """Of every task of the site's own run; more would be work that nobody asked for."""
    found = costing.tasks(ROOT / "results" / "smoke")
    if found.empty:
        pytest.skip("another site was given")
    both = found.dropna(subset=["passes_foreseen", "passes_found"])
    assert {"1_clip_dissect", "2_lime", "3_cam", "5_faithfulness", "7_sanity"} <= set(both["task"])
    for row in both.itertuples():
        # Channels that are zero, half of them in this network, are shown to it once.
        least = 0.4 if row.task in ("3_cam", "7_sanity") else 0.9
        assert least * row.passes_foreseen <= row.passes_found <= row.passes_foreseen, row
