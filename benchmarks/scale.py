"""How a run of many jobs behaves: memory and failures of a long one, and several workers.

    OMP_NUM_THREADS=1 python benchmarks/scale.py lime 10000 --workers 2    a long run
    python benchmarks/scale.py workers 1 2 4 8                             wants a quiet machine

With `--keep`, they renew what the site's page on cost shows. Smaller numbers are quick.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
from measure import Elsewhere, machine
from store import merge

from xailib.project import cores

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
FOLDER = Path(__file__).parents[1] / "book/_data/scale"


def lime(images: int, workers: int, samples: int = 50, shard: int = 50) -> pd.DataFrame:
    """Explain so many blobs by LIME into one table; say how memory went and what failed."""
    others = Others()
    with project(images) as (profile, jobs, folder):
        seconds = explain(profile, jobs(shard), workers)
        place = profile.folder("2_lime") / "jobs"
        memory = [
            json.loads((place / job.name / "cost.json").read_text())["memory"] / 1e6
            for job in jobs(shard)[:-1]
        ]
        quarter = max(1, len(memory) // 4)
        row = {
            "task": "2_lime",
            "images": images,
            "samples": samples,
            "workers": workers,
            "seconds": seconds,
            "rows": len(pd.read_parquet(place / "2_lime.table" / "explained.parquet")),
            "failures": len(pd.read_parquet(place / "2_lime.table" / "failures.parquet")),
            "first_quarter_mb": float(np.mean(memory[:quarter])),
            "last_quarter_mb": float(np.mean(memory[-quarter:])),
            "disk_mb": sum(f.stat().st_size for f in folder.rglob("*.npz")) / 1e6,
            "cores_used_elsewhere": others.cores(),
        }
    return pd.DataFrame([row])


def efficiency(counts: Sequence[int], samples: int) -> pd.DataFrame:
    """Return how much faster more workers are, each with one thread, at the same jobs.

    With the report's own network and photographs, so that the passes take the time, and not the
    files and processes around them. As many jobs as there are workers at most come first, untimed.
    """
    values = {"model": "tf_efficientnet_lite0", "images": ["foolbox"]}
    rows = []
    for count in counts:
        others = Others()
        with project(0, num_samples=samples, **values) as (profile, jobs, _):
            seconds = explain(profile, jobs(1), count, first=max(counts))
            rows.append(["2_lime", count, seconds, others.cores()])
        print(f"{count} workers: {rows[-1][2]:.1f} s", flush=True)
    table = pd.DataFrame(rows, columns=["task", "workers", "seconds", "cores_used_elsewhere"])
    table["cores"] = cores()
    table["speedup"] = table["seconds"].iloc[0] * counts[0] / table["seconds"]
    table["efficiency"] = table["speedup"] / table["workers"]
    return table


class Others(Elsewhere):
    """How busy the machine was with others than this process and those that it started."""

    def __init__(self) -> None:
        self._children = sum(os.times()[2:4])
        self._begin = time.perf_counter()
        super().__init__()

    def cores(self) -> float:
        """Return the number of cores; the processes that were started must have ended."""
        ours = (sum(os.times()[2:4]) - self._children) / (time.perf_counter() - self._begin)
        return max(0.0, super().cores() - ours)


class project:  # noqa: N801  a block
    """A throw-away project with so many blobs and one file that is no picture."""

    def __init__(self, blobs: int, **values: object) -> None:
        self._blobs = blobs
        self._values = values

    def __enter__(self):  # type: ignore[no-untyped-def]
        import sweeps

        from xailib.report.params.profiles import Profile
        from xailib.report.run.plan import plan

        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        sweeps.make(folder, self._blobs)
        self._there = chdir(folder)
        self._there.__enter__()
        values = {"images": ["blobs"], "model": "net.py:tiny", "seed": 0, "num_samples": 50}
        profile = Profile("mine", values | self._values)
        return profile, lambda size: plan(profile, "2_lime", shard=size, pages=False), folder

    def __exit__(self, *_: object) -> None:
        self._there.__exit__(None, None, None)
        self._folder.cleanup()


def explain(profile, jobs, workers: int, first: int = 0) -> float:  # type: ignore[no-untyped-def]
    """Do the jobs; return the seconds from when the first ones, untimed, are done."""
    from xailib.report.run.scheduler import Engine, run_plan

    first = first or workers
    start = 0.0
    for seen, outcome in enumerate(run_plan(profile, jobs, jobs, Engine(workers, threads=1)), 1):
        if outcome.state not in ("done", "reused"):
            raise SystemExit(f"{outcome.task} {outcome.state}: {outcome.message}")
        start = time.perf_counter() if seen == first else start
    return time.perf_counter() - start


def keep(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Put what was measured where the site reads it."""
    merge(folder, name, table.to_dict("records"), machine())


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    long = parts.add_parser("lime")
    long.add_argument("images", type=int)
    long.add_argument("--workers", type=int, default=1)
    several = parts.add_parser("workers")
    several.add_argument("counts", type=int, nargs="+")
    several.add_argument("--samples", type=int, default=300)
    for one in (long, several):
        one.add_argument("--keep", action="store_true", help="for the site's page on cost")
    given = parser.parse_args()
    if given.part == "lime":
        name, table = "long", lime(given.images, given.workers)
    else:
        name, table = "workers", efficiency(given.counts, given.samples)
    print(table.to_string(index=False))
    if given.keep:
        keep(FOLDER, name, table)


if __name__ == "__main__":
    main()
