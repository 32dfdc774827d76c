"""Results: one folder a run, with a manifest that says what made it, and reuse only if it matches.

A run folder holds ``manifest.json``, ``metrics.json`` (numbers for prose), tables (``.parquet``),
explanations (``.npz``), ``figures/`` and the executed notebook. Every file is written all or
nothing; the manifest comes last, so a folder without one was interrupted.
"""

import contextlib
import hashlib
import json
import platform
import re
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from xailib.errors import InputError, StorageError, XailibError
from xailib.explain.explanation import Explanation
from xailib.files import atomic, lock_folder, sha256_of, write_atomic
from xailib.images.load import ImageSet, Photograph
from xailib.networks.counting import Passes, passed, passes
from xailib.project import project_root
from xailib.versions import environment, git_commit, imports_of, source_hash

_File = tuple[Path, dict[str, Any]]  # of an explanation, and all that decides it

_PAUSE = 10.0  # seconds between two lines that tell how far a notebook is
TELLS = "\r· "  # begins each of them; what executes the notebook shows them and takes them away
MANIFEST = "manifest.json"
METRICS = "metrics.json"


def file_hashes(files: Iterable[Path]) -> dict[str, str]:
    """Return the hashes of files by path: within the project, by the path below its root.

    So a result is the same in another copy of the project, or on another machine.
    """
    root = project_root().resolve()
    places = {Path(file): Path(file).resolve() for file in files}
    return {
        str(place.relative_to(root) if place.is_relative_to(root) else place): sha256_of(file)
        for file, place in places.items()
    }


def start_run(
    out_dir: str | Path,
    task: str,
    parameters: Mapping[str, Any],
    photographs: ImageSet,
    files: Iterable[Path] = (),
    **inputs: Any,
) -> "Run":
    """Open the folder of a run, made if it is not there.

    Parameters
    ----------
    out_dir : path
        Relative paths start at `project_root`.
    task : str
        The notebook's name, such as ``"2_lime"``.
    parameters : mapping
        The notebook's parameters, JSON values.
    photographs : ImageSet
        Their hashes become part of the manifest, and so do the failures among them.
    files : iterable of paths
        Whose content decides the result, such as ``classifier.files``: hashed, and looked at
        again before the run is reused.
    **inputs
        What else goes in, as JSON values: ``weights=classifier.identity``,
        ``runs={folder: run_digest(folder)}``.

    Raises
    ------
    InputError
        If the folder cannot be written to, or another process is writing to it.
    """
    folder = project_root() / Path(out_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"out_dir: cannot write to {str(folder)!r}: {error.strerror}") from error
    lock = lock_folder(folder, ".run.lock")
    hashes = {"images": photographs.hashes, "files": file_hashes(files), **inputs}
    run = Run(folder, task, dict(parameters), hashes, lock)
    run.failures += [{"source": f.source, "reason": f.reason} for f in photographs.failures]
    return run


