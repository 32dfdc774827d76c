"""The page on cost: what the shown runs took against what was foreseen, and how cost grows.

The runs are those of the profile that the site shows; growth is what ``benchmarks/scale.py`` has
kept. All of it becomes substitutions (``{{ cost_tasks }}``), so that no figure stands in prose.
"""

import contextlib
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from performance import busy, html, machines, number
from runs import ROOT, results_folder
from scaling import FOLDER, assumed, efficiency, extrapolated, growth, kept, lasting
from sphinx.application import Sphinx
from sphinx.config import Config

MISSING = "*Not measured yet:* `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/scale.py {} --keep`"
FIGURE = """```{run-figure} _data/scale/scale.svg
:name: cost-growth
:dark: _data/scale/scale-dark.svg
:alt: Processor time on logarithmic axes against photographs, units and concepts, and the speed \
of several workers against their number, beside the line that would be ideal.

Processor time as one thing grows and all else stays, on logarithmic axes, and how many times
faster several workers are. Broken: in proportion, with workers as far as there are cores.
{download}`Sizes (CSV) <_data/scale/sizes.csv>`, {download}`workers (CSV) <_data/scale/workers.csv>`
```"""


def texts(runs: Path, folder: Path = FOLDER) -> dict[str, str]:
    """Return the page's parts, by the names of their substitutions."""
    tables = {name: kept(name, folder) for name in ("sizes", "workers", "long")}
    sizes, workers, long = tables.values()
    found = tasks(runs)
    measured = [table for table in tables.values() if table is not None]
    file = folder / "manifest.json"
    origin = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else {}
    whole = (folder / "scale-dark.svg").is_file() and sizes is not None and workers is not None
    return {
        "cost_verdict": verdict(found),
        "cost_tasks": "" if found.empty else html(shown(found), "cost-tasks"),
        "cost_figure": FIGURE if whole else "",
        "cost_sizes": missing("grow") if sizes is None else html(growth(sizes), "cost-sizes"),
        "cost_workers": missing("workers 1 2 4 8")
        if workers is None
        else html(efficiency(workers), "cost-workers"),
        "cost_long": missing("lime 10000") if long is None else html(lasting(long), "cost-long"),
        "cost_imagenet": missing("grow")
        if sizes is None
        else html(extrapolated(assumed(folder), sizes, workers), "cost-imagenet"),
        "cost_busy": busy(*measured) if measured else "",
        "cost_machines": "\n".join(machines(origin)),
    }


def missing(words: str) -> str:
    """Return what to run."""
    return MISSING.format(words)


def tasks(runs: Path) -> pd.DataFrame:
    """Return a row for each finished run: passes, seconds, memory, disk, foreseen and found.

    What was not foreseen or not noted is NaN.
    """
    from xailib.report.params.profiles import TASKS, Profile
    from xailib.report.run.costs import estimate
    from xailib.report.run.expected import expected_passes
    from xailib.report.run.job import Job

    files = {task: runs / task / "manifest.json" for task in TASKS}
    manifests = {t: json.loads(f.read_text()) for t, f in files.items() if f.is_file()}
    requests = {t: m.get("request", {}).get("parameters", {}) for t, m in manifests.items()}
    profile = Profile(runs.name, {}, requests)
    rows = []
    with contextlib.chdir(ROOT):  # where the notebooks' own paths start
        for task, manifest in manifests.items():
            cost = estimate(profile, Job(task, task))
            counted = manifest.get("passes", {})
            passes = {"foreseen": expected_passes(profile, task), "found": _all(counted)}
            row: dict[str, Any] = {"task": task, "kept": counted.get("kept", 0)}
            row |= {f"passes_{which}": value for which, value in passes.items()}
            row |= {f"{name}_foreseen": getattr(cost, name, None) for name in NAMES}
            row |= {f"{n}_found": v for n, v in spent(runs / task, row["kept"] > 0).items()}
            rows.append(row)
    columns = [f"{name}_{which}" for name in ("passes", *NAMES) for which in ("foreseen", "found")]
    return pd.DataFrame(rows, columns=["task", "kept", *columns]).astype(
        dict.fromkeys(columns, float)
    )


NAMES = ("seconds", "memory", "disk")


def _all(counted: Mapping[str, int]) -> int | None:
    return sum(counted.values()) if counted else None


def spent(folder: Path, shared: bool) -> dict[str, float | None]:
    """Return what a task's jobs noted: seconds of all processors, most memory, disk.

    Those of its shards count where the notebook has used what was made before.
    """
    files = [folder / "cost.json"]
    if shared:
        files += sorted(folder.glob("jobs/*[0-9]/cost.json"))
    noted = [json.loads(file.read_text()) for file in files if file.is_file()]
    if not (folder / "cost.json").is_file():
        return dict.fromkeys(NAMES)
    seconds, memory, disk = (
        [one[name] for one in noted] for name in ("processor", "memory", "disk")
    )
    return {"seconds": sum(seconds), "memory": max(memory), "disk": disk[0]}


def verdict(found: pd.DataFrame) -> str:
    """Return how far the foreseen passes and times are from what was found."""
    if found.empty:
        return "*No run is shown:* `.venv/bin/xailib run`"
    both = found.dropna(subset=["passes_foreseen", "passes_found"])
    text = f"{len(found)} tasks are shown."
    if len(both):
        counted, foreseen = both["passes_found"].sum(), both["passes_foreseen"].sum()
        text += (
            f" {len(both)} of them tell their passes: networks were shown {counted:,.0f} pictures, "
            f"and {foreseen:,.0f} were foreseen."
        )
    timed = found.dropna(subset=["seconds_foreseen", "seconds_found"])
    if len(timed):
        ratios = timed["seconds_found"] / timed["seconds_foreseen"]
        text += (
            f" Of {len(timed)} tasks with both, processor time was {number(ratios.min())} to "
            f"{number(ratios.max())} times what was foreseen (median {number(ratios.median())})."
        )
    return text


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of tasks as it is shown: foreseen, found, and their ratio."""
    units = {"seconds": 1, "memory": 1e-6, "disk": 1e-6}

    def cell(row: Mapping[Hashable, Any], name: str) -> str:
        before, after = (row[f"{name}_{w}"] * units.get(name, 1) for w in ("foreseen", "found"))
        said = "{:,.0f}".format if name == "passes" else number
        both = " / ".join("–" if np.isnan(value) else said(value) for value in (before, after))
        return f"{both} ({number(after / before)})" if before > 0 and after >= 0 else both

    rows = found.to_dict("records")
    table = {"task": found["task"], "passes": [cell(row, "passes") for row in rows]}
    table["of these kept"] = found["kept"].map("{:,.0f}".format)
    heads = ("seconds of a processor", "memory, MB", "disk, MB")
    for name, head in zip(NAMES, heads, strict=True):
        table[head] = [cell(row, name) for row in rows]
    return pd.DataFrame(table)


def offer(app: Sphinx, config: Config) -> None:
    """Offer the parts to the page."""
    config.myst_substitutions = {**(config.myst_substitutions or {}), **texts(results_folder())}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", offer, priority=102)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
