"""Explaining some of a task's photographs, so that many workers share one task.

A job fills the cache of explanations from which the task's notebook takes them, by the same
`xailib.explain.requests`. A few photographs are in memory at a time.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from xailib.errors import InputError
from xailib.explain.explanation import Explanation
from xailib.explain.requests import works_of
from xailib.images.load import Failure, Photograph, iter_images
from xailib.networks.classifier import Classifier, load_classifier
from xailib.report.params.profiles import Profile
from xailib.report.run import shards
from xailib.report.run.job import Job
from xailib.report.run.results import Run, file_hashes


def explain(profile: Profile, job: Job) -> None:
    """Explain a job's photographs into the cache of its task.

    A photograph that cannot be used or explained stands among the failures of the job's manifest.

    Raises
    ------
    XailibError
        If the network, the target or a parameter cannot be used.
    """
    parameters = profile.values(job.task)
    classifier = _classifier(*(parameters[name] for name in ("model", "weights", "device", "seed")))
    works = works_of(job.task, classifier, parameters)
    hashes = file_hashes(classifier.files)
    # No `start_run`: that is one process's, and here several fill one folder.
    inputs = {"files": hashes, "weights": classifier.identity}
    run = Run(profile.folder(job.task), job.task, {}, inputs)
    rows = []
    for work in works:
        photographs = _usable(job, run if work is works[0] else None)
        with contextlib.suppress(InputError):  # it stands among the failures
            made = run.streamed(photographs, work.method, work.key, work.explain)
            rows += [_row(explanation) for explanation in made]
    shards.record(profile, job, rows, run.written, run.failures, hashes)


def _usable(job: Job, run: Run | None) -> Iterator[Photograph]:
    """Yield a job's photographs; those that cannot be read become failures of the run."""
    for name_in_set, name in job.photographs:
        found = next(iter_images([name]))
        if not isinstance(found, Failure):
            yield replace(found, id=name_in_set)
        elif run is not None:
            run.failures.append({"source": found.source, "reason": found.reason})


@lru_cache(maxsize=1)
def _classifier(model: str, weights: str, device: str, seed: int) -> Classifier:
    """Load a network once for all the shards that one process explains."""
    return load_classifier(model, weights or None, device, seed)


def _row(explanation: Explanation) -> dict[str, Any]:
    parts = explanation.superpixels
    return {
        "image": explanation.image,
        "image_sha256": explanation.image_sha256,
        "method": explanation.method,
        "classifier": explanation.classifier,
        "target": explanation.target,
        "target_name": explanation.target_name,
        "probability": explanation.probability,
        "above_half": float((explanation.saliency > 0.5).mean()),
        "above_zero": float((explanation.saliency > 0).mean()),
        "superpixels": None if parts is None else len(parts.weights),
        "fit": float("nan") if parts is None else parts.fit,
    }
