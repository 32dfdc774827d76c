"""The jobs of the evidence run: one is one network, one photograph and one part; a file each.

A job whose file is there is not repeated, so that the run may be stopped at any time. Networks
take turns: whenever it stops, each has its share of the photographs.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from xailib.errors import InputError, XailibError
from xailib.evaluate.randomisation import cascade, explain_targets
from xailib.explain.explanation import Explanation
from xailib.files import atomic, write_atomic
from xailib.images.load import Photograph, load_images
from xailib.networks.classifier import Classifier, load_classifier
from xailib.versions import environment, git_commit, source_hash

log = logging.getLogger(__name__)

CAMS = ("gradcam", "gradcam++", "layercam", "ablationcam")  # cheap at the last layer
RANDOM_SAMPLES = 200  # of LIME on random networks, and of what it is compared with
STAGES = 5  # in which networks are randomised, as on the sanity page
# The parts of the run, and the methods of each.
PARTS = {
    "maps": ("lime", *CAMS, "guided"),
    "scorecam": ("scorecam",),
    "random": ("lime", "gradcam", "ablationcam", "scorecam", "guided"),
}


@dataclass(frozen=True)
class KeptJob:
    """One network, one photograph, and one of `PARTS`."""

    network: str
    photograph: str
    part: str

    def file(self, folder: Path) -> Path:
        """Return where its result is."""
        return folder / self.network / self.part / f"{self.photograph}.npz"


@dataclass(frozen=True)
class Evidence:
    """What the evidence run consists of; see ``params/evidence.yaml``."""

    seed: int  #: of the photographs' order and of all that is random
    num_samples: int  #: of LIME
    #: by a network's name, how many photographs, and how many a turn, for each of `PARTS`
    networks: Mapping[str, Mapping[str, Sequence[int]]]
    photographs: Mapping[str, Path]  #: by name, in the order in which they are explained
    weights: Mapping[str, str]  #: by a network's name; those left out have published ones

    def jobs(self) -> Iterator[KeptJob]:
        """Yield all jobs, the networks in turn."""
        names = list(self.photographs)
        turn, done = 0, False
        while not done:
            done = True
            for network, parts in self.networks.items():
                for part, (count, step) in parts.items():
                    chosen = names[:count][turn * step : (turn + 1) * step]
                    done &= not chosen
                    yield from (KeptJob(network, name, part) for name in chosen)
            turn += 1

    def photograph(self, name: str) -> Photograph:
        """Read a photograph."""
        return load_images(self.photographs[name])[0]


def load_evidence(file: Path, folder: Path, weights: Mapping[str, str]) -> Evidence:
    """Read what the evidence run consists of: ``params/evidence.yaml``, and its photographs.

    `InputError` is raised if their folder holds fewer than are wanted.
    """
    found = yaml.safe_load(file.read_text())
    paths = sorted(folder.glob("*.jpg")) + sorted(folder.glob("*.JPEG"))
    wanted = max(count for parts in found["networks"].values() for count, _ in parts.values())
    if len(paths) < wanted:
        raise InputError(
            f"photographs: {len(paths)} in {str(folder)!r}, and {wanted} are wanted; "
            "give the folder of the sample photographs"
        )
    order = np.random.default_rng(found["seed"]).permutation(len(paths))
    photographs = {paths[place].stem: paths[place] for place in order}
    return Evidence(found["seed"], found["num_samples"], found["networks"], photographs, weights)


class Worker:
    """Makes jobs, one after the other; networks are loaded once."""

    def __init__(self, evidence: Evidence, folder: Path, device: str = "auto") -> None:
        self.evidence = evidence
        self.folder = folder
        self.device = device
        self.loaded: dict[str, Classifier] = {}
        self.randomised: dict[str, Classifier] = {}
        self.made_by = {
            "commit": git_commit(),
            "source": source_hash(["xailib.explain", "xailib.report.evidence"]),
            "threads": torch.get_num_threads(),
            "environment": environment(["xailib.explain"]),
        }

    def run(self) -> list[dict[str, str]]:
        """Make all jobs that are not there, and return the failures."""
        failures = []
        for job in self.evidence.jobs():
            file = job.file(self.folder)
            if file.exists():
                continue
            started = time.perf_counter()
            try:
                arrays, text = self.make(job)
            except XailibError as error:
                failures.append({**vars(job), "reason": str(error)})
                write_atomic(self.folder / "failures.json", json.dumps(failures, indent=1))
                log.warning("%s %s %s: %s", job.network, job.part, job.photograph, error)
                continue
            seconds = time.perf_counter() - started
            text |= {**vars(job), "seconds": round(seconds, 3), **self.made_by}
            with atomic(file) as opened:
                np.savez_compressed(opened, **arrays, description=np.array(json.dumps(text)))  # type: ignore[arg-type]
            log.info("%s %s %s %.1f s", job.network, job.part, job.photograph, seconds)
        return failures

    def classifier(self, network: str) -> Classifier:
        """Return a network with its published weights."""
        if network not in self.loaded:
            weights = self.evidence.weights.get(network)
            self.loaded[network] = load_classifier(network, weights, self.device)
        return self.loaded[network]

    def forgotten(self, network: str) -> Classifier:
        """Return the network with all its weights drawn at random."""
        if network not in self.randomised:
            count, _ = self.evidence.networks[network]["random"]
            checked = map(self.evidence.photograph, list(self.evidence.photographs)[:count])
            made = list(cascade(self.classifier(network), checked, STAGES, self.evidence.seed))
            self.randomised[network] = made[-1][1]
        return self.randomised[network]

    def make(self, job: KeptJob) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return a job's arrays and its description."""
        classifier = self.classifier(job.network)
        photograph = self.evidence.photograph(job.photograph)
        ranked = classifier.predict(photograph, len(classifier.class_names))
        chosen = [ranked[place] for place in (0, 1, -1)]
        targets, samples = [one.index for one in chosen], self.evidence.num_samples
        text: dict[str, Any] = {
            "classifier": classifier.id,
            "device": device_name(classifier),
            "image_sha256": photograph.sha256,
            "targets": targets,
            "names": [one.name for one in chosen],
            "probabilities": [one.probability for one in chosen],
            "methods": {},
        }
        if job.part == "random":
            # The trained network's LIME of as many samples is the beginning of the stored one.
            samples, targets = RANDOM_SAMPLES, targets[:1]
            classifier = self.forgotten(job.network)
        arrays: dict[str, np.ndarray] = {}
        for method in PARTS[job.part]:
            started = time.perf_counter()
            found = explain_targets(
                classifier,
                photograph,
                method,
                targets,
                num_samples=samples,
                seed=self.evidence.seed,
            )
            seconds = round(time.perf_counter() - started, 3)
            parameters = dict(found[0].parameters)
            text["methods"][method] = {"seconds": seconds, "parameters": parameters}
            text["frame"] = vars(found[0].frame)
            if method == "lime":
                arrays |= _linear(found)
                continue
            arrays[method] = np.stack([one.raw for one in found])
            if method == "guided":
                tops = np.maximum(arrays[method].max((1, 2), keepdims=True), 1e-30)
                arrays[method] = (arrays[method] / tops).astype(np.float16)
        return arrays, text


def device_name(classifier: Classifier) -> str:
    """Return what a classifier computes on: a GPU's name, or the kind of device."""
    device = classifier.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _linear(found: Sequence[Explanation]) -> dict[str, np.ndarray]:
    """Return LIME's models of one photograph's classes: they share superpixels and samples."""
    parts: list[Any] = [one.superpixels for one in found]
    return {
        "lime_segments": parts[0].segments.astype(np.uint16),
        "lime_shown": np.packbits(parts[0].shown, axis=1),
        "lime_weights": np.stack([part.weights for part in parts]),
        "lime_scores": np.stack([part.scores for part in parts]).astype(np.float32),
        "lime_intercepts": np.array([part.intercept for part in parts]),
        "lime_fits": np.array([part.fit for part in parts]),
    }
