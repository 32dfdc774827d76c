"""Ours against lime and grad-cam on one card, in turn, in one process: the table of the GPU path.

    python benchmarks/gpu.py --weights resnet50.pth --images FOLDER     all rows, medians of 5
    python benchmarks/gpu.py --only stream,lime --repeats 3             some of them
    python benchmarks/gpu.py --bundle FOLDER --weights resnet50.pth --images FOLDER

The last makes a folder for a machine with PyTorch and CUDA and without network: the project, the
pure Python packages that it lacks, the weights and images given, and ``run.sh``, the command.
Each row is kept as soon as it is there (``--output``), under the card's name.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import distribution
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIMIT = 64 * 2**20  # bytes of a bundle
# What a machine with PyTorch, pandas, scikit-image, timm and pytest lacks: all of it pure Python.
PACKAGES = (
    "asttokens", "executing", "grad-cam", "ipython", "ipython-pygments-lexers", "lime",
    "matplotlib-inline", "pexpect", "platformdirs", "pooch", "prompt-toolkit", "ptyprocess",
    "pure-eval", "stack-data", "traitlets", "ttach", "wcwidth",
)  # fmt: skip
PRECISIONS = ("exact", "tf32", "half")
SAMPLES = 1000


def main() -> None:
    """Make the bundle, or run what the arguments ask for."""
    options = parsed(sys.argv[1:])
    if options.bundle:
        bundle(options)
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("gpu: this machine has no CUDA device; --bundle packs for one that has")
    for name, rows in selected(options).items():
        started = time.perf_counter()
        try:
            found = list(rows())
        except Exception as error:  # noqa: BLE001  one row that fails must not cost the others
            found = [{"row": name, "failed": f"{type(error).__name__}: {error}"}]
        for row in found:
            keep(options.output, {**row, "group": name})
        print(f"  ({name}: {time.perf_counter() - started:.0f} s)", flush=True)


def parsed(words: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"comma-separated: {', '.join(GROUPS)}")
    parser.add_argument("--repeats", type=int, default=5, help="runs each; medians are shown")
    parser.add_argument("--stream", type=int, default=100, help="images of a stream")
    parser.add_argument("--weights", type=Path, help="ResNet-50's state dict; default: random")
    parser.add_argument("--images", type=Path, help="a folder of JPEG files")
    parser.add_argument("--bundle", type=Path, help="pack into this folder instead")
    parser.add_argument("--output", type=Path, default=ROOT / "results/benchmarks/gpu.json")
    options = parser.parse_args(words)
    options.only = [name for name in options.only.split(",") if name]
    if strange := set(options.only) - set(GROUPS):
        parser.error(f"--only: unknown: {', '.join(sorted(strange))}")
    return options


def selected(options: argparse.Namespace) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    """Return the groups of rows that were asked for."""
    return {
        name: partial(rows, options)
        for name, rows in GROUPS.items()
        if not options.only or name in options.only
    }


def keep(file: Path, row: dict[str, Any]) -> None:
    """Print a row, and put it in the place of its last figures on this card."""
    import torch

    print(json.dumps(row), flush=True)
    card = torch.cuda.get_device_name()
    kept = json.loads(file.read_text()) if file.is_file() else {}
    rows = kept.setdefault(card, {"torch": torch.__version__, "cores": os.cpu_count(), "rows": {}})
    rows["rows"][row["row"]] = {**row, "commit": _commit()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n")


def _commit() -> str:
    """Return the project's commit; in a bundle, the one that was packed."""
    from xailib.versions import git_commit

    packed = ROOT.parent / "commit"
    return packed.read_text().strip() if packed.is_file() else git_commit()


# What is timed --------------------------------------------------------------------------------


def clock(function: Callable[[], Any]) -> float:
    """Return the seconds that a call takes, until the card has done all of it."""
    import torch

    torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turn(repeats: int, **ways: Callable[[], Any]) -> dict[str, float]:
    """Return the median seconds of several ways to do one thing, run in turn, once to warm up."""
    import numpy as np

    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(clock(way))
    return {name: round(float(np.median(found)), 5) for name, found in times.items()}


def classifier(options: argparse.Namespace, precision: str = "tf32") -> Any:
    """Return ResNet-50 on the card."""
    from xailib.networks import load_classifier

    return load_classifier("resnet50", options.weights or "random", "cuda", precision=precision)


def photographs(options: argparse.Namespace, count: int) -> list[Any]:
    """Return so many images, decoded; repeated under other names where there are fewer."""
    from dataclasses import replace

    from xailib.images import load_images

    found = list(load_images(str(options.images) if options.images else ["chelsea"]))
    return [replace(found[i % len(found)], id=f"{i:04d}") for i in range(count)]


