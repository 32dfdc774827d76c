"""How cost grows with images, units, concepts, workers; and the constants of a dry run.

    OMP_NUM_THREADS=1 python benchmarks/scale.py grow        images, units and concepts: exponents
    OMP_NUM_THREADS=1 python benchmarks/scale.py lime 10000  memory and failures of a long run
    python benchmarks/scale.py workers 1 2 4 8               efficiency; wants a quiet machine
    python benchmarks/scale.py extrapolate 64                ImageNet as the probe set, on 64 GPUs
    python benchmarks/scale.py constants smoke embedded      from these profiles' finished jobs

`grow --small` and smaller numbers are quick. Exponents are of processor time, which a busy machine
hardly changes; efficiency is of wall time, which it does. For `constants`, first run the profiles
on a quiet machine: `xailib run smoke --workers 1 --shard 1`, and so on.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
from measure import Times
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
IMAGES = (10, 100, 1000, 10_000)
UNITS = (100, 1000, 10_000)
CONCEPTS = (1000, 10_000, 100_000)
IMAGENET = 1_281_167  # training photographs, as a probe set


def grow(small: bool) -> pd.DataFrame:
    """Return processor time and memory by size, and the exponent from each size to the next."""
    from xailib.cosines import product
    from xailib.similarity import soft_wpmi

    rng = np.random.default_rng(0)

    def cosines(probe: int, concepts: int):  # type: ignore[no-untyped-def]
        tables = [rng.standard_normal((n, 64), dtype=np.float32) for n in (probe, concepts)]
        return product(*(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in tables))

    def label(units: int, concepts: int) -> Callable[[], object]:
        similarity = cosines(2000, concepts)
        values = rng.standard_normal((2000, units), dtype=np.float32)
        return lambda: soft_wpmi(similarity, values, top_k=20)

    cases = {
        "images, activations recorded": (IMAGES, recording),
        "units, labelled": (UNITS, lambda n: label(n, 1000)),
        "concepts, labelled": (CONCEPTS, lambda n: label(300, n)),
    }
    rows = []
    for name, (sizes, make) in cases.items():
        for size in sizes[: 2 if small else None]:
            times = Times()
            times.run(make(size))
            rows.append([name, size, min(times.processor), max(times.megabytes)])
    table = pd.DataFrame(rows, columns=["growing", "size", "processor seconds", "MB"])
    logs = np.log(table[["size", "processor seconds"]]).groupby(table["growing"]).diff()
    table["exponent"] = logs["processor seconds"] / logs["size"]
    return table


def recording(images: int) -> Callable[[], object]:
    """Return a recording of a tiny network's activations on so many probe images."""
    import nets

    from xailib.activations import record_activations
    from xailib.images import from_array
    from xailib.probe import ProbeImage, ProbeSet

    classifier = nets.classifier()
    one = nets.photograph()

    class Blobs(ProbeSet):
        """Made when asked for: what grows is to be the network's work, not the files'."""

        def photographs(self, start: int = 0):  # type: ignore[no-untyped-def]
            return (from_array(one.pixels, image.id) for image in self.images[start:])

    probe = Blobs("blobs", tuple(ProbeImage(str(n), "", one.sha256) for n in range(images)))
    folder = Path(tempfile.mkdtemp()) / "recording"
    return lambda: record_activations(classifier, ["stem.0", "fc"], probe, folder=folder)


