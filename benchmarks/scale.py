"""How cost grows with images, units, concepts, workers; and the constants of a dry run.

    OMP_NUM_THREADS=1 python benchmarks/scale.py grow        images, units and concepts: exponents
    OMP_NUM_THREADS=1 python benchmarks/scale.py lime 10000  memory and failures of a long run
    python benchmarks/scale.py workers 1 2 4 8               efficiency; wants a quiet machine
    python benchmarks/scale.py imagenet                      as the probe set, on many GPUs
    python benchmarks/scale.py constants smoke embedded      from these profiles' finished jobs

With `--keep`, the first three renew what the site's page on cost shows, from which `imagenet`
follows. `grow --small` and smaller numbers are quick. Exponents are of processor time, which a
busy machine hardly changes; efficiency is of wall time, which it does. For `constants`, first run
the profiles on a quiet machine: `xailib run smoke --workers 1 --shard 1`, and so on.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
from measure import Elsewhere, machine
from scale_figure import draw
from scipy.optimize import nnls
from sizes import grow
from store import merge

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("tests", "book/_ext")]
import scaling  # noqa: E402


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
    table["cores"] = len(os.sched_getaffinity(0))
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
    """Do the jobs; return the seconds from when every worker has its libraries and network."""
    from xailib.report.run.executors import Pool
    from xailib.report.run.scheduler import run_plan

    first = first or workers
    with Pool(workers, 1) as pool:
        for _ in run_plan(profile, jobs[:first], jobs[:first], pool):
            pass
        start = time.perf_counter()
        for outcome in run_plan(profile, jobs, jobs[first:], pool):
            if outcome.state not in ("done", "reused"):
                raise SystemExit(f"{outcome.task} {outcome.state}: {outcome.message}")
        return time.perf_counter() - start


def constants(names: Iterable[str]) -> dict[str, object]:
    """Fit a line in the jobs' units to what the finished jobs of some profiles did cost."""
    from xailib.report.params.profiles import load_profile
    from xailib.report.run.costs import Cost, kind_of, measured, units
    from xailib.report.run.job import finished
    from xailib.report.run.plan import plan

    points = defaultdict(list)
    for name in names:
        profile = load_profile(name)
        for job in [job for size in (1, 10) for job in plan(profile, shard=size)]:
            # A shard of the other size has the same name; only one of the two is finished.
            done = job.kind == "notebook" or finished(profile, job)
            if done and (cost := measured(profile, job)):
                points[kind_of(job)].append((units(profile, job), cost))
    found = {}
    for kind, pairs in sorted(points.items()):
        found[kind] = {
            name: dict(zip(("fixed", "each"), _line(pairs, name), strict=True))
            for name in Cost.__annotations__
        }
    return found


def networks(names: Iterable[str]) -> list[str]:
    """Return the networks that some profiles explain."""
    from xailib.report.params.profiles import TASKS, load_profile

    given = (load_profile(name).values(task) for name in names for task in TASKS)
    return sorted({str(parameters["model"]) for parameters in given if parameters.get("model")})


def _line(pairs: Sequence[tuple[int, object]], name: str) -> list[float]:
    """Return where a line begins and how it rises, neither below 0."""
    size = np.array([count for count, _ in pairs], float)
    sides = np.stack([np.ones_like(size), size], axis=1)
    if len(set(size)) == 1:  # says nothing about growth: memory is taken not to, the rest to
        sides[:, 1 if name == "memory" or not size.any() else 0] = 0
    return np.round(nnls(sides, [getattr(cost, name) for _, cost in pairs])[0], 4).tolist()


def imagenet(gpus: int | None) -> pd.DataFrame:
    """Return what ImageNet as the probe set would take, from what is kept."""
    given, sizes = scaling.assumed(), scaling.kept("sizes")
    if sizes is None:
        raise SystemExit("first: grow --keep")
    if gpus:
        given.loc[given["name"] == "gpus", "value"] = gpus
    return scaling.extrapolated(given, sizes, scaling.kept("workers"))


def keep(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Put what was measured where the site reads it."""
    merge(folder, name, table.to_dict("records"), machine())
    draw(folder)


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("grow")
    one.add_argument("--small", action="store_true")
    kept = [one]
    one = parts.add_parser("lime")
    one.add_argument("images", type=int)
    one.add_argument("--workers", type=int, default=1)
    kept.append(one)
    one = parts.add_parser("workers")
    one.add_argument("counts", type=int, nargs="+")
    one.add_argument("--samples", type=int, default=300)
    kept.append(one)
    for one in kept:
        one.add_argument("--keep", action="store_true", help="for the site's page on cost")
    parts.add_parser("imagenet").add_argument("--gpus", type=int, help="instead of those assumed")
    one = parts.add_parser("constants")
    one.add_argument("profiles", nargs="+")
    one.add_argument("--write", metavar="WHERE", help="such as '2 cores of ...': keeps them")
    given = parser.parse_args()
    if given.part in MEASURED:
        name, measure = MEASURED[given.part]
        table = measure(given)
        print((scaling.growth(table) if name == "sizes" else table).to_string(index=False))
        if given.keep:
            keep(scaling.FOLDER, name, table)
    elif given.part == "imagenet":
        print(imagenet(given.gpus).to_string(index=False))
    else:
        found = {
            "measured": given.write or "here",
            "networks": networks(given.profiles),
            "jobs": constants(given.profiles),
        }
        print(json.dumps(found, indent=1))
        if given.write:
            from xailib.report.run.costs import CONSTANTS

            CONSTANTS.write_text(json.dumps(found, indent=1) + "\n")


MEASURED = {
    "grow": ("sizes", lambda given: grow(given.small)),
    "lime": ("long", lambda given: lime(given.images, given.workers)),
    "workers": ("workers", lambda given: efficiency(given.counts, given.samples)),
}


if __name__ == "__main__":
    main()
