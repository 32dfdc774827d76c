"""Jobs: what a profile consists of, what is left to do, and that each is done once."""

import json
import os
import shutil
import sys
import weakref
from collections import namedtuple
from contextlib import nullcontext

import nets
import pandas as pd
import pytest
import sweeps
from click.testing import CliRunner
from conftest import ROOT
from distributed import Client, LocalCluster
from PIL import Image

from xailib.errors import InputError, UnavailableError
from xailib.explain.lime import explain_lime
from xailib.explain.requests import REQUESTS, requests_of
from xailib.images.load import Failure, iter_images, load_images
from xailib.networks.classifier import load_classifier
from xailib.report.cli import main, sweeping
from xailib.report.params import profiles
from xailib.report.params.profiles import load_profile
from xailib.report.run import job as doing
from xailib.report.run import plan, scheduler, shards
from xailib.report.run.costs import Cost
from xailib.report.run.job import Task, limited, perform, run_job
from xailib.report.run.plan import Job, Outcome, listing
from xailib.report.run.preflight import unusable_photographs
from xailib.report.run.scheduler import Engine, run_plan, shares
from xailib.report.run.staleness import unfinished


@pytest.fixture
def project(tmp_path):
    sweeps.make(tmp_path, 3)
    with sweeps.inside(tmp_path):
        yield tmp_path


def names(found):
    return [job.name for job in found]


def test_a_plan_is_a_graph_of_jobs(project):
    profile = load_profile("mine")
    whole = plan.plan(profile)
    assert names(whole) == ["2_lime", "4_agreement"]
    assert whole[1].needs == ("2_lime",)
    shared = plan.plan(profile, shard=3)
    assert names(shared) == ["2_lime.0000", "2_lime.0001", "2_lime", "4_agreement"]
    assert shared[2].needs == ("2_lime.0000", "2_lime.0001")
    assert [len(job.photographs) for job in shared[:2]] == [3, 1]
    assert shared[0].photographs[0] == ("bad", "blobs/bad.png")
    assert names(plan.plan(profile, pages=False)) == ["2_lime.0000", "2_lime.table"]
    assert names(plan.plan(profile, "4_agreement", shard=3)) == names(shared)
    for wrong in ({"only": "5_none"}, {"only": "4_agreement", "pages": False}, {"shard": 0}):
        with pytest.raises(InputError):
            plan.plan(profile, **wrong)


def test_what_can_be_shared_out_is_what_shards_can_do():
    explained = {task for task, kind in plan.SHARDS.items() if kind == "explain"}
    assert explained == set(REQUESTS)
    with pytest.raises(InputError, match="task: unknown name '4_agreement'"):
        requests_of("4_agreement", nets.classifier(), {})


def test_what_a_notebook_stores_is_by_what_decides_it(monkeypatch):
    """Each parameter is in the key or cannot change an explanation."""
    monkeypatch.chdir(ROOT)
    classifier = nets.classifier()
    for task, rest in (("2_lime", {"num_features", "max_samples"}), ("3_cam", {"seed"})):
        declared = profiles.declared(task)
        # In the identity of the network.
        of_network = {"model", "weights", "precision", "outputs", "preprocessing", "device"}
        names = set(declared) - of_network - {"label", "images", "out_dir"}
        before = [(one.method, one.key) for one in requests_of(task, classifier, declared)]
        for name in names - {"until_stable"}:
            other = {
                "target": "thing 1",
                "design": "antithetic",
                "segmentation": "slic",
                "methods": ["layercam"],
                "layer": "stem",
            }.get(name, 11)
            after = requests_of(task, classifier, {**declared, name: other})
            assert ([(one.method, one.key) for one in after] == before) == (name in rest), name
    lime = {**profiles.declared("2_lime"), "until_stable": True}
    keys = [
        requests_of("2_lime", classifier, {**lime, **change})[0].key
        for change in ({}, {"num_features": 3}, {"max_samples": 99}, {"num_samples": 99})
    ]
    assert keys[0] == keys[3]
    assert keys[0] not in keys[1:3]