def lime(images: int, workers: int, samples: int = 50, shard: int = 50) -> dict[str, object]:
    """Explain so many blobs by LIME into one table; say how memory went and what failed."""
    with project(images) as (profile, jobs, folder):
        seconds = explain(profile, jobs(shard), workers)
        place = profile.folder("2_lime") / "jobs"
        memory = [
            json.loads((place / job.name / "cost.json").read_text())["memory"] / 1e6
            for job in jobs(shard)[:-1]
        ]
        quarter = max(1, len(memory) // 4)
        return {
            "images": images,
            "samples": samples,
            "seconds": round(seconds, 1),
            "rows": len(pd.read_parquet(place / "2_lime.table" / "explained.parquet")),
            "failures": len(pd.read_parquet(place / "2_lime.table" / "failures.parquet")),
            "MB, first quarter of jobs": round(float(np.mean(memory[:quarter]))),
            "MB, last quarter of jobs": round(float(np.mean(memory[-quarter:]))),
            "disk MB": round(sum(f.stat().st_size for f in folder.rglob("*.npz")) / 1e6, 1),
        }


def efficiency(counts: Sequence[int], images: int) -> pd.DataFrame:
    """Return how much faster more workers are, each with one thread, at the same jobs."""
    rows = []
    for count in counts:
        with project(images) as (profile, jobs, _):
            rows.append([count, explain(profile, jobs(2), count)])
    table = pd.DataFrame(rows, columns=["workers", "seconds"])
    table["speedup"] = table["seconds"].iloc[0] * counts[0] / table["seconds"]
    table["efficiency"] = table["speedup"] / table["workers"]
    return table


class project:  # noqa: N801  a block
    """A throw-away project with so many blobs and one file that is no picture."""

    def __init__(self, images: int) -> None:
        self._images = images

    def __enter__(self):  # type: ignore[no-untyped-def]
        import sweeps

        from xailib.plan import plan
        from xailib.profiles import Profile

        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        sweeps.make(folder, self._images)
        self._there = chdir(folder)
        self._there.__enter__()
        values = {"images": ["blobs"], "model": "net.py:tiny", "num_samples": 50, "seed": 0}
        profile = Profile("mine", values)
        return profile, lambda size: plan(profile, "2_lime", shard=size, pages=False), folder

    def __exit__(self, *_: object) -> None:
        self._there.__exit__(None, None, None)
        self._folder.cleanup()


def explain(profile, jobs, workers: int) -> float:  # type: ignore[no-untyped-def]
    """Do the jobs; return the seconds from when every worker has its libraries and network."""
    from xailib.executors import Pool
    from xailib.schedule import run_plan

    with Pool(workers, 1) as pool:
        for _ in run_plan(profile, jobs[:workers], jobs[:workers], pool):
            pass
        start = time.perf_counter()
        for outcome in run_plan(profile, jobs, jobs[workers:], pool):
            if outcome.state not in ("done", "reused"):
                raise SystemExit(f"{outcome.task} {outcome.state}: {outcome.message}")
        return time.perf_counter() - start


def constants(names: Iterable[str]) -> dict[str, object]:
    """Fit a line in the jobs' units to what the finished jobs of some profiles did cost."""
    from xailib.costs import Cost, kind_of, measured, units
    from xailib.jobs import finished
    from xailib.plan import plan
    from xailib.profiles import load_profile

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


def _line(pairs: Sequence[tuple[int, object]], name: str) -> list[float]:
    """Return where a line begins and how it rises, neither below 0."""
    size = np.array([count for count, _ in pairs], float)
    sides = np.stack([np.ones_like(size), size], axis=1)
    if len(set(size)) == 1:  # says nothing about growth: memory is taken not to, the rest to
        sides[:, 1 if name == "memory" or not size.any() else 0] = 0
    return np.round(nnls(sides, [getattr(cost, name) for _, cost in pairs])[0], 4).tolist()


def extrapolate(gpus: int, passes: float, efficient: float) -> dict[str, object]:
    """Return what labelling with ImageNet's training photographs would take, if it stays linear."""
    seconds = IMAGENET / passes / (gpus * efficient)
    return {
        "probe images": IMAGENET,
        "GPUs": gpus,
        "hours to record activations": round(seconds / 3600, 3),
        "GB of activations, 3,000 units in half precision": round(IMAGENET * 3000 * 2 / 1e9, 1),
        "GB of embeddings, 512 in single precision": round(IMAGENET * 512 * 4 / 1e9, 1),
        "assumed": f"{passes:g} pictures a second and GPU, efficiency {efficient:g}, fast disks",
    }


def main() -> None:
    """Run what is asked for and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("grow").add_argument("--small", action="store_true")
    one = parts.add_parser("lime")
    one.add_argument("images", type=int)
    one.add_argument("--workers", type=int, default=1)
    one = parts.add_parser("workers")
    one.add_argument("counts", type=int, nargs="+")
    one.add_argument("--images", type=int, default=200)
    one = parts.add_parser("extrapolate")
    one.add_argument("gpus", type=int)
    one.add_argument("--passes", type=float, default=1000, help="pictures a second and GPU")
    one.add_argument("--efficiency", type=float, default=0.9)
    one = parts.add_parser("constants")
    one.add_argument("profiles", nargs="+")
    one.add_argument("--write", metavar="WHERE", help="such as '2 cores of ...': keeps them")
    given = parser.parse_args()
    if given.part == "grow":
        print(grow(given.small).to_string(index=False, float_format="%.3g"))
    elif given.part == "lime":
        print(json.dumps(lime(given.images, given.workers), indent=1))
    elif given.part == "workers":
        print(efficiency(given.counts, given.images).to_string(index=False, float_format="%.3g"))
    elif given.part == "extrapolate":
        print(json.dumps(extrapolate(given.gpus, given.passes, given.efficiency), indent=1))
    else:
        found = {"measured": given.write or "here", "jobs": constants(given.profiles)}
        print(json.dumps(found, indent=1))
        if given.write:
            from xailib.costs import CONSTANTS

            CONSTANTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
