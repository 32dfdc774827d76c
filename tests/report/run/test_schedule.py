"""The same run in process, by a pool and on a cluster, with real processes that are killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

import psutil
import pytest
import sweeps

from xailib.report.params.profiles import Profile
from xailib.report.run.cluster import Cluster
from xailib.report.run.job import Job, packed
from xailib.report.run.workers import Worker

SHARD = ("--shard", "1")
needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs xailib[cluster]")


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


@pytest.fixture
def cluster(project):
    if find_spec("distributed") is None:
        pytest.skip("needs xailib[cluster]")
    with scheduler(project) as (_, address), workers(project, address) as nannies:
        yield address, nannies


def unchanged(before, after):
    assert before
    assert before.items() <= after.items()


def test_three_engines_give_the_same_bytes(tmp_path):
    if find_spec("distributed") is None:
        pytest.skip("needs xailib[cluster]")
    found = {}
    for engine in ("here", "pool", "cluster"):
        folder = tmp_path / "project"  # the same place: paths stand in tables of failures
        folder.mkdir()
        sweeps.make(folder, 3)
        with ExitStack() as stack:
            words = {"here": [], "pool": ["--workers", "2"]}.get(engine)
            if words is None:
                _, address = stack.enter_context(scheduler(folder))
                stack.enter_context(workers(folder, address))
                words = ["--scheduler", address]
            output = sweeps.call(folder, "run", "mine", *SHARD, *words)
            assert re.search(r"2_lime +done in \d+ s: not explained: blobs/bad\.png \(", output)
            output = sweeps.call(folder, "run", "mine", *SHARD, *words, "--tables")
        assert "4 finished jobs were used again" in output
        found[engine] = sweeps.tables(folder)
        folder.rename(tmp_path / engine)
    assert len(found["here"]) == 2 + 4 + 2  # of notebooks, of shards, all and its failures
    assert found["here"] == found["pool"] == found["cluster"]


def test_two_processes_do_a_job_once(project, monkeypatch):
    """The second waits for the first, which lives on, and then finds the job done."""
    monkeypatch.chdir(project)
    path = os.pathsep.join([str(project / "stand-in"), str(sweeps.ROOT)])
    profile = Profile("mine", {"images": ["blobs"], "model": "net.py:tiny"})
    job = Job("2_lime.0001", "2_lime", "explain", photographs=(("a", "blobs/blob00000.png"),))
    two = [Worker({"PYTHONPATH": path}) for _ in range(2)]
    sweeps.hold(project)
    with ThreadPoolExecutor(2) as pool:
        try:
            results = [pool.submit(worker.run, packed(profile, job)) for worker in two]
            sweeps.until(lambda: all(worker.pid for worker in two))
            sweeps.until(lambda: any((project / "held").iterdir()))
            time.sleep(0.5)  # for the other one to come to the lock
            sweeps.release(project)
            assert sorted(result.result(60).state for result in results) == ["done", "reused"]
            assert len(list((project / "held").iterdir())) == 1
        finally:
            for worker in two:
                worker.close()


def test_a_killed_worker_of_the_pool_is_replaced(project):
    words = ["run", "mine", "--tables", *SHARD, "--workers", "2", "--json"]
    sweeps.hold(project)
    with sweeps.started(project, *words) as client:
        held = sweeps.held(project, client)
        before = sweeps.stamps(project)
        for pid in held:
            kill(pid)
        sweeps.release(project)
        output = client.communicate(timeout=500)[0]
    assert client.returncode == 0, output
    told = sweeps.events(output)
    assert {event["message"] for event in told if event["state"] == "again"} == {
        "its process ended (by signal 9)"
    }
    assert sum(event["state"] == "done" for event in told) == 5
    unchanged(before, sweeps.stamps(project))


def test_a_killed_client_takes_its_workers_along_and_the_next_goes_on(project):
    words = ["run", "mine", "--tables", *SHARD, "--workers", "2"]
    sweeps.hold(project)
    with sweeps.started(project, *words) as client:
        held = sweeps.held(project, client)
        client.kill()
        client.wait()
        sweeps.until(lambda: gone(held), 20)
    before = sweeps.stamps(project)
    sweeps.release(project)
    output = sweeps.call(project, *words)
    assert f"{len(before)} finished jobs were used again" in output
    unchanged(before, sweeps.stamps(project))
    assert len(sweeps.stamps(project)) == 5


def test_an_interrupt_stops_the_workers(project):
    sweeps.hold(project)
    with sweeps.started(project, "run", "mine", "--tables", *SHARD, "--workers", "2") as client:
        held = sweeps.held(project, client)
        client.send_signal(signal.SIGINT)
        sweeps.until(lambda: gone(held), 20)
        assert client.wait(20) != 0


def test_a_killed_worker_of_the_cluster_is_replaced(project, cluster):
    address, nannies = cluster
    words = ["run", "mine", "--tables", *SHARD, "--scheduler", address, "--json"]
    sweeps.hold(project)
    with sweeps.started(project, *words) as client:
        held = sweeps.held(project, client)
        before = sweeps.stamps(project)
        for nanny in nannies:
            for worker in psutil.Process(nanny.pid).children():
                if worker.children():
                    worker.kill()
        sweeps.until(lambda: gone(held), 20)  # the jobs' processes go with their workers
        sweeps.release(project)
        output = client.communicate(timeout=500)[0]
    assert client.returncode == 0, output
    unchanged(before, sweeps.stamps(project))
    assert len(sweeps.stamps(project)) == 5


def test_after_a_killed_client_of_the_cluster_the_next_goes_on(project, cluster):
    address, _ = cluster
    words = ["run", "mine", "--tables", *SHARD, "--scheduler", address]
    sweeps.hold(project)
    with sweeps.started(project, *words) as client:
        sweeps.held(project, client)
        client.kill()
        client.wait()
    before = sweeps.stamps(project)
    sweeps.release(project)
    sweeps.call(project, *words)
    unchanged(before, sweeps.stamps(project))
    assert len(sweeps.stamps(project)) == 5


@needs_dask
def test_without_its_scheduler_a_client_says_so_and_another_scheduler_goes_on(project):
    with scheduler(project) as (process, address), workers(project, address):
        words = ["run", "mine", "--tables", *SHARD, "--scheduler"]
        sweeps.hold(project)
        with sweeps.started(project, *words, address) as client:
            sweeps.held(project, client)
            kill(process.pid)
            output = client.communicate(timeout=500)[0]
        assert client.returncode == 1
        assert "run the same command again: finished jobs are kept" in output.splitlines()[-1]
        assert "Traceback" not in output
    before = sweeps.stamps(project)
    sweeps.release(project)
    port = address.rpartition(":")[2]
    with scheduler(project, port) as (_, same), workers(project, same, 1):
        assert same == address
        sweeps.call(project, *words, same)
    unchanged(before, sweeps.stamps(project))
    assert len(sweeps.stamps(project)) == 5


@needs_dask
def test_the_cluster_begins_jobs_in_the_order_of_the_plan():
    """Dask may begin the last of jobs of equal priority first: a test that waits for one would."""
    from distributed import LocalCluster

    one = {"n_workers": 0, "processes": False, "dashboard_address": None}
    with LocalCluster(**one) as local, Cluster(local.scheduler_address) as cluster:
        tasks = []
        for number in range(1, 5):
            cluster.submit({})
            sweeps.until(lambda wanted=number: len(local.scheduler.tasks) == wanted)
            tasks += [task for task in local.scheduler.tasks.values() if task not in tasks]
        priorities = [task.priority[:2] for task in tasks]
    assert priorities == sorted(set(priorities))


@needs_dask
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
    assert "Will be left out: images: 'blobs/bad.png' is not an image" in output
    assert not (project / "results").exists()
    words = ["run", "mine", "--workers", "1", "--scheduler", "tcp://a:1"]
    assert "not together with scheduler" in sweeps.call(project, *words, code=2)
