"""The page on cost: what the shown runs took, and what that comes to with many more images.

All of it becomes substitutions (``{{ cost_tasks }}``), so that no figure stands in prose.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from performance import busy, html, machines, number
from runs import results_folder
from sphinx.application import Sphinx
from sphinx.config import Config

FOLDER = Path(__file__).parents[1] / "_data/scale"  # what `benchmarks/scale.py` has kept
IMAGENET = 1_281_167  # training images of ImageNet-1k
MACHINES = 64
WHAT = {
    "1_clip_dissect": "unit labels, per probe image",
    "2_lime": "LIME",
    "3_cam": "class activation maps, all methods",
}


def texts(runs: Path, folder: Path = FOLDER) -> dict[str, str]:
    """Return the page's parts, by the names of their substitutions."""
    found = tasks(runs)
    tables = [pd.read_csv(folder / f"{name}.csv") for name in ("long", "workers")]
    origin = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["runs"]
    return {
        "cost_tasks": html(shown(found), "cost-tasks") if len(found) else "*No runs to show.*",
        "cost_imagenet": html(multiplied(found), "cost-imagenet") if len(found) else "",
        "cost_long": lasting(tables[0].iloc[0]),
        "cost_workers": efficiency(tables[1]),
        "cost_busy": busy(*tables),
        "cost_machines": "\n".join(machines(origin)),
    }


def tasks(runs: Path) -> pd.DataFrame:
    """Return a row for each finished run that has noted its cost.

    Seconds are those of the notebook and of the jobs from which it took its results.
    """
    rows: list[dict[str, Any]] = []
    for note in sorted(
        runs.glob("*/cost.json"), key=lambda file: int(file.parts[-2].split("_")[0])
    ):
        if not (note.parent / "manifest.json").is_file():  # a later attempt has failed
            continue
        manifest = json.loads((note.parent / "manifest.json").read_text(encoding="utf-8"))
        notes = [note]
        if manifest.get("passes", {}).get("kept"):
            notes += note.parent.glob("jobs/*[0-9]/cost.json")
        costs = [json.loads(file.read_text(encoding="utf-8")) for file in notes]
        inputs = manifest["inputs"]
        rows.append(
            {
                "task": note.parent.name,
                "images": inputs.get("probe", {}).get("count") or len(inputs.get("images") or ()),
                "passes": sum(manifest.get("passes", {}).values()),
                "seconds": sum(cost["seconds"] for cost in costs),
                "memory": max(cost["memory"] for cost in costs),
                "disk": costs[0]["disk"],
            }
        )
    columns = ["task", "images", "passes", "seconds", "memory", "disk"]
    return pd.DataFrame(rows, columns=columns)


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of tasks as it is shown, and its sum."""
    rows: list[tuple[str, ...]] = [
        (
            row["task"],
            f"{row['images']:,}",
            f"{row['passes']:,}",
            number(row["seconds"]),
            number(row["memory"] / 1e6),
            number(row["disk"] / 1e6),
        )
        for row in found.to_dict("records")
    ]
    total = [number(found["seconds"].sum()), number(found["memory"].max() / 1e6)]
    total.append(number(found["disk"].sum() / 1e6))
    rows.append(("total, run sequentially", "", f"{found['passes'].sum():,}", *total))
    heads = ["task", "images", "forward passes (images)", "seconds", "memory, MB", "disk, MB"]
    return pd.DataFrame(rows, columns=heads)


def multiplied(found: pd.DataFrame) -> pd.DataFrame:
    """Return what all training images of ImageNet would take: what one took here, so many times."""
    rows = []
    for row in found[found["task"].isin(WHAT) & (found["images"] > 0)].to_dict("records"):
        hours = row["seconds"] / row["images"] * IMAGENET / 3600
        disk = row["disk"] / row["images"] * IMAGENET / 1e9
        each = number(row["seconds"] / row["images"])
        rows.append(
            (WHAT[row["task"]], each, number(hours), number(hours / MACHINES), number(disk))
        )
    heads = ["task", "seconds/image", "hours, 1 machine", f"hours, {MACHINES} machines", "disk, GB"]
    return pd.DataFrame(rows, columns=heads)


def lasting(row: "pd.Series[Any]") -> str:
    """Return what a long run took, in words."""
    return (
        f"{row['images']:,} images were explained by LIME in {number(row['seconds'])} s by "
        f"{row['workers']} workers, into one table of {row['rows']:,} rows; unreadable files "
        f"reported: {row['failures']}. Memory per job: {number(row['first_quarter_mb'])} MB in the "
        f"first quarter of the run, {number(row['last_quarter_mb'])} MB in the last."
    )


def efficiency(workers: pd.DataFrame) -> str:
    """Return how much faster more workers are, in words."""
    several = workers[workers["workers"] > 1].to_dict("records")
    said = [f"{row['workers']} workers {row['speedup']:.2f}" for row in several]
    return f"Speed-up over one worker on {workers['cores'].iloc[0]} cores: {', '.join(said)}."


def offer(app: Sphinx, config: Config) -> None:
    """Offer the parts to the page."""
    config.myst_substitutions = {**(config.myst_substitutions or {}), **texts(results_folder())}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", offer, priority=102)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