def test_photographs_that_cannot_be_used_are_told_by_their_headers(project, monkeypatch):
    Image.new("RGB", (8, 40)).save(project / "blobs" / "narrow.png")
    monkeypatch.setattr("xailib.images.decode._to_rgb", None)  # decoding would fail
    profile = load_profile("mine", {"images": ["blobs", "absent.png", "chelsea"]})
    for options in ({"shard": 2}, {}):
        lines, rest = unusable_photographs(profile, plan.plan(profile, **options))
        assert (len(lines), rest) == (3, 0)
        assert "'blobs/bad.png' is not an image" in lines[0]
        assert "'blobs/narrow.png' is 8 x 40 pixels" in lines[1]
        assert "no file or folder 'absent.png'" in lines[2]


def test_of_very_many_photographs_the_first_are_looked_at(project, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("xailib.report.run.preflight.MOST", 2)
    monkeypatch.setattr("xailib.report.run.preflight.look", lambda path, _source: seen.append(path))
    profile = load_profile("mine", {"images": ["chelsea", "coffee", "rocket", "absent.png"]})
    jobs = plan.plan(profile, shard=1)  # of two tasks or more, with the same photographs
    assert unusable_photographs(profile, jobs) == ([], 2)
    assert len(seen) == 2
    sweeping._show_unusable(profile, jobs)
    assert capsys.readouterr().err == "Not looked at: 2 more photographs\n"
    sweeping._show_unusable(profile, jobs[:2])
    assert capsys.readouterr().err == ""


def test_only_what_changed_is_done_again(project):
    tables = {"shard": 2, "pages": False}
    everything = {"2_lime.0000", "2_lime.0001", "2_lime.table"}
    profile = load_profile("mine")

    def done(profile):
        return {name for name, state in sweeps.run(profile, **tables).items() if state == "done"}

    assert done(profile) == everything
    assert done(profile) == set()
    # A parameter that explanations do not depend on, and one that they do.
    sweeps.edit(project, num_features=3)
    assert done(load_profile("mine")) == set()
    sweeps.edit(project, num_samples=21)
    changed = load_profile("mine")
    assert done(changed) == everything
    # One photograph.
    Image.new("RGB", (40, 40), "red").save(project / "blobs" / "blob00000.png")
    assert done(changed) == {"2_lime.0000", "2_lime.table"}
    # A damaged result, and one that is gone.
    folder = project / "results" / "mine" / "2_lime"
    for file in (folder / "explanations").glob("blob00001.lime.*.npz"):
        file.write_bytes(b"")
    assert done(changed) == {"2_lime.0001"}  # with the same rows: the table stays
    (folder / "jobs" / "2_lime.table" / "explained.parquet").unlink()
    assert done(changed) == {"2_lime.table"}
    # The network's code.
    (project / "net.py").write_text(sweeps.NETWORK + "# changed")
    sweeps.forget()
    assert done(changed) == everything
    assert set(sweeps.run(changed, force=True, **tables).values()) == {"done"}


def test_a_notebook_finds_all_that_its_shards_have_explained(project):
    profile = load_profile("mine")
    found = plan.plan(profile, "2_lime", shard=2)
    list(run_plan(profile, found[:2], found[:2]))
    stored = sorted((project / "results/mine/2_lime/explanations").iterdir())
    before = [file.stat().st_mtime_ns for file in stored]
    assert len(stored) == 2 * 3
    assert names(unfinished(profile, found)) == ["2_lime"]
    outcomes = list(run_plan(profile, found, found[2:]))
    assert [outcome.state for outcome in outcomes] == ["reused", "reused", "done"]
    assert [file.stat().st_mtime_ns for file in stored] == before
    assert unfinished(profile, found) == []
    # Shards that are gone are not missed where the notebook is up to date.
    for job in found[:2]:
        (job.folder(profile) / "manifest.json").unlink()
    assert unfinished(profile, found) == []


def test_failures_are_listed_and_the_rest_is_one_table(project):
    sweeps.run(load_profile("mine"), shard=1, pages=False)
    folder = project / "results/mine/2_lime/jobs/2_lime.table"
    table = pd.read_parquet(folder / "explained.parquet")
    classifier = load_classifier("net.py:tiny", device="cpu")
    assert list(table["image"]) == ["blob00000", "blob00001", "blob00002"]
    for photograph, row in zip(load_images("blobs"), table.itertuples(), strict=True):
        one = explain_lime(classifier, photograph, num_samples=20, seed=0, design="orthogonal")
        assert (row.target, row.probability) == (one.target, one.probability)
        assert row.above_zero == (one.saliency > 0).mean()
        assert row.superpixels == len(one.superpixels.weights)
    (failure,) = pd.read_parquet(folder / "failures.parquet").to_dict("records")
    assert failure["job"] == "2_lime.0000"
    assert "bad.png" in failure["source"]
    assert "not an image" in failure["reason"]


GATHER = f"""
import sys
from xailib.report.params import profiles
profiles.TASKS = {sweeps.TASKS}
from xailib.report.run import job, plan
profile = profiles.load_profile("mine")
*_, table = plan.plan(profile, "2_lime", shard=2, pages=False)
print(job.run_job(profile, table).state, "torch" in sys.modules)
"""


def test_gathering_shards_needs_no_torch(project):
    sweeps.run(load_profile("mine"), "2_lime", shard=2, pages=False)
    before, folder = sweeps.tables(project), project / "results/mine/2_lime/jobs/2_lime.table"
    shutil.rmtree(folder)
    with sweeps.spawn([sys.executable, "-c", GATHER], project) as process:
        assert process.communicate(timeout=300)[0] == "done False\n"
    assert sweeps.tables(project) == before


def test_many_photographs_are_one_table_and_one_at_a_time_in_memory(project, monkeypatch):
    """The small version of `benchmarks/scale.py lime 10000`."""
    count, made, most = 40, [], []
    for seed in range(3, count):
        Image.fromarray(nets.photograph(seed).pixels).save(project / f"blobs/blob{seed:05d}.png")

    def row(explanation):
        made.append(weakref.ref(explanation.saliency))
        most.append(sum(one() is not None for one in made))
        return original(explanation)

    original = shards._row
    monkeypatch.setattr(shards, "_row", row)
    sweeps.run(load_profile("mine"), shard=7, pages=False)
    folder = project / "results/mine/2_lime/jobs/2_lime.table"
    table = pd.read_parquet(folder / "explained.parquet")
    assert list(table["image"]) == [f"blob{seed:05d}" for seed in range(count)]
    assert len(pd.read_parquet(folder / "failures.parquet")) == 1
    assert len(most) == count
    assert max(most) <= 2 * 7  # those of a part, and of the one before until they are let go


def test_a_job_leaves_its_log_and_its_cost(project):
    profile = load_profile("mine")
    sweeps.run(profile, shard=4, pages=False)
    folder = project / "results/mine/2_lime/jobs/2_lime.0000"
    assert "done, " in (folder / plan.LOG).read_text()
    cost = json.loads((folder / "cost.json").read_text())
    stored = list((project / "results/mine/2_lime/explanations").iterdir())
    table = (folder / "explained.parquet").stat().st_size
    assert cost["disk"] == table + sum(file.stat().st_size for file in stored)
    assert cost["memory"] > 50e6
    assert cost["seconds"] > 0


def test_what_a_run_has_done_itself_is_not_called_reused(project):
    """A worker may die between a job's end and its word: another one is given the job again."""
    profile = load_profile("mine")
    job = plan.plan(profile, "2_lime", shard=4, pages=False)[0]
    states = [run_job(profile, job, session=run).state for run in ("", "", "first", "first")]
    assert states == ["done", "reused", "reused", "reused"]
    states = [
        run_job(profile, job, session=run, force=f).state
        for run, f in (("first", True), ("first", False), ("second", False), ("", False))
    ]
    assert states == ["done", "done", "reused", "reused"]


def test_a_wrong_value_is_one_line_and_not_tried_again(project):
    profile = load_profile("mine", {"target": "thing 9"})
    states = sweeps.run(profile, shard=4, pages=False)
    assert states == {"2_lime.0000": "failed", "2_lime.table": "skipped"}
    log = (profile.folder("2_lime") / "jobs/2_lime.0000" / plan.LOG).read_text()
    assert "Traceback" in log
    assert "thing 9" in log


def test_ids_are_those_that_reading_gives(tmp_path):
    for folder, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (20, 20), colour).save(tmp_path / folder / "0001.png")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "b" / "coffee.png")  # as a packaged one
    source = [str(tmp_path), "chelsea", str(tmp_path / "b"), "absent"]
    found = listing(source)
    read = list(iter_images(source))
    assert [name for name, _ in found][:-1] == [p.id for p in read if not isinstance(p, Failure)]
    assert len(found) == 5
    assert found[-1] == ("absent", "absent")
    assert ("chelsea", "chelsea") in found
    assert ("coffee", str(tmp_path / "b" / "coffee.png")) in found


