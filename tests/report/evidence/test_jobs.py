"""The kept run on a tiny network: its order, its files, and its tables beside direct results."""

import numpy as np
import pytest
import yaml
from faults_table import shown
from nets import classifier, photograph
from PIL import Image

from xailib.compare.iou import lime_cam_agreement
from xailib.compare.masks import lime_mask
from xailib.errors import InputError
from xailib.evaluate.metrics import score
from xailib.explain.cam.methods import explain_cam
from xailib.explain.lime import explain_lime
from xailib.report.evidence import kept, scoring, tables
from xailib.report.evidence.jobs import Worker, load_evidence

PROFILE = {
    "seed": 0,
    "num_samples": 40,
    "networks": {
        "net": {"maps": [4, 2], "scorecam": [2, 1], "random": [3, 1]},
        "other": {"maps": [2, 1]},
    },
}


def evidence_of(folder, profile=PROFILE, photographs=5):
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(photographs):
        Image.fromarray(photograph(number).pixels).save(pictures / f"p{number}.jpg", quality=95)
    file = folder / "evidence.yaml"
    file.write_text(yaml.safe_dump(profile, sort_keys=False))
    return load_evidence(file, pictures, {})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    worker = Worker(evidence_of(folder), folder / "results", "cpu")
    worker.loaded = {"net": classifier(), "other": classifier(seed=1)}
    assert worker.run() == []
    assert scoring.score_stored(worker) == 8  # six photographs' maps, and ScoreCAM's two
    return worker


def test_networks_take_turns_and_photographs_are_nested(tmp_path):
    evidence = evidence_of(tmp_path)
    order = list(evidence.photographs)
    jobs = [(job.network, job.part, order.index(job.photograph)) for job in evidence.jobs()]
    assert jobs == [
        *(("net", "maps", 0), ("net", "maps", 1), ("net", "scorecam", 0), ("net", "random", 0)),
        ("other", "maps", 0),
        *(("net", "maps", 2), ("net", "maps", 3), ("net", "scorecam", 1), ("net", "random", 1)),
        ("other", "maps", 1),
        ("net", "random", 2),
    ]
    with pytest.raises(InputError, match=shown("evidence_few")):
        evidence_of_more = {**PROFILE, "networks": {"net": {"maps": [6, 1]}}}
        (tmp_path / "evidence.yaml").write_text(yaml.safe_dump(evidence_of_more))
        load_evidence(tmp_path / "evidence.yaml", tmp_path / "pictures", {})


def test_what_is_there_is_not_made_again_and_failures_are_listed(run, monkeypatch):
    asked = []

    def refuse(job):
        asked.append(job)
        raise InputError("images: gone")

    monkeypatch.setattr(run, "make", refuse)
    assert run.run() == []
    assert scoring.score_stored(run) == 0
    first = next(run.evidence.jobs())
    file = first.file(run.folder)
    content = file.read_bytes()
    file.unlink()
    (failure,) = run.run()
    assert asked == [first]
    assert failure["reason"] == "images: gone"
    assert (run.folder / "failures.json").exists()
    file.write_bytes(content)


def test_tables_hold_what_the_methods_give(run, tmp_path, monkeypatch):
    stem = next(run.evidence.jobs()).photograph
    (tmp_path / "boxes.csv").write_text(f"image,left,top,right,bottom\n{stem},0.25,0,1,0.5\n")
    monkeypatch.setattr(tables, "_BOXES", tmp_path / "boxes.csv")
    found = tables.collect(run.evidence, run.folder)
    values = found["values"].set_index(["network", "image", "method", "measure"])["value"]
    first = next(run.evidence.jobs()).photograph
    net, photo = run.loaded["net"], run.evidence.photograph(first)
    lime = explain_lime(net, photo, num_samples=40)
    cams = [explain_cam(net, photo, method) for method in ("gradcam", "scorecam")]
    direct = lime_cam_agreement([lime], cams)
    for row in direct.itertuples():
        measure = "iou" if row.lime == "LIME 1" else "iou2"
        assert values["net", first, row.cam, measure] == pytest.approx(
            row.iou, abs=1e-6, nan_ok=True
        )
    maps = {"lime": lime.saliency, **{cam.method: cam.saliency for cam in cams}}
    options = {"measures": scoring.MEASURES, "steps": scoring.STEPS, "seed": 0}
    scores = score(net, photo, maps, lime.target, **options)
    for row in scores.itertuples():
        kept = values["net", first, row.method, row.measure]
        assert kept == pytest.approx(row.value, abs=1e-5)
    around = np.zeros(lime.saliency.shape, bool)
    height, width = around.shape
    around[: round(0.5 * height), round(0.25 * width) :] = True
    top = lime_mask(lime, 10, "positive") > 0
    most = np.sort(cams[0].saliency.ravel())[-top.sum()]
    assert values["net", first, "lime", "inside"] == pytest.approx((top & around).sum() / top.sum())
    hot = cams[0].saliency > most  # but for ties at the edge of the area
    assert values["net", first, "gradcam", "inside"] == pytest.approx(
        (hot & around).sum() / hot.sum(), abs=0.05
    )
    steps = [np.abs(np.diff(cams[0].saliency, axis=axis)).mean() for axis in (0, 1)]
    assert values["net", first, "gradcam", "step"] == pytest.approx(np.mean(steps), abs=1e-6)


def test_random_networks_are_compared_with_the_trained_one(run):
    found = tables.collect(run.evidence, run.folder)
    random = found["values"][found["values"]["measure"] == "random_spearman"]
    counts = random.groupby("method")["image"].nunique().to_dict()
    full = dict.fromkeys(("lime", "gradcam", "ablationcam", "guided"), 3)
    assert counts == {**full, "scorecam": 2}
    assert random["value"].between(-1, 1).all()
    assert random.groupby("method")["value"].mean().max() < 0.95
    assert set(found["pairs"].groupby("method").size()) == {3, 1}  # of 3 maps, and of 2


def test_kept_tables_come_back_and_a_changed_value_is_found(run, tmp_path):
    found = tables.collect(run.evidence, run.folder)
    manifest = tables.manifest_of(run.evidence, run.folder, found)
    assert manifest["counts"]["net"]["lime"] == 4
    assert manifest["counts"]["other"]["gradcam"] == 2
    kept.save(found, manifest, tmp_path)
    content = {file: file.read_bytes() for file in kept.files(tmp_path)}
    kept.save(found, manifest, tmp_path)
    assert content == {file: file.read_bytes() for file in kept.files(tmp_path)}
    loaded = kept.load(tmp_path)
    same = tables.compare(loaded, found)
    assert same["largest"].max() < 1e-4
    assert same[["only_kept", "only_again"]].to_numpy().sum() == 0
    changed = found["values"].copy()
    place = changed.index[changed["measure"] == "insertion"][0]
    changed.loc[place, "value"] += 0.25
    again = {**found, "values": changed.drop(changed.index[changed["measure"] == "fit"][0])}
    told = tables.compare(loaded, again)
    assert told.set_index("measure").loc["insertion", "largest"].max() == pytest.approx(0.25, 1e-3)
    assert told["only_kept"].sum() == 1
    assert kept.load(tmp_path / "nothing") == {}
    ways = manifest["explained_by"]
    assert [way["device"] for way in ways] == ["cpu"]
    assert sum(way["files"] for way in ways) == len(list(run.evidence.jobs()))
