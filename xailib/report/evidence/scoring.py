"""Scores of the stored explanations: a file for each network and photograph.

What was explained is read, not made again, so that metrics may change, and explanations be added
while others are scored.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from xailib.evaluate.metrics import score
from xailib.evaluate.perturbation import centred_blob, random_field
from xailib.evaluate.randomisation import explain_targets
from xailib.explain.cam.methods import saliency_of
from xailib.explain.explanation import scaled
from xailib.files import write_atomic
from xailib.report.evidence.jobs import CAMS, KeptJob, Worker, device_name
from xailib.versions import source_hash

log = logging.getLogger(__name__)

STEPS = 16  # of each curve: half as many as on the page of the ten photographs
PERCENTILES = (70, 90)  # ROAD's, as there
MEASURES = (
    "deletion",
    "insertion",
    "flipping",
    "road",
    "single_deletion",
    "average_drop",
    "confidence_increase",
)
# What is scored of a part; LIME 2 ranks by absolute weight, as the replicated report's mask does.
SCORED = {"maps": ("lime", "lime2", *CAMS, "guided"), "scorecam": ("scorecam",)}

Map = Float32[np.ndarray, "height width"]


@dataclass(frozen=True)
class Stored:
    """What a job has left: its arrays, and what it says of itself."""

    arrays: Mapping[str, np.ndarray]
    text: Mapping[str, Any]

    def saliency(self, method: str, target: int = 0) -> Map:
        """Return a method's map for the likeliest (0), second (1) or least likely class (2)."""
        if method in ("lime", "lime2"):
            weights = self.arrays["lime_weights"][target]
            raw = weights[self.arrays["lime_segments"]].astype(np.float32)
            return scaled(raw if method == "lime" else np.abs(raw), signed=True)
        raw = self.arrays[method][target].astype(np.float32)
        return raw if method == "guided" else saliency_of(raw, self.size)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the network saw."""
        *_, height, width = self.text["frame"]["crop"]
        return height, width


def read(job: KeptJob, folder: Path) -> Stored:
    """Read what a job has left."""
    with np.load(job.file(folder), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "description"}
        return Stored(arrays, json.loads(str(file["description"])))


def read_text(job: KeptJob, folder: Path) -> dict[str, Any]:
    """Read what a job has said of itself, without its maps."""
    with np.load(job.file(folder), allow_pickle=False) as file:
        return dict(json.loads(str(file["description"])))


def scores_file(job: KeptJob, folder: Path) -> Path:
    """Return where the scores of a job's maps are."""
    return folder / job.network / f"scores-{job.part}" / f"{job.photograph}.json"


def score_stored(worker: Worker) -> int:
    """Score all maps that are stored and not scored yet; return how many photographs."""
    made_by = {**worker.made_by, "source": source_hash(["xailib.evaluate"])}
    done = 0
    for job in worker.evidence.jobs():
        there = job.part in SCORED and job.file(worker.folder).exists()
        if not there or scores_file(job, worker.folder).exists():
            continue
        started = time.perf_counter()
        classifier = worker.classifier(job.network)
        photograph = worker.evidence.photograph(job.photograph)
        stored = read(job, worker.folder)
        maps = {method: stored.saliency(method) for method in SCORED[job.part]}
        target = stored.text["targets"][0]
        if job.part == "maps":  # beside those that see no network
            size, place = stored.size, (worker.evidence.seed, 0, int(photograph.sha256[:8], 16))
            maps |= {"random": random_field(size, place), "centre": centred_blob(size)}
            maps["edges"] = explain_targets(classifier, photograph, "edges", [target])[0].saliency
        found = score(
            classifier,
            photograph,
            maps,
            target,
            measures=MEASURES,
            steps=STEPS,
            percentiles=PERCENTILES,
            seed=worker.evidence.seed,
        )
        seconds = time.perf_counter() - started
        text = {
            **vars(job),
            "image_sha256": photograph.sha256,
            "classifier": classifier.id,
            "device": device_name(classifier),
            "seconds": round(seconds, 3),
            **made_by,
            "rows": found[["method", "measure", "value"]].to_numpy().tolist(),
        }
        write_atomic(scores_file(job, worker.folder), json.dumps(text))
        log.info("%s scores-%s %s %.1f s", job.network, job.part, job.photograph, seconds)
        done += 1
    return done
