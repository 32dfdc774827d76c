"""A small project with notebooks that run in seconds, for faults that need real processes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import sweeps
import yaml
from conftest import ROOT
from PIL import Image

TASK = "2_lime"
PHOTOGRAPHS = 6
CELL = """
images: list = ["chelsea"]  # photographs of the small project
seed: int = 0  # changes nothing here
out_dir: str = "results/x"  # where this run is written
"""
# What it does is told by files in the project: the photograph at which to `hold` as long as the
# file is there, and at which to `die` once.
CODE = f"""
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT / "tests")!r})
import numpy as np, pandas as pd
from conftest import explanation
from xailib.images.load import load_images
from xailib.report.run.results import project_root, start_run

root = project_root()
photographs = load_images(images)
run = start_run(out_dir, {TASK!r}, {{"images": images}}, photographs)

def make(photograph):
    with (root / "made.log").open("a") as file:
        print(photograph.id, file=file)
    if (root / "die").is_file() and (root / "die").read_text() == photograph.id:
        (root / "die").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    while (root / "hold").is_file() and (root / "hold").read_text() == photograph.id:
        time.sleep(0.05)
    noise = np.random.default_rng(int(photograph.id)).random((90, 90))
    return explanation(noise, image=photograph.id, image_sha256=photograph.sha256)

found = run.explanations(photographs, "gradcam", {{}}, make)
run.save_table("areas", pd.DataFrame({{"image": [e.image for e in found]}}))
run.save_metrics({{"images": len(found)}})
_ = run.finish()
"""


def write_project(root: Path) -> Path:
    """Write the project, with as many notebooks as the report has tasks."""
    for folder in ("notebooks", "params", "album"):
        (root / folder).mkdir(parents=True)
    for real in (ROOT / "notebooks").glob("*.ipynb"):
        sweeps.notebook(root, real.stem, [CELL, CODE])
    for seed in range(PHOTOGRAPHS):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "album" / f"{seed}.png")
    (root / "_toc.yml").touch()
    (root / "params" / "mine.yaml").write_text(yaml.safe_dump({"images": ["album"]}))
    return root


def command() -> list[str]:
    """Return the words that run the project's task."""
    code = "from xailib.report.cli import main; main()"
    return [sys.executable, "-c", code, "run", "mine", "--only", TASK]


def start(root: Path) -> subprocess.Popen:
    """Start the task as a process of its own."""
    return sweeps.spawn(command(), root)


def run(root: Path) -> tuple[int, str]:
    """Run the task to its end; its exit code, and all that it says."""
    process = start(root)
    output, _ = process.communicate(timeout=400)
    return process.returncode, output


def made(root: Path) -> list[str]:
    """Return the photographs that were explained, as often as they were."""
    log = root / "made.log"
    return log.read_text().split() if log.is_file() else []
