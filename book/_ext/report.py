"""What the site needs beyond jupyter-book: the executed runs and their numbers.

Each page `notebooks/N_task` shows the run in ``results/<profile>/N_task``; the profile is named
by the environment variable XAILIB_PROFILE, and XAILIB_FAILED holds the tasks without results to
show, with why, in JSON. Numbers in ``metrics.json`` become substitutions
(``{{ lime_area_percent }}``). How figures look is in `shown`, where a page came from in
`provenance`, what is mended in the built pages in `pages`.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))

import pages
import parameters
import provenance
import rooms
import shown
from runs import failed, place_of, read_numbers, results_folder

log = logging.getLogger(__name__)


def add_numbers(app: Sphinx, config: Config) -> None:
    """Offer the numbers to prose, and say at each page's foot what the site was made from."""
    config.myst_substitutions = {
        **(config.myst_substitutions or {}),
        **read_numbers(results_folder()),
        "profile": results_folder().name,
    }
    config.xailib_failed = failed()
    theme = config.html_theme_options
    if theme.get("repository_url"):
        theme["use_repository_button"] = True
        theme["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
        }
    theme["extra_footer"] = provenance.footer(results_folder())


def show_run(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace a notebook by its executed run, with figures and tables as the site shows them."""
    folder, task = Path(docname).parent.name, Path(docname).name
    if folder != "notebooks":
        return
    run = results_folder() / task
    if task in failed():
        source[0] = json.dumps(_without_results(json.loads(source[0]), run))
        return
    executed = run / f"{task}.ipynb"
    if not executed.is_file():
        log.warning("no run of %s in %s: 'xailib run' makes it", task, run, location=docname)
        return
    for source_file in (executed, *Path(__file__).parent.glob("*.py")):
        app.env.note_dependency(str(source_file))
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    if notebook["metadata"].get("papermill", {}).get("exception"):
        log.warning("the run of %s failed", task, location=docname)
    cells = []
    code: list[str] = []
    for cell in notebook["cells"]:
        _hide_parameters(cell)
        if cell["cell_type"] == "code":
            _fold(cell, code)
            outputs = shown.without_captions(cell["outputs"])
            cells += shown.sections(outputs, run)
            cell["outputs"] = shown.as_outputs(outputs, run)
        cells.append(cell)
    manifest = json.loads((run / "manifest.json").read_text())
    notebook["cells"] = [*cells, provenance.cell(manifest, run, app.config)]
    source[0] = json.dumps(notebook)


def _without_results(notebook: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return a notebook that shows its title, and why there is nothing else."""
    reason = failed()[run.name]
    log_file = run / "log.txt"
    more = f"\n\nThe log: `{place_of(log_file)[1:]}`" if log_file.is_file() else ""
    text = (
        ":::{admonition} This page has no results\n:class: warning\n\n"
        f"The notebook {run.name} failed:\n\n```text\n{reason}\n```{more}\n\n"
        "Fix the cause and run the same command again: it computes only what is missing.\n:::\n"
    )
    title = next(cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    note = {"cell_type": "markdown", "id": "no-results", "metadata": {}, "source": text}
    return {**notebook, "cells": [title, note]}


def _fold(cell: dict[str, Any], code: list[str]) -> None:
    """Fold the code of a cell that shows a figure or table, below that of the cells before it."""
    tags = cell["metadata"].get("tags", [])
    if "remove-input" not in tags:
        return
    source = "".join(cell["source"])
    if "check_notebook(" not in source:  # what parameters may be says the page on all of them
        code.append(source)
    if any("xailib" in output.get("metadata", {}) for output in cell["outputs"]):
        cell["source"] = "\n\n".join(code)
        cell["metadata"]["tags"] = [*(tag for tag in tags if tag != "remove-input"), "hide-input"]
        code.clear()


def _hide_parameters(cell: dict[str, Any]) -> None:
    """Leave out the parameters: the provenance at the page's end says them all."""
    tags = cell["metadata"].setdefault("tags", [])
    if {"parameters", "injected-parameters"} & set(tags):
        tags.append("remove-cell")


def offer_executed(app: Sphinx, error: Exception | None) -> None:
    """Have the download button give the notebook as it was executed, with its outputs.

    Its images are smaller JPEG here, and what only the site reads is left out: as it is, it would
    be a third of the site.
    """
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir, "_sources", "notebooks").glob("*.ipynb"):
            executed = results_folder() / page.stem / page.name
            if page.stem not in failed() and executed.is_file():
                notebook = json.loads(executed.read_text(encoding="utf-8"))
                for cell in notebook["cells"]:
                    for output in cell.get("outputs", ()):
                        output.get("metadata", {}).pop("xailib", None)
                        if png := output.get("data", {}).pop("image/png", None):
                            output["data"]["image/jpeg"] = _as_jpeg("".join(png))
                page.write_text(json.dumps(notebook), encoding="utf-8")


def _as_jpeg(png: str) -> str:
    data = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        small = image.convert("RGB")
        small.thumbnail((720, 7200))
        small.save(data, "JPEG", quality=60, optimize=True)
    return base64.b64encode(data.getvalue()).decode()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything with Sphinx."""
    app.add_config_value("xailib_failed", {}, "env")  # a change has every page read again
    app.connect("config-inited", add_numbers, priority=100)
    app.connect("source-read", show_run, priority=10)
    app.connect("build-finished", offer_executed)
    shown.setup(app)
    pages.setup(app)
    rooms.setup(app)
    parameters.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