def eager(net: Any) -> Callable[[Any], Any]:
    """Return the prediction function that most users of lime write."""
    import torch

    def probabilities(pixels: Any) -> Any:
        with torch.no_grad():
            batch = net.preprocessing.normalise(torch.from_numpy(pixels).to(net.device))
            return net.module(batch.contiguous()).softmax(1).cpu().numpy()

    return probabilities


def bare(net: Any, passes: int, batch_size: int = 256, engine: str = "eager") -> Callable[[], None]:
    """Return a function that makes forward passes of that precision and does nothing else."""
    import torch

    batch = torch.rand(batch_size, 3, 224, 224, device="cuda")
    batch = batch.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        net.forward_batches(
            lambda start, stop: batch[: stop - start], passes, batch_size=batch_size, engine=engine
        )

    return run


def lime_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """LIME of one image, 1000 samples: ours by precision, lime by batch, and the bare passes."""
    from lime import lime_image

    from xailib.explain import explain_lime
    from xailib.explain.lime import segmentation

    photo = photographs(options, 1)[0]
    net = classifier(options)
    pixels, target = net.view(photo).pixels, net.predict(photo)[0].index

    def peer(batch_size: int) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            lime_image.LimeImageExplainer(random_state=0).explain_instance(
                pixels,
                eager(net),
                labels=(target,),
                top_labels=None,
                hide_color=0,
                num_samples=SAMPLES,
                batch_size=batch_size,
                segmentation_fn=segmentation("quickshift"),
            )

    ways: dict[str, Callable[[], Any]] = {
        "lime, batches of 10": lambda: peer(10),
        "lime, batches of 256": lambda: peer(256),
    }
    for precision in PRECISIONS:
        own = classifier(options, precision)
        ways[f"ours, {precision}"] = partial(explain_lime, own, photo, target, num_samples=SAMPLES)
        ways[f"bare passes, {precision}"] = bare(own, SAMPLES)
    yield {"row": "LIME, one image", **in_turn(options.repeats, **ways)}


def stream_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """LIME of a stream of images, by precision, against the bare passes of that precision."""
    from xailib.explain import explain_many

    photos = photographs(options, options.stream)
    for precision in PRECISIONS:
        net = classifier(options, precision)

        def ours(net: Any = net) -> None:
            for _ in explain_many(net, photos, ["lime"], num_samples=SAMPLES):
                pass

        for _ in explain_many(net, photos[:10], ["lime"], num_samples=SAMPLES):
            pass  # warm up
        seconds = min(clock(ours) for _ in range(1 if precision == "exact" else 2))
        some = len(photos) * SAMPLES // 4  # passes; a quarter, to save the card's time
        engines = {
            name: round(4 * clock(bare(net, some, 250, name)), 3) for name in ("auto", "eager")
        }
        yield {
            "row": f"LIME, stream of {len(photos)}, {precision}",
            "ours": round(seconds, 3),
            "images_per_second": round(len(photos) / seconds, 2),
            **{f"bare passes, {name}": passes for name, passes in engines.items()},
        }


def precision_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """LIME of a stream of images: what differs from exact."""
    from xailib.explain import explain_many

    photos = photographs(options, options.stream)
    first: list[Any] = []
    for precision in PRECISIONS:
        net = classifier(options, precision)
        found = list(explain_many(net, photos, ["lime"], num_samples=SAMPLES))
        first = first or found
        if precision != "exact":
            row = f"LIME of {len(photos)} images against exact, {precision}"
            yield {"row": row, "network": net.name, **differences(first, found)}


def differences(first: list[Any], other: list[Any]) -> dict[str, float]:
    """Return how far LIME's results differ: weights, as a share of the largest, and top tens."""
    import numpy as np

    from xailib.compare import lime_mask

    pairs = list(zip(first, other, strict=True))
    same = [(a, b) for a, b in pairs if a.target == b.target]
    gaps = [
        float(np.abs(a.superpixels.weights - b.superpixels.weights).max())
        / float(np.abs(a.superpixels.weights).max())
        for a, b in same
    ]
    masks = sum(bool((lime_mask(a, 10) != lime_mask(b, 10)).any()) for a, b in same)
    return {
        "images": len(pairs),
        "other_classes": len(pairs) - len(same),
        "largest_gap": max(gaps),
        "median_gap": float(np.median(gaps)),
        "other_masks": masks,
    }


