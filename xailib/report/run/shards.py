"""Parts of a task, so that many workers share it: of its images, of its probe set, and all of them.

Explaining some images fills the cache from which the task's notebook takes them, by the same
`xailib.explain.requests`; recording some probe images writes whole blocks into the folders from
which the notebook on units reads them. Of all parts one table is made, a part at a time.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from xailib.dissect.activations import networks_of, record_activations, record_embeddings
from xailib.dissect.blocks import Recording, files_of
from xailib.dissect.concepts import load_concepts
from xailib.dissect.label import check_measure
from xailib.dissect.top_images import label_tops, running_top
from xailib.encoders.load import Encoder, load_encoder
from xailib.errors import InputError
from xailib.explain.explanation import Explanation
from xailib.explain.requests import requests_of
from xailib.files import atomic, write_atomic
from xailib.images.load import Failure, Photograph, iter_images
from xailib.images.probe import probe_of
from xailib.networks.classifier import Classifier, load_classifier
from xailib.report.params.profiles import Profile
from xailib.report.params.schema import OF_CLASSIFIER
from xailib.report.run.plan import Job
from xailib.report.run.results import Run, file_hashes
from xailib.report.run.staleness import EXPLAINED, finish, finish_table, image_hashes

LABELS = "labels.parquet"
# So that a shard in which nothing succeeded has the columns of the others.
_COLUMNS = {
    "image": "str", "image_sha256": "str", "method": "str", "classifier": "str", "target": "int64",
    "target_name": "str", "probability": "float64", "above_half": "float64",
    "above_zero": "float64", "superpixels": "Int64", "fit": "float64", "no_signal": "str",
}  # fmt: skip
_RECORDED = "recorded.json"  # the blocks' folders, by network
_EMBEDDINGS = ""  # used beside the networks' names
_SHOWN = 5  # most activating images that a table of labels names
_OF_NETWORKS = (
    "model", "weights", "layers", "compare", "compare_weights", "compare_layers", "control",
    "seed", "device", "precision", "outputs", "preprocessing",
)  # fmt: skip
_OF_ENCODER = ("encoder", "encoder_weights", "device")


def explain(profile: Profile, job: Job) -> None:
    """Explain a job's images into the cache of its task.

    An image that cannot be used or explained is listed among the failures of the job's manifest.
    `XailibError` is raised if the network, the target or a parameter cannot be used.
    """
    parameters = profile.values(job.task)
    how = {name: parameters[name] for name in OF_CLASSIFIER[1:]}
    classifier = _classifier(parameters["model"], **how)
    requests = requests_of(job.task, classifier, parameters)
    hashes = file_hashes(classifier.files)
    # No `start_run`: that is one process's, and here several fill one folder.
    decides = {"files": hashes, "weights": classifier.identity}
    run = Run(profile.folder(job.task), job.task, {}, decides)
    rows = []
    for one in requests:
        images = _usable(job, run if one is requests[0] else None)
        with contextlib.suppress(InputError):  # it is listed among the failures
            made = run.streamed(images, one.method, one.key, one.explain)
            rows += [_row(explanation) for explanation in made]
    with atomic(job.folder(profile) / EXPLAINED) as file:
        table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
        table.to_parquet(file, index=False)
    outputs = [EXPLAINED, *(f"../../{name}" for name in run.written)]
    inputs = {"images": image_hashes(job), "files": hashes}
    finish(profile, job, outputs, inputs, failures=run.failures)


def _usable(job: Job, run: Run | None) -> Iterator[Photograph]:
    """Yield a job's images; those that cannot be read become failures of the run."""
    for name_in_set, name in job.photographs:
        found = next(iter_images([name]))
        if not isinstance(found, Failure):
            yield replace(found, id=name_in_set)
        elif run is not None:
            run.failures.append({"source": found.source, "reason": found.reason})


_classifier = lru_cache(maxsize=1)(load_classifier)  # once for all shards that a process explains


def _row(explanation: Explanation) -> dict[str, Any]:
    parts = explanation.superpixels
    found: dict[str, Any] = {"superpixels": parts and len(parts.weights)}
    found["fit"] = float("nan") if parts is None else parts.fit
    for name, level in (("above_half", 0.5), ("above_zero", 0.0)):  # of the view: a share
        share = "nan" if explanation.no_signal else (explanation.saliency > level).mean()
        found[name] = float(share)
    return found | {name: getattr(explanation, name) for name in _COLUMNS if name not in found}


