"""Where an encoder places probe images, recorded once like their activations."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from xailib.dissect.blocks import Recording, record
from xailib.encoders.clip import ClipEncoder
from xailib.encoders.crops import Rows, batches
from xailib.encoders.load import ConseEncoder, Encoder
from xailib.errors import InputError
from xailib.images.load import Photograph
from xailib.images.pool import Crop, crops
from xailib.images.probe import ProbeSet
from xailib.networks.memory import enough


def record_embeddings(
    encoder: Encoder, probe: ProbeSet, *, folder: str | Path, workers: int | None = None
) -> Recording:
    """Record the encoder's rows of the probe images, as the table ``"embeddings"``.

    What labels are then chosen from, of which layers and by which measure, does not matter to
    them. Only blocks that the folder does not hold yet are recorded.

    Parameters
    ----------
    encoder : Encoder
        Any of `xailib.encoders.load.load_encoder`.
    probe : ProbeSet
        What it is shown.
    folder : str or path
        Where blocks are stored, also those of other encoders or images.
    workers : int, optional
        Processes that read images ahead, by default `xailib.images.pool.workers_for` the device.

    Returns
    -------
    Recording
        Its table is (probe, dimensions) float32: unit rows in the probe set's order.

    Raises
    ------
    InputError
        For too little room, or rows that are not finite.
    StorageError
        If the disk is full, or may not be written to.
    """
    wanted = {"encoder": f"{encoder.name}@{encoder.sha256}", "dtype": "float32"}
    device = getattr(encoder, "device", torch.device("cpu"))

    def read(part: ProbeSet) -> Iterator[Crop] | Iterator[Photograph]:
        if isinstance(encoder, ClipEncoder | ConseEncoder):  # whose crops others can make
            return crops(part, encoder.preprocessing.crop, device, workers)
        return part.photographs()

    return record(
        folder, wanted, probe, read, lambda images, _: _rows(encoder, images, enough(device))
    )


def _rows(
    encoder: Encoder, images: Iterator[Crop] | Iterator[Photograph], batch_size: int
) -> Iterator[dict[str, Rows]]:
    for batch in batches(images, batch_size):
        rows = encoder.encode_images(batch)
        finite = np.isfinite(rows).all(1)
        if not finite.all():
            raise InputError(f"encoder: not finite for the image {batch[finite.argmin()].id!r}")
        yield {"embeddings": rows}
