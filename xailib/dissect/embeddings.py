"""Where an encoder places probe images, recorded once like their activations."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from xailib.dissect import blocks as recording
from xailib.encoders.crops import Rows, batches
from xailib.encoders.load import Encoder
from xailib.errors import InputError
from xailib.images.probe import ProbeSet
from xailib.networks.classifier import BATCH

_VERSION = 1  # of the folder's layout


def record_embeddings(
    encoder: Encoder, probe: ProbeSet, *, folder: str | Path, parts: Iterable[Path] = ()
) -> Rows:
    """Return the encoder's rows of the probe images, from the folder where it holds them.

    What labels are then chosen from, of which layers and by which measure, does not matter to
    them. A recording that was interrupted goes on behind its last whole batch.

    Parameters
    ----------
    encoder : Encoder
        Any of `xailib.encoders.load.load_encoder`.
    probe : ProbeSet
        What it is shown.
    folder : str or path
        One folder for one encoder and probe set.
    parts : iterable of Path
        Folders with recordings of parts of these images, see `xailib.dissect.blocks.from_parts`.

    Returns
    -------
    (probe, dimensions) float32
        Unit rows, memory-mapped, in the probe set's order.

    Raises
    ------
    InputError
        For a folder with another recording, a full disk, or rows that are not finite.
    """
    folder = Path(folder).expanduser()
    wanted = {
        "version": _VERSION,
        "encoder": f"{encoder.name}@{encoder.sha256}",
        "dtype": "float32",
        "probe": probe.sha256,
        "images": len(probe),
    }

    def compute(start: int, stop: int) -> Iterator[dict[str, Rows]]:
        return _rows(encoder, probe.part(0, stop), start)

    manifest = recording.record(
        folder,
        wanted,
        lambda start: recording.from_parts(probe, wanted, parts, start, compute),
        failures=len(probe.failures),
        first=probe.ids[0],
    )
    return recording.table(folder, manifest, 0)


def _rows(encoder: Encoder, probe: ProbeSet, start: int) -> Iterator[dict[str, Rows]]:
    for batch in batches(probe.photographs(start), BATCH):
        rows = encoder.encode_images(batch)
        finite = np.isfinite(rows).all(1)
        if not finite.all():
            raise InputError(f"encoder: not finite for the image {batch[finite.argmin()].id!r}")
        yield {"embeddings": rows}
