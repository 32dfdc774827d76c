"""The jobs of the evidence run: one is one network, one photograph and one part; a file each.

A job whose file is there is not repeated, so that the run may be stopped at any time. Networks
take turns: whenever it stops, each has its share of the photographs.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from xailib.errors import InputError, XailibError
from xailib.evaluate.randomisation import cascade
from xailib.explain.cam.methods import Cam, guided_backprop
from xailib.explain.explanation import Explanation
from xailib.explain.lime import explain_lime_targets
from xailib.explain.stream import explain_alone
from xailib.files import atomic, write_atomic
from xailib.images.load import Photograph, load_images
from xailib.networks.classifier import Classifier, load_classifier
from xailib.versions import environment, git_commit, source_hash

log = logging.getLogger(__name__)

CAMS = ("gradcam", "gradcam++", "layercam", "ablationcam")  # cheap at the last layer
RANDOM_SAMPLES = 200  # of LIME on random networks, and of what it is compared with
STAGES = 5  # in which networks are randomised, as on the sanity page
PARTS = ("maps", "scorecam", "random")


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
    """What the evidence run consists of; see ``params/evidence.yaml``.

    Attributes
    ----------
    seed, num_samples : int
        Of the photographs' order and of all that is random; of LIME.
    networks : mapping
        By a network's name, for each of `PARTS`: how many photographs, and how many a turn.
    photographs : sequence of Path
        In the order in which they are explained.
    weights : mapping
        By a network's name the file of its weights; those left out have published ones.
    """

    seed: int
    num_samples: int
    networks: Mapping[str, Mapping[str, Sequence[int]]]
    photographs: Sequence[Path]
    weights: Mapping[str, str]

    def jobs(self) -> Iterator[KeptJob]:
        """Yield all jobs, the networks in turn."""
        names = [path.stem for path in self.photographs]
        turn, done = 0, False
        while not done:
            done = True
            for network, parts in self.networks.items():
                for part, (count, step) in parts.items():
                    chosen = names[:count][turn * step : (turn + 1) * step]
                    done &= not chosen
                    yield from (KeptJob(network, name, part) for name in chosen)
            turn += 1

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The photographs' files, by name."""
        return {path.stem: path for path in self.photographs}

    def photograph(self, name: str) -> Photograph:
        """Read a photograph."""
        return load_images(self.paths[name])[0]


def load_evidence(file: Path, folder: Path, weights: Mapping[str, str]) -> Evidence:
    """Read what the evidence run consists of.

    Parameters
    ----------
    file : Path
        ``params/evidence.yaml``.
    folder : Path
        Of the photographs.
    weights : mapping
        See `Evidence`.

    Raises
    ------
    InputError
        If the folder holds fewer photographs than are wanted.
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
    return Evidence(
        found["seed"], found["num_samples"], found["networks"], [paths[i] for i in order], weights
    )


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
            names = [path.stem for path in self.evidence.photographs[:count]]
            checked = map(self.evidence.photograph, names)
            made = list(cascade(self.classifier(network), checked, STAGES, self.evidence.seed))
            self.randomised[network] = made[-1][1]
        return self.randomised[network]

    def make(self, job: KeptJob) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return a job's arrays and its description."""
        classifier, photograph = (
            self.classifier(job.network),
            self.evidence.photograph(job.photograph),
        )
        ranked = classifier.predict(photograph, len(classifier.class_names))
        targets = [ranked[place].index for place in (0, 1, -1)]
        text: dict[str, Any] = {
            "classifier": classifier.id,
            "device": device_name(classifier),
            "image_sha256": photograph.sha256,
            "targets": targets,
            "names": [ranked[place].name for place in (0, 1, -1)],
            "probabilities": [ranked[place].probability for place in (0, 1, -1)],
        }
        arrays: dict[str, np.ndarray] = {}
        text["methods"] = {}
        for method, found, seconds in getattr(self, f"_{job.part}")(job, photograph, targets):
            first = found[0]
            text["methods"][method] = {"seconds": round(seconds, 3)}
            if isinstance(first, np.ndarray):
                arrays[method] = np.stack(found)
                continue
            text["methods"][method]["parameters"] = dict(first.parameters)
            text["frame"] = vars(first.frame)
            if first.superpixels is None:
                arrays[method] = np.stack([one.raw for one in found])
                continue
            arrays |= _linear(method, found)
        return arrays, text

    def _timed(self, method: str, make: Any) -> tuple[str, Any, float]:
        started = time.perf_counter()
        found = make()
        return method, found, time.perf_counter() - started

    def _lime(
        self, classifier: Classifier, photograph: Photograph, targets: Sequence[int], samples: int
    ) -> list[Explanation]:
        return explain_lime_targets(
            classifier, photograph, targets, num_samples=samples, seed=self.evidence.seed
        )

    def _maps(
        self, job: KeptJob, photograph: Photograph, targets: Sequence[int]
    ) -> Iterator[tuple[str, Any, float]]:
        classifier = self.classifier(job.network)
        for method in CAMS:
            cam = Cam(classifier, method, targets)
            yield self._timed(method, lambda cam=cam: explain_alone(classifier, photograph, cam))

        def guided() -> list[np.ndarray]:
            # The largest absolute gradient of a pixel's channels, as on the sanity page.
            found = [np.abs(guided_backprop(classifier, photograph, t)).max(2) for t in targets]
            return [(one / max(one.max(), 1e-30)).astype(np.float16) for one in found]

        yield self._timed("guided", guided)
        samples = self.evidence.num_samples
        yield self._timed("lime", lambda: self._lime(classifier, photograph, targets, samples))

    def _scorecam(
        self, job: KeptJob, photograph: Photograph, targets: Sequence[int]
    ) -> Iterator[tuple[str, Any, float]]:
        classifier = self.classifier(job.network)
        cam = Cam(classifier, "scorecam", targets)
        yield self._timed("scorecam", lambda: explain_alone(classifier, photograph, cam))

    def _random(
        self, job: KeptJob, photograph: Photograph, targets: Sequence[int]
    ) -> Iterator[tuple[str, Any, float]]:
        network = self.forgotten(job.network)
        first = targets[:1]
        for method in ("gradcam", "ablationcam", "scorecam"):
            cam = Cam(network, method, first)
            yield self._timed(method, lambda cam=cam: explain_alone(network, photograph, cam))
        relus = guided_backprop(network, photograph, first[0])
        guided = np.abs(relus).max(2)
        yield "guided", [(guided / max(guided.max(), 1e-30)).astype(np.float16)], 0.0
        # The trained network's LIME of as many samples is the beginning of the stored one.
        yield self._timed("lime", lambda: self._lime(network, photograph, first, RANDOM_SAMPLES))


def device_name(classifier: Classifier) -> str:
    """Return what a classifier computes on: a GPU's name, or the kind of device."""
    device = classifier.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _linear(method: str, found: Sequence[Explanation]) -> dict[str, np.ndarray]:
    """Return LIME's models of one photograph's classes: they share superpixels and samples."""
    parts = [one.superpixels for one in found if one.superpixels is not None]
    first, scores = parts[0], [part.scores for part in parts if part.scores is not None]
    if first.shown is None:
        raise InputError(f"evidence: {method} stores no samples")
    return {
        f"{method}_segments": first.segments.astype(np.uint16),
        f"{method}_shown": np.packbits(first.shown, axis=1),
        f"{method}_weights": np.stack([part.weights for part in parts]),
        f"{method}_scores": np.stack(scores).astype(np.float32),
        f"{method}_intercepts": np.array([part.intercept for part in parts]),
        f"{method}_fits": np.array([part.fit for part in parts]),
    }
