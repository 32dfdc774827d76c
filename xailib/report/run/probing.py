"""Recording a part of a probe set, and labelling units from all of its parts.

So many workers share `xailib.dissect.activations.record_activations` and
`xailib.dissect.embeddings.record_embeddings`: the notebook on units copies what they have recorded,
and a table of labels reads it a part at a time, whatever the number of probe images.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from xailib.dissect import blocks as recording
from xailib.dissect.activations import Activations, networks_of, record_activations
from xailib.dissect.concepts import load_concepts
from xailib.dissect.embeddings import record_embeddings
from xailib.dissect.label import check_measure
from xailib.dissect.top_images import RunningTop, label_tops
from xailib.encoders.crops import Rows
from xailib.encoders.load import Encoder, load_encoder
from xailib.errors import InputError
from xailib.files import atomic
from xailib.images.probe import ProbeSet, probe_of
from xailib.networks.classifier import Classifier
from xailib.report.params.profiles import Profile
from xailib.report.run import shards
from xailib.report.run.job import Job
from xailib.report.run.results import Run, file_hashes, read_manifest

IMAGES = "images.parquet"
_SHOWN = 5  # most activating images that a table of labels names
_OF_NETWORKS = (
    "model", "weights", "layers", "compare", "compare_weights", "control", "seed", "device",
)  # fmt: skip
_OF_ENCODER = ("encoder", "encoder_weights", "device")


def record(profile: Profile, job: Job) -> None:
    """Record what all networks and the encoder make of a job's probe images.

    Each recording lies in the job's folder, and goes on where it was if the job was killed. An
    image that cannot be used stands among the failures of the job's manifest.

    Raises
    ------
    XailibError
        If a network, its weights, a layer or the encoder cannot be used.
    """
    parameters = profile.values(job.task)
    networks, encoder = _networks(_words(parameters, _OF_NETWORKS)), _encoder_of(parameters)
    probe = probe_of(job.photographs, parameters["crops"], parameters["seed"])
    run = Run(job.folder(profile), job.task, {}, {})
    recorded = _record(run, networks, encoder, probe) if len(probe) else None
    run.tidy()
    with run.open(IMAGES) as file:
        pd.DataFrame({"image": probe.ids}, dtype="str").to_parquet(file, index=False)
    places = [] if recorded is None else [*recorded["networks"].values(), recorded["embeddings"]]
    stored = [f"{place}/{file.name}" for place in places for file in _files(run.folder / place)]
    shards.finish(
        profile,
        job,
        [*run.written, *stored],
        [{"source": one.source, "reason": one.reason} for one in probe.failures],
        _hashes(networks, encoder, parameters),
        recorded=recorded,
    )


def label(profile: Profile, job: Job) -> None:
    """Write the labels of all units into one table, from what a job's shards have recorded.

    In memory are the rows of one shard, each unit's most activating images, and how well the
    concepts fit. The table is that of `xailib.dissect.label.label_units`, with the networks' names.

    Raises
    ------
    XailibError
        If no probe image could be used, or fewer than ``top_k``; if concepts or the encoder
        cannot be used.
    """
    parameters = profile.values(job.task)
    folder = job.folder(profile)
    recorded = _Recorded([folder.parent / name for name in job.needs])
    top_k = parameters["top_k"]
    check_measure("soft_wpmi", len(recorded), top_k=top_k)
    concepts = load_concepts(parameters["concepts"])
    texts = _encoder_of(parameters).encode_texts(concepts.names)
    tables = []
    for name in recorded.networks:
        tops = recorded.tops(name, max(top_k, _SHOWN))
        table = label_tops(
            tops, recorded.embeddings, recorded.ids, texts, concepts, top_k=top_k, top_count=_SHOWN
        )
        table.insert(0, "network", name)
        tables.append(table)
    with atomic(folder / shards.LABELS) as file:
        pd.concat(tables, ignore_index=True).to_parquet(file, index=False)
    shards.finish_table(profile, job, shards.LABELS)


def _record(
    run: Run,
    networks: Mapping[str, tuple[Classifier, list[str]]],
    encoder: Encoder,
    probe: ProbeSet,
) -> dict[str, Any]:
    """Record a shard; return where what lies, below its folder."""
    places = {}
    for name, (network, layers) in networks.items():
        key = {"net": network.identity, "layers": layers, "probe": probe.sha256}
        places[name] = run.cache("activations", key)
        record_activations(network, layers, probe, folder=places[name])
    key = {"encoder": f"{encoder.name}@{encoder.sha256}", "probe": probe.sha256}
    rows = run.cache("embeddings", key)
    record_embeddings(encoder, probe, folder=rows)
    return {
        "images": len(probe),
        "networks": {name: str(at.relative_to(run.folder)) for name, at in places.items()},
        "embeddings": str(rows.relative_to(run.folder)),
    }


class _Recorded:
    """What the shards of a probe set hold, one behind the other."""

    def __init__(self, folders: Sequence[Path]) -> None:
        found = [(folder, read_manifest(folder)["recorded"]) for folder in folders]
        self._shards = [(folder, recorded) for folder, recorded in found if recorded]
        if not self._shards:
            raise InputError("probe: no image can be used")
        self._ends = np.cumsum([recorded["images"] for _, recorded in self._shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def networks(self) -> list[str]:
        """The networks' names."""
        return list(self._shards[0][1]["networks"])

    def tops(self, network: str, count: int) -> dict[str, RunningTop]:
        """Return the most activating images of each layer's units, read shard by shard."""
        tops: dict[str, RunningTop] = {}
        for (folder, recorded), end in zip(self._shards, self._ends.tolist(), strict=True):
            place = folder / recorded["networks"][network]
            activations = Activations(place, recording.manifest_of(place), ())
            for layer, values in activations.items():
                top = tops.setdefault(layer, RunningTop(count))
                top.add(values, end - recorded["images"])
        return tops

    def embeddings(self, index: Int64[np.ndarray, " rows"]) -> Rows:
        """Return the encoder's rows of the images at rising positions."""

        def read(folder: Path, recorded: Mapping[str, Any]) -> Rows:
            place = folder / recorded["embeddings"]
            return recording.table(place, recording.manifest_of(place), 0)

        return np.concatenate(self._parts(index, read))

    def ids(self, index: Int64[np.ndarray, " rows"]) -> list[str]:
        """Return the ids of the images at rising positions."""

        def read(folder: Path, _: Mapping[str, Any]) -> np.ndarray:
            return pd.read_parquet(folder / IMAGES)["image"].to_numpy(object)

        return [str(name) for part in self._parts(index, read) for name in part]

    def _parts(
        self,
        index: Int64[np.ndarray, " rows"],
        read: Callable[[Path, Mapping[str, Any]], np.ndarray],
    ) -> list[np.ndarray]:
        """Return what each shard that has some of these positions holds there."""
        numbers = np.searchsorted(self._ends, index, side="right")
        parts = []
        for number in np.unique(numbers).tolist():
            folder, recorded = self._shards[number]
            begin = int(self._ends[number]) - recorded["images"]
            parts.append(read(folder, recorded)[index[numbers == number] - begin])
        return parts


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


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())


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
