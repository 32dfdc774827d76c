"""Whether a stored result is current, that is what making it now would give; and how it gets so.

The manifest of a result holds a *request*, that is parameters, code and versions, and *inputs*,
the hashes of images, weights and other results. The result is current if both are what they would
be now, and if the files that the manifest names are as they were written. Nothing here needs a
network, so that a plan is made, and the tables of shards are gathered, in a moment.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xailib.errors import XailibError
from xailib.files import atomic, sha256_of, write_atomic
from xailib.images.load import Failure, iter_images
from xailib.project import project_root
from xailib.report.params.profiles import Profile
from xailib.report.run import results
from xailib.report.run.notebook import notebook_hash, parameters_of
from xailib.report.run.plan import SHARDS, Job, path_of
from xailib.report.run.results import code_of, fingerprint, intact, read_manifest, run_digest

EXPLAINED, FAILURES = "explained.parquet", "failures.parquet"  # tables

# The rooms that make what jobs of a kind leave, see `xailib.versions`.
CODE = {
    "explain": ("xailib.explain",),
    "record": ("xailib.dissect", "xailib.encoders"),
    "label": ("xailib.dissect", "xailib.encoders"),
}
# Parameters that change neither a task's explanations, nor what it records of its probe images.
_REST = frozenset(
    {"images", "label", "num_features", "device", "out_dir"}
    | {"probe", "concepts", "measure", "top_k", "descriptions"}
)
_OF_LABELS = frozenset({"encoder", "encoder_weights", "concepts", "measure", "top_k"})
_TORN = (XailibError, OSError, KeyError, TypeError, ValueError)  # of a manifest of another form


def is_current(profile: Profile, job: Job) -> bool:
    """Return whether a job's stored result here is what doing it now would give."""
    folder = job.folder(profile)
    try:
        manifest = read_manifest(folder)
    except XailibError:
        return False
    return matches(profile, job, manifest) and intact(folder, manifest)


def unfinished(profile: Profile, jobs: Sequence[Job], *, force: bool = False) -> list[Job]:
    """Return the jobs that are left to do: not finished, or behind one that is not.

    A notebook that is up to date needs none of its shards.
    """
    if force:
        return list(jobs)
    fresh = {job.name for job in jobs if job.kind == "notebook" and is_current(profile, job)}
    spared = {name for job in jobs if job.name in fresh for name in job.needs}
    left: dict[str, Job] = {}
    for job in jobs:
        behind = not left.keys().isdisjoint(job.needs)
        if job.kind in SHARDS.values() and job.name in spared:
            continue
        if behind or not (
            job.name in fresh or (job.kind != "notebook" and is_current(profile, job))
        ):
            left[job.name] = job
    return list(left.values())


