"""Which code makes a result: the packages' versions, xailib's own source, its commit."""

import hashlib
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What decides a result's numbers; its versions are part of every manifest.
_PACKAGES = (
    "grad-cam", "lime", "matplotlib", "numpy", "onnxruntime", "pandas", "pillow", "scikit-image",
    "open-clip-torch", "openai-clip", "openvino", "scikit-learn", "scipy", "timm", "torch",
    "torchvision", "transformers",
)  # fmt: skip
# The modules that decide an explanation, besides those in `xailib.explain`: a change elsewhere
# leaves stored explanations as they are.
_UPSTREAM = frozenset(
    {
        "decode", "engines", "explanation", "forward", "frames", "images", "layers", "models",
        "packaged", "preprocessing", "sanity", "weights", "zoo",
    }
)  # fmt: skip
_held: ContextVar[dict[bool, str] | None] = ContextVar("source", default=None)


def environment() -> dict[str, str]:
    """Return the versions of Python, xailib and the packages that decide the numbers."""
    return dict(_versions())


@cache  # looked up for every explanation, and the same as long as the process lives
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("xailib", *_PACKAGES):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return versions


def source_hash(*, upstream_only: bool = False) -> str:
    """Return the SHA-256 of xailib's own source, or of the part that makes explanations."""
    held = _held.get()
    if held is None:
        return _source_hash(upstream_only)
    if upstream_only not in held:
        held[upstream_only] = _source_hash(upstream_only)
    return held[upstream_only]


@contextmanager
def source_read_once() -> Iterator[None]:
    """Read xailib's source once for all that is compared with it in this block.

    A plan of many jobs asks for its hash at each. Outside of such a block it is read each time: in
    a notebook's process it may be edited between two cells.
    """
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


def _source_hash(upstream_only: bool) -> str:
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*root.rglob("*.py"), *root.rglob("*.csv"), *root.rglob("*.t??")]):
        upstream = file.stem in _UPSTREAM or "explain" in file.parts
        if upstream_only and not upstream:
            continue
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def git_commit() -> str:
    """Return the project's commit, with ``+`` if there are changes, or ``unknown``."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(  # noqa: S603  fixed command, no shell
            [*command, "--abbrev=12", "--exclude=*"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
