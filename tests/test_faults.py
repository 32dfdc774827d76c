"""What goes wrong while running: the next run finishes, and nothing finished is lost."""

import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import project
import pytest
import sweeps
import torch
from conftest import ROOT, explanation
from faults_table import rows, says, shown, unmatched
from nets import classifier, photograph
from processes import as_nobody

from xailib import files
from xailib.dissect.activations import record_activations
from xailib.errors import InputError, StorageError, UnavailableError
from xailib.files import lock_folder, write_atomic
from xailib.images.load import ImageSet, from_array, load_images
from xailib.images.probe import load_probe
from xailib.networks.classifier import load_classifier
from xailib.report.run.results import (
    intact,
    load_explanations,
    read_manifest,
    run_digest,
    start_run,
)

IDS = [str(number) for number in range(project.PHOTOGRAPHS)]


@pytest.fixture
def root(tmp_path):
    return project.write_project(tmp_path / "project")


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A project whose run nothing happened to; a copy of it has nothing left to do."""
    root = project.write_project(tmp_path_factory.mktemp("calm") / "project")
    code, output = project.run(root)
    assert code == 0, output
    copy = shutil.copytree(root, root.with_name("copy"))
    assert "reused" in project.run(copy)[1]
    return root


@pytest.fixture(scope="module")
def undisturbed(calm):
    """The digest of a run that nothing happened to."""
    return run_digest(folder(calm))


@pytest.fixture
def finished(calm, tmp_path):
    """A project of one's own whose run is finished."""
    return Path(shutil.copytree(calm, tmp_path / "project"))


def folder(root: Path) -> Path:
    return root / "results" / "mine" / project.TASK


@pytest.mark.parametrize(
    ("at", "whom"), [("0", "command"), ("3", "command"), ("3", "kernel too"), ("5", "kernel too")]
)
def test_a_run_that_is_killed_goes_on_where_it_was(root, undisturbed, at, whom):
    """SIGKILL to a real run; its orphaned kernel, if left, must not write beside the next."""
    (root / "hold").write_text(at)
    process = project.start(root)
    sweeps.until(lambda: at in project.made(root))
    if whom == "kernel too":
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
        )
        for child in found.stdout.split():
            os.kill(int(child), signal.SIGKILL)
    process.kill()
    process.wait()
    process.stdout.close()  # its kernel may hold the other end for a moment
    with pytest.raises(InputError, match=shown("unfinished")):
        read_manifest(folder(root))
    (root / "hold").unlink()
    code, output = project.run(root)
    assert code == 0, output
    assert run_digest(folder(root)) == undisturbed
    # What was finished when the blow fell is not made again; the one in the making is. (A kernel
    # that outlives its command by a moment may finish more before it notices.)
    counts = Counter(project.made(root))
    assert sorted(counts) == IDS
    assert sum(counts.values()) <= len(IDS) + 1
    if whom == "kernel too":
        assert counts[at] == 2


def test_a_kernel_that_dies_is_said_and_the_next_run_finishes(root, undisturbed):
    (root / "die").write_text("3")
    code, output = project.run(root)
    assert code == 1
    assert says("kernel_died", output)
    code, output = project.run(root)
    assert code == 0, output
    assert run_digest(folder(root)) == undisturbed
    assert Counter(project.made(root)) == {**dict.fromkeys(IDS, 1), "3": 2}


