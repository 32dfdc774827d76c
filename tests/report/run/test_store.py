"""Finished results in a store, for machines without a common disk."""

import contextlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import sweeps
from click.testing import CliRunner
from conftest import ROOT
from faults_table import says

from xailib.errors import InputError, UnavailableError
from xailib.files import sha256_of
from xailib.report.cli import main
from xailib.report.params.profiles import load_profile
from xailib.report.run import job as doing
from xailib.report.run import plan, scheduler
from xailib.report.run.job import Parcel, PassingError, Task, perform, run_job
from xailib.report.run.plan import Job, Outcome
from xailib.report.run.results import intact, read_manifest
from xailib.report.run.scheduler import Engine
from xailib.report.run.staleness import (
    EXPLAINED,
    finish,
    image_hashes,
    is_current,
    request,
)
from xailib.report.run.store import Store, as_bytes


def result(folder, text="a", name="table.csv"):
    """A finished result: a file beside its manifest, one above, and a log that it does not name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / "../../above.txt").resolve().write_text("above " + text)
    (folder / "log.txt").write_text("log " + text)
    names = [name, "../../above.txt"]
    outputs = {name: sha256_of((folder / name).resolve()) for name in names}
    (folder / "manifest.json").write_text(json.dumps({"text": text, "outputs": outputs}))
    return folder


@pytest.fixture(params=["memory", "file", "plain"])
def url(request, tmp_path):
    place = tmp_path / "store"
    urls = {"memory": f"memory://{place}", "file": place.as_uri(), "plain": str(place)}
    return urls[request.param]


@pytest.fixture
def machines(tmp_path, url):
    """Two folders of results, and the store as each of them sees it."""
    roots = [tmp_path / name / "results" for name in ("one", "two")]
    return [(Store(url, root), root / "mine/2_lime/jobs/2_lime.0000") for root in roots]


def files(folder):
    return {p.name: p.read_bytes() for p in folder.parents[1].rglob("*") if p.is_file()}


def test_a_result_is_the_same_on_another_machine(machines):
    (one, here), (two, there) = machines
    assert not two.pull(there)
    assert not there.exists()
    one.push(result(here))
    assert two.pull(there)
    assert intact(there, read_manifest(there))
    assert files(there) == files(here)  # with the log
    # And once more, with another content.
    one.push(result(here, "b"))
    assert two.pull(there)
    assert files(there) == files(here)


def test_the_store_has_the_layout_of_the_results(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "results")
    store.push(result(tmp_path / "results/mine/2_lime/jobs/2_lime.0000"))
    found = {p.relative_to(tmp_path / "store").as_posix() for p in (tmp_path / "store").rglob("*")}
    assert {"mine/2_lime/above.txt", "mine/2_lime/jobs/2_lime.0000/manifest.json"} <= found
    with pytest.raises(InputError, match="holds no finished result"):
        store.push(tmp_path / "results/nothing")


def test_what_is_wanted_is_asked_before_anything_is_touched(machines):
    (one, here), (two, there) = machines
    one.push(result(here, "new"))
    result(there, "old")
    before = files(there)
    assert not two.pull(there, lambda manifest: manifest["text"] == "another")
    assert files(there) == before
    assert two.pull(there, lambda manifest: manifest["text"] == "new")
    assert files(there) == files(here)


@pytest.mark.parametrize("what", ["cut short", "changed", "gone", "no manifest", "half a manifest"])
def test_what_is_half_there_is_as_good_as_absent(machines, tmp_path, what):
    (one, here), (two, there) = machines
    one.push(result(here))
    place = one._there(here / "table.csv")
    last = one._there(here / "manifest.json")
    if what == "gone":
        one._system.rm_file(place)
    elif what == "no manifest":
        one._system.rm_file(last)
    elif what == "half a manifest":
        one._system.pipe_file(last, one._read(last)[:-9])
    else:
        one._system.pipe_file(place, b"" if what == "cut short" else b"b")
    assert not two.pull(there)
    assert not (there / "manifest.json").exists()
    assert not (there / "table.csv").exists()
    assert not list(tmp_path.rglob("*.part"))
    # Whoever has the result puts it right.
    one.push(here)
    assert two.pull(there)
    assert files(there) == files(here)


def test_a_quick_look_at_the_store_is_at_sizes(machines, monkeypatch):
    (one, here), (two, there) = machines
    one.push(result(here))
    place = one._there(here / "table.csv")
    for content in (b"", None):
        one._system.pipe_file(place, b"") if content == b"" else one._system.rm_file(place)
        one.push(here, quick=True)
        assert one._read(place) == b"a"
    monkeypatch.delattr(Store, "_sha256")
    one.push(here, quick=True)
    assert two.pull(there)


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_damaged_result_does_not_replace_a_whole_one(machines, what):
    (one, here), (two, there) = machines
    one.push(result(here))
    result(here, "b")
    (here / "table.csv").unlink() if what == "gone" else (here / "table.csv").write_text("c")
    with pytest.raises(InputError, match=r"^store: 'table.csv' in .* is damaged; run again$"):
        one.push(here)
    assert two.pull(there)
    assert (there / "table.csv").read_text() == "a"


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_what_is_here_stays_until_all_of_the_other_has_come(machines, what):
    (one, here), (two, there) = machines
    one.push(result(here, "b"))
    place = one._there(here.parents[1] / "above.txt")  # the last to come
    if what == "changed":
        one._system.pipe_file(place, b"above c")
    else:
        one._system.rm_file(place)
    result(there, "a")
    before = files(there)
    assert not two.pull(there)
    assert files(there) == before
    assert intact(there, read_manifest(there))
    assert {path.name for path in there.iterdir()} == {"log.txt", "manifest.json", "table.csv"}


def test_a_manifest_goes_first_and_comes_last(machines, monkeypatch):
    (one, here), (two, there) = machines
    one.push(result(here))
    result(here, "b")

    def full(*_args, **_options):
        raise OSError("the bucket is full")

    monkeypatch.setattr(type(one._system), "put_file", full)
    with pytest.raises(UnavailableError, match=r"^store: .*: OSError: the bucket is full$"):
        one.push(here)
    assert not two.pull(there)  # neither the old nor the new


OTHERS = [
    "../../../../../out.txt", "{tmp_path}/out.txt", "../../../3_cam/table.csv",
    "../../../../other/2_lime/jobs/2_lime.0000/manifest.json", "../2_lime.0001/table.csv",
    "../../manifest.json", "Manifest.json", ".job.lock", "../../.cache/table.csv", "link/out.txt",
    "..", "", "nul\0",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_files_that_are_not_the_jobs_own_are_refused(machines, tmp_path, caplog, name):
    (one, here), (two, there) = machines
    one.push(result(here))
    result(there, "mine")
    result(there.parents[3] / "other/2_lime/jobs/2_lime.0000")
    (there / "link").symlink_to(tmp_path)
    name = name.format(tmp_path=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    # What the store has under that name is the file that it would take.
    sha256 = sha256_of(here / "table.csv")
    one._system.pipe_file(one._there(here / "out.txt"), b"a")
    manifest = {"outputs": {"table.csv": sha256, name: sha256}}
    last = one._there(here / "manifest.json")
    one._system.pipe_file(last, json.dumps(manifest).encode())
    before |= {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.json")}
    before |= {path: path.read_bytes() for path in (tmp_path / "store").rglob("out.txt")}
    assert not two.pull(there)
    assert "which is no file of its own" in caplog.text
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("sha256", ["", None, 0, [], "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_a_file_without_a_hash_is_refused(machines, caplog, sha256):
    (one, here), (two, there) = machines
    one.push(result(here))
    manifest = {"outputs": {"table.csv": sha256}}
    one._system.pipe_file(one._there(here / "manifest.json"), json.dumps(manifest).encode())
    assert not two.pull(there)
    assert "without a SHA-256" in caplog.text
    assert not there.exists()


@pytest.mark.parametrize(
    ("url", "key", "code"),
    [
        ("nowhere://x", "store_protocol", 2),
        ("s3://", "store_bucket", 2),
        ("gs:///prefix", "store_bucket", 2),
        ("file://", "store_bucket", 2),
        ("s3://bucket/x", "store_package", 1),
        ("README.md", "store_file", 2),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line_before_any_work(monkeypatch, url, key, code):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    monkeypatch.setattr(plan, "plan", None)
    for more in ([], ["--dry-run"]):
        done = CliRunner().invoke(main, ["run", "--store", url, *more])
        assert done.exit_code == code
        assert says(key, done.stderr)
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("s3n://bucket", r"has no protocol that fsspec knows \(did you mean s3"),
        ("s3:/bucket", "has no // behind s3:; give a folder"),
        ("https://example.org/x", "cannot be written to; give a folder"),
        ("simplecache::s3://", "names no bucket or folder"),
        ("README.md/x", r"lies below '.*/README.md', which is a file; give a folder"),
    ],
)
def test_an_address_says_what_is_wrong_with_it(tmp_path, monkeypatch, url, line):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=f"^store: '{re.escape(url)}' {line}"):
        Store(url, tmp_path)


# Whole runs: projects in different folders, as on different machines.


@pytest.fixture
def projects(tmp_path):
    found = [tmp_path / name for name in ("client", "first", "second", "late")]
    for folder in found:
        folder.mkdir()
        sweeps.make(folder, 4)
    with sweeps.inside(found[0]):
        yield found


def received(task, job, parcel):
    """What the client makes of a job's future."""
    future = SimpleNamespace(result=lambda: parcel)
    return scheduler._outcome(task, job, future, [], Engine())


