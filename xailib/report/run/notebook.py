"""A task's notebook: what it gets, what of it decides its result, and its execution."""

import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from xailib.errors import InputError, UnavailableError, XailibError, first_line
from xailib.files import delete_if_only, sha256_of, storage, write_atomic
from xailib.project import project_root
from xailib.report.params.profiles import Profile, notebook, upstream
from xailib.report.run.plan import LOCK, LOG
from xailib.report.run.results import MANIFEST, TELLS, read_manifest, why

ALIKE = ".alike.json"  # beside the notebooks: hashes of their cells
_LINES = re.compile(rf"{re.escape(TELLS)}[^\r\n]*")


def parameters_of(profile: Profile, task: str) -> dict[str, Any]:
    """Return what is passed to a task's notebook: its share of the profile, and its folders."""
    chosen = profile.share(task)
    chosen["out_dir"] = _relative(profile.folder(task))
    for parameter, other in upstream(task).items():
        chosen[parameter] = _relative(profile.folder(other))
    return chosen


def notebook_hash(task: str) -> str:
    """Return the hash of a notebook's cells, without their outputs.

    `InputError` is raised if the notebook is not there, or differs from its reviewed source.
    """
    return _cells_hash(_notebook(task))


def execute(profile: Profile, task: str, request: Mapping[str, Any], *, bar: bool = False) -> None:
    """Execute a task's notebook through papermill into its run folder.

    ``request`` is what the manifest then says was asked for, see `xailib.report.run.staleness`;
    with ``bar`` the progress is drawn, with the photographs that are done.

    `XailibError` is raised with the one line in which the notebook failed; its partial output stays
    beside, but for input that was refused before anything was made: then no folder is left.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    folder = profile.folder(task)
    target, partial = folder / f"{task}.ipynb", folder / f".{task}.partial.ipynb"
    try:
        papermill.execute_notebook(
            str(_notebook(task)),
            str(partial),
            parameters=parameters_of(profile, task),
            progress_bar=bar,
            cwd=str(project_root()),
            extra_arguments=["--log-level=ERROR"],  # it warns of every local connection
            kernel_manager_class=_own_kernel(),
            stdout_file=_Progress() if bar else None,
        )
    except papermill.PapermillExecutionError as error:
        message = (str(error.evalue).strip().splitlines() or [""])[0]
        nothing = error.ename == InputError.__name__ and delete_if_only(
            folder, {LOCK, LOG, partial.name}
        )
        more = "" if nothing else f" (see {_relative(partial)})"
        raise XailibError(f"{error.ename}: {message}{more}") from error
    except DeadKernelError as error:
        raise UnavailableError("the notebook's kernel died (out of memory?)") from error
    except (OSError, RuntimeError) as error:
        reason = first_line(error).partition(": ")
        raise UnavailableError(
            f"the notebook could not be executed: {reason[2] or reason[0]}"
        ) from error
    with storage(target):
        write_atomic(partial, json.dumps(_without_progress(json.loads(partial.read_bytes()))))
        partial.replace(target)
    manifest = read_manifest(folder)
    manifest["request"] = dict(request)
    manifest["outputs"][target.name] = sha256_of(target)
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))


@cache
def _own_kernel() -> type:
    """Return what starts a kernel in this interpreter, whichever ``python3`` Jupyter would find."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

    return OwnKernel


class _Progress(io.StringIO):
    """Takes what a notebook prints, and shows the lines on its progress above papermill's bar."""

    def write(self, text: str) -> int:
        """Show the last such line of a text, if it has one."""
        from tqdm.auto import tqdm

        if found := _LINES.findall(text):
            tqdm.write(found[-1].removeprefix(TELLS), file=sys.stderr)
        return len(text)


def _without_progress(executed: dict[str, Any]) -> dict[str, Any]:
    """Return an executed notebook without the lines on its progress."""
    for cell in executed["cells"]:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                output["text"] = _LINES.sub("", "".join(output["text"]))
        if "outputs" in cell:
            cell["outputs"] = [one for one in cell["outputs"] if one.get("text") != ""]
    return executed


def left_out(profile: Profile, task: str) -> str:
    """Return which images a finished run could not use, in one line; empty if none."""
    failures = read_manifest(profile.folder(task)).get("failures", [])
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return f"not explained: {why(failures[0])}{more}" if failures else ""


def _notebook(task: str) -> Path:
    path = notebook(task)
    _check_pair(path)
    return path


@cache
def _check_pair(path: Path) -> None:
    """Raise if a notebook differs from its reviewed source, so that neither runs unnoticed."""
    source = path.with_suffix(".py")
    if source.is_file() and _cells_hash(path) != _cells_hash(source):
        raise InputError(f"notebook: {path.name} and {source.name} differ; run 'xailib pair'")


def _cells_hash(half: Path) -> str:
    """Return the hash of what of a notebook's cells decides what they do: no output or number."""
    import jupytext

    cells = [
        [cell["cell_type"], cell["metadata"].get("tags", []), cell["source"].strip()]
        for cell in jupytext.read(half)["cells"]
    ]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def bring_in_step(folder: Path, keep: str = "") -> list[str]:
    """Copy the edited half of each notebook to the other; return those of which both were edited.

    What each was when its halves were last alike is stored beside them. Where both were edited,
    ``keep``, ``"py"`` or ``"ipynb"``, is the half that is kept; by default neither is changed.
    """
    from jupytext.cli import jupytext

    record = folder / ALIKE
    alike = json.loads(record.read_text()) if record.is_file() else {}
    both = []
    for source in sorted(folder.glob("*.py")):
        halves = {"py": source, "ipynb": source.with_suffix(".ipynb")}
        found = {kind: _cells_hash(half) for kind, half in halves.items() if half.is_file()}
        edited = [kind for kind, now in found.items() if now != alike.get(source.stem)]
        if len(set(found.values())) > 1 and len(edited) > 1:
            edited = [keep] if keep else []
        if not edited:
            both += [source.stem] if len(set(found.values())) > 1 else []
            continue
        newer = halves[edited[0]]
        newer.touch()  # jupytext copies the newer half, and leaves the outputs of alike cells
        jupytext(["--quiet", "--sync", str(newer)])
        alike[source.stem] = found[edited[0]]
    write_atomic(record, json.dumps(alike, indent=1))
    return both


def _relative(folder: Path) -> str:
    return os.path.relpath(folder, project_root())
