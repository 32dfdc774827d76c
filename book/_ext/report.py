"""What the site needs beyond jupyter-book: the executed runs, their numbers, no network.

Each page `notebooks/N_task` shows the run in ``results/<profile>/N_task``; the profile is named
by the environment variable XAILIB_PROFILE. Numbers in ``metrics.json`` become substitutions
(``{{ lime_area_percent }}``), figures that `xailib.figures.publish` saved become numbered
figures with alternative text and a link to their data.
"""

import importlib.util
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.directives.patches import Figure
from sphinx.util import logging
from sphinx.util.fileutil import copy_asset

log = logging.getLogger(__name__)
ROOT = Path(__file__).parents[2]


def results_folder() -> Path:
    """Return the folder of the profile's runs."""
    return ROOT / "results" / os.environ.get("XAILIB_PROFILE", "embedded")


def read_numbers(folder: Path) -> dict[str, str]:
    """Return every run's metrics as text, as ``task_name``."""
    numbers = {}
    for file in sorted(folder.glob("*/metrics.json")):
        task = file.parent.name.partition("_")[2]
        for key, value in json.loads(file.read_text()).items():
            digits = 0 if isinstance(value, float) and abs(value) >= 10 else 2
            text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
            numbers[f"{task}_{key}"] = text
    return numbers


def add_numbers(app: Sphinx, config: Config) -> None:
    """Offer the numbers to prose, and serve MathJax from the site itself."""
    config.myst_substitutions = {
        **(config.myst_substitutions or {}),
        **read_numbers(results_folder()),
        "profile": results_folder().name,
    }
    config.mathjax_path = "tex-svg.js"


