"""Where the profile's runs lie, and the numbers in them."""

import json
import os
from pathlib import Path

from xailib.report.figures.publish import not_used

ROOT = Path(__file__).parents[2]


def results_folder() -> Path:
    """Return the folder of the profile's runs."""
    return ROOT / "results" / os.environ.get("XAILIB_PROFILE", "embedded")


def place_of(run: Path) -> str:
    """Return a run's folder as Sphinx names it: from the project's root, with a slash."""
    return f"/{run.relative_to(ROOT)}"


def failed() -> dict[str, str]:
    """Return the tasks that have no results to show, with why: the command has run them."""
    found: dict[str, str] = json.loads(os.environ.get("XAILIB_FAILED") or "{}")
    return found


def lacks(task: str) -> str:
    """Return the line that stands for what would be shown of a task without results."""
    return f"Not shown: {task} has no results; its page shows the reason."


def read_numbers(folder: Path) -> dict[str, str]:
    """Return every run's metrics as text, as ``task_name``."""
    numbers = {f"{task.partition('_')[2]}_finding": lacks(task) for task in failed()}
    numbers["not_used"] = _not_used(folder)
    for file in sorted(folder.glob("*/metrics.json")):
        if file.parent.name in failed():
            continue  # of an earlier run
        task = file.parent.name.partition("_")[2]
        for key, value in json.loads(file.read_text()).items():
            digits = 0 if isinstance(value, float) and abs(value) >= 10 else 2
            text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
            numbers[f"{task}_{key}"] = text
    return numbers


def _not_used(folder: Path) -> str:
    """Return a paragraph that names the images that no run could use; empty if there is none."""
    manifests = [
        json.loads(file.read_text())
        for file in sorted(folder.glob("*/manifest.json"))
        if file.parent.name not in failed()
    ]
    return not_used(
        (one for manifest in manifests for one in manifest.get("failures", ())), "Images not used"
    )