def cam_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Grad-CAM, AblationCAM and ScoreCAM of one image against grad-cam's own classes."""
    from pytorch_grad_cam.ablation_layer import AblationLayer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from xailib.explain.cam import METHODS, explain_cam

    photo = photographs(options, 1)[0]
    nets = {precision: classifier(options, precision) for precision in PRECISIONS}
    net = nets["tf32"]
    target = net.predict(photo)[0].index
    picture = net.input_tensor(net.view(photo).pixels[None])
    theirs = copy.deepcopy(net.module)  # where grad-cam may leave what it likes

    def peer(method: str, layer: str, batch_size: int) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            extra = {"ablation_layer": AblationLayer()} if method == "ablationcam" else {}
            cam = METHODS[method](theirs, [theirs.get_submodule(layer)], **extra)
            cam.batch_size = batch_size
            cam(picture, [ClassifierOutputTarget(target)])
            cam.activations_and_grads.release()

    for method, layer, sizes in (
        ("gradcam", "layer4", (16,)),
        ("ablationcam", "layer4", (32, 256)),
        ("ablationcam", "layer3", (32, 256)),
        ("scorecam", "layer4", (32, 256)),
    ):
        ways: dict[str, Callable[[], Any]] = {
            f"grad-cam, batches of {size}": partial(peer, method, layer, size) for size in sizes
        }
        for precision, own in nets.items():
            ways[f"ours, {precision}"] = partial(
                explain_cam, own, photo, method, target, layer=layer
            )
        repeats = options.repeats if method != "gradcam" else 4 * options.repeats
        yield {"row": f"{method}, {layer}", **in_turn(repeats, **ways)}


def equal_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare explanations on the card, by precision, with those on the CPU."""
    import numpy as np

    from xailib.explain import explain_cam, explain_lime
    from xailib.networks import load_classifier

    photos = photographs(options, 20)
    cpu = load_classifier("resnet50", options.weights or "random", "cpu")
    few = {"num_samples": 200}
    theirs = [explain_lime(cpu, photo, **few) for photo in photos]
    cams = {
        m: [explain_cam(cpu, photo, m) for photo in photos[:5]] for m in ("gradcam", "ablationcam")
    }
    for precision in PRECISIONS:
        net = classifier(options, precision)
        own = [explain_lime(net, p, t.target, **few) for p, t in zip(photos, theirs, strict=True)]
        pairs = list(zip(own, theirs, strict=True))
        gaps = differences(theirs, own)
        row = {"row": f"equal to the CPU, {precision}", "lime_weights": gaps["largest_gap"]}
        row |= {
            "segments_differ": sum(
                (a.superpixels.segments != b.superpixels.segments).any() for a, b in pairs
            )
        }
        row |= {name: gaps[name] for name in ("other_masks", "images")}
        for method, found in cams.items():
            mine = [
                explain_cam(net, p, method, c.target) for p, c in zip(photos, found, strict=False)
            ]
            row[method] = max(
                float(np.abs(a.raw - b.raw).max() / np.abs(b.raw).max())
                for a, b in zip(mine, found, strict=True)
            )
        yield {key: int(v) if hasattr(v, "dtype") else v for key, v in row.items()}


def wpmi_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """soft-WPMI of the replicated report's shape: resident, with the transfers, a plain loop."""
    import torch

    from xailib.dissect import soft_wpmi
    from xailib.dissect.evidence import product

    images, concepts, units, width, top_k = 63_305, 20_000, 1_768, 512, 100
    draw = torch.Generator("cuda").manual_seed(0)
    embedded = torch.randn(images, width, device="cuda", generator=draw)
    embedded = torch.nn.functional.normalize(embedded, dim=1)
    words = torch.randn(concepts, width, device="cuda", generator=draw)
    words = torch.nn.functional.normalize(words, dim=1)
    activations = torch.randn(images, units, device="cuda", generator=draw)
    host = [part.cpu() for part in (activations, embedded, words)]

    def resident() -> None:
        soft_wpmi(product(embedded, words, "cuda"), activations, top_k=top_k)

    def transferred() -> None:
        soft_wpmi(product(host[1], host[2], "cuda"), host[0], top_k=top_k).cpu()

    yield {
        "row": "soft-WPMI",
        **in_turn(options.repeats, resident=resident, transferred=transferred),
    }