def matches(profile: Profile, job: Job, manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest is that of doing a job now, wherever its files are."""
    try:
        with contextlib.chdir(project_root()):  # where the notebooks' own paths start
            return bool(
                manifest["request"] == request(profile, job)
                and manifest["inputs"] == inputs(profile, job, manifest)
            )
    except _TORN:
        return False


def is_better(profile: Profile, job: Job, need: Job, stored: Mapping[str, Any]) -> bool:
    """Return whether a result elsewhere is to replace the one here, which a job is about to read.

    What is current here stays, unless the plan has meanwhile given a shard other images.
    """
    try:
        here = read_manifest(need.folder(profile))
    except XailibError:
        return True
    if not intact(need.folder(profile), here):
        return True
    other = _images_of(stored) != _images_of(here)
    if _matches_its_images(profile, need, here):
        return other and _matches_its_images(profile, need, stored)
    # Out of date here. What the plan names was put there by its client or a worker, just now.
    return need.name in job.needs or _matches_its_images(profile, need, stored)


def request(profile: Profile, job: Job) -> dict[str, Any]:
    """Return the request that a job's manifest would state now, as JSON values."""
    found: dict[str, Any] = {}
    if job.kind == "notebook":
        found = fingerprint(parameters_of(profile, job.task), code_of(job.task))
        found["notebook"] = notebook_hash(job.task)
    elif job.kind != "table":
        values = profile.values(job.task)
        kept = values.keys() & _OF_LABELS if job.kind == "label" else values.keys() - _REST
        if values.get("until_stable") and job.kind == "explain":
            kept |= {"num_features"}
        found = fingerprint({name: values[name] for name in sorted(kept)}, CODE[job.kind])
        found["photographs"] = [list(one) for one in job.photographs]
    return found


def inputs(profile: Profile, job: Job, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that a manifest names, with the hashes that they have now.

    Of a notebook: images, weights, other runs. Called in the project's folder, where the
    notebooks' own paths start. `XailibError`, `OSError`, `KeyError` or `TypeError` is raised if one
    of them cannot be read any more, or the manifest is of another form.
    """
    if job.gathers:
        return shards_now(profile, job)
    recorded = manifest["inputs"]
    now: dict[str, Any] = {"files": {name: sha256_of(Path(name)) for name in recorded["files"]}}
    if job.kind != "notebook":
        return {"images": image_hashes(job), **now}
    now = {**recorded, **now}
    if recorded.get("images"):
        found = list(iter_images(manifest["parameters"]["images"]))
        now["images"] = {p.id: p.sha256 for p in found if not isinstance(p, Failure)}
    if "probe" in recorded:
        from xailib.images.probe import load_probe

        probe = recorded["probe"]
        found_now = load_probe(probe["source"], probe["crops"], probe["seed"])
        now["probe"] = {**probe, "count": len(found_now), "sha256": found_now.sha256}
    if "published" in recorded:
        from xailib.report.replication import published

        at_hand = published.available(manifest["parameters"]["published"])
        now["published"] = {**recorded["published"], "at_hand": at_hand}
    if "runs" in recorded:
        now["runs"] = {folder: run_digest(project_root() / folder) for folder in recorded["runs"]}
    return now


def shards_now(profile: Profile, job: Job) -> dict[str, Any]:
    """Return what decides a table: what its shards have left, and the lists of concepts."""
    found: dict[str, Any] = {}
    for name in job.needs:
        manifest = read_manifest(job.folder(profile).parent / name)
        outputs = manifest["outputs"]
        found[name] = [outputs.get(EXPLAINED, outputs), manifest["failures"]]
    if job.kind == "label":
        lists = [Path(name).expanduser() for name in profile.values(job.task)["concepts"]]
        found["files"] = {str(file): sha256_of(file) for file in lists if file.is_file()}
    return found


def image_hashes(job: Job) -> dict[str, str | None]:
    """Return the hash of each of a job's images; None for a file that is not there."""
    found: dict[str, str | None] = {}
    for _, name in job.photographs:
        try:
            found[name] = sha256_of(path_of(name))
        except OSError:
            found[name] = None
    return found


def _images_of(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return (id, name) of the images that a manifest names; none if it is of another form."""
    try:
        return tuple((unique, name) for unique, name in manifest["request"]["photographs"])
    except (KeyError, TypeError, ValueError):
        return ()


def _matches_its_images(profile: Profile, need: Job, manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest is that of doing a job now, of whichever images it names."""
    return matches(profile, replace(need, photographs=_images_of(manifest)), manifest)


def finish(
    profile: Profile, job: Job, outputs: Sequence[str], inputs: Mapping[str, Any], **found: Any
) -> None:
    """Write the manifest that makes a job finished.

    ``outputs`` are the files that it wrote, below its own folder, ``inputs`` hashes of what decided
    the result, as from `inputs`. ``found`` is what else the manifest says, such as ``failures``:
    images that could not be used.
    """
    folder = job.folder(profile)
    manifest = {
        "job": job.name,
        "request": request(profile, job),
        "inputs": dict(inputs),
        **found,
        "outputs": {name: sha256_of(folder / name) for name in outputs},
    }
    write_atomic(folder / results.MANIFEST, json.dumps(manifest, indent=1))


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
    finish(profile, job, [table, FAILURES], shards_now(profile, job))


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
