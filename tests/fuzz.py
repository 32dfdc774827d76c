"""Damaged files by the thousand for the readers of photographs, tables and word lists.

``python tests/fuzz.py --seconds 300`` (``make fuzz``): a reader may answer or say one line of
ours, and nothing else. The seed and the number of a finding make it again.
"""

import argparse
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, features

from xailib.compare.localisation import load_boxes
from xailib.dissect.concepts import load_concepts
from xailib.dissect.label import read_descriptions
from xailib.errors import XailibError
from xailib.images.decode import read_file

KINDS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]
MODES = ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "F", "YCbCr", "LAB", "HSV", "PA"]
TEXTS = {
    "boxes": 'image,left,top,right,bottom\na,0.1,0.2,0.5,0.9\n"b, c",0,0,1,1\nd,.5,.5,.6,.7\n',
    "descriptions": 'layer,unit,description,similarity\nfc,0,dog,0.5\nfc,1,"a, b",-1e3\n',
    "concepts": "dog\ncat\n  sea  lion \n\nDog\nwürde\n",
}
READERS: dict[str, Callable[[Path], object]] = {
    "boxes": load_boxes,
    "descriptions": read_descriptions,
    "concepts": load_concepts,
    "image": lambda path: read_file(path, path.name),
}
SIGNS = [b"", b"\0", b"\xff", b",", b'"', b"\n", b"\r", b"nan", b"inf", b"1e999", b"-1"]
SIGNS += [b"\xef\xbb\xbf"]


def originals() -> list[tuple[str, bytes]]:
    """Return whole files, each with the name of its reader."""
    rng = np.random.default_rng(0)
    found = [(name, text.encode()) for name, text in TEXTS.items() for _ in range(6)]
    for kind in [*KINDS, *(["AVIF"] if features.check("avif") else [])]:
        for mode in MODES:
            gray = Image.fromarray(rng.integers(0, 256, (24, 31), dtype=np.uint8))
            try:
                image = Image.frombytes(
                    mode, (31, 24), gray.resize((31 * 4, 24)).tobytes()[: _size(mode)]
                )
                exif = Image.Exif()
                exif[0x0112] = 6
                stream = io.BytesIO()
                image.save(stream, kind, **({"exif": exif} if kind in ("JPEG", "PNG") else {}))
            except (OSError, ValueError, KeyError):
                continue  # not every kind holds every mode
            found.append(("image", stream.getvalue()))
    return found


def _size(mode: str) -> int:
    return len(Image.new(mode, (31, 24)).tobytes())


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with some of its bytes changed, gone, doubled, or cut off."""
    spoilt = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        place = int(rng.integers(0, len(spoilt) + 1))
        length = int(rng.integers(0, 12))
        what = int(rng.integers(0, 5))
        if what == 0 and place < len(spoilt):
            spoilt[place] ^= 1 << int(rng.integers(0, 8))
        elif what == 1:
            del spoilt[place : place + length]
        elif what == 2:
            spoilt[place:place] = spoilt[place : place + length]
        elif what == 3:
            spoilt[place : place + length] = SIGNS[int(rng.integers(0, len(SIGNS)))]
        elif rng.random() < 0.3:
            del spoilt[place:]
    return bytes(spoilt)


def fuzz(seconds: float, seed: int = 0, most: int = 10**9) -> Counter[str]:
    """Read damaged files for so long; return how many were read and how many refused.

    Raises
    ------
    AssertionError
        For an error that is not ours or not one line, with the number that makes it again.
    """
    files = originals()
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged")
        for number in range(most):
            if time.monotonic() > end:
                break
            rng = np.random.default_rng([seed, number])
            name, data = files[int(rng.integers(0, len(files)))]
            path.write_bytes(damaged(data, rng))
            try:
                READERS[name](path)
                counts[f"{name} read"] += 1
            except XailibError as error:
                assert "\n" not in str(error), f"seed {seed}, file {number} ({name}): {error!r}"
                counts[f"{name} refused"] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}, file {number} ({name}): {error!r}") from error
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(dict(sorted(fuzz(given.seconds, given.seed).items())))  # noqa: T201