def record_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Record activations from 256 px JPEG files."""
    from xailib.dissect import record_activations
    from xailib.images import load_probe

    files = sorted(options.images.glob("*.jpg")) if options.images else []
    if not files:
        return
    net = classifier(options, "tf32")
    layers = ["layer3", "layer4", "fc"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "images"
        place.mkdir()
        for number in range(12_000):  # beside which 1 s for starting processes is little
            (place / f"{number:05d}.jpg").symlink_to(files[number % len(files)].resolve())
        started = time.perf_counter()
        probe = load_probe(str(place))
        listed = time.perf_counter() - started
        record_activations(net, layers, probe.part(0, 512), folder=Path(folder) / "warm")
        seconds = clock(
            lambda: record_activations(net, layers, probe, folder=Path(folder) / "kept")
        )
        yield {
            "row": "recording activations",
            "images": len(probe),
            "listing": round(listed, 2),
            "seconds": round(seconds, 2),
            "images_per_second": round(len(probe) / seconds),
        }


def notebook_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run the notebooks on LIME, CAMs and faithfulness over ten images, imports included."""
    files = [str(file.resolve()) for file in sorted(options.images.glob("*.jpg"))[:10]]
    runs: dict[str, str] = {}
    tasks = ("2_lime", "3_cam", "5_faithfulness")
    with tempfile.TemporaryDirectory() as folder:
        for precision, task in product(("exact", "tf32"), tasks):
            runs[task] = str(Path(folder) / precision / task)
            given = {"images": files, "model": "resnet50", "device": "cuda", "out_dir": runs[task]}
            given["precision"] = precision
            given["weights"] = str(options.weights.resolve()) if options.weights else "random"
            if task == "5_faithfulness":
                given |= {"lime_run": runs["2_lime"], "cam_run": runs["3_cam"]}
            script = Path(folder) / f"{task}.py"
            script.write_text(_with_values((ROOT / f"notebooks/{task}.py").read_text(), given))
            started = time.perf_counter()
            done = subprocess.run(  # noqa: S603  our own script
                [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, check=False
            )
            row: dict[str, Any] = {
                "row": f"notebook {task}, 10 images, {precision}",
                "seconds": round(time.perf_counter() - started, 1),
            }
            if done.returncode:
                row["failed"] = done.stderr.strip().splitlines()[-1:]
            yield row


def _with_values(source: str, values: dict[str, Any]) -> str:
    """Return a notebook's source with values in place of the check of its parameters."""
    check = re.compile(
        r"from xailib\.report\.params.*?check_notebook\(.*?globals\(\)\)\n", re.DOTALL
    )
    lines = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    found, count = check.subn(lambda _: lines, source)
    if count != 1:
        raise SystemExit("gpu: the notebook's check of its parameters was not found")
    return found


GROUPS: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "lime": lime_rows,
    "stream": stream_rows,
    "precision": precision_rows,
    "cam": cam_rows,
    "wpmi": wpmi_rows,
    "record": record_rows,
    "equal": equal_rows,
    "notebooks": notebook_rows,
}


# A bundle for a machine without network -------------------------------------------------------


def bundle(options: argparse.Namespace) -> None:
    """Pack the project, the packages of `PACKAGES`, weights and images into one folder."""
    folder = options.bundle
    folder.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file() and name != "requirements.lock":
            _copy(ROOT / name, folder / "project" / name)
    for name in PACKAGES:
        found = distribution(name)
        for file in found.files or ():
            place = Path(str(file))
            if ".." in place.parts or place.suffix in (".pyc", ".so") or "tests" in place.parts:
                continue
            _copy(Path(str(found.locate_file(file))), folder / "site" / place)
    if options.weights:
        _copy(options.weights, folder / "weights.pth")
    for file in sorted(options.images.glob("*.jpg"))[: options.stream] if options.images else ():
        _copy(file, folder / "images" / file.name)
    (folder / "run.sh").write_text(RUN)
    (folder / "commit").write_text(_commit())
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > LIMIT:
        raise SystemExit(f"gpu: the bundle has {size / 2**20:.0f} MiB; at most 64 are meant")
    print(f"{folder}: {size / 2**20:.0f} MiB. There: bash {folder.name}/run.sh")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


RUN = """#!/usr/bin/env bash
# Packages that the machine has are its own; the bundle gives those that it lacks.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python3 - "$here" <<'EOF'
import importlib.util, pathlib, sys
here = pathlib.Path(sys.argv[1])
(here / "path").mkdir(exist_ok=True)
for item in (here / "site").iterdir():
    link = here / "path" / item.name
    lacking = item.suffix == ".dist-info" or not importlib.util.find_spec(item.stem)
    if lacking and not link.is_symlink():
        link.symlink_to(item)
EOF
export PYTHONPATH="$here/project:$here/path" MPLBACKEND=agg
cd "$here/project"
weights=(); [ -f "$here/weights.pth" ] && weights=(--weights "$here/weights.pth")
python3 benchmarks/gpu.py "${weights[@]}" --images "$here/images" "$@"
"""


if __name__ == "__main__":
    main()
