"""Ours against lime and grad-cam, side by side, for the site's page on performance.

    python benchmarks/run.py                                   all of it
    python benchmarks/run.py --network resnet50 --only ablation_layer4,ablation_layer3
    python benchmarks/run.py --only growth                     how our cost grows
    python benchmarks/run.py --quick                           one run each, kept elsewhere

Each comparison is kept as soon as it is there, in the place of its last figures. Times are
seconds; what counts are the ratios. Nothing else should run on the machine meanwhile: how busy it
was is kept with each row, and the page says so.
"""

import argparse
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from cases import Case, cases, networks
from growth import growth
from growth_figure import draw
from measure import Elsewhere, Passes, Times, machine
from store import FOLDER, merge

from xailib.images.load import load_images
from xailib.networks import forward
from xailib.networks.classifier import Classifier
from xailib.networks.engines import cache_of
from xailib.networks.layers import evaluation

QUICK = FOLDER.parents[2] / "results/benchmarks"


def main() -> None:
    """Run what the arguments ask for, and keep the figures."""
    options = parsed(sys.argv[1:])
    photo = load_images(options.image)[0]
    run = {**machine(), "image": photo.id}
    for network, load in networks().items():
        wanted = [key for key in cases(network, options.samples) if chosen(options, network, key)]
        net = load() if wanted else None
        for key in wanted:
            case = cases(network, options.samples)[key](net, photo)
            merge(options.output, "ratios", [compare(net, case, options.repeats)], run)
    if chosen(options, "", "growth"):
        rows = growth(photo, min(options.repeats, 3), quick=options.quick)
        for _, group in groupby(rows, key=itemgetter("grows")):
            merge(options.output, "growth", list(group), run)
            draw(options.output)


def parsed(words: list[str]) -> argparse.Namespace:
    """Return the options; an unknown comparison ends the program before any work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = dict.fromkeys([key for network in networks() for key in cases(network, 0)])
    parser.add_argument("--quick", action="store_true", help="one run each, 200 samples of LIME")
    parser.add_argument("--repeats", type=int, help="runs each (default 5, quick 1)")
    parser.add_argument("--samples", type=int, help="LIME's samples (default 1000, quick 200)")
    parser.add_argument("--network", action="append", choices=networks(), help="only this one")
    parser.add_argument("--only", help=f"comma-separated: growth, {', '.join(known)}")
    parser.add_argument("--image", default="chelsea", help="a packaged photograph, or a file")
    parser.add_argument("--output", type=Path, help="default: where the site reads; quick: results")
    options = parser.parse_args(words)
    options.only = options.only.split(",") if options.only else []
    if strange := set(options.only) - {*known, "growth"}:
        parser.error(f"--only: unknown: {', '.join(sorted(strange))}")
    options.repeats = options.repeats or (1 if options.quick else 5)
    options.samples = options.samples or (200 if options.quick else 1000)
    options.output = options.output or (QUICK if options.quick else FOLDER)
    return options


def chosen(options: argparse.Namespace, network: str, key: str) -> bool:
    """Tell whether the options ask for a comparison."""
    if options.network and network not in options.network and key != "growth":
        return False
    if key == "growth" and options.network and not options.only:
        return False
    return not options.only or key in options.only


def compare(net: Classifier, case: Case, repeats: int) -> dict[str, object]:
    """Return one row: ratios, times, memory, largest difference."""
    cache_of(net.module).clear()
    elsewhere = Elsewhere()
    first, ours, peer = Times(), Times(), Times()
    first.run(case.ours)  # with the set-up of its engine
    engine, passes = bare_passes(case)
    for _ in range(repeats):  # in turn, so that a busy machine slows all of them alike
        ours.run(case.ours)
        peer.run(case.peer)
        with evaluation(net.module):
            passes.some()
    limit, busy = (case.passes * min(times) for times in (passes.seconds, passes.processor))
    row: dict[str, object] = {
        "network": net.name,
        "weights": net.weights,
        "key": case.key,
        "comparison": case.name,
        "peer": case.peers_name,
        "ratio_to_peer": peer.median / ours.median,
        "ratio_to_peer_min": min(peer.seconds) / max(ours.seconds),
        "ratio_to_peer_max": max(peer.seconds) / min(ours.seconds),
        "ratio_to_limit": ours.median / limit,
        "ratio_to_limit_min": min(ours.seconds) / limit,
        "ratio_to_limit_max": max(ours.seconds) / limit,
        "ratio_to_usual_pass": ours.median / (case.passes * float(np.median(passes.seconds))),
        "processor_ratio_to_peer": float(np.median(peer.processor) / np.median(ours.processor)),
        "processor_ratio_to_limit": float(np.median(ours.processor)) / busy,
        "largest_difference": float(np.abs(ours.result - peer.result).max()),
        "memory_to_peer": ours.peak / peer.peak,
        "ours_peak_mb": ours.peak,
        "peer_peak_mb": peer.peak,
        "ours_seconds": ours.median,
        "peer_seconds": peer.median,
        "ours_first_seconds": first.seconds[0],
        "passes": case.passes,
        "engine": engine,
        "repeats": repeats,
        "cores_used_elsewhere": elsewhere.cores(),
    }
    said = {name: f"{value:.4g}" for name, value in row.items() if isinstance(value, float)}
    print(net.name, case.name, "against", case.peers_name, said, flush=True)
    return row


def bare_passes(case: Case) -> tuple[str, Passes]:
    """Return the fastest exact engine's name, and the passes that the result needs at least."""
    module, batch = case.bare()
    few = case.passes <= 2  # single passes in eager mode, as they are made
    with evaluation(module):
        count = 1 if few else case.passes
        work = forward.Work(module, lambda a, b: batch[a:b], count, len(batch), (module, ""))
        engine = forward.choose(work, "auto")
    return engine.name, Passes(engine.run, batch[:1] if few else batch)


if __name__ == "__main__":
    main()