@pytest.fixture
def machines_of(monkeypatch):
    """Let jobs be done in projects of their own, in turn; returns what each job's state was."""

    def there(*roots):
        done = []

        def run(profile, job, *, force, store, **_):
            sweeps.forget()  # it is another process's
            with contextlib.chdir(roots[len(done) % len(roots)]):
                here = Store(store.url, Path("results"))
                outcome = run_job(profile, job, force=force, store=here)
            done.append((job.name, outcome.state))
            return received(Task("", "", profile, force, store.url), job, Parcel(outcome))

        monkeypatch.setattr(scheduler, "run_job", run)
        return done

    return there


def run(url="", **options):
    return sweeps.run(load_profile("mine"), "2_lime", engine=Engine(store=url), **options)


def explained(root):
    return (root / "results/mine/2_lime/jobs/2_lime.table/explained.parquet").read_bytes()


def open_store(url):
    return Store(url, Path("results"))


def leave(profile, job, value):
    """What a job would leave, without doing it."""
    if job.kind != "notebook":
        job.folder(profile).mkdir(parents=True, exist_ok=True)
        (job.folder(profile) / EXPLAINED).write_text(str(value))
        inputs = {"images": image_hashes(job), "files": {}}
        finish(profile, job, [EXPLAINED], inputs, failures=[])
        return
    folder = result(job.folder(profile), str(value))
    outputs = {"table.csv": sha256_of(folder / "table.csv")}
    manifest = {"request": request(profile, job), "inputs": {"files": {}}, "outputs": outputs}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", ["explain", "notebook"])
