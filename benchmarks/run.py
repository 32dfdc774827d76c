"""Ours against lime and grad-cam, side by side: ``python benchmarks/run.py [--quick]``.

Writes to results/benchmarks: ratios.csv (one row a comparison), growth.csv (how the cost grows)
and machine.json (where that was measured). Times are seconds; what counts are the ratios.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from cases import Case, cases, networks, record
from measure import Times, best_pass, in_turn, machine
from skimage.segmentation import slic

from xailib import forward
from xailib.explain.cam import explain_cam
from xailib.explain.lime import LimeImageExplainer, explain_lime
from xailib.files import atomic
from xailib.images import Photograph, load_images
from xailib.layers import evaluation
from xailib.models import Classifier

FOLDER = Path(__file__).parents[1] / "results/benchmarks"


def main() -> None:
    """Run what the arguments ask for, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one run each, 200 samples of LIME")
    parser.add_argument("--repeats", type=int, help="runs each (default 5, quick 1)")
    parser.add_argument("--samples", type=int, help="LIME's samples (default 1000, quick 200)")
    parser.add_argument("--network", action="append", choices=networks(), help="only this one")
    parser.add_argument("--only", default="", help="only comparisons whose name contains this")
    parser.add_argument("--no-growth", action="store_true", help="leave out how the cost grows")
    parser.add_argument("--image", default="chelsea", help="a packaged photograph, or a file")
    parser.add_argument("--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    repeats = options.repeats or (1 if options.quick else 5)
    samples = options.samples or (200 if options.quick else 1000)
    described = {**machine(), "repeats": repeats, "image": options.image}
    write(options.output / "machine.json", json.dumps(described, indent=1))
    photo = load_images(options.image)[0]
    rows = []
    for name, load in networks().items():
        if options.network and name not in options.network:
            continue
        net = load()
        for case in cases(net, photo, samples):
            if options.only.lower() in case.name.lower():
                rows.append(compare(case, repeats))
                write(options.output / "ratios.csv", pd.DataFrame(rows).to_csv(index=False))
    if not options.no_growth:
        net = networks()["tf_efficientnet_lite0"]()
        table = pd.DataFrame(growth(net, photo, quick=options.quick))
        write(options.output / "growth.csv", table.to_csv(index=False))
        print(table.to_string(index=False))


def compare(case: Case, repeats: int) -> dict[str, object]:
    """Return one row: times, ratios, memory, largest difference."""
    first = Times()
    first.run(case.ours)  # with the set-up of its engine
    times = in_turn({"ours": case.ours, "peer": case.peer}, repeats)
    ours, peer = times["ours"], times["peer"]
    engine, limit, busy = bare_limit(case)
    row: dict[str, object] = {
        "network": case.network,
        "comparison": case.name,
        "ratio_to_peer": peer.median / ours.median,
        "ratio_to_peer_min": min(peer.seconds) / max(ours.seconds),
        "ratio_to_peer_max": max(peer.seconds) / min(ours.seconds),
        "ratio_to_limit": ours.median / limit,
        "processor_ratio_to_peer": float(np.median(peer.processor) / np.median(ours.processor)),
        "processor_ratio_to_limit": float(np.median(ours.processor)) / busy,
        "engine": engine,
        "largest_difference": float(np.abs(ours.result - peer.result).max()),
        "ours_seconds": ours.median,
        "ours_min": min(ours.seconds),
        "ours_max": max(ours.seconds),
        "ours_first_seconds": first.seconds[0],
        "peer_seconds": peer.median,
        "peer_min": min(peer.seconds),
        "peer_max": max(peer.seconds),
        "limit_seconds": limit,
        "passes": case.passes,
        "ours_peak_mb": ours.peak,
        "peer_peak_mb": peer.peak,
        "runs": repeats,
    }
    print(
        f"{case.network:22} {case.name:34} {row['ratio_to_peer']:7.2f}x the peer's speed, "
        f"{row['ratio_to_limit']:5.2f} of the limit ({engine}), "
        f"by processor time {row['processor_ratio_to_peer']:.2f}x and "
        f"{row['processor_ratio_to_limit']:.2f}, "
        f"memory {ours.peak:.0f} to {peer.peak:.0f} MB, "
        f"difference {row['largest_difference']:.1g}; "
        f"{ours.median:.2f} s to {peer.median:.2f} s, first time {first.seconds[0]:.2f} s",
        flush=True,
    )
    return row


def bare_limit(case: Case) -> tuple[str, float, float]:
    """Return the fastest exact engine, and the wall and processor time of the passes alone."""
    module, batch = case.bare()
    few = case.passes <= 2  # single passes in eager mode, as they are made
    with evaluation(module):
        count = 1 if few else case.passes
        chosen = forward.choose(module, lambda start, stop: batch[start:stop], count)
        wall, busy = best_pass(chosen.run, batch[:1] if few else batch)
    return chosen.name, case.passes * wall, case.passes * busy


def growth(net: Classifier, photo: Photograph, *, quick: bool) -> Iterator[dict[str, object]]:
    """Yield our time and memory as samples, superpixels, channels, pixels and batches grow."""

    def row(what: str, value: int, method: str, function) -> dict[str, object]:
        times = in_turn({"ours": function}, 1 if quick else 3)["ours"]
        return {
            "grows": what,
            "value": value,
            "method": method,
            "seconds": times.median,
            "peak_mb": times.peak,
        }

    explain_lime(net, photo, num_samples=200)  # sets the engine up
    for samples in (100, 250, 500) if quick else (100, 250, 500, 1000, 2000, 4000):
        yield row(
            "samples", samples, "lime", lambda n=samples: explain_lime(net, photo, num_samples=n)
        )
    pixels = net.view(photo).pixels
    for count in (10, 50, 200):
        segments = slic(pixels, n_segments=count, compactness=10, start_label=0)

        def several(segments: np.ndarray = segments) -> object:
            explainer = LimeImageExplainer(random_state=0)
            return explainer.explain_instance(
                pixels,
                net,
                hide_color=0,
                top_labels=1,
                num_samples=300,
                segmentation_fn=lambda _image: segments,
            )

        yield row("superpixels", int(segments.max()) + 1, "lime, 300 samples", several)
    for layer in ("blocks.2", "blocks.4", "blocks.6", net.cam_layer or ""):
        for method in ("scorecam", "ablationcam"):
            found = explain_cam(net, photo, method, layer=layer)
            channels = record(net, photo, layer).output.shape[1]
            yield row(
                "channels",
                channels,
                f"{method}, {found.parameters.get('passes', 'whole network')}",
                lambda m=method, name=layer: explain_cam(net, photo, m, layer=name),
            )
    for side in (160, 224) if quick else (160, 224, 320):
        larger = resized(net, side)
        explain_lime(larger, photo, num_samples=200)
        yield row(
            "image side",
            side,
            "lime, 300 samples",
            lambda n=larger: explain_lime(n, photo, num_samples=300),
        )


def resized(net: Classifier, side: int) -> Classifier:
    """Return the classifier with another input size."""
    return replace(net, preprocessing=replace(net.preprocessing, size=(side, side), resize=side))


def write(path: Path, text: str) -> None:
    """Write a file, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write(text.encode())


if __name__ == "__main__":
    main()
