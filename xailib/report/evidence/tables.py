"""Tables of the evidence run: a row a network, photograph, method and measure; no photographs.

They are made of the files that the jobs have left; `xailib.report.evidence.kept` stores and reads
them.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xailib.compare.iou import lime_cam_agreement
from xailib.compare.localisation import load_boxes, localisation
from xailib.compare.pairs import OPPOSES, SUPPORTS, maps_of, pair_table
from xailib.evaluate.sanity import rank_correlation
from xailib.explain.explanation import Explanation, Superpixels
from xailib.explain.lime_engine import fit_as_lime
from xailib.images.frames import Frame
from xailib.report.evidence.jobs import CAMS, PARTS, RANDOM_SAMPLES, Evidence, KeptJob
from xailib.report.evidence.scoring import PERCENTILES, STEPS, Stored, read, read_text, scores_file
from xailib.report.replication.findings import variation

_DRAWS = 200  # of shuffled superpixels, which no verdict uses
# Drawn by us, by eye and before any map was seen, on the first 48 photographs but the four whose
# class is a place.
_BOXES = Path(__file__).with_name("boxes.csv")


def explanations(stored: Stored, job: KeptJob, methods: Iterable[str]) -> Iterator[Explanation]:
    """Yield what was stored of the likeliest class as explanations."""
    text = stored.text
    frame = Frame(**{name: tuple(value) for name, value in text["frame"].items()})
    for method in methods:
        parts = None
        if method == "lime":
            arrays = stored.arrays
            parts = Superpixels(
                arrays["lime_segments"].astype(int),
                arrays["lime_weights"][0],
                float(arrays["lime_intercepts"][0]),
                float(arrays["lime_fits"][0]),
            )
        saliency = stored.saliency(method)
        yield Explanation(
            method=method,
            image=job.photograph,
            image_sha256=text["image_sha256"],
            classifier=text["classifier"],
            target=text["targets"][0],
            target_name=text["names"][0],
            probability=text["probabilities"][0],
            frame=frame,
            saliency=saliency,
            raw=saliency,
            signed=method == "lime",
            superpixels=parts,
        )


def collect(evidence: Evidence, results: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of all that has been made and scored.

    ``values``: network, image, method, measure, value. ``pairs``: network, image, other, method,
    spearman, of the maps of two photographs. ``photographs``: image, sha256, place.
    """
    made = [job for job in evidence.jobs() if job.file(results).exists()]
    values, pairs = [], []
    hashes: dict[str, str] = {}
    for network in evidence.networks:
        own = [job for job in made if job.network == network]
        stored = {(job.part, job.photograph): read(job, results) for job in own}
        rows = [*_scores(own, results), *_of_maps(own, stored), *_agreement(own, stored)]
        rows += _randomised(stored)
        values.append(pd.DataFrame(rows, columns=["image", "method", "measure", "value"]))
        values[-1].insert(0, "network", network)
        pairs.append(_pairs(network, stored))
        hashes |= {image: one.text["image_sha256"] for (_, image), one in stored.items()}
    places = {name: place for place, name in enumerate(evidence.photographs)}
    photographs = pd.DataFrame(
        [(name, sha, places[name]) for name, sha in hashes.items()],
        columns=["image", "sha256", "place"],
    )
    return {
        "values": pd.concat(values, ignore_index=True),
        "pairs": pd.concat(pairs, ignore_index=True),
        "photographs": photographs.sort_values("place", ignore_index=True),
    }


def manifest_of(evidence: Evidence, results: Path, tables: Mapping[str, pd.DataFrame]) -> dict:
    """Return what made the tables: networks, code, packages, threads, and counts of photographs."""
    made = [job for job in evidence.jobs() if job.file(results).exists()]
    texts = [read_text(job, results) for job in made]
    scored = [scores_file(job, results) for job in made]
    scores = [json.loads(file.read_text()) for file in scored if file.exists()]
    counts = tables["values"].groupby(["network", "method"])["image"].nunique()
    return {
        "computed": datetime.now(UTC).date().isoformat(),
        "photographs": "EliSchwartz/imagenet-sample-images, short side 256, in the order of `seed`",
        "seed": evidence.seed,
        "num_samples": evidence.num_samples,
        "steps": STEPS,
        "road_percentiles": list(PERCENTILES),
        "networks": {text["network"]: text["classifier"] for text in texts},
        "counts": {
            str(network): {str(k): int(n) for k, n in part.droplevel(0).items()}
            for network, part in counts.groupby(level=0)
        },
        "explained_by": _distinct(texts),
        "scored_by": _distinct(scores),
    }