class Recorder:
    """Stands for the doing of jobs: each fails as often as it is told to, by what may pass."""

    def __init__(self, monkeypatch, times=0):
        self.times = times
        self.asked = []
        monkeypatch.setattr(scheduler, "run_job", self.run)
        monkeypatch.setattr(doing, "run_job", self.run)

    def run(self, profile, job, **_):
        self.asked.append(job.name)
        if self.asked.count(job.name) <= self.times:
            raise doing.PassingError("x")
        return Outcome(job.name, "done")


@pytest.fixture(scope="module")
def client():
    """Dask with one worker in this process, where jobs can be stood in for."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def dask(client, monkeypatch, tmp_path):
    """An engine of which each job is a future of that client's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduler, "_client", lambda *_: nullcontext(client))
    monkeypatch.setattr(doing, "_printing_to", lambda _: nullcontext())
    return Engine(1)


PROFILE = profiles.Profile("p", {})


@pytest.mark.parametrize(("times", "last"), [(2, "done"), (3, "failed")])
def test_what_may_pass_is_tried_again(dask, monkeypatch, times, last):
    found = [Job("a", "2_lime", "explain"), Job("b", "2_lime", needs=("a",))]
    recorder = Recorder(monkeypatch, times)
    outcomes = list(run_plan(PROFILE, found, found[:1], dask))
    assert [(o.task, o.state) for o in outcomes] == [("b", "reused"), ("a", last)]
    assert outcomes[1].message == ("x" if last == "failed" else "")
    assert recorder.asked == ["a"] * 3