def test_what_a_job_needs_and_has_stays_and_what_is_out_of_date_comes(
    projects, tmp_path, monkeypatch, kind
):
    url, profile = f"memory://{tmp_path}", load_profile("mine")
    if kind == "explain":
        *_, need, job = plan.plan(profile, "2_lime", shard=9, pages=False)
    else:
        need, job = Job("2_lime", "2_lime"), Job("4_agreement", "4_agreement")
    monkeypatch.setattr(doing, "_do", lambda *_: 1 / 0)
    folder = need.folder(profile)
    table = folder / ("explained.parquet" if kind == "explain" else "table.csv")

    def stored(samples, value):
        """Put another result in the store, of other parameters."""
        sweeps.edit(projects[0], num_samples=samples)
        leave(load_profile("mine"), need, value)
        open_store(url).push(folder)
        return table.read_bytes()

    def found():
        with pytest.raises(PassingError, match="ZeroDivisionError"):
            run_job(load_profile("mine"), job, store=open_store(url))
        assert is_current(load_profile("mine"), need)
        return table.read_bytes()

    stored(21, 1)
    sweeps.edit(projects[0], num_samples=20)
    leave(load_profile("mine"), need, 2)
    newer = table.read_bytes()
    assert found() == newer  # of now, and in the store one of before
    stored(20, 3)
    leave(load_profile("mine"), need, 2)
    assert found() == newer  # both of now
    now = stored(22, 4)
    sweeps.edit(projects[0], num_samples=20)
    leave(load_profile("mine"), need, 2)
    sweeps.edit(projects[0], num_samples=22)
    assert found() == now  # the one here of before
    shutil.rmtree(folder)
    assert found() == now


@pytest.mark.parametrize("request_", [[], ["x"], "x", 1, None])
def test_a_stored_manifest_of_another_form_is_as_good_as_absent(
    projects, tmp_path, monkeypatch, request_
):
    url, profile, job = f"memory://{tmp_path}", load_profile("mine"), Job("2_lime", "2_lime")
    leave(profile, job, 1)
    store, last = open_store(url), job.folder(profile) / "manifest.json"
    store.push(last.parent)
    damaged = {**json.loads(last.read_text()), "request": request_}
    store._system.pipe_file(store._there(last), json.dumps(damaged).encode())
    assert run_job(profile, job, store=open_store(url)).state == "reused"  # it is finished here
    store._system.pipe_file(store._there(last), json.dumps(damaged).encode())
    monkeypatch.setattr(doing, "_do", lambda *_: 1 / 0)
    shutil.rmtree(last.parent)
    with pytest.raises(PassingError, match="ZeroDivisionError"):
        run_job(profile, job, store=open_store(url))
    assert not last.exists()


