"""The folder of the report's project, and what of its machine a process may use."""

import os
from pathlib import Path


def cores() -> int:
    """Return how many processor cores this process may use; macOS only says how many there are."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def project_root() -> Path:
    """Return the nearest folder above (or at) the current one that holds the report.

    Relative result folders mean the same in ``notebooks/`` (JupyterLab) and in the project's root
    (papermill). Elsewhere it is the project of this package; without a report, the current folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[1]):
        if (folder / "_toc.yml").is_file():
            return folder
    return here
