"""A small project for tests of jobs: its own network by file, blobs, two short notebooks."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nets
import pytest
import yaml
from conftest import ROOT
from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from xailib.report.params import profiles
from xailib.report.run import notebook as pipeline
from xailib.report.run import plan, shards
from xailib.report.run.scheduler import Engine, run_plan
from xailib.report.run.staleness import unfinished

TASKS = ("2_lime", "4_agreement")
# The network of tests/nets.py, as a user's own.
NETWORK = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import nets
from xailib.networks.preprocessing import Preprocessing

def tiny():
    side = nets.SIDE
    preparing = Preprocessing((side, side), side, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    return nets.seeded(nets.Plain), preparing, [f"thing {{i}}" for i in range(nets.CATEGORIES)]
"""
# Stands for the network and LIME where processes are killed, so that they start quickly. If there
# is the file `hold`, every image says in `held` which process has begun it, and waits: a test knows
# what it kills; with `die`, the process kills itself. The first job's one image is none, so that
# this job is soon finished.
STAND_IN = """
import os, sys, time, types
from pathlib import Path
import numpy as np

def make(photograph):
    from xailib.explain.explanation import Explanation
    from xailib.images.frames import Frame
    if Path("die").exists():
        os.kill(os.getpid(), 9)
    while Path("hold").exists():
        Path("held", str(os.getpid())).touch()
        time.sleep(0.02)
    raw = np.eye(8, dtype="float32")
    return Explanation("lime", photograph.id, photograph.sha256, "", 0, "", 0.5, Frame.whole(8, 8),
        raw, raw)

def explain(photographs):
    return map(make, photographs)

work = types.SimpleNamespace(method="lime", key={}, explain=explain)
network = types.SimpleNamespace(files=(), identity=None)
sys.modules["xailib.explain.requests"] = types.SimpleNamespace(requests_of=lambda *_: [work])
sys.modules["xailib.networks.classifier"] = types.SimpleNamespace(
    Classifier=None, load_classifier=lambda *_, **__: network)
class Stub(types.ModuleType):
    def __getattr__(self, name):
        return None

for name in ("activations", "blocks", "concepts", "embeddings", "label", "top_images"):
    sys.modules[f"xailib.dissect.{name}"] = Stub(name)
sys.modules["xailib.encoders.load"] = Stub("load")
"""
LAST = """
import pandas as pd
table = pd.DataFrame([(e.image, e.method, e.probability, e.raw.mean()) for e in EXPLANATIONS],
    columns=["image", "method", "probability", "mean"])
run.save_table("found", table)
_ = run.finish()
"""
READING = """
from xailib.images.load import ImageSet
from xailib.project import project_root
from xailib.report.run.results import load_table, run_digest, start_run
if num_features == 13:
    raise ValueError("13 is unlucky")
run = start_run(out_dir, "4_agreement", {"num_features": num_features}, ImageSet(()),
    runs={lime_run: run_digest(project_root() / lime_run)})
table = load_table(lime_run, "found")
run.save_table("twice", table.assign(twice=2 * table["probability"]))
_ = run.finish()
"""
READING_PARAMETERS = """lime_run: str = "results/scratch/2_lime"  # a finished run of 2_lime
num_features: int = 10  # superpixels in a mask, at least 1
out_dir: str = "results/scratch/4_agreement"  # where this run is written"""
# What the command does, for a project that has not all the notebooks; it times no networks before.
COMMAND = f"""
import sys, types
sys.modules["xailib.report.cli.timing"] = types.SimpleNamespace(paces_of=lambda *_: ({{}}, {{}}))
from xailib.report.run import plan, preflight
from xailib.report.params import profiles
for module in (plan, profiles):
    module.TASKS = {TASKS!r}
preflight.lacking = lambda _: {{}}
from xailib.report.cli import main
main()
"""


def beginning(task: str, last: str = "run.streamed(") -> list[str]:
    """The code of a real notebook up to its explanations: their keys are what shards must meet."""
    cells = jupytext.read(ROOT / "notebooks" / f"{task}.py").cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    (number,) = [n for n, source in enumerate(code) if last in source]
    return code[: number + 1]