def test_a_job_whose_result_is_not_in_the_store_has_failed(projects, tmp_path):
    url, profile = tmp_path.as_uri() + "/store", load_profile("mine")
    *_, job, table = plan.plan(profile, "2_lime", shard=9, pages=False)
    leave(profile, job, 1)
    open_store(url).push(job.folder(profile))
    done = Outcome(job.name, "done", 2.0)
    task = Task("", "", profile, False, url)
    assert received(task, job, Parcel(done)) == done
    (tmp_path / "store/mine/2_lime/jobs" / job.name / "explained.parquet").write_bytes(b"")
    shutil.rmtree(projects[0] / "results")
    message = f"its result is not in the store {url!r}"
    assert received(task, job, Parcel(done)) == Outcome(job.name, "failed", 2.0, message)
    assert received(task, table, Parcel(replace(done, task=table.name))).state == "failed"
    assert received(task, job, Parcel(replace(done, state="failed"))).message == ""


def test_workers_in_different_projects_share_a_run(projects, tmp_path, machines_of, monkeypatch):
    client, first, second, late = projects
    url = f"memory://{tmp_path}"
    tables = {"shard": 2, "pages": False}
    done = machines_of(first, second)
    states = run(url, **tables)
    assert set(states.values()) == {"done"}
    names = ["2_lime.0000", "2_lime.0001", "2_lime.0002", "2_lime.table"]
    assert done == [(name, "done") for name in names]
    # Neither had all the shards, and the client none; now it has everything.
    assert len(list(first.glob("results/mine/2_lime/explanations/*.npz"))) < 4
    assert len(list(client.glob("results/mine/2_lime/explanations/*.npz"))) == 4
    assert len(pd.read_parquet(client / "results/mine/2_lime/jobs/2_lime.table/explained.parquet"))
    assert explained(client) == explained(second)
    # Another machine, and a client that starts again with nothing: nobody explains anything.
    shutil.rmtree(client / "results")
    machines_of(late)
    assert set(run(url, **tables).values()) == {"reused"}
    assert explained(client) == explained(late) == explained(second)
    # The same on one machine without a store.
    shutil.rmtree(client / "results")
    sweeps.forget()
    monkeypatch.setattr(scheduler, "run_job", run_job)
    run(**tables)
    assert explained(client) == explained(late)


def test_a_notebook_takes_its_shards_from_the_store(projects, tmp_path, machines_of):
    """Which were made in another folder: the keys of explanations must not tell which."""
    client, first, second, _ = projects
    done = machines_of(first, second, first, second)
    states = run(f"memory://{tmp_path}", shard=2)
    assert set(states.values()) == {"done"}
    assert done[-1] == ("2_lime", "done")
    manifest = read_manifest(client / "results/mine/2_lime")
    assert manifest["passes"]["made"] == 0
    assert manifest["passes"]["kept"] > 4 * 2
    assert intact(client / "results/mine/2_lime", manifest)


def test_what_was_finished_before_goes_to_the_store_and_changed_parameters_do_not_come(
    projects, tmp_path, machines_of
):
    client, first, *_ = projects
    url = f"memory://{tmp_path}"
    tables = {"shard": 3, "pages": False}
    assert set(run(**tables).values()) == {"done"}
    done = machines_of(first)
    assert set(run(url, **tables).values()) == {"reused"}
    assert done == []  # none is sent
    shutil.rmtree(client / "results" / "mine" / "2_lime" / "jobs" / "2_lime.table")
    assert set(run(url, **tables).values()) == {"reused"}
    assert done == [("2_lime.table", "reused")]
    assert explained(first) == explained(client)
    values = client / "params" / "mine.yaml"
    values.write_text(values.read_text().replace("num_samples: 20", "num_samples: 21"))
    done = machines_of(first)
    run(url, **tables)
    assert [state for _, state in done] == ["done"] * 3


def test_by_wire_a_worker_gets_what_a_job_needs_and_sends_what_it_made(projects, monkeypatch):
    """Without a common disk or a store; the client's folder is not there for the worker."""
    client, first, *_ = projects
    profile = load_profile("mine")
    *parts, table = plan.plan(profile, "2_lime", shard=3, pages=False)
    run(shard=3, pages=False)
    expected = explained(client)
    shutil.rmtree(table.folder(profile))
    files = [as_bytes(job.folder(profile), client / "results") for job in parts]
    sent = [Parcel(Outcome(j.name, "reused"), f) for j, f in zip(parts, files, strict=True)]
    task = Task("/not/here", "session", profile)
    monkeypatch.chdir(first)
    parcel = perform(task, table, None, True, *sent)
    monkeypatch.chdir(client)
    assert received(task, table, parcel).state == "done"
    assert is_current(profile, table)
    assert explained(client) == explained(first) == expected
