"""What is left of a task that was shared out: tables, recordings, manifests that say of what.

Nothing here needs a network, so that a plan is made in a moment.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from xailib.errors import XailibError
from xailib.files import atomic, sha256_of, write_atomic
from xailib.project import project_root
from xailib.report.params.profiles import Profile
from xailib.report.run.job import Job, path_of
from xailib.report.run.results import MANIFEST, read_manifest
from xailib.versions import environment, source_hash

EXPLAINED, FAILURES, LABELS = "explained.parquet", "failures.parquet", "labels.parquet"
# Parameters that do not change a task's explanations, or what it records of its probe images.
_REST = frozenset(
    {"images", "num_features", "device", "out_dir"}
    | {"probe", "concepts", "measure", "top_k", "descriptions"}
)
# The rooms that make what jobs of a kind leave, see `xailib.versions`.
_CODE = {
    "explain": ("xailib.explain",),
    "record": ("xailib.dissect", "xailib.encoders"),
    "label": ("xailib.dissect", "xailib.encoders"),
}
_OF_LABELS = (
    "encoder",
    "encoder_weights",
    "concepts",
    "measure",
    "top_k",
)  # beside what is recorded
# So that a shard in which nothing succeeded has the columns of the others.
_COLUMNS = {
    "image": "str", "image_sha256": "str", "method": "str", "classifier": "str", "target": "int64",
    "target_name": "str", "probability": "float64", "above_half": "float64",
    "above_zero": "float64", "superpixels": "Int64", "fit": "float64",
}  # fmt: skip


def record(
    profile: Profile,
    job: Job,
    rows: Sequence[Mapping[str, Any]],
    outputs: Sequence[str],
    failures: Sequence[Mapping[str, str]],
    files: Mapping[str, str],
) -> None:
    """Write what a shard has given: its rows, and last the manifest that makes it finished.

    Parameters
    ----------
    profile, job
        Of the shard.
    rows : sequence of mappings
        One for each photograph and method.
    outputs : sequence of str
        The files that it wrote, below the task's folder.
    failures : sequence of mappings
        Photographs that could not be used or explained: source and reason.
    files : mapping
        Hashes of what decided the result besides the photographs, by path.
    """
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    with atomic(job.folder(profile) / EXPLAINED) as file:
        table.to_parquet(file, index=False)
    finish(profile, job, [EXPLAINED, *(f"../../{name}" for name in outputs)], failures, files)


def finish(
    profile: Profile,
    job: Job,
    outputs: Sequence[str],
    failures: Sequence[Mapping[str, str]],
    files: Mapping[str, str],
    **found: Any,
) -> None:
    """Write the manifest that makes a shard finished.

    Parameters
    ----------
    profile, job, failures, files
        See `record`.
    outputs : sequence of str
        The files that it wrote, below the job's own folder.
    **found
        Further entries, JSON values.
    """
    folder = job.folder(profile)
    manifest = {
        "job": job.name,
        **_request(profile, job),
        "inputs": {"images": _hashes(job), "files": dict(files)},
        "failures": list(failures),
        "outputs": {name: sha256_of(folder / name) for name in outputs},
        **found,
    }
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))


def as_now(profile: Profile, job: Job, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a shard's manifest is that of doing it now, wherever its files are."""
    try:
        inputs = manifest["inputs"]
        files = {name: sha256_of(project_root() / name) for name in inputs["files"]}
        same = inputs == {"images": _hashes(job), "files": files}
    except (OSError, KeyError, TypeError):
        return False
    request = json.loads(json.dumps(_request(profile, job)))
    return same and all(manifest.get(name) == value for name, value in request.items())


def recordings(folder: Path, name: str) -> list[Path]:
    """Return what shards have recorded, with the code and the versions of now.

    Parameters
    ----------
    folder : Path
        Of the task's run.
    name : str
        Of what: ``"activations"`` or ``"embeddings"``.
    """
    found: list[Path] = []
    now = {"versions": environment(_CODE["record"]), "source": source_hash(_CODE["record"])}
    for shard in sorted(folder.glob("jobs/*")):
        try:
            manifest = read_manifest(shard)
        except XailibError:
            continue
        if all(manifest.get(key) == value for key, value in now.items()):
            found += sorted(shard.glob(f"{name}/*"))
    return found


def gather(profile: Profile, job: Job) -> None:
    """Write the rows of a task's shards into one table, a shard at a time, and the failures."""
    folder = job.folder(profile)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(atomic(folder / EXPLAINED))
        writer = None
        for name in job.needs:
            rows = pq.read_table(folder.parent / name / EXPLAINED)
            writer = writer or stack.enter_context(pq.ParquetWriter(file, rows.schema))
            writer.write_table(rows)
    finish_table(profile, job, EXPLAINED)


def finish_table(profile: Profile, job: Job, table: str) -> None:
    """Write the failures of a table's shards, and the manifest that makes the table finished."""
    folder = job.folder(profile)
    failures = [
        {**one, "job": name}
        for name in job.needs
        for one in read_manifest(folder.parent / name)["failures"]
    ]
    with atomic(folder / FAILURES) as file:
        columns = {name: [one[name] for one in failures] for name in ("source", "reason", "job")}
        pq.write_table(pa.table({k: pa.array(v, pa.string()) for k, v in columns.items()}), file)
    outputs = {name: sha256_of(folder / name) for name in (table, FAILURES)}
    manifest = {"job": job.name, "inputs": _made_of(profile, job), "outputs": outputs}
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))


def gathered(profile: Profile, job: Job, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a table's manifest is of the shards as they are, wherever its files are."""
    try:
        return bool(manifest["inputs"] == json.loads(json.dumps(_made_of(profile, job))))
    except (XailibError, OSError, KeyError):
        return False


def _made_of(profile: Profile, job: Job) -> dict[str, Any]:
    """Return what decides a table: its shards, and for labels what they are chosen by."""
    found: dict[str, Any] = {}
    for name in job.needs:
        manifest = read_manifest(job.folder(profile).parent / name)
        outputs = manifest["outputs"]
        found[name] = [outputs.get(EXPLAINED, outputs), manifest["failures"]]
    if job.kind == "label":
        parameters = {name: profile.values(job.task)[name] for name in _OF_LABELS}
        lists = [Path(name).expanduser() for name in parameters["concepts"]]
        found["labels"] = {
            "parameters": parameters,
            "files": {str(file): sha256_of(file) for file in lists if file.is_file()},
            "versions": environment(_CODE["label"]),
            "source": source_hash(_CODE["label"]),
        }
    return found


def _hashes(job: Job) -> dict[str, str | None]:
    """Return each photograph's hash; None for a file that is not there."""
    found: dict[str, str | None] = {}
    for _, name in job.photographs:
        try:
            found[name] = sha256_of(path_of(name))
        except OSError:
            found[name] = None
    return found


def _request(profile: Profile, job: Job) -> dict[str, Any]:
    """Return what has to be equal for a shard to be used again, besides its inputs."""
    parameters = profile.values(job.task)
    kept = {name: value for name, value in parameters.items() if name not in _REST}
    if parameters.get("until_stable"):
        kept["num_features"] = parameters["num_features"]
    return {
        "parameters": kept,
        "photographs": [list(one) for one in job.photographs],
        "versions": environment(_CODE[job.kind]),
        "source": source_hash(_CODE[job.kind]),
    }