def _distinct(texts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what several files say of how they were made, each way once, and how many it made."""
    names = ("commit", "source", "threads", "environment")
    said = ({"device": t.get("device", "cpu")} | {name: t[name] for name in names} for t in texts)
    ways = Counter(map(json.dumps, said))
    return [{**json.loads(way), "files": count} for way, count in ways.items()]


def compare(kept: Mapping[str, pd.DataFrame], again: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return, for each network and measure, how far a run differs from the kept one.

    Columns: network, measure, rows (that both have), largest (absolute difference), only_kept
    and only_again (rows that one of them has).
    """
    keys = ["network", "image", "method", "measure"]
    both = kept["values"].merge(again["values"], on=keys, how="outer", suffixes=("", "_again"))
    both["gap"] = (both["value"] - both["value_again"]).abs()
    both["only_kept"] = both["value_again"].isna() & both["value"].notna()
    both["only_again"] = both["value"].isna() & both["value_again"].notna()
    found = both.groupby(["network", "measure"], sort=False)
    gaps = found["gap"].agg(["count", "max"]).set_axis(["rows", "largest"], axis=1)
    return gaps.join(found[["only_kept", "only_again"]].sum()).reset_index()


Row = tuple[str, str, str, float]
Parts = Mapping[tuple[str, str], Stored]


def _scores(jobs: Iterable[KeptJob], results: Path) -> Iterator[Row]:
    for job in jobs:
        file = scores_file(job, results)
        if file.exists():
            for method, measure, value in json.loads(file.read_text())["rows"]:
                yield job.photograph, method, measure, value


def _of_maps(jobs: Iterable[KeptJob], stored: Parts) -> Iterator[Row]:
    """Yield what heatmaps and linear models are like, without any pass."""
    for job in jobs:
        one = stored[job.part, job.photograph]
        for method in {"maps": CAMS, "scorecam": ("scorecam",)}.get(job.part, ()):
            saliency = one.saliency(method)
            yield job.photograph, method, "step", variation(saliency)
            yield job.photograph, method, "above_half", float((saliency > 0.5).mean())
        if job.part == "maps":
            yield job.photograph, "lime", "fit", float(one.arrays["lime_fits"][0])
            yield job.photograph, "lime", "superpixels", float(one.arrays["lime_weights"].shape[1])
            yield job.photograph, "target", "probability", float(one.text["probabilities"][0])


def _agreement(jobs: Iterable[KeptJob], stored: Parts) -> Iterator[Row]:
    """Yield LIME's IoU with heatmaps at equal area and its baselines, and masks' share in boxes."""
    limes, cams, maps = [], [], []
    for job in jobs:
        if job.part != "maps":
            continue
        own = list(explanations(stored["maps", job.photograph], job, ("lime", "gradcam")))
        if ("scorecam", job.photograph) in stored:
            more = stored["scorecam", job.photograph]
            own += explanations(more, job, ("scorecam",))
        limes.append(own[0])
        cams += own[1:]
        maps += maps_of(own[:2])
    if not limes:
        return
    for row in lime_cam_agreement(limes, cams).itertuples():
        measure = {"LIME 1": "iou", "LIME 2": "iou2"}[str(row.lime)]
        yield str(row.image), str(row.cam), measure, float(row.iou)  # type: ignore[arg-type]
    maps = [one for one in maps if one.name != OPPOSES]
    for row in localisation(maps, load_boxes(_BOXES)).itertuples():
        method = "lime" if row.map == SUPPORTS else str(row.map)
        yield str(row.image), method, "inside", float(row.precision)  # type: ignore[arg-type]
    wanted = pair_table(maps, draws=_DRAWS)
    for row in wanted[wanted["a"] == SUPPORTS].itertuples():
        for measure in ("chance", "others", "spearman"):
            yield str(row.image), str(row.b), f"iou_{measure}", float(getattr(row, measure))


def _randomised(stored: Parts) -> Iterator[Row]:
    """Yield how alike maps of the trained network and of one with random weights are, by ranks."""
    for (part, image), one in stored.items():
        if part != "random":
            continue
        for method in PARTS["random"]:
            whose = stored.get(("scorecam" if method == "scorecam" else "maps", image))
            if whose is not None and _holds(whose, method):
                trained = _few(whose) if method == "lime" else whose.saliency(method)
                found = rank_correlation(trained, one.saliency(method))
                yield image, method, "random_spearman", found
    for (part, image), one in stored.items():
        for method in () if part == "random" else PARTS[part]:
            if not _holds(one, method):
                continue
            for place, name in ((1, "second"), (2, "least")):
                found = rank_correlation(one.saliency(method), one.saliency(method, place))
                yield image, method, f"{name}_spearman", found


def _holds(one: Stored, method: str) -> bool:
    """Return whether a map is there: guided's, nine tenths of a file, may go once it is scored."""
    return method != "guided" or method in one.arrays


def _few(one: Stored) -> np.ndarray:
    """Return LIME's map by its first samples, as many as random networks get."""
    count = one.arrays["lime_weights"].shape[1]
    shown = np.unpackbits(one.arrays["lime_shown"], axis=1, count=count)[:RANDOM_SAMPLES]
    scores = one.arrays["lime_scores"][0, :RANDOM_SAMPLES, None]
    weights, _, _ = fit_as_lime(shown.astype(int), scores, np.random.RandomState(0))[0]
    return weights[one.arrays["lime_segments"]]


def _pairs(network: str, stored: Parts) -> pd.DataFrame:
    """Return how alike the maps of different photographs are, of those with random networks."""
    images = [image for part, image in stored if part == "random"]
    rows = []
    for method in PARTS["random"]:
        part = "scorecam" if method == "scorecam" else "maps"
        some = {image: stored[part, image] for image in images if (part, image) in stored}
        maps = {
            image: _few(one) if method == "lime" else one.saliency(method)
            for image, one in some.items()
            if _holds(one, method)
        }
        rows += [
            (network, a, b, method, rank_correlation(maps[a], maps[b]))
            for a, b in combinations(maps, 2)
        ]
    return pd.DataFrame(rows, columns=["network", "image", "other", "method", "spearman"])
