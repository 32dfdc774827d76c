"""Recording a part of a probe set, and labelling units from all of its parts.

So many workers share `xailib.dissect.activations.record_activations` and
`xailib.dissect.embeddings.record_embeddings`: each records whole blocks into the folders from which
the notebook on units reads them, and a table of labels reads them one at a time.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from xailib.dissect.activations import networks_of, record_activations
from xailib.dissect.blocks import Recording, files_of
from xailib.dissect.concepts import load_concepts
from xailib.dissect.embeddings import record_embeddings
from xailib.dissect.label import check_measure
from xailib.dissect.top_images import RunningTop, label_tops
from xailib.encoders.load import Encoder, load_encoder
from xailib.files import atomic, write_atomic
from xailib.images.probe import probe_of
from xailib.networks.classifier import Classifier
from xailib.report.params.profiles import Profile
from xailib.report.run import shards
from xailib.report.run.plan import Job
from xailib.report.run.results import Run, file_hashes

_RECORDED = "recorded.json"  # the blocks' folders, by network
_EMBEDDINGS = ""  # stands beside the networks' names
_SHOWN = 5  # most activating images that a table of labels names
_OF_NETWORKS = (
    "model", "weights", "layers", "compare", "compare_weights", "control", "seed", "device",
)  # fmt: skip
_OF_ENCODER = ("encoder", "encoder_weights", "device")


def record(profile: Profile, job: Job) -> None:
    """Record what all networks and the encoder make of a job's probe images.

    The blocks lie in the task's folder, and those that are there are not recorded again. An image
    that cannot be used stands among the failures of the job's manifest.

    Raises
    ------
    XailibError
        If a network, its weights, a layer or the encoder cannot be used.
    """
    parameters = profile.values(job.task)
    networks, encoder = _networks(_words(parameters, _OF_NETWORKS)), _encoder_of(parameters)
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
    places = {
        name: [os.path.relpath(block, own) for block in some] for name, some in blocks.items()
    }
    write_atomic(own / _RECORDED, json.dumps(places))
    files = [file for some in blocks.values() for block in some for file in files_of(block)]
    shards.finish(
        profile,
        job,
        [_RECORDED, *(os.path.relpath(file, own) for file in files)],
        [{"source": one.source, "reason": one.reason} for one in probe.failures],
        _hashes(networks, encoder, parameters),
    )


def label(profile: Profile, job: Job) -> None:
    """Write the labels of all units into one table, from what a job's shards have recorded.

    In memory are the rows of one block, each unit's most activating images, and how well the
    concepts fit. The table is that of `xailib.dissect.label.label_units`, with the networks' names.

    Raises
    ------
    XailibError
        If no probe image could be used, or fewer than ``top_k``; if concepts or the encoder
        cannot be used.
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
        tops = {layer: RunningTop.of(recorded.blocks_of(layer), kept) for layer in recorded}
        table = label_tops(tops, rows, images.ids_at, texts, concepts, **options)
        table.insert(0, "network", name)
        tables.append(table)
    with atomic(folder / shards.LABELS) as file:
        pd.concat(tables, ignore_index=True).to_parquet(file, index=False)
    shards.finish_table(profile, job, shards.LABELS)


def _words(parameters: Mapping[str, Any], names: Sequence[str]) -> str:
    return json.dumps({name: parameters[name] for name in names})


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
