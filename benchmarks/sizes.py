"""How processor time grows with photographs, units and concepts; a part of `scale.py`."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from measure import Elsewhere, Times

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("tests", "book/_ext")]
import scaling  # noqa: E402

IMAGES = (10, 100, 1000, 10_000)
FILES = (10, 100, 1000)
UNITS = (100, 1000, 10_000)
CONCEPTS = (1000, 10_000, 100_000)


def grow(small: bool) -> pd.DataFrame:
    """Return processor time and memory by size."""
    from xailib.dissect.cosines import product
    from xailib.dissect.similarity import soft_wpmi

    rng = np.random.default_rng(0)

    def cosines(probe: int, concepts: int):  # type: ignore[no-untyped-def]
        tables = [rng.standard_normal((n, 64), dtype=np.float32) for n in (probe, concepts)]
        return product(*(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in tables))

    def label(units: int, concepts: int) -> Callable[[], object]:
        similarity = cosines(scaling.PROBE, concepts)
        values = rng.standard_normal((scaling.PROBE, units), dtype=np.float32)
        return lambda: soft_wpmi(similarity, values, top_k=20)

    cases = {
        "images, activations recorded": (IMAGES, recording),
        scaling.READ: (FILES, reading),
        scaling.UNITS: (UNITS, lambda n: label(n, scaling.FEW_CONCEPTS)),
        scaling.CONCEPTS: (CONCEPTS, lambda n: label(scaling.FEW_UNITS, n)),
    }
    rows = []
    for name, (sizes, make) in cases.items():
        make(sizes[0])()  # what happens only the first time is no part of it
        for size in sizes[: 2 if small else None]:
            times, work, elsewhere = Times(), make(size), Elsewhere()
            times.run(work)
            used = elsewhere.cores()
            rows.append([name, size, min(times.processor), max(times.megabytes), used])
            print(name, size, f"{min(times.processor):.3g} s", flush=True)
    columns = ["growing", "size", "seconds", "mb", "cores_used_elsewhere"]
    return pd.DataFrame(rows, columns=columns)


def reading(images: int) -> Callable[[], object]:
    """Return the reading of so many packaged photographs, cut as a network would see them."""
    from xailib.images.load import iter_images
    from xailib.images.packaged import packaged
    from xailib.networks.preprocessing import Preprocessing

    names = [name for name in packaged() if "imagenet" in str(packaged()[name].path)]
    cut = Preprocessing((224, 224), 256, (0.5,) * 3, (0.5,) * 3)

    def work() -> None:
        for number in range(images):
            cut.crop(next(iter_images([names[number % len(names)]])).pixels)

    return work


def recording(images: int) -> Callable[[], object]:
    """Return a recording of a tiny network's activations on so many probe images."""
    import nets

    from xailib.dissect.activations import record_activations
    from xailib.images.load import from_array
    from xailib.images.probe import ProbeImage, ProbeSet

    classifier = nets.classifier()
    one = nets.photograph()

    class Blobs(ProbeSet):
        """Made when asked for: what grows is to be the network's work, not the files'."""

        def photographs(self, start: int = 0):  # type: ignore[no-untyped-def]
            return (from_array(one.pixels, image.id) for image in self.images[start:])

    probe = Blobs("blobs", tuple(ProbeImage(str(n), "", one.sha256) for n in range(images)))
    folder = Path(tempfile.mkdtemp()) / "recording"
    return lambda: record_activations(classifier, ["stem.0", "fc"], probe, folder=folder)
