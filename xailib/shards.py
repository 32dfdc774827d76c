"""Explaining some of a task's photographs, so that many workers share one task.

A shard fills the cache of explanations from which the task's notebook takes them, with the same
keys; a test holds the two together. One photograph and its explanation are in memory at a time.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from xailib.errors import InputError, XailibError
from xailib.explain.cam import cam_layer_of, check_methods, explain_cam
from xailib.explain.lime import explain_lime
from xailib.explanation import Explanation
from xailib.files import atomic, sha256_of, write_atomic
from xailib.images import Failure, ImageSet, Photograph, iter_images
from xailib.jobs import Job, path_of
from xailib.models import Classifier, load_classifier
from xailib.profiles import Profile, declared
from xailib.results import MANIFEST, environment, intact, read_manifest, source_hash, start_run

EXPLAINED, FAILURES = "explained.parquet", "failures.parquet"
# Parameters that do not change a task's explanations.
_REST = frozenset({"images", "num_features", "device", "out_dir"})
# So that a shard in which nothing succeeded has the columns of the others.
_COLUMNS = {
    "image": "str", "image_sha256": "str", "method": "str", "classifier": "str", "target": "int64",
    "target_name": "str", "probability": "float64", "above_half": "float64",
    "above_zero": "float64", "superpixels": "Int64", "fit": "float64",
}  # fmt: skip


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
    start = time.time()
    parameters = _parameters(profile, job.task)
    classifier = _classifier(*(parameters[name] for name in ("model", "weights", "device", "seed")))
    works = _WORKS[job.task](classifier, parameters)
    place = profile.folder(job.task)
    run = start_run(
        place, job.task, {}, ImageSet(()), classifier.files, weights=classifier.identity
    )
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
    folder = job.folder(profile)
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    with atomic(folder / EXPLAINED) as file:
        table.to_parquet(file, index=False)
    names = [EXPLAINED, *(f"../../{name}" for name in outputs)]
    manifest = {
        "job": job.name,
        **_request(profile, job),
        "inputs": {"images": _hashes(job), "files": run.inputs["files"]},
        "failures": run.failures,
        "seconds": round(time.time() - start, 1),
        "outputs": {name: sha256_of(folder / name) for name in names},
    }
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))


def explained(profile: Profile, job: Job) -> bool:
    """Tell whether a shard's explanations are those that explaining now would give."""
    try:
        manifest = read_manifest(job.folder(profile))
        inputs = manifest["inputs"]
        files = {name: sha256_of(Path(name)) for name in inputs["files"]}
        same = inputs == {"images": _hashes(job), "files": files}
    except (XailibError, OSError, KeyError, TypeError):
        return False
    request = json.loads(json.dumps(_request(profile, job)))
    same &= all(manifest.get(name) == value for name, value in request.items())
    return same and intact(job.folder(profile), manifest)


def gather(profile: Profile, job: Job) -> None:
    """Write the rows of a task's shards into one table, a shard at a time, and the failures."""
    folder = job.folder(profile)
    failures: list[dict[str, str]] = []
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(atomic(folder / EXPLAINED))
        writer = None
        for name in job.needs:
            shard = folder.parent / name
            failures += [{**one, "job": name} for one in read_manifest(shard)["failures"]]
            rows = pq.read_table(shard / EXPLAINED)
            writer = writer or stack.enter_context(pq.ParquetWriter(file, rows.schema))
            writer.write_table(rows)
    with atomic(folder / FAILURES) as file:
        columns = {name: [one[name] for one in failures] for name in ("source", "reason", "job")}
        pq.write_table(pa.table({k: pa.array(v, pa.string()) for k, v in columns.items()}), file)
    outputs = {name: sha256_of(folder / name) for name in (EXPLAINED, FAILURES)}
    manifest = {"job": job.name, "inputs": _shards(folder, job), "outputs": outputs}
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))


def gathered(profile: Profile, job: Job) -> bool:
    """Tell whether the table is of the shards as they are."""
    folder = job.folder(profile)
    try:
        manifest = read_manifest(folder)
        return manifest["inputs"] == _shards(folder, job) and intact(folder, manifest)
    except (XailibError, OSError, KeyError):
        return False


def _photographs(job: Job) -> Iterator[Photograph | Failure]:
    for unique, name in job.photographs:
        found = next(iter_images([name]))
        yield found if isinstance(found, Failure) else replace(found, id=unique)


def _hashes(job: Job) -> dict[str, str | None]:
    """Return each photograph's hash; None for a file that is not there."""
    found: dict[str, str | None] = {}
    for _, name in job.photographs:
        try:
            found[name] = sha256_of(path_of(name))
        except OSError:
            found[name] = None
    return found


def _shards(folder: Path, job: Job) -> dict[str, str]:
    return {name: sha256_of(folder.parent / name / MANIFEST) for name in job.needs}


def _parameters(profile: Profile, task: str) -> dict[str, Any]:
    """Return a notebook's parameters: its own values, with the profile's on top."""
    return {**declared(task), **profile.share(task)}


def _request(profile: Profile, job: Job) -> dict[str, Any]:
    """Return what has to be equal for a shard to be used again, besides its inputs."""
    parameters = _parameters(profile, job.task)
    kept = {name: value for name, value in parameters.items() if name not in _REST}
    if parameters.get("until_stable"):
        kept["num_features"] = parameters["num_features"]
    return {
        "parameters": kept,
        "photographs": [list(one) for one in job.photographs],
        "versions": environment(),
        "source": source_hash(upstream_only=True),
    }


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
