"""The same run in process, by workers and on a cluster, with real processes that are killed."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import psutil
import pytest
import sweeps
from distributed import Client, LocalCluster

from xailib.report.params.profiles import Profile
from xailib.report.run.job import Task
from xailib.report.run.plan import Job
from xailib.report.run.scheduler import Engine, _submitted

SHARD = ("--shard", "1")
# For a worker in a project of its own, which does not see that of the client.
ELSEWHERE = """
from xailib.report.run.job import Task
Task.is_seen = lambda _: False
"""


@pytest.fixture
def project(tmp_path):
    sweeps.make(tmp_path, 3)
    sweeps.stand_in(tmp_path)
    return tmp_path


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def gone(pids):
    """Tell whether none of these processes works any more."""
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )


@contextmanager
def scheduler(folder, port=0):
    """A scheduler on loopback; yields its process and address."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    log = folder / "scheduler.txt"
    code = [sys.executable, "-m", "distributed.cli.dask_scheduler", *words]
    with log.open("wb") as file, sweeps.spawn(code, folder, file) as process:
        try:
            sweeps.until(lambda: "Scheduler at:" in log.read_text())
            yield process, re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())[1]
        finally:
            process.kill()


@contextmanager
def workers(folder, address, count=2):
    """Workers over TCP, each a process with a nanny that starts it again; yields the nannies."""
    with ExitStack() as stack:
        nannies = []
        for _ in range(count):
            words = [address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"]
            code = [sys.executable, "-m", "distributed.cli.dask_worker", *words]
            scratch = ["--local-directory", str(folder / "scratch")]
            nanny = stack.enter_context(sweeps.spawn([*code, *scratch], folder, subprocess.DEVNULL))
            stack.callback(end, nanny)
            nannies.append(nanny)
        yield nannies


def end(process):
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of one cluster for all that stand-ins do."""
    folder = tmp_path_factory.mktemp("cluster")
    sweeps.stand_in(folder)
    with scheduler(folder) as (_, address), workers(folder, address):
        yield address


def unchanged(before, after):
    assert before
    assert before.items() <= after.items()


def test_all_engines_give_the_same_bytes(tmp_path):
    found = {}
    for engine in ("here", "workers", "wire"):  # a cluster with our disk: by stand-ins, below
        folder = tmp_path / "project"  # the same place: paths stand in tables of failures
        folder.mkdir()
        sweeps.make(folder, 3)
        with ExitStack() as stack:
            words = {"here": [], "workers": ["--workers", "2"]}.get(engine)
            if words is None:
                _, address = stack.enter_context(scheduler(folder))
                stack.enter_context(workers(elsewhere(tmp_path / "elsewhere"), address, 1))
                words = ["--scheduler", address]
            output = sweeps.call(folder, "run", "mine", *SHARD, *words)
            assert re.search(
                r"2_lime +done in \d+ s: not explained: 'blobs/bad\.png' is not an image", output
            )
            output = sweeps.call(folder, "run", "mine", *SHARD, *words, "--tables")
        assert "4 finished jobs were used again" in output
        found[engine] = sweeps.tables(folder)
        folder.rename(tmp_path / engine)
    assert len(found["here"]) == 2 + 4 + 2  # of notebooks, of shards, all and its failures
    assert found["here"] == found["workers"] == found["wire"]
    # By wire, the worker did it all in its own project, and the client has all of it.
    assert sweeps.tables(tmp_path / "elsewhere") == found["wire"]
    log = tmp_path / "wire/results/mine/2_lime/jobs/2_lime.0001/log.txt"
    assert "done, " in log.read_text()


def elsewhere(folder):
    folder.mkdir()
    sweeps.make(folder, 3)
    sweeps.stand_in(folder, ELSEWHERE)
    return folder


@pytest.fixture(params=["workers", "cluster"])
def words(request):
    """The command for workers of its own, and for those of a cluster."""
    own = request.param == "workers"
    engine = ["--workers", "2"] if own else ["--scheduler", request.getfixturevalue("cluster")]
    return ["run", "mine", "--tables", *SHARD, *engine]


def test_a_killed_worker_is_replaced(project, words):
    sweeps.hold(project)
    with sweeps.started(project, *words, "--json") as client:
        held = sweeps.held(project, client)
        before = sweeps.stamps(project)
        for pid in held:
            kill(pid)
        sweeps.release(project)
        output = client.communicate(timeout=500)[0]
    assert client.returncode == 0, output
    assert [event["state"] for event in sweeps.events(output)] == ["done"] * 5
    assert "Dashboard: http" in output or "--workers" in words
    unchanged(before, sweeps.stamps(project))


def test_after_a_killed_client_the_next_goes_on(project, words):
    sweeps.hold(project)
    with sweeps.started(project, *words) as client:
        held = sweeps.held(project, client)
        client.kill()
        client.wait()
        if "--workers" in words:  # it takes its workers along
            sweeps.until(lambda: gone(held), 20)
    before = sweeps.stamps(project)
    sweeps.release(project)
    output = sweeps.call(project, *words)
    assert f"{len(before)} finished jobs were used again" in output or "--scheduler" in words
    unchanged(before, sweeps.stamps(project))
    assert len(sweeps.stamps(project)) == 5
    assert gone(held)  # a worker that has done another run's jobs may have old code


def test_an_interrupt_ends_the_jobs_in_hand(project, words):
    sweeps.hold(project)
    with sweeps.started(project, *words) as client:
        held = sweeps.held(project, client)
        client.send_signal(signal.SIGINT)
        sweeps.until(lambda: gone(held), 40)
        assert client.wait(40) != 0


def test_a_job_that_kills_each_of_its_workers_is_one_line(project, monkeypatch):
    # Sooner than a worker is there again: Dask itself would give it up.
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "10ms")
    words = ["run", "mine", "--tables", *SHARD, "--workers", "1", "--json"]
    (project / "die").touch()
    output = sweeps.call(project, *words, code=1)
    states = {event["task"]: (event["state"], event["message"]) for event in sweeps.events(output)}
    assert states["2_lime.0000"][0] == "done"  # its one image is none
    assert states["2_lime.0001"] == ("failed", "its worker died 3 times (out of memory?)")
    assert states["2_lime.table"][0] == "skipped"


def test_without_its_scheduler_a_client_says_so_and_another_scheduler_goes_on(project):
    with scheduler(project) as (process, address), workers(project, address):
        words = ["run", "mine", "--tables", *SHARD, "--scheduler"]
        sweeps.hold(project)
        with sweeps.started(project, *words, address) as client:
            sweeps.held(project, client)
            kill(process.pid)
            output = client.communicate(timeout=500)[0]
        assert client.returncode == 1
        assert "run the same command again: finished jobs are stored" in output.splitlines()[-1]
        assert "Traceback" not in output
    before = sweeps.stamps(project)
    sweeps.release(project)
    port = address.rpartition(":")[2]
    with scheduler(project, port) as (_, same), workers(project, same, 1):
        assert same == address
        sweeps.call(project, *words, same)
    unchanged(before, sweeps.stamps(project))
    assert len(sweeps.stamps(project)) == 5


def test_the_cluster_begins_jobs_in_the_order_of_the_plan():
    """Dask may begin the last of jobs of equal priority first: a test that waits for one would."""
    one = {"n_workers": 0, "processes": False, "dashboard_address": "127.0.0.1:0"}
    jobs = [Job(str(number), "2_lime", "explain") for number in range(4)]
    task = Task("/none", "session", Profile("mine", {}))
    with LocalCluster(**one) as local, Client(local, set_as_default=False) as client:
        futures = _submitted(task, jobs, client, Engine(1), False)
        sweeps.until(lambda: len(local.scheduler.tasks) == 4)
        tasks = [local.scheduler.tasks[futures[job.name].key] for job in jobs]
        priorities = [task.priority[0] for task in tasks]
    assert priorities == sorted(set(priorities))


def test_a_run_by_workers_hides_the_folder_from_no_other_one(tmp_path):
    (tmp_path / "results").mkdir()
    first, second = (Task(str(tmp_path), name, Profile("mine", {})) for name in "ab")
    first.mark.touch()
    assert first.is_seen() and not second.is_seen()
    second.mark.touch()
    assert first.is_seen()
    second.mark.unlink()
    assert first.is_seen()


def test_no_scheduler_is_one_line(project):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        output = sweeps.call(project, "run", "mine", "--scheduler", address, code=1)
    assert output.splitlines()[-1].startswith(f"Error: scheduler: no answer from '{address}'")


def test_a_dry_run_tells_and_does_nothing(project):
    output = sweeps.call(project, "run", "mine", "--dry-run", *SHARD)
    assert "2_lime.0000 to 2_lime.0003" in output
    assert "To do: 6 of 6 jobs" in output
    assert "Will be skipped: images: 'blobs/bad.png' is not an image" in output
    assert not (project / "results").exists()