def record(profile: Profile, job: Job) -> None:
    """Record what all networks and the encoder make of a job's probe images.

    The blocks are in the task's folder, and those that are there are not recorded again. An image
    that cannot be used is listed among the failures of the job's manifest.
    `XailibError` is raised if a network, its weights, a layer or the encoder cannot be used.
    """
    parameters = profile.values(job.task)
    words = json.dumps({name: parameters[name] for name in _OF_NETWORKS})
    networks, encoder = _networks(words), _encoder_of(parameters)
    probe = probe_of(job.photographs, parameters["crops"], parameters["seed"])
    # No `start_run`: that is one process's, and here several fill one folder.
    run, blocks = Run(profile.folder(job.task), job.task, {}, {}), {}
    if len(probe):
        for name, (network, layers) in networks.items():
            place = run.cache("activations", {"net": network.identity, "layers": layers})
            blocks[name] = record_activations(network, layers, probe, folder=place).blocks
        place = run.cache("embeddings", {"encoder": f"{encoder.name}@{encoder.sha256}"})
        blocks[_EMBEDDINGS] = record_embeddings(encoder, probe, folder=place).blocks
    own = job.folder(profile)
    places = {name: [os.path.relpath(one, own) for one in some] for name, some in blocks.items()}
    write_atomic(own / _RECORDED, json.dumps(places))
    files = [file for some in blocks.values() for block in some for file in files_of(block)]
    outputs = [_RECORDED, *(os.path.relpath(file, own) for file in files)]
    inputs = {"images": image_hashes(job), "files": _hashes(networks, encoder, parameters)}
    failures = [{"source": one.source, "reason": one.reason} for one in probe.failures]
    finish(profile, job, outputs, inputs, failures=failures)


def label(profile: Profile, job: Job) -> None:
    """Write the labels of all units into one table, from what a job's shards have recorded.

    In memory are the rows of one block, each unit's most activating images, and how well the
    concepts fit. The table is that of `xailib.dissect.label.label_units`, with the networks' names.
    `XailibError` is raised if no probe image could be used, or fewer than ``top_k``; if concepts
    or the encoder cannot be used.
    """
    parameters = profile.values(job.task)
    folder = job.folder(profile)
    blocks: dict[str, list[Path]] = {}
    for shard in (folder.parent / name for name in job.needs):
        for name, places in json.loads((shard / _RECORDED).read_bytes()).items():
            blocks.setdefault(name, []).extend(shard / place for place in places)
    images, top_k = Recording(blocks.pop(_EMBEDDINGS, ())), parameters["top_k"]
    check_measure("soft_wpmi", images.images, top_k=top_k)
    concepts = load_concepts(parameters["concepts"])
    texts = _encoder_of(parameters).encode_texts(concepts.names)
    rows = partial(images.rows, "embeddings")
    options = {"top_k": top_k, "top_count": _SHOWN, "device": parameters["device"]}
    kept = max(top_k, _SHOWN)
    tables = []
    for name, places in blocks.items():
        recorded = Recording(places)
        tops = {layer: running_top(recorded.blocks_of(layer), kept) for layer in recorded}
        table = label_tops(tops, rows, images.ids_at, texts, concepts, **options)
        table.insert(0, "network", name)
        tables.append(table)
    with atomic(folder / LABELS) as file:
        pd.concat(tables, ignore_index=True).to_parquet(file, index=False)
    finish_table(profile, job, LABELS)


@lru_cache(maxsize=1)
def _networks(words: str) -> dict[str, tuple[Classifier, list[str]]]:
    """Load the networks once for all the shards that one process records."""
    return networks_of(json.loads(words))


def _encoder_of(parameters: Mapping[str, Any]) -> Encoder:
    return _encoder(*(parameters[name] for name in _OF_ENCODER))


@lru_cache(maxsize=1)
def _encoder(name: str, weights: str, device: str) -> Encoder:
    return load_encoder(name, weights or None, device)


def _hashes(
    networks: Mapping[str, tuple[Classifier, list[str]]],
    encoder: Encoder,
    parameters: Mapping[str, Any],
) -> dict[str, str]:
    """Return the hashes of the files that networks and encoder were made from."""
    files = {file for network, _ in networks.values() for file in network.files}
    files |= set(getattr(getattr(encoder, "bridge", None), "files", ()))
    if parameters["encoder_weights"]:
        files.add(Path(parameters["encoder_weights"]).expanduser())
    return file_hashes(sorted(files))