def test_a_full_disk_is_said_and_the_next_run_goes_on(root):
    """A real file system of 100 kB, then a larger one, in a mount namespace of its own."""
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount (unshare -rm)")
    results = root / "results"
    results.mkdir()
    run = " ".join(map(shlex.quote, project.command()))
    script = f"""
        mount -t tmpfs -o size=100k tmpfs {shlex.quote(str(results))}
        {run}; echo "first $?"; find results -name '*.part' | sed 's/^/left /'
        mount -o remount,size=20m {shlex.quote(str(results))}
        {run}; echo "second $?"
        cp -r results copied
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert "first 1" in output
    assert says("full_disk", output), output
    assert "left results" not in output
    assert "second 0" in output
    copied = root / "copied" / "mine" / project.TASK
    assert intact(copied, read_manifest(copied))
    assert [e.image for e in load_explanations(copied)] == IDS
    assert max(Counter(project.made(root)).values()) == 2  # the one that did not fit
    assert len(project.made(root)) == len(IDS) + 1


@pytest.mark.parametrize("moment", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, moment, code):
    path = tmp_path / "metrics.json"
    write_atomic(path, "old")

    def fail(*_arguments):
        raise OSError(code, os.strerror(code))

    where = os if moment == "fsync" else files.Path
    with monkeypatch.context() as patch:
        patch.setattr(where, moment, fail)
        key = "read_only_disk" if code == errno.EROFS else "full_disk"
        with pytest.raises(StorageError) as caught:
            write_atomic(path, "new")
    assert os.strerror(code) in str(caught.value)
    assert says(key, str(caught.value)) or code == errno.EDQUOT  # the table has one line for both
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["metrics.json"]


def test_a_full_disk_is_not_a_photographs_fault(tmp_path, monkeypatch):
    """The run stops: it does not go on to list every photograph as unusable."""
    photographs = load_images(["chelsea", "coffee"])
    run = start_run(tmp_path, "2_lime", {}, photographs)

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=shown("full_disk")):
        run.explanations(photographs, "gradcam", {}, lambda p: explanation(np.eye(3), image=p.id))
    assert run.failures == []


@pytest.fixture
def others(open_path):
    """A folder that a user without rights may enter and not write to."""
    place = open_path / "results"
    place.mkdir()
    place.chmod(0o555)
    return place


def reason(action) -> str:
    try:
        action()
    except (InputError, StorageError) as error:
        return str(error)
    return "nothing happened"


def test_a_read_only_results_folder_is_said_before_any_work(others):
    start = as_nobody(lambda: reason(lambda: start_run(others, "2_lime", {}, ImageSet(()))))
    assert says("read_only_results", start)
    lock = as_nobody(lambda: reason(lambda: lock_folder(others / "mine", ".task.lock")))
    assert says("read_only_folder", lock)


def test_a_results_folder_that_becomes_read_only_is_said(others):
    others.chmod(0o777)

    def work():
        run = start_run(others / "run", "2_lime", {}, ImageSet(()))
        (others / "run").chmod(0o555)
        return reason(lambda: run.save_metrics({"a": 1}))

    said = as_nobody(work)
    (others / "run").chmod(0o755)
    assert says("read_only_folder", said)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


NAMES = ["metrics.json", "explanations/3.gradcam.*.npz", f"{project.TASK}.ipynb"]


@pytest.mark.parametrize("name", [*NAMES, "manifest.json"])
def test_a_damaged_result_is_never_used_is_made_again_and_said(finished, undisturbed, name):
    root = finished
    (file,) = folder(root).glob(name)
    name = str(file.relative_to(folder(root)))
    damage(file)
    if name != f"{project.TASK}.ipynb":
        before = (folder(root) / name).read_bytes()
    code, output = project.run(root)
    assert code == 0, output
    assert "reused" not in output
    if name != "manifest.json":  # without it there was no finished run
        assert says("damaged_result", output), output
        assert name in output
    if name != f"{project.TASK}.ipynb":
        assert (folder(root) / name).read_bytes() != before
    assert run_digest(folder(root)) == undisturbed
    again = ["3"] if "explanations" in name else []  # the others are used again
    assert sorted(project.made(root)) == sorted(IDS + again)


@pytest.mark.parametrize("spoil", [damage, Path.unlink])
def test_a_damaged_run_is_not_read_by_the_tasks_behind_it(tmp_path, spoil):
    photographs = load_images(["chelsea"])
    run = start_run(tmp_path, "2_lime", {}, photographs)
    run.explanations(photographs, "gradcam", {}, lambda p: explanation(np.eye(3), image=p.id))
    run.finish()
    (file,) = (tmp_path / "explanations").glob("chelsea.gradcam.*.npz")
    spoil(file)
    with pytest.raises(InputError, match=shown("damaged_upstream")):
        load_explanations(tmp_path)


def test_two_runs_at_once_share_the_work(root, undisturbed):
    """Two real commands: the second waits, and takes what the first has made."""
    (root / "hold").write_text("2")
    first = project.start(root)
    sweeps.until(lambda: "2" in project.made(root))
    second = project.start(root)
    line = second.stdout.readline()
    (root / "hold").unlink()
    outputs = [process.communicate(timeout=400)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert says("waiting", line), line
    assert sorted(project.made(root)) == IDS
    assert run_digest(folder(root)) == undisturbed


HOLD = """
import sys, time
from pathlib import Path
from xailib.files import lock_folder
lock = lock_folder(Path(sys.argv[1]), ".run.lock")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes to the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_notebook_in_a_folder_that_is_in_use_is_refused(tmp_path, holder):
    with pytest.raises(InputError, match=shown("in_use")) as caught:
        lock_folder(tmp_path / "run", ".run.lock", patience=0.2)
    assert f"process {holder.pid};" in str(caught.value)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_folder_that_is_taken_away_while_another_waits_is_made_again(
    tmp_path, holder, monkeypatch
):
    """As by a run that was refused before it had made anything."""

    def taken_away(_lock):  # asked for when waiting begins
        (tmp_path / "run").rename(tmp_path / "away")
        return "another process"

    monkeypatch.setattr(files, "_holder", taken_away)
    lock_folder(tmp_path / "run", ".run.lock", patience=60.0).release()
    assert (tmp_path / "away").is_dir()


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path, holder):
    holder.kill()
    holder.wait()
    run = start_run(tmp_path / "run", "2_lime", {}, ImageSet(()))
    again = start_run(tmp_path / "run", "2_lime", {}, ImageSet(()))  # a cell that is run again
    again.save_metrics({"a": 1})
    again.finish()
    assert run.folder == again.folder
    assert intact(tmp_path / "run", read_manifest(tmp_path / "run"))


MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from torch import nn
from xailib.networks.forward import forward_batches
side = 2048
class Net(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 350_000_000,) * 2)
sizes = []
def make(start, stop):
    sizes.append(stop - start)
    return torch.zeros(stop - start, 3, side, side)  # 50 MB each
found = forward_batches(Net(), make, 9, batch_size=16, engine="eager")
print(sizes, tuple(found.logits.shape))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_batches_are_halved_when_the_real_memory_runs_out():
    """Under a limit of address space, torch's own allocator says so."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(ROOT)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    sizes = [int(n) for n in done.stdout.partition("]")[0].strip("[").split(",")]
    assert sizes[0] == 9
    assert max(sizes[2:]) <= 4
    assert done.stdout.strip().endswith("(9, 3)")


def narrow(most):
    """A network in whose memory so many pictures fit, and the batches that it was given."""
    net = classifier()
    sizes = []

    def watch(_module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    net.module.register_forward_pre_hook(watch)
    return net, sizes


def test_recording_and_scoring_halve_their_batches(tmp_path):
    net, sizes = narrow(2)
    probe = load_probe(["chelsea", "coffee", "rocket", "astronaut", "china"])
    found = record_activations(net, ["fc"], probe, folder=tmp_path / "a", dtype="float32")
    assert sizes == [5, 2, 2, 1]
    views = np.stack([net.view(p).pixels for p in probe])
    np.testing.assert_allclose(net.logits(views), found["fc"], atol=1e-5)


def test_a_picture_that_does_not_fit_is_one_line():
    net, _ = narrow(0)
    with pytest.raises(UnavailableError, match=shown("no_memory")):
        net.predict(photograph())


def test_weights_that_end_too_soon(tmp_path):
    state = load_classifier("squeezenet1_1", "random").module.state_dict()
    torch.save(state, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=shown("torn_weights")):
        load_classifier("squeezenet1_1", tmp_path / "w.pth")


def test_an_interrupt_leaves_nothing_half_written(tmp_path):
    """Ctrl-C in the middle of a write."""
    with pytest.raises(KeyboardInterrupt), files.atomic(tmp_path / "x") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_photograph_that_cannot_be_explained_is_named_and_the_others_are(tmp_path):
    thin = from_array(np.zeros((16, 1700, 3), np.uint8), "thin")
    photographs = ImageSet((photograph(), thin))
    run = start_run(tmp_path, "3_cam", {}, photographs)
    net = classifier()
    from xailib.explain.cam.methods import explain_cam

    found = run.explanations(photographs, "gradcam", {}, lambda p: explain_cam(net, p))
    assert [e.image for e in found] == ["blobs-0"]
    assert says("too_thin", run.failures[0]["reason"])


def test_the_table_is_long_and_has_no_row_twice():
    assert len(rows()) >= 40
    assert len({row["name"] for row in rows()}) == len(rows())
    for row in rows():
        assert all(row.values()), row


def test_a_row_that_its_test_does_not_match_fails_the_session():
    """What the plugin in `faults_table` does after all tests of a file."""
    file = "tests/test_faults.py"
    seen = {row["test"]: set() for row in rows()}
    for row in rows():
        seen[row["test"]].add(row["name"])
    assert unmatched(seen) == []
    seen[f"{file}::test_weights_that_end_too_soon"] = {"full_disk"}
    (line,) = unmatched(seen)
    assert line.startswith("torn_weights: tests/test_faults.py::test_weights_that_end_too_soon ")
    del seen[f"{file}::test_weights_that_end_too_soon"]  # renamed
    assert unmatched(seen) == [line]
    assert unmatched({test: found for test, found in seen.items() if file not in test}) == []