def make(folder: Path, photographs: int, **parameters: object) -> None:
    """Make the project: notebooks, a network, photographs, one of which is none, a profile."""
    for name in ("notebooks", "params", "held", "blobs"):
        (folder / name).mkdir()
    (folder / "_toc.yml").touch()
    (folder / "book").mkdir()
    (folder / "book" / "_data").symlink_to(ROOT / "book" / "_data")  # the kept tables
    (folder / "net.py").write_text(NETWORK)
    for seed in range(photographs):
        Image.fromarray(nets.photograph(seed).pixels).save(folder / f"blobs/blob{seed:05d}.png")
    (folder / "blobs" / "bad.png").write_bytes(b"no picture")
    notebook(folder, "2_lime", [*beginning("2_lime"), LAST.replace("EXPLANATIONS", "explanations")])
    notebook(folder, "4_agreement", [READING_PARAMETERS, READING])
    values = {"images": ["blobs"], "model": "net.py:tiny", "num_samples": 20, "seed": 0}
    (folder / "params" / "mine.yaml").write_text(yaml.safe_dump({**values, **parameters}))


@contextmanager
def inside(folder: Path, tasks: tuple[str, ...] = TASKS):
    """Work in a project in this process, which has these tasks, and forget it afterwards."""
    forget()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(profiles, "TASKS", tasks)
        yield folder
    forget()


def forget() -> None:
    """Let this process know no more of a project than another one."""
    for cached in (shards._classifier, shards._networks, shards._encoder):
        cached.cache_clear()
    profiles._declared.cache_clear()
    pipeline._check_pair.cache_clear()


def run(profile, only=None, *, engine=None, force=False, **options) -> dict[str, str]:
    """Do what is left of a profile; what became of each job."""
    jobs = plan.plan(profile, only, **options)
    left = unfinished(profile, jobs, force=force)
    outcomes = list(run_plan(profile, jobs, left, engine or Engine(), force=force))
    return {outcome.task: outcome.state for outcome in outcomes}


def edit(folder: Path, **parameters: object) -> None:
    """Change lines of the project's profile."""
    file = folder / "params" / "mine.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **parameters}))


def stand_in(folder: Path, code: str = STAND_IN) -> None:
    """Let the processes that are started in a project begin with this code."""
    (folder / "stand-in").mkdir()
    (folder / "stand-in" / "sitecustomize.py").write_text(code)


def notebook(folder: Path, task: str, code: list[str]) -> None:
    """Write a notebook, whose first cell holds its parameters."""
    cells = [new_code_cell(source) for source in code]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    write(new_notebook(cells=cells, metadata=kernel), folder / "notebooks" / f"{task}.ipynb")


def tables(folder: Path) -> dict[str, bytes]:
    """Every table of a project's results, byte for byte."""
    found = sorted((folder / "results").rglob("*.parquet"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def stamps(folder: Path) -> dict[str, int]:
    """The finished jobs, and when each was finished; a job that runs again changes it."""
    found = (folder / "results").rglob("manifest.json")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def call(folder: Path, *words: str, code: int = 0) -> str:
    """Run the command to its end and return what it printed."""
    with started(folder, *words) as process:
        output = process.communicate(timeout=500)[0]
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


@contextmanager
def started(folder: Path, *words: str):
    """Run the command while the block does something else."""
    with spawn([sys.executable, "-c", COMMAND, *words], folder) as process:
        try:
            yield process
        finally:
            process.kill()


def spawn(words: list[str], folder: Path, output=subprocess.PIPE) -> subprocess.Popen:
    """Start a process in a project, for which this repository is the installed one."""
    # A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    path = os.pathsep.join([str(folder / "stand-in"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
    )


def until(what, seconds: float = 300) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def hold(folder: Path) -> None:
    """Let every job but the first wait where it is, once it has begun."""
    (folder / "hold").touch()


def held(folder: Path, client: subprocess.Popen) -> list[int]:
    """Wait until a job is finished and others wait; return their processes."""

    def waits() -> bool:
        assert client.poll() is None, client.communicate()[0]
        return bool(stamps(folder)) and any((folder / "held").iterdir())

    until(waits)
    return [int(file.name) for file in (folder / "held").iterdir()]


def release(folder: Path) -> None:
    """Let the jobs go on."""
    (folder / "hold").unlink()


def events(output: str) -> list[dict]:
    """What the command said with --json."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]
