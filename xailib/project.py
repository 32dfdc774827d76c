"""The folder of the report's project."""

from pathlib import Path


def project_root() -> Path:
    """Return the nearest folder above (or at) the current one that holds the report.

    Notebooks start in ``notebooks/`` from JupyterLab and in the project's root from papermill;
    relative result folders mean the same in both. Without a report, the current folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "_toc.yml").is_file():
            return folder
    return here