def show_run(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace a notebook by its executed run, with figures and tables as the site shows them."""
    folder, task = Path(docname).parent.name, Path(docname).name
    if folder != "notebooks":
        return
    run = results_folder() / task
    executed = run / f"{task}.ipynb"
    if not executed.is_file():
        log.warning("no run of %s in %s: 'xailib run' makes it", task, run, location=docname)
        return
    app.env.note_dependency(str(executed))
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    if notebook["metadata"].get("papermill", {}).get("exception"):
        log.warning("the run of %s failed", task, location=docname)
    manifest = json.loads((run / "manifest.json").read_text())
    for cell in notebook["cells"]:
        _tag(cell)
        if cell["cell_type"] == "code":
            cell["outputs"] = [_shown(output, run) for output in _kept(cell["outputs"])]
    notebook["cells"].append(_provenance(manifest))
    source[0] = json.dumps(notebook)


def _tag(cell: dict[str, Any]) -> None:
    tags = cell["metadata"].setdefault("tags", [])
    if "injected-parameters" in tags:
        tags.append("remove-cell")  # the provenance at the page's end says them all
    elif "parameters" in tags:
        tags.append("remove-cell")


def _kept(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    captions = [o for o in outputs if "caption_of" in o.get("metadata", {}).get("xailib", {})]
    return [output for output in outputs if output not in captions]


def _shown(output: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return a published figure or table as Markdown, anything else as it is."""
    published = output.get("metadata", {}).get("xailib")
    if not published:
        return output
    place = f"/{run.relative_to(ROOT)}"
    data = f" {{download}}`Data (CSV) <{place}/{published['data']}>`" if "data" in published else ""
    if "image" in published:
        text = (
            f"```{{figure}} {place}/{published['image']}\n:name: {published['name']}\n"
            f":alt: {published['alt']}\n\n{published['caption']}{data}\n```\n"
        )
    elif "browser" in published:
        text = _browser(published, place) + f"{published['caption']}{data}\n"
    else:
        table = "".join(output["data"]["text/html"])
        text = (
            f'<div class="xailib-table" id="{published["name"]}" tabindex="0">\n\n{table}\n\n'
            f"</div>\n\n{published['caption']}{data}\n"
        )
    return {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": text}}


def _browser(published: dict[str, Any], place: str) -> str:
    """Return the unit browser's data, for its script, with the picture of all thumbnails."""
    sheet = Path(published["sheet"]).name
    return (
        f'<div class="unit-browser" id="{published["name"]}" data-sheet="../_images/{sheet}">\n'
        f'<script type="application/json">{published["browser"]}</script>\n'
        "<noscript>The table needs JavaScript; its data is linked below.</noscript>\n</div>\n\n"
        # The hidden picture makes Sphinx copy the file; the table shows parts of it.
        f"```{{image}} {place}/{published['sheet']}\n:class: unit-sheet\n"
        ":alt: Thumbnails of the probe images that the table above shows\n```\n\n"
    )


def _provenance(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the cell that says what made a page, and how to make it again."""
    request = manifest.get("request", {}).get("parameters", {})
    words = " ".join(
        "-y " + shlex.quote(f"{name}: {json.dumps(value, ensure_ascii=False)}")
        for name, value in request.items()
        if name != "out_dir"
    )
    versions = ", ".join(
        f"{name} {manifest['versions'][name]}"
        for name in ("xailib", "python", "torch", "torchvision", "lime", "grad-cam")
    )
    task = manifest["task"]
    text = f"""## How this page was made

{_ingredients(manifest["inputs"])}

Made
: {manifest["finished"][:10]} in {manifest["seconds"]:.0f} s on {manifest["machine"]}, commit
  `{manifest["commit"]}`, {versions}

Make it again
: ```bash
  papermill notebooks/{task}.ipynb out.ipynb {words}
  ```
"""
    return {"cell_type": "markdown", "id": "provenance", "metadata": {}, "source": text}


def _ingredients(inputs: dict[str, Any]) -> str:
    """Return what went into a run, as a definition list."""
    found: dict[str, str] = {}
    if weights := inputs.get("weights"):
        sha256 = weights["sha256"][:16]
        found["Network"] = f"{weights['model']}, weights `{weights['weights']}` (`{sha256}…`)"
    if images := inputs.get("images"):
        found["Photographs"] = ", ".join(images)
    if probe := inputs.get("probe"):
        source = ", ".join(probe["source"])
        found["Probe images"] = f"{probe['count']}, from {source}, {probe['crops']} crops each"
    if encoder := inputs.get("encoder"):
        found["Encoder"] = f"{encoder['label']} (`{encoder['sha256'][:16]}…`)"
    if concepts := inputs.get("concepts"):
        found["Concepts"] = f"{concepts['count']}, {concepts['source']}"
    if published := inputs.get("published"):
        found["The report's files"] = (
            f"github.com/{published['repository']}, commit `{published['commit'][:12]}` "
            f"(read from: {published['source']})"
        )
    if runs := inputs.get("runs"):
        found["Runs compared"] = ", ".join(f"`{run}`" for run in runs)
    return "\n\n".join(f"{name}\n: {text}" for name, text in found.items())


class ResultFigure(Figure):
    """A figure from a run: ``{result-figure} 4_agreement/side-by-side`` with its own caption."""

    required_arguments = 1
    option_spec = {**Figure.option_spec, "alt": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Point the figure at the profile's file."""
        task, _, name = self.arguments[0].partition("/")
        found = sorted((results_folder() / task / "figures").glob(f"{name}.*"))
        images = [file for file in found if file.suffix in (".svg", ".webp")]
        if not images:
            message = f"no figure {self.arguments[0]!r} in {results_folder()}"
            return [self.state.document.reporter.warning(message, line=self.lineno)]
        self.arguments[0] = f"/{images[0].relative_to(ROOT)}"
        result: list[nodes.Node] = super().run()
        return result


def drop_thebe(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Leave out the scripts of thebe, which jupyter-book loads and which ask a CDN."""

    def asks_thebe(file: Any) -> bool:
        body = str(getattr(file, "attributes", {}).get("body", ""))
        return "thebe" in str(file).lower() or "THEBE" in body

    context["script_files"] = [f for f in context.get("script_files", []) if not asks_thebe(f)]


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy the one file of MathJax that the site needs."""
    if error is None and app.builder.format == "html":
        spec = importlib.util.find_spec("sphinx-mathjax-offline")
        if spec is None or spec.origin is None:
            log.warning("sphinx-mathjax-offline is not installed: equations will not show")
            return
        file = Path(spec.origin).parent / "static" / "mathjax" / "tex-svg.js"
        copy_asset(str(file), str(Path(app.outdir, "_static")))


def drop_font_preloads(app: Sphinx, error: Exception | None) -> None:
    """Leave out the theme's font preloads: opened from a disk, a browser reports each as an error.

    The fonts themselves load all the same, by the style sheet.
    """
    if error is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            slim = re.sub(r'<link rel="preload" as="font"[^>]*>', "", text)
            if slim != text:
                page.write_text(slim, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything with Sphinx."""
    app.connect("config-inited", add_numbers, priority=100)
    app.connect("source-read", show_run, priority=10)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", drop_font_preloads)
    app.add_directive("result-figure", ResultFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
