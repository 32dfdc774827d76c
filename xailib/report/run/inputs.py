"""What a finished run was made of, looked at again: photographs, weights, other runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xailib.files import sha256_of
from xailib.images.load import Failure, iter_images
from xailib.project import project_root
from xailib.report.run.results import run_digest


def inputs_now(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest's inputs as they are now: photographs, weights, other runs.

    Called in the project's folder, where the notebooks' own paths start.

    Raises
    ------
    XailibError, OSError, KeyError, TypeError
        If one of them cannot be read any more, or the manifest is of another form.
    """
    recorded = manifest["inputs"]
    now: dict[str, Any] = dict(recorded)
    now["files"] = {file: sha256_of(Path(file)) for file in recorded["files"]}
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

        at_hand = published.at_hand(manifest["parameters"]["published"])
        now["published"] = {**recorded["published"], "at_hand": at_hand}
    if "runs" in recorded:
        now["runs"] = {folder: run_digest(project_root() / folder) for folder in recorded["runs"]}
    return now
