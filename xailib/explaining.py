"""Explaining some of a task's photographs, so that many workers share one task.

A job fills the cache of explanations from which the task's notebook takes them, with the same
keys; a test holds the two together. One photograph and its explanation are in memory at a time.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from xailib import shards
from xailib.errors import InputError
from xailib.explain.cam import cam_layer_of, check_methods, explain_cam
from xailib.explain.lime import explain_lime
from xailib.explanation import Explanation
from xailib.files import sha256_of
from xailib.images import Failure, Photograph, iter_images
from xailib.jobs import Job
from xailib.models import Classifier, load_classifier
from xailib.profiles import Profile
from xailib.results import Run


@dataclass(frozen=True)
class Work:
    """One method's share in a task: its name, what decides its result, and how it is made."""

    method: str
    key: Mapping[str, Any]
    make: Callable[[Photograph], Explanation]


def explain(profile: Profile, job: Job) -> None:
    """Explain a job's photographs into the cache of its task, one after the other.

    A photograph that cannot be used or explained stands among the failures of the job's manifest.

    Raises
    ------
    XailibError
        If the network, the target or a parameter cannot be used.
    """
    parameters = shards.parameters_of(profile, job.task)
    classifier = _classifier(*(parameters[name] for name in ("model", "weights", "device", "seed")))
    works = _WORKS[job.task](classifier, parameters)
    hashes = {str(file.resolve()): sha256_of(file) for file in classifier.files}
    # No `start_run`: that is one process's, and here several fill one folder.
    inputs = {"files": hashes, "weights": classifier.identity}
    run = Run(profile.folder(job.task), job.task, {}, inputs)
    rows, outputs = [], []
    for found in _photographs(job):
        if isinstance(found, Failure):
            run.failures.append({"source": found.source, "reason": found.reason})
            continue
        for work in works:
            before = len(run._written)
            with contextlib.suppress(InputError):  # it stands among the failures
                made = run.explanations([found], work.method, work.key, work.make)
                rows += [_row(explanation) for explanation in made]
            outputs += run._written[before:]
    shards.record(profile, job, rows, outputs, run.failures, hashes)


def _photographs(job: Job) -> Iterator[Photograph | Failure]:
    for unique, name in job.photographs:
        found = next(iter_images([name]))
        yield found if isinstance(found, Failure) else replace(found, id=unique)


@lru_cache(maxsize=1)
def _classifier(model: str, weights: str, device: str, seed: int) -> Classifier:
    """Load a network once for all the shards that one process explains."""
    return load_classifier(model, weights or None, device, seed)


def _lime(classifier: Classifier, parameters: Mapping[str, Any]) -> list[Work]:
    target = parameters["target"]
    wanted = None if target == "" else classifier.category_index(target)
    auto = parameters["until_stable"]
    options: Any = {
        "num_samples": "auto" if auto else parameters["num_samples"],
        "design": parameters["design"],
        "segments": parameters["segmentation"],
        "hide_color": parameters["hide_color"],
        "seed": parameters["seed"],
    }
    if auto:
        options |= {name: parameters[name] for name in ("max_samples", "num_features")}
    make = partial(explain_lime, classifier, target=wanted, **options)
    return [Work("lime", {"target": target, **options}, make)]


def _cam(classifier: Classifier, parameters: Mapping[str, Any]) -> list[Work]:
    target = parameters["target"]
    wanted = None if target == "" else classifier.category_index(target)
    check_methods(parameters["methods"])
    layer = cam_layer_of(classifier, parameters["layer"] or None)
    key = {"target": target, "layer": layer}
    return [
        Work(
            method, key, partial(explain_cam, classifier, method=method, target=wanted, layer=layer)
        )
        for method in parameters["methods"]
    ]


_WORKS: dict[str, Callable[[Classifier, Mapping[str, Any]], list[Work]]] = {
    "2_lime": _lime,
    "3_cam": _cam,
}


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
