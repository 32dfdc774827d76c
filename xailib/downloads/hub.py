"""Files of the Hugging Face hub, without its half minute of retries where it is out of reach."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub  # which imports its parts when they are used
from huggingface_hub import constants


def in_their_cache(repository: str, names: Sequence[str]) -> Path | None:
    """Return the first of these files that the hub's own package has fetched."""
    found = (huggingface_hub.try_to_load_from_cache(repository, name) for name in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def address(repository: str, name: str) -> str:
    """Return where the hub offers a file; ``HF_ENDPOINT`` names another hub."""
    return huggingface_hub.hf_hub_url(repository, name)


@contextmanager
def offline() -> Iterator[None]:
    """Let packages that ask the hub themselves take what is in its cache, without asking."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