@pytest.mark.parametrize("by", ["dask", "here"])
def test_a_job_waits_for_what_it_needs_and_is_skipped_if_that_fails(dask, monkeypatch, by):
    engine = dask if by == "dask" else Engine()
    found = [
        Job("a", "2_lime", "explain"),
        Job("b", "2_lime", "table", needs=("a",)),
        Job("c", "2_lime", "explain"),
        Job("d", "2_lime", "table", needs=("b",)),
    ]
    Recorder(monkeypatch, 9)
    states = {o.task: (o.state, o.message) for o in run_plan(PROFILE, found, found, engine)}
    assert states["a"] == states["c"] == ("failed", "x")
    assert states["b"] == ("skipped", "needs a")
    assert states["d"] == ("skipped", "needs b")
    recorder = Recorder(monkeypatch)
    assert {o.state for o in run_plan(PROFILE, found, found, engine)} == {"done"}
    asked = recorder.asked
    assert asked.index("a") < asked.index("b") < asked.index("d")


def test_what_the_user_did_wrong_is_not_tried_again(dask, monkeypatch):
    """And what a job that failed so keeps waiting is skipped by the worker that gets it."""
    found = [Job("a", "2_lime", "explain"), Job("b", "2_lime", "table", needs=("a",))]
    asked = []
    failed = Outcome("a", "failed", message="target: no")
    monkeypatch.setattr(doing, "run_job", lambda _, job, **__: asked.append(job.name) or failed)
    states = {o.task: (o.state, o.message) for o in run_plan(PROFILE, found, found, dask)}
    assert states == {"a": ("failed", "target: no"), "b": ("skipped", "needs a")}
    assert asked == ["a"]


def test_a_job_that_can_only_fail_is_not_begun(monkeypatch):
    parts = [Job("a.0", "a"), Job("a", "a", needs=("a.0",))]
    found = [*parts, Job("b", "b", needs=("a",)), Job("c", "c")]
    recorder = Recorder(monkeypatch)
    outcomes = list(run_plan(PROFILE, found, found, barred={"a": "no weights"}))
    states = {o.task: (o.state, o.message) for o in outcomes}
    assert states["a.0"] == ("failed", "no weights")
    assert states["a"] == ("failed", "no weights")
    assert states["b"] == ("skipped", "needs a")
    assert recorder.asked == ["c"]
    assert len(outcomes) == 4
    # Shards that are finished can be gathered without the network.
    table = Job("a.table", "a", kind="table", needs=("a.0",))
    list(run_plan(PROFILE, [parts[0], table], [table], barred={"a": "no weights"}))
    assert recorder.asked == ["c", "a.table"]


