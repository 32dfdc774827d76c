"""A probe set recorded in parts by jobs: the same labels, and no image is shown twice."""

import os
from pathlib import Path

import nets
import pandas as pd
import pytest
import sweeps

from xailib.dissect import blocks
from xailib.dissect.activations import networks_of, record_activations, record_embeddings
from xailib.dissect.concepts import load_concepts
from xailib.dissect.label import label_units
from xailib.errors import InputError
from xailib.images.probe import load_probe
from xailib.report.params.profiles import load_profile
from xailib.report.run import plan, results, shards
from xailib.report.run.job import run_job
from xailib.report.run.results import Run, read_manifest
from xailib.report.run.scheduler import Engine
from xailib.report.run.staleness import unfinished

TASK = "1_clip_dissect"
COUNT = 48  # probe images: three full batches, and as many blocks
# Two networks that write down how many images each pass shows them; the one that finds the file
# `kill` in its second pass takes it and dies.
NETWORKS = """
import os

passes = []

class Counted(nets.Plain):
    def forward(self, x):
        if len(x) > 2:  # loading tries one image, and two
            passes.append(len(x))
            if len(passes) == 2 and os.path.exists("kill"):
                os.unlink("kill")
                os.kill(os.getpid(), 9)
            with open("passes", "a") as file:
                print(len(x), file=file)
        return super().forward(x)

def made(seed):
    side = nets.SIDE
    preparing = Preprocessing((side, side), side, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    names = [f"thing {i}" for i in range(nets.CATEGORIES)]
    return nets.seeded(Counted, seed), preparing, names

def tiny():
    return made(0)

def other():
    return made(1)
"""
ENCODER = f"""
import sys
sys.path.insert(0, {str(sweeps.ROOT / "tests")!r})
import nets
from xailib.encoders import load as encoders
encoders.load_encoder = lambda *_: nets.Colours()
from xailib.dissect import blocks
blocks.IMAGES = 16
"""
LAST = """
run.save_table("labels", labels)
_ = run.finish()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    words = {"probe": ["blobs"], "crops": 0, "concepts": ["words.txt"], "top_k": 6}
    sweeps.make(tmp_path, COUNT, measure="soft_wpmi", **words)
    (tmp_path / "blobs" / "bad.png").rename(tmp_path / "blobs" / "z.png")  # behind all others
    (tmp_path / "words.txt").write_text("\n".join(f"word {n}" for n in range(20)))
    (tmp_path / "net.py").write_text(sweeps.NETWORK + NETWORKS)
    sweeps.stand_in(tmp_path, ENCODER)
    code = sweeps.beginning(TASK, "record_activations(")
    sweeps.notebook(tmp_path, TASK, [*code, LAST])
    path = [str(tmp_path / "stand-in"), str(sweeps.ROOT)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setattr(shards, "load_encoder", lambda *_: nets.Colours())
    monkeypatch.setattr(blocks, "IMAGES", 16)
    with sweeps.inside(tmp_path, (TASK, *sweeps.TASKS)):
        yield tmp_path


def passes():
    """How many images networks were shown since this was asked for last."""
    file = Path("passes")
    shown = sum(map(int, file.read_text().split())) if file.exists() else 0
    file.unlink(missing_ok=True)
    return shown


def run(profile, engine=None, **options):
    """Do what is left; return what was done."""
    states = sweeps.run(profile, TASK, engine=engine, **options)
    assert set(states.values()) <= {"done", "reused"}, states
    return {name for name, state in states.items() if state == "done"}


def read(file):
    table = pd.read_parquet(file)
    return table.assign(top_images=table["top_images"].map(list))


def whole(profile, folder):
    """The labels of everything at once, in the order of a file."""
    parameters = profile.values(TASK)
    probe, concepts = load_probe("blobs"), load_concepts("words.txt")
    images = record_embeddings(nets.Colours(), probe, folder=folder / "embeddings")["embeddings"]
    texts = nets.Colours().encode_texts(concepts.names)
    (network, layers), *_ = networks_of(parameters).values()
    recorded = record_activations(network, layers, probe, folder=folder / "activations")
    table = label_units(recorded, images, texts, concepts, top_k=parameters["top_k"])
    table.to_parquet(folder / "labels.parquet", index=False)
    return read(folder / "labels.parquet")


def stored(folder):
    """The files that recordings below a folder consist of."""
    found = [folder.glob(f"{name}/**/*.*") for name in ("activations", "embeddings")]
    return sorted(path for some in found for path in some)


def test_labels_of_parts_are_those_of_the_whole_and_no_image_is_shown_twice(
    project, tmp_path, monkeypatch
):
    profile, tables = load_profile("mine"), {"shard": 16, "pages": False}
    records = {f"{TASK}.{number:04d}" for number in range(4)}
    place = profile.folder(TASK)
    assert run(profile, **tables) == {*records, f"{TASK}.table"}
    assert passes() == COUNT
    expected = whole(profile, tmp_path / "whole")
    assert passes() == COUNT
    folder = place / "jobs" / f"{TASK}.table"
    found = read(folder / "labels.parquet")
    assert set(found.pop("network")) == {"net.py:tiny"}
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    (failure,) = pd.read_parquet(folder / "failures.parquet").to_dict("records")
    assert (failure["source"], failure["job"]) == ("blobs/z.png", f"{TASK}.0003")  # it alone

    # The notebook reads these very files; they are what it would have recorded itself.
    before = {path: path.stat().st_mtime_ns for path in stored(place)}
    assert run(profile, shard=16) == {TASK}
    assert passes() == 0
    found = read(place / "labels.parquet")
    assert set(found.pop("certified")) <= {True, False}  # by halves of the whole, which parts lack
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert {path: path.stat().st_mtime_ns for path in stored(place)} == before
    alone = {path.relative_to(path.parents[1]): path for path in stored(tmp_path / "whole")}
    assert len(alone) == len(before) == 3 * (3 + 1) + 3 * (1 + 1)  # tables, manifests
    for path in before:
        assert path.read_bytes() == alone[path.relative_to(path.parents[1])].read_bytes()

    # Another number of images that decide is no reason to record again, nor is another network
    # beside the first for the first; a job that is damaged is.
    sweeps.edit(project, top_k=7)
    changed = load_profile("mine")
    assert [job.name for job in unfinished(changed, plan.plan(changed, TASK, shard=16))] == [TASK]
    assert run(changed, **tables) == {f"{TASK}.table"}
    assert passes() == 0
    sweeps.edit(project, compare="net.py:other")
    second = load_profile("mine")
    assert run(second, **tables) == {*records, f"{TASK}.table"}
    assert passes() == COUNT
    assert set(read(folder / "labels.parquet")["network"]) == {"net.py:tiny", "net.py:other"}
    job = place / "jobs" / f"{TASK}.0001"
    rows = [name for name in read_manifest(job)["outputs"] if name.endswith(".npy")]
    (job / rows[0]).write_bytes(b"")
    assert run(second, **tables) == {f"{TASK}.0001"}  # with the same rows: the table stays
    assert passes() == 16
    (project / "words.txt").write_text("one\ntwo")
    assert run(second, **tables) == {f"{TASK}.table"}
    # What other code has recorded is not taken.
    monkeypatch.setattr(results, "source_hash", lambda code: "other")
    network, layers = networks_of(second.values(TASK))["net.py:tiny"]
    other = Run(place, TASK, {}, {}).cache(
        "activations", {"net": network.identity, "layers": layers}
    )
    assert other.parent.is_dir()
    assert not other.exists()


def test_two_processes_of_which_one_is_killed_give_the_same_bytes(project):
    profile, tables = load_profile("mine"), {"shard": 32, "pages": False}
    done = {f"{TASK}.0000", f"{TASK}.0001", f"{TASK}.table"}
    assert run(profile, Engine(threads=1), **tables) == done
    assert passes() == COUNT
    expected = sweeps.tables(project)
    (project / "results").rename(project / "first")
    (project / "kill").touch()
    assert run(profile, Engine(2, threads=1), **tables) == done
    assert not (project / "kill").exists()
    assert passes() == COUNT  # what was recorded before the kill was not shown again
    assert sweeps.tables(project) == expected
    assert len(expected) == 2  # labels and failures


def test_jobs_record_whole_blocks(project):
    for crops, shard, size in ((0, 1, 16), (0, 17, 32), (1, 3, 16), (2, 16, 16), (2, 40, 48)):
        profile = load_profile("mine", {"crops": crops})
        first = plan.plan(profile, TASK, shard=shard)[0]
        assert (first.kind, len(first.photographs)) == ("record", size)
        assert size % blocks.block_photographs(crops) == 0


def test_what_cannot_be_shared_out_is_one_job_or_one_line(project, monkeypatch):
    def names(changes, **options):
        return [job.name for job in plan.plan(load_profile("mine", changes), TASK, **options)]

    monkeypatch.setattr(plan, "cache_folder", lambda: project / "cache")
    (project / "labels.csv").touch()
    assert names({"probe": ["broden"]}, shard=16) == [TASK]
    assert names({"descriptions": "labels.csv"}, shard=16) == [TASK]
    assert names({"descriptions": "labels.csv"}, pages=False) == []
    with pytest.raises(InputError, match="probe: broden is still to be fetched: xailib fetch"):
        names({"probe": ["broden"]}, pages=False)
    file = project / "params" / "mine.yaml"
    file.write_text(file.read_text().replace("top_k: 6\n", "").replace("soft_wpmi", "wpmi"))
    with pytest.raises(InputError, match="measure: 'wpmi' needs all activations at once"):
        names({}, pages=False)
    assert len(names({}, shard=16)) == 5
    (project / "cache" / "broden").mkdir(parents=True)
    (project / "blobs" / "blob00000.png").rename(project / "cache" / "broden" / "a.png")
    assert names({"probe": ["broden"]}, shard=16) == [f"{TASK}.0000", TASK]


def test_too_few_images_are_one_line(project):
    profile = load_profile("mine", {"top_k": COUNT + 1})
    found = plan.plan(profile, TASK, shard=COUNT, pages=False)
    outcomes = [run_job(profile, job) for job in found]
    assert [outcome.state for outcome in outcomes] == ["done", "done", "failed"]
    line = f"top_k: {COUNT + 1} is not between 1 and the {COUNT} probe images"
    assert outcomes[-1].message == line
