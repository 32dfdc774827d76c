"""Figures and tables of a run as the site shows them, and the directives that draw them."""

import json
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from runs import ROOT, failed, lacks, place_of, results_folder
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.directives.patches import Figure
from sphinx.util.docutils import SphinxDirective


def without_captions(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what repeats a figure's caption for readers of the notebook."""
    return [o for o in outputs if "caption_of" not in o.get("metadata", {}).get("xailib", {})]


def sections(outputs: list[dict[str, Any]], run: Path) -> list[dict[str, Any]]:
    """Take a cell's explorers out of its outputs: each becomes a section of the page.

    Before the first stands a list of them all, which picks one.
    """
    found = [o for o in outputs if "explorer" in o.get("metadata", {}).get("xailib", {})]
    outputs[:] = [o for o in outputs if o not in found]
    texts = []
    for output in found:
        published = output["metadata"]["xailib"]
        body = json.dumps(
            {**published, "table": "".join(output["data"]["text/html"]), "run": place_of(run)}
        )
        texts.append(
            f"({published['name']})=\n## {published['heading']}\n\n"
            f"```{{explorer}}\n{body}\n```\n\n{_links(published, run)}\n"
        )
    if found:
        picks = [o["metadata"]["xailib"] for o in found]
        entries = [[p["name"], p["explorer"], p["views"][0]["image"]] for p in picks]
        body = json.dumps({"entries": entries, "run": place_of(run)})
        texts.insert(0, f"## Photographs\n\n```{{explorer-picker}}\n{body}\n```\n")
    return [
        {"cell_type": "markdown", "id": f"explorer-{n}", "metadata": {}, "source": text}
        for n, text in enumerate(texts)
    ]


def as_outputs(outputs: list[dict[str, Any]], run: Path) -> list[dict[str, Any]]:
    """Return a cell's outputs as the site shows them, neighbours with a tab's name as tabs."""

    def tab(output: dict[str, Any]) -> str:
        return output.get("metadata", {}).get("xailib", {}).get("tab", "")

    shown: list[dict[str, Any]] = []
    for tabbed, group in groupby(outputs, lambda output: bool(tab(output))):
        if not tabbed:
            shown += [as_markdown(output, run) for output in group]
            continue
        items = [
            f":::::{{tab-item}} {tab(output)}\n:sync: {tab(output)}\n\n"
            f"{as_markdown(output, run)['data']['text/markdown']}\n:::::\n"
            for output in group
        ]
        shown.append(_markdown("::::::{tab-set}\n" + "\n".join(items) + "\n::::::\n"))
    return shown


def as_markdown(output: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return a published figure or table as Markdown, anything else as it is."""
    published = output.get("metadata", {}).get("xailib")
    if not published:
        return output
    place, links = place_of(run), _links(published, run)
    if "gallery" in published:
        body = json.dumps({**published, "links": links, "run": place})
        text = f"```{{gallery}}\n{body}\n```\n"
    elif "image" in published:
        text = (
            f"```{{run-figure}} {place}/{published['image']}\n:name: {published['name']}\n"
            f":alt: {published['alt']}\n:dark: {place}/{published['dark']}\n\n"
            f"{published['caption']} {links}\n```\n"
        )
    elif "browser" in published:
        rows = "".join(output["data"]["text/html"])
        text = _browser(published, place, rows)
        text += f"{{.table-caption}}\n{published['caption']} {links}\n"
    else:
        table = "".join(output["data"]["text/html"])
        label = published["name"].replace("-", " ")
        text = (
            f'<div class="xailib-table" id="{published["name"]}" tabindex="0" role="region" '
            f'aria-label="Table: {label}">\n\n{table}\n\n'
            f"</div>\n\n{{.table-caption}}\n{published['caption']} {links}\n"
        )
    return _markdown(text)


def _markdown(text: str) -> dict[str, Any]:
    return {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": text}}


def _links(published: dict[str, Any], run: Path) -> str:
    """Return the links to what a figure shows, and to what made it."""
    return (
        f"{{download}}`Data (CSV) <{place_of(run)}/{published['data']}>` · "
        f"[Parameters](made-{run.name.replace('_', '-')})"
    )


def _browser(published: dict[str, Any], place: str, rows: str) -> str:
    """Return the unit browser's data, for its script, with the picture of all thumbnails.

    Without scripts its first rows are shown.
    """
    sheet = Path(published["sheet"]).name
    return (
        f'<div class="unit-browser" id="{published["name"]}" data-sheet="../_images/{sheet}">\n'
        f'<script type="application/json">{published["browser"]}</script>\n'
        f'</div>\n\n<noscript>\n\n<div class="xailib-table">\n\n{rows}\n\n</div>\n\n</noscript>\n\n'
        # The hidden picture makes Sphinx copy the file; the table shows parts of it.
        f"```{{image}} {place}/{published['sheet']}\n:class: unit-sheet\n"
        ":alt: Thumbnails of the probe images that the table above shows\n```\n\n"
    )


class RunFigure(Figure):
    """A figure with a twin for the site's dark mode: ``:dark:`` names its file."""

    option_spec = {**Figure.option_spec, "dark": directives.unchanged}  # noqa: RUF012
    box = "figure-box scrolls"

    def run(self) -> list[nodes.Node]:
        """Put the twin beside the picture; the style sheet shows one of them.

        Both stand in a box of their own, which scrolls where a phone is too narrow for labels.
        """
        dark = self.options.pop("dark", None)
        result: list[nodes.Node] = super().run()
        image = next(iter(result[0].findall(nodes.image)), None)
        if dark and image is not None:
            twin = image.deepcopy()
            twin["uri"] = dark  # of a chart the same file: `pages` says which look of it
            twin["classes"] = ["on-dark", "dark-light"]
            image["classes"] += ["on-light", "dark-light"]
            image.parent.replace(image, _div(self.box, image, twin))
        return result


class ResultFigure(RunFigure):
    """A figure from a run: ``{result-figure} 4_agreement/side-by-side`` with its own caption."""

    required_arguments = 1
    box = "figure-box"  # it has no small labels: the whole of it on a phone
    option_spec = {**RunFigure.option_spec, "alt": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Point the figure at the profile's files."""
        task, _, name = self.arguments[0].partition("/")
        if task in failed():
            return [nodes.paragraph("", lacks(task))]
        folder = results_folder() / task / "figures"
        images = [file for file in sorted(folder.glob(f"{name}.*")) if file.suffix != ".csv"]
        if not images:
            message = f"no figure {self.arguments[0]!r} in {results_folder()}"
            return [self.state.document.reporter.warning(message, line=self.lineno)]
        light = images[0].relative_to(ROOT)
        dark = light if light.suffix == ".svg" else light.with_stem(f"{light.stem}-dark")
        self.arguments[0], self.options["dark"] = f"/{light}", f"/{dark}"
        return super().run()


class Gallery(SphinxDirective):
    """Images in a grid, one row a photograph; in two columns on a phone."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return one numbered figure of many images."""
        told = json.loads("\n".join(self.content))
        gallery = told["gallery"]
        figure = nodes.figure("", classes=["gallery"])
        figure += nodes.paragraph("", told["alt"], classes=["visually-hidden"])
        for place, (label, cells) in enumerate(gallery["rows"]):
            if told.get("folded") and place == 1:
                words = f"<details><summary>The other {len(gallery['rows']) - 1} rows</summary>"
                figure += nodes.raw("", words, format="html")
            row = _div("gallery-row")
            for title, path, said in cells:
                words = nodes.paragraph("", title)
                if path:
                    image = nodes.image(
                        uri=f"{told['run']}/{path}", alt=f"{title}: {label}", classes=["dark-light"]
                    )
                    row += _div("gallery-cell", image, words)
                else:
                    row += _div("gallery-cell", nodes.paragraph("", said), words)
            figure += _div("", nodes.paragraph("", label, classes=["gallery-label"]), row)
        if told.get("folded") and len(gallery["rows"]) > 1:
            figure += nodes.raw("", "</details>", format="html")
        if gallery["key"] or gallery["scales"]:
            figure += nodes.raw("", _key_html(gallery), format="html")
        caption = f"{told['caption']} {told['links']}"
        figure += nodes.caption("", "", *self.parse_inline(caption)[0])
        self.set_source_info(figure)
        self.options["name"] = told["name"]
        self.add_name(figure)
        return [figure]


def _key_html(gallery: dict[str, Any]) -> str:
    """Return what a gallery's colours mean: a box a colour, a bar a scale."""
    boxes = "".join(
        f'<span class="live-key"><i style="background: {colour}"></i>{escape(name)}</span>'
        for name, colour in gallery["key"]  # pairs: a notebook sorts what has names
    )
    bars = "".join(
        f'<p class="live-bar">{low}<span class="live-scale" aria-hidden="true" '
        f'style="background: linear-gradient(to right, {", ".join(colours)})"></span>{high}'
        f"<span>{escape(words)}</span></p>"
        for colours, low, high, words in gallery["scales"]
    )
    return (f'<p class="live-bar">{boxes}</p>' if boxes else "") + bars


class Explorer(SphinxDirective):
    """Every method's picture of one photograph, with its table: tabs where scripts run."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return one numbered figure of many pictures."""
        told = json.loads("\n".join(self.content))
        views = _div("explorer-views")
        for view in told["views"]:
            row = told["rows"].index(view["method"]) if view["method"] in told["rows"] else "none"
            image = nodes.image(
                uri=f"{told['run']}/{view['image']}", alt=view["alt"], classes=["dark-light"]
            )
            views += _div(f"explorer-view row-{row}", image, nodes.paragraph("", view["label"]))
        caption = nodes.caption("", "", *self.parse_inline(told["caption"])[0])
        table = (
            '<div class="xailib-table" tabindex="0" role="region" '
            f'aria-label="Scores of {escape(told["explorer"])}">{told["table"]}</div>'
        )
        legend = nodes.legend("", nodes.raw("", table, format="html"), *_live(told))
        figure = nodes.figure("", views, caption, legend, classes=["explorer"])
        self.set_source_info(figure)
        self.options["name"] = f"figure-{told['name']}"
        self.add_name(figure)
        return [figure]


def _live(told: dict[str, Any]) -> list[nodes.Node]:
    """Return the scripts of a live view as downloads, which makes Sphinx copy them.

    The page's own script offers to load them.
    """
    live = told.get("live")
    if not live:
        return []
    paragraph = nodes.paragraph("", "", classes=["explorer-live"])
    for kind in ("photograph", "network"):
        if live[kind]:
            link = addnodes.download_reference(
                "", "", nodes.inline("", kind), reftarget=f"{told['run']}/{live[kind]}"
            )
            paragraph += link
    if live["why"]:
        paragraph += nodes.inline("", live["why"], classes=["why"])
    return [paragraph]


class ExplorerPicker(SphinxDirective):
    """Small pictures that lead to the photographs' own sections."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a list of links."""
        told = json.loads("\n".join(self.content))
        items = nodes.bullet_list(classes=["explorer-picker"])
        for name, title, picture in told["entries"]:
            image = nodes.image(uri=f"{told['run']}/{picture}", alt="", classes=["dark-light"])
            link = nodes.reference("", "", image, nodes.Text(title), internal=True, refid=name)
            items += nodes.list_item("", nodes.paragraph("", "", link))
        return [items]


def _div(classes: str, *children: nodes.Node) -> nodes.container:
    """Return a plain box: without the class of Bootstrap's that docutils gives it."""
    return nodes.container(
        "", *children, classes=classes.split(), is_div=True, design_component="div"
    )


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("run-figure", RunFigure)
    app.add_directive("result-figure", ResultFigure)
    app.add_directive("gallery", Gallery)
    app.add_directive("explorer", Explorer)
    app.add_directive("explorer-picker", ExplorerPicker)