@dataclass
class Run:
    """One execution of a task, writing to its folder.

    `written` are the files so far, below the folder: made now, or found as they should be.
    """

    folder: Path
    task: str
    parameters: dict[str, Any]
    inputs: dict[str, Any]
    lock: FileLock | None = field(default=None, repr=False)
    failures: list[dict[str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    counted: Passes = field(default_factory=passes)
    written: list[str] = field(default_factory=list)
    _caches: list[str] = field(default_factory=list)
    _told: float = field(default_factory=time.monotonic)

    def explanations(
        self,
        photographs: Iterable[Photograph],
        method: str,
        key: Mapping[str, Any],
        make: Callable[[Photograph], Explanation],
        code: str = "xailib.explain",
    ) -> list[Explanation]:
        """Return one method's explanations of all photographs, stored or made one by one.

        See `streamed`; ``make`` explains one photograph, or raises one of our errors. `code` is
        the room that makes it, see `xailib.versions`.
        """

        def explain(missing: Iterable[Photograph]) -> Iterator[Explanation | XailibError]:
            for photograph in missing:
                try:
                    yield make(photograph)
                except StorageError:
                    raise  # not this photograph's fault, and the next one's too
                except XailibError as error:
                    yield error

        return list(self.streamed(photographs, method, key, explain, code))

    def streamed(
        self,
        photographs: Iterable[Photograph],
        method: str,
        key: Mapping[str, Any],
        explain: Callable[[Iterable[Photograph]], Iterator[Explanation | XailibError]],
        code: str = "xailib.explain",
    ) -> Iterator[Explanation]:
        """Yield one method's explanations of all photographs, stored or made, in their order.

        Used again is what is stored with the same `key` and all else that decides it. What is
        made is stored at once, so that an interrupted run loses little. A photograph that cannot
        be explained is left out and stands among the failures.

        Parameters
        ----------
        photographs
            Read when they are due.
        method, key
            What decides the explanations, besides photographs, network, code and versions.
        explain : callable
            Takes those that are not stored, and yields for each, in order, its explanation or
            why there is none.
        code : str
            The room that makes them, see `xailib.versions`.

        Raises
        ------
        InputError
            If there is none left: the last reason.
        """
        waiting: deque[tuple[Photograph | None, _File]] = deque()  # None: it is stored
        count, total = 0, len(photographs) if isinstance(photographs, Sized) else None
        # Once for all of them: following imports takes as long as an explanation on a GPU.
        made_by = {"versions": environment((code,)), "source": source_hash((code,))}

        def missing() -> Iterator[Photograph]:
            for photograph in photographs:
                file = self._place(photograph, method, key, made_by)
                stored = self._is_stored(*file)
                waiting.append((None if stored else photograph, file))
                if not stored:
                    yield photograph

        def stored() -> Iterator[Explanation]:
            while waiting and waiting[0][0] is None:
                _, (path, _) = waiting.popleft()
                self._note(path)
                yield counted(Explanation.load(path))

        def counted(one: Explanation) -> Explanation:
            nonlocal count
            count += 1
            self.tell(method, count, total)
            return one

        before = passes().made
        for made in explain(missing()):
            yield from stored()
            photograph, file = waiting.popleft()
            if isinstance(made, XailibError):
                source = "" if photograph is None else photograph.source
                self.failures.append({"source": source, "reason": str(made)})
            else:
                self._store(*file, made, passes().made - before)
                yield counted(made)
            before = passes().made
        yield from stored()
        if not count:
            raise InputError(self.failures[-1]["reason"] if self.failures else "images: none left")

    def told(self, photographs: Sequence[Photograph], what: str) -> Iterator[Photograph]:
        """Yield photographs, and say now and then how many of them are done."""
        for count, photograph in enumerate(photographs):
            self.tell(what, count, len(photographs))
            yield photograph

    def tell(self, what: str, count: int, total: int | None, of: str = "photographs") -> None:
        """Say in a notebook, now and then, how far this run is."""
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if shell and time.monotonic() - self._told >= _PAUSE:
            self._told = time.monotonic()
            sys.stdout.write(f"{TELLS}{what}: {count}{f' of {total}' if total else ''} {of}")
            sys.stdout.flush()

    def _place(
        self, one: Photograph, method: str, key: Mapping[str, Any], made_by: Mapping[str, Any]
    ) -> _File:
        """Return an explanation's file, and all that decides it."""
        asked = {**key, **self.inputs, "images": one.sha256, "method": method}
        stem = one.id if len(one.id.encode()) <= 150 else one.sha256  # of a file's name
        # What is asked for otherwise has another name and stays; other code takes its place.
        name = f"{stem}.{method}.{_digest(asked)[:8]}.npz"
        return self.folder / "explanations" / name, json.loads(json.dumps({**asked, **made_by}))

    def _is_stored(self, path: Path, wanted: Mapping[str, Any]) -> bool:
        """Tell whether a file holds what is wanted, and count what it has cost."""
        try:
            stored = json.loads(path.with_suffix(".json").read_text())
            if stored["key"] == wanted and stored["sha256"] == sha256_of(path):
                passed(stored.get("passes", 0), kept=True)
                return True
        except (OSError, ValueError, KeyError):
            pass  # absent, half of a pair, or damaged: made again
        return False

    def _store(self, path: Path, wanted: Mapping[str, Any], made: Explanation, cost: int) -> None:
        self._begin()
        self._note(path)
        made.save(path)
        record = {"key": wanted, "sha256": sha256_of(path), "passes": cost}
        write_atomic(path.with_suffix(".json"), json.dumps(record, indent=1))

    def _note(self, path: Path) -> None:
        files = (path, path.with_suffix(".json"))
        self.written += [str(file.relative_to(self.folder)) for file in files]

    def save_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a tidy table as ``name.parquet``."""
        with self.open(f"{name}.parquet") as file:
            table.to_parquet(file, index=False)

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the numbers that prose uses, as JSON."""
        with self.open(METRICS) as file:
            file.write(json.dumps(dict(metrics), indent=1).encode())

    def open(self, name: str):  # type: ignore[no-untyped-def]
        """Open a file of this run for writing, all or nothing."""
        self._begin()
        self.written.append(name)
        return atomic(self.folder / name)

    def cache(self, name: str, key: Mapping[str, Any], code: str = "xailib.dissect") -> Path:
        """Return the folder of something large that only this key, code and versions give."""
        wanted = {**key, "versions": environment((code,)), "source": source_hash((code,))}
        folder = self.folder / name / _digest(wanted)[:16]
        self._caches.append(str(folder.relative_to(self.folder)))
        return folder

    def _begin(self) -> None:
        """Take the old manifest away before the first change: from here on this is unfinished."""
        (self.folder / MANIFEST).unlink(missing_ok=True)

    def finish(self) -> dict[str, Any]:
        """Write the manifest, which makes the run reusable, and return it.

        Explanations and recordings that other parameters gave stay beside those of this run, for
        the next time they are asked for: `leftovers` lists them.
        """
        self._begin()
        for file in (self.folder / "figures").glob("*"):  # drawn again in a moment
            if str(file.relative_to(self.folder)) not in self.written:
                file.unlink()
        manifest = {
            "task": self.task,
            **fingerprint(self.parameters, code_of(self.task)),
            "inputs": self.inputs,
            "failures": self.failures,
            "commit": git_commit(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 1),
            "passes": asdict(passes() - self.counted),
            "machine": f"{platform.system()} {platform.machine()}",
            # of torch, where the run has imported it
            "threads": getattr(sys.modules.get("torch"), "get_num_threads", lambda: None)(),
            "memory": peak_memory(),
            "caches": sorted(set(self._caches)),
            "outputs": {n: sha256_of(self.folder / n) for n in dict.fromkeys(self.written)},
        }
        write_atomic(self.folder / MANIFEST, json.dumps(manifest, indent=1))
        if self.lock is not None:
            self.lock.release(force=True)
        return manifest


def why(failure: Mapping[str, str]) -> str:
    """Return why an image could not be used, with its name."""
    source, reason = failure["source"], failure["reason"].removeprefix("images: ")
    return reason if source in reason else f"{source}: {reason}"


def leftovers(folder: Path) -> list[Path]:
    """Return what is in a finished run's folder but not of that run, files and folders.

    Those are explanations and recordings that earlier parameters gave. Of an unfinished run,
    nothing is returned.
    """
    try:
        manifest = read_manifest(folder)
    except InputError:
        return []
    named = {*manifest["outputs"], *manifest.get("caches", ())}
    for job in folder.glob("jobs/*"):
        with contextlib.suppress(InputError):  # what an unfinished job has left is of nobody
            named |= {name.removeprefix("../../") for name in read_manifest(job)["outputs"]}
    named = {"/".join(Path(name).parts[:2]) for name in named}  # a recording is a whole folder
    places = [*folder.glob("explanations/*"), *folder.glob("activations/*")]
    places += folder.glob("embeddings/*")
    return sorted(place for place in places if str(place.relative_to(folder)) not in named)


def fingerprint(parameters: Mapping[str, Any], code: Collection[str]) -> dict[str, Any]:
    """Return what must be equal for a finished run to be used again, besides its inputs.

    `code` names the modules that make the run, see `code_of`.
    """
    return {
        "parameters": json.loads(json.dumps(dict(parameters))),
        "versions": environment(code),
        "source": source_hash(code),
    }


def code_of(task: str) -> frozenset[str]:
    """Return the modules that a task's notebook imports; without a notebook, the whole package.

    What checks parameters is left out: it refuses values and makes none, and the values
    themselves stand beside the code in a run's fingerprint.
    """
    file = project_root() / "notebooks" / f"{task}.ipynb"
    try:
        cells = json.loads(file.read_bytes())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        names = imports_of("\n".join(code))
    except (OSError, ValueError, KeyError, SyntaxError):  # none there, or one with magics
        return frozenset({"xailib"})
    return frozenset(name for name in names if not name.startswith("xailib.report.params"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a finished run's manifest; `InputError` if the run is absent or unfinished."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"run: {str(folder)!r} holds no finished run") from error
    if not isinstance(manifest, dict):
        raise InputError(f"run: {str(folder)!r} has a damaged manifest")
    return manifest


def intact(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Return whether every file that the manifest names is there, unchanged."""
    return bool(manifest.get("outputs")) and not damaged(folder, manifest)


def damaged(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Return the files of a run that are missing or not as they were written."""
    found = []
    for name, sha256 in manifest.get("outputs", {}).items():
        try:
            same = sha256_of(folder / name) == sha256
        except OSError:
            same = False
        if not same:
            found.append(name)
    return found


def run_digest(folder: Path) -> str:
    """Return a hash of a finished run's files: equal for equal results, whenever they were made."""
    outputs = read_manifest(folder)["outputs"]
    # An executed notebook holds times, and the note beside an explanation what it took.
    cost = re.compile(r"explanations/.*\.json|.*\.ipynb", re.DOTALL)
    return _digest({name: sha256 for name, sha256 in outputs.items() if not cost.fullmatch(name)})


def load_table(folder: str | Path, name: str) -> pd.DataFrame | None:
    """Return a table of a finished run; None if the run has no table of that name.

    `InputError` is raised if the run is absent, unfinished, or was changed since.
    """
    folder, manifest = _finished(folder)
    file = f"{name}.parquet"
    return pd.read_parquet(folder / file) if file in manifest["outputs"] else None


def load_explanations(folder: str | Path) -> list[Explanation]:
    """Return the explanations of a finished run, in the order they were made.

    Errors are those of `load_table`.
    """
    folder, manifest = _finished(folder)
    names = [n for n in manifest["outputs"] if n.startswith("explanations/") and n.endswith(".npz")]
    return [Explanation.load(folder / n) for n in names]


def _finished(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the place and manifest of a run that is whole, or raise."""
    place = project_root() / Path(folder).expanduser()
    manifest = read_manifest(place)
    if not intact(place, manifest):
        raise InputError(f"run: files in {str(place)!r} are not those of its manifest; run again")
    return place, manifest


def peak_memory() -> int:
    """Return how many bytes of memory this process has held at most so far; 0: not known."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _digest(wanted: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