@pytest.mark.parametrize(
    ("error", "line"),
    [(UnavailableError("host: down"), "host: down"), (KeyError("two\nlines"), "KeyError: ")],
)
def test_an_error_is_one_line_and_says_whether_it_may_pass(project, monkeypatch, error, line):
    profile = load_profile("mine")
    job = plan.plan(profile, shard=4)[0]

    def fail(*_):
        raise error

    monkeypatch.setattr(doing, "_do", fail)
    with pytest.raises(doing.PassingError, match=f"^{line}") as caught:
        doing.run_job(profile, job)
    assert "\n" not in str(caught.value)
    assert "in fail" in (job.folder(profile) / plan.LOG).read_text()


def test_a_worker_that_does_not_see_the_folder_says_so(project):
    task = Task("/nowhere", "session", load_profile("mine"))
    with pytest.raises(doing.PassingError, match="does not see the folder '/nowhere'"):
        perform(task, Job("a", "2_lime", "explain"), None, False)


def test_workers_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    one, two, three = shares(3, None)
    assert one["OMP_NUM_THREADS"] == "2"
    assert [e["CUDA_VISIBLE_DEVICES"] for e in (one, two, three)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in shares(1, 3)[0]
    assert shares(1, 3)[0]["OMP_NUM_THREADS"] == "3"
    assert shares(16, None)[0]["OMP_NUM_THREADS"] == "1"
    for wrong in ({"threads": 0}, {"workers": 0}, {"workers": 1, "scheduler": "tcp://a:1"}):
        with pytest.raises(InputError):
            Engine(**wrong)


def test_threads_in_this_process_are_as_before_afterwards(monkeypatch):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    with limited(before + 1):
        assert torch.get_num_threads() == before + 1
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == str(before + 1)
    assert torch.get_num_threads() == before
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_gpus_are_found_without_a_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert scheduler.visible_gpus(tmp_path / "none") == []
    (tmp_path / "0000:01:00.0").touch()
    assert scheduler.visible_gpus(tmp_path) == ["0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert scheduler.visible_gpus(tmp_path) == ["2", "5"]


def test_a_report_by_workers_says_as_much_as_one_without(project, monkeypatch):
    given = []

    def doing(profile, jobs, left, engine, **_):
        given.append((engine, [job.name for job in left]))
        for job in left:
            yield Outcome(job.name, "done", 1.0, "not explained: a.png (torn)")

    monkeypatch.setattr(scheduler, "run_plan", doing)
    monkeypatch.setattr(sweeping, "live", lambda: True)
    monkeypatch.setattr("xailib.report.cli.running.subprocess.run", lambda *_, **__: Done(1))
    monkeypatch.setattr("xailib.report.run.preflight.lacking", lambda _: {})
    monkeypatch.setattr("xailib.report.run.costs.estimates", lambda *_: TIMES)
    monkeypatch.setenv("XAILIB_STORE", "s3://another-sweeps")
    found = CliRunner().invoke(main, ["report", "mine", "--workers", "8"])
    assert found.exit_code == 1  # without a book there is no site
    assert found.stdout.splitlines() == [
        "2_lime         done in 1 s: not explained: a.png (torn)  results/mine/2_lime",
        "4_agreement    done in 1 s: not explained: a.png (torn)  results/mine/4_agreement",
    ]
    # What the second takes is not known.
    lines = ["0 of 2 jobs, about 6 s or more left", "1 of 2 jobs", "2 of 2 jobs"]
    assert found.stderr.splitlines()[:3] == lines
    # No more workers than there are notebooks to run, and nothing is shared.
    assert given == [(Engine(2), ["2_lime", "4_agreement"])]


Done = namedtuple("Done", "returncode")
TIMES = {"2_lime": Cost(6.0, 0.0, 0.0), "4_agreement": None}


def test_a_report_has_one_job_a_task_and_a_sweep_shares_photographs_out():
    assert sweeping.Options(workers=2, whole=True).photographs is None
    assert sweeping.Options(workers=2).photographs == plan.SHARD
    assert sweeping.Options(workers=2, shard=3).photographs == 3
    assert sweeping.Options().photographs is None
