"""What is left of a task that was shared out: tables of rows, and manifests that say of what.

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
from xailib.jobs import Job, path_of
from xailib.profiles import Profile, declared
from xailib.results import MANIFEST, environment, intact, read_manifest, source_hash

EXPLAINED, FAILURES = "explained.parquet", "failures.parquet"
# Parameters that do not change a task's explanations.
_REST = frozenset({"images", "num_features", "device", "out_dir"})
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
    folder = job.folder(profile)
    table = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    with atomic(folder / EXPLAINED) as file:
        table.to_parquet(file, index=False)
    names = [EXPLAINED, *(f"../../{name}" for name in outputs)]
    manifest = {
        "job": job.name,
        **_request(profile, job),
        "inputs": {"images": _hashes(job), "files": dict(files)},
        "failures": list(failures),
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


def _hashes(job: Job) -> dict[str, str | None]:
    """Return each photograph's hash; None for a file that is not there."""
    found: dict[str, str | None] = {}
    for _, name in job.photographs:
        try:
            found[name] = sha256_of(path_of(name))
        except OSError:
            found[name] = None
    return found


def _shards(folder: Path, job: Job) -> dict[str, Any]:
    """Return what of its shards decides a table."""
    found = {name: read_manifest(folder.parent / name) for name in job.needs}
    return {name: [m["outputs"][EXPLAINED], m["failures"]] for name, m in found.items()}


def parameters_of(profile: Profile, task: str) -> dict[str, Any]:
    """Return a notebook's parameters: its own values, with the profile's on top."""
    return {**declared(task), **profile.share(task)}


def _request(profile: Profile, job: Job) -> dict[str, Any]:
    """Return what has to be equal for a shard to be used again, besides its inputs."""
    parameters = parameters_of(profile, job.task)
    kept = {name: value for name, value in parameters.items() if name not in _REST}
    if parameters.get("until_stable"):
        kept["num_features"] = parameters["num_features"]
    return {
        "parameters": kept,
        "photographs": [list(one) for one in job.photographs],
        "versions": environment(),
        "source": source_hash(upstream_only=True),
    }
