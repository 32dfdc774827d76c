"""What several test files share: tiny nets, pictures, where the optional material lies."""

import os

# Before torch is imported: several workers of pytest share the cores.
os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}

import functools
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import PAGES, address, browser, page, site, visit  # noqa: F401  fixtures
from PIL import Image

from xailib.explain.explanation import Explanation, Superpixels, scaled
from xailib.images.frames import Frame

pytest_plugins = ["faults_table"]
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


# Groups in the order in which they begin: the longest first. Half of the site's pages, and its live
# view, come when the site that the first group builds is there; what needs no company comes last.
SITE, ALSO, REST = "site", "the site's other pages", "other files"
ORDER = [SITE, "tests/report/test_own_report.py", "tests/test_faults.py", REST, ALSO, ""]


@functools.cache
def group(nodeid: str) -> str:
    """Return what a test shares: pages of the site, what its file makes once, or nothing."""
    file, _, test = nodeid.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    if "(visit, name" in text:  # looked at once for all tests of a page
        page = re.search(r"\[([\w/]+)|$", test)[1]
        return ALSO if page in PAGES[::2] else SITE
    if file.endswith("test_live.py"):
        return ALSO
    return file if 'scope="module"' in text else ""


def pytest_collection_modifyitems(items):
    def place(item):
        found = group(item.nodeid)
        return ORDER.index(found if found in ORDER else REST)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give one worker all tests of a group; xdist 3.8 does not see its own groups in pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid) or nodeid

    config.option.loadscopereorder = False
    return ByGroup(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' material beside the project; users do not have it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the developers' material in {SHARED}")
    return SHARED


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that any user may enter; each session of pytest closes those above `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colour picture, 48 x 64."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, 255 - x * 2], axis=-1).astype(np.uint8)


@pytest.fixture
def photo_file(tmp_path, picture) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(picture).save(path)
    return path


def explanation(raw: np.ndarray, **changes) -> Explanation:
    """An explanation with this map, whole frame unless told otherwise."""
    raw = np.asarray(raw, np.float32)
    entries = {
        "method": "gradcam",
        "image": "cat",
        "image_sha256": "f" * 64,
        "classifier": "net@abc",
        "target": 3,
        "target_name": "tabby",
        "probability": 0.5,
        "frame": Frame.whole(*raw.shape),
        "saliency": scaled(raw, signed=False),
        "raw": raw,
    }
    return Explanation(**{**entries, **changes})


def lime_explanation(segments: np.ndarray, weights: list[float], **changes) -> Explanation:
    parts = Superpixels(segments, np.array(weights), 0.1, 0.9)
    raw = parts.weights[segments].astype(np.float32)
    return explanation(
        raw,
        **{
            "method": "lime",
            "saliency": scaled(raw, signed=True),
            "signed": True,
            "seed": 0,
            "superpixels": parts,
            **changes,
        },
    )
