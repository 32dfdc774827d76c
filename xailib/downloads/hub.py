"""Files of the Hugging Face hub, without its half minute of retries where it is out of reach."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

from xailib.downloads import fetch as downloads
from xailib.errors import UnavailableError


def cached(repository: str, names: Sequence[str]) -> Path | None:
    """Return the first of these files that is here: in the hub's own cache, or in ours."""
    ours = [place(repository, name) for name in names]
    theirs = in_their_cache(repository, names)
    return theirs or next((file for file in ours if file.is_file()), None)


def in_their_cache(repository: str, names: Sequence[str]) -> Path | None:
    """Return the first of these files that the hub's own package has fetched."""
    found = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def fetch(repository: str, names: Sequence[str], watch: downloads.Watch | None = None) -> Path:
    """Return the first of these files that the repository has.

    Raises
    ------
    UnavailableError
        In one line, if the hub is out of reach or has none of them.
    """
    found = cached(repository, names)
    for name in () if found else names:
        try:
            return downloads.fetch(address(repository, name), place(repository, name), watch=watch)
        except downloads.GoneError:
            continue
    if found is None:
        raise UnavailableError(f"{repository} has no {' or '.join(names)}")
    return found


def timm_source(name: str) -> tuple[str, list[str]]:
    """Return the repository and the files, in order, that timm takes a network's weights from.

    For the few that are not on the hub the repository is empty, and the file is an address.

    Raises
    ------
    UnavailableError
        If nobody publishes weights for it.
    """
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise UnavailableError(f"timm knows no published weights for {name}")
    if not config.hf_hub_id:
        return "", [config.url]
    file = config.hf_hub_filename or "pytorch_model.bin"
    return config.hf_hub_id, [*(["model.safetensors"] if file == "pytorch_model.bin" else []), file]


def timm_file(name: str, watch: downloads.Watch | None = None) -> Path:
    """Return the file with the weights that timm publishes for a network, fetched once."""
    repository, names = timm_source(name)
    if repository:
        return fetch(repository, names, watch)
    return downloads.fetch(names[0], watch=watch)


def address(repository: str, name: str) -> str:
    """Return where the hub offers a file; ``HF_ENDPOINT`` names another hub."""
    return hf_hub_url(repository, name)


@contextmanager
def offline() -> Iterator[None]:
    """Let packages that ask the hub themselves take what is in its cache, without asking."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def place(repository: str, name: str) -> Path:
    """Return where we keep a file of the hub."""
    return downloads.cache_folder() / "hub" / repository / name
