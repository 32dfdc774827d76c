"""What the replicated report has published: located, checked by hash, and read safely.

The files are those of one commit of its public repository. They are fetched from there, or
taken from a local folder in the repository's own layout; either way each must have the SHA-256
that the registry of downloads states. None of them is part of this package.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int8

from xailib.dissect.label import read_descriptions
from xailib.downloads.registry import artefacts
from xailib.errors import InputError
from xailib.files import sha256_of
from xailib.report.replication.arrays import read_array

REPOSITORY = "balwanishivam/tml-assignment"
COMMIT = "aa31b27237f90561e58ab8c5b6246ee753770b08"
FOLDER = "Assignment-4"
CAMS = ("gradcam", "ablationcam", "scorecam")
LIMES = ("LIME 1", "LIME 2")
# The paths of its unit labels, by network: one of ImageNet, one of Places365.
LABELS = {
    "resnet18": "task-1/result_final/resnet18_24_07_24_15_58/descriptions.csv",
    "resnet18_places365": "task-1/result_final/resnet18_places_24_07_24_15_45/descriptions.csv",
}


@dataclass(frozen=True)
class Published:
    """What the report has published for one photograph."""

    image: str  #: its name
    photograph: Path  #: its file
    iou1: float  #: in Table I, of LIME 1 with Grad-CAM, to four decimals
    iou2: float  #: the same of LIME 2
    #: from "LIME 1" and "LIME 2" to masks in the photograph squashed to 256 x 256, of which the
    #: centre was cropped; 1 supports, -1 opposes, 0 not chosen
    limes: Mapping[str, Int8[np.ndarray, "224 224"]] = field(repr=False)
    #: from a key of `CAMS` to maps in [0, 1], as large as the photograph
    cams: Mapping[str, Float32[np.ndarray, "height width"]] = field(repr=False)


def registry() -> dict[str, str]:
    """Return the SHA-256 of each file that is audited, by its path in the repository's folder."""
    return {one.path: one.sha256 for one in artefacts("published")}


def table1() -> pd.DataFrame:
    """Return Table I as printed: image, file, iou1, iou2."""
    return pd.read_csv(Path(__file__).with_name("table1.csv"), comment="#")


def locate(source: str | Path = "") -> dict[str, Path]:
    """Return the paths of the published files, each checked against its SHA-256.

    ``source`` is a local folder: the report's own, with ``task-2/`` and ``task-3/`` in it, or a
    clone of its repository. Empty: the files are downloaded once into the user's cache folder.
    `InputError` is raised if the folder is absent, lacks a file, or holds another version of one,
    `UnavailableError` if a file can neither be found nor fetched.
    """
    if not str(source):
        return {one.path: one.fetch() for one in artefacts("published")}
    folder, known = _own_folder(source), registry()
    if not folder.is_dir():
        raise InputError(f"published: no folder {str(source)!r}; leave it empty to fetch the files")
    found = {path: folder / path for path in known}
    bad, problem = [path for path, file in found.items() if not file.is_file()], "lacks"
    if not bad:
        bad = [path for path, file in found.items() if sha256_of(file) != known[path]]
        problem = f"holds another version than commit {COMMIT[:7]} of"
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise InputError(f"published: {str(folder)!r} {problem} {bad[0]}{more}")
    return found


def available(source: str | Path = "") -> bool:
    """Return whether `locate` finds all files without fetching; their hashes are not read."""
    if not str(source):
        return all(one.here for one in artefacts("published"))
    return all((_own_folder(source) / path).is_file() for path in registry())


def _own_folder(source: str | Path) -> Path:
    folder = Path(source).expanduser()
    inside = folder / FOLDER  # of a clone of the whole repository
    return inside if inside.is_dir() else folder


def load_published(found: Mapping[str, Path]) -> list[Published]:
    """Read what `locate` found, in the order of Table I."""
    return [_read(found, row) for row in table1().to_dict("records")]


def load_labels(found: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """Read the labels of units among what `locate` found, by network, as in `LABELS`."""
    return {network: read_descriptions(found[path]) for network, path in LABELS.items()}


def _read(found: Mapping[str, Path], row: Mapping[Any, Any]) -> Published:
    file = row["file"]
    limes = {
        name: read_array(found[f"task-2/results/boundary_{number}/masks/{file}.pth"])
        for number, name in enumerate(LIMES, start=1)
    }
    # Three equal channels, since grad-cam's script multiplies the image by them.
    cams = {
        cam: read_array(found[f"task-3/results/{cam}_images/{file}/masks.pth"])[..., 0]
        for cam in CAMS
    }
    return Published(
        row["image"],
        found[f"task-2/images/{file}"],
        row["iou1"],
        row["iou2"],
        {name: mask.astype(np.int8) for name, mask in limes.items()},
        cams,
    )
