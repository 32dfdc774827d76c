"""What is mended in the pages that Sphinx and the theme make: no network, no jumping about."""

import importlib.util
import json
import re
import shutil
import textwrap
from functools import cache
from html import escape, unescape
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image, ImageOps
from runs import results_folder
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.fileutil import copy_asset

log = logging.getLogger(__name__)
# Of the theme's files: what a browser never asks for (source maps, fonts in an older format, the
# theme's words in other languages), and icons as a script of 1.5 MB on every page, where the style
# sheet draws the same ones.
_UNUSED = (
    "**/*.map",
    "**/*.ttf",
    "**/fa-v4compatibility.*",
    "vendor/fontawesome/*/js",
    "locales",
)
_MATHJAX = (
    "startup",
    "core",
    "input/tex",
    "output/svg",
    "output/svg/fonts/tex",
    "a11y/assistive-mml",
)
_MENDED = (
    (r'<link rel="preload" as="font"[^>]*>', ""),
    (r'<script src="[^"]*/fontawesome/[^"]*"></script>', ""),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),  # it says "Code"
    (r'<summary>(?=<span class="toctree-toggle)', '<summary aria-label="Pages below">'),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (
        r'<div class="(figure-box scrolls)',
        r'<div tabindex="0" role="group" aria-label="Figure" class="\1',
    ),
    (
        r'<div class="pst-scrollable-table-container">',
        '<div tabindex="0" role="group" aria-label="Table" class="pst-scrollable-table-container">',
    ),
    (r'role="doc-biblioentry"', 'role="listitem"'),
    # The contents once more, for paper, where our style sheet leaves them out.
    (r'(?s:<div id="jb-print-docs-body".*?(?=<div id="searchbox">))', ""),
    (r"(?<=<strong>)\w+(?:,\w+)+(?=</strong>)", lambda names: names[0].replace(",", ", ")),
    (r'(<img [^>]*?\bon-dark\b[^>]*?\bsrc="[^"]*\.svg)"', r'\1#dark"'),  # both looks in one file
)
# What no reader sees as words; the blank, if any, between a number and its per cent sign; a minus.
_PER_CENT = re.compile(
    r"<(script|style|pre|code|kbd|samp|textarea)\b.*?</\1>|<!--.*?-->"
    r"|<(?:\"[^\"]*\"|'[^']*'|[^'\">])*>|(?<=\d)\s?%(?!\w)|(?<=[\s(>])-(?=\d)",
    re.DOTALL,
)
_SECTION = re.compile(
    r'<(?:section (?:class="[^"]*" )?|dt )id="([^"]+)">.*?(?=<section |<dt|</article>)', re.DOTALL
)
_NAMES = re.compile(r"^\s*\w+(, \w+)+(?= : )")
_ALT = re.compile(r'(?<= alt=")[^"]*')


def keep_together(
    app: Sphinx, what: str, name: str, described: object, options: Any, lines: list[str]
) -> None:
    """Take the blanks out of names that share an entry: else all but the last become its type."""
    lines[:] = [_NAMES.sub(lambda names: names[0].replace(", ", ","), line) for line in lines]


def serve_mathjax(app: Sphinx, config: Any) -> None:
    """Take MathJax from the site itself: what draws, without its menu, a fifth of all."""
    config.mathjax_path = "mathjax/startup.js"
    config.mathjax3_config = {"loader": {"load": ["input/tex", "output/svg", "a11y/assistive-mml"]}}


def drop_thebe(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Leave out the scripts of thebe, which jupyter-book loads and which ask a CDN."""

    def asks_thebe(file: Any) -> bool:
        body = str(getattr(file, "attributes", {}).get("body", ""))
        return "thebe" in str(file).lower() or "THEBE" in body

    context["script_files"] = [f for f in context.get("script_files", []) if not asks_thebe(f)]


def describe(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Say in a page's head what it is about, for search engines and for links that are shared."""
    if doctree is None:
        return
    paragraphs = (node.astext() for node in doctree.findall(nodes.paragraph))
    text = textwrap.shorten(next(paragraphs, ""), 200, placeholder=" …")
    tags = {
        "description": text,
        "og:title": unescape(re.sub("<[^>]*>", "", context.get("title", ""))),
        "og:description": text,
        "og:type": "article",
        "twitter:card": "summary_large_image",
    }
    if app.config.html_baseurl:
        tags["og:image"] = f"{app.config.html_baseurl.rstrip('/')}/_static/card.jpg"
    context["metatags"] = context.get("metatags", "") + "".join(
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}" '
        f'content="{escape(value)}" />\n'
        for name, value in tags.items()
    )


def draw_card(app: Sphinx, error: Exception | None) -> None:
    """Make the image of links that are shared, 1200 x 630 pixels, of the first figure."""
    first = results_folder() / "4_agreement" / "figures" / "side-by-side.webp"
    if error is None and app.builder.format == "html" and first.is_file():
        with Image.open(first) as figure:
            card = ImageOps.pad(figure.convert("RGB"), (1200, 630), color="white")
        card.save(Path(app.outdir, "_static", "card.jpg"), quality=75, optimize=True)


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy the files of MathJax that the site needs."""
    if error is None and app.builder.format == "html":
        spec = importlib.util.find_spec("sphinx-mathjax-offline")
        if spec is None or spec.origin is None:
            log.warning("sphinx-mathjax-offline is not installed: equations will not show")
            return
        for name in _MATHJAX:
            file = Path(spec.origin).parent / "static" / "mathjax" / f"{name}.js"
            folder = Path(app.outdir, "_static", "mathjax", name).parent
            folder.mkdir(parents=True, exist_ok=True)
            copy_asset(str(file), str(folder))


def drop_unused(app: Sphinx, error: Exception | None) -> None:
    """Leave out the theme's files that no page needs: a tenth of the site."""
    if error is None and app.builder.format == "html":
        for pattern in _UNUSED:
            for path in [*Path(app.outdir, "_static").glob(pattern)]:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def mend_pages(app: Sphinx, error: Exception | None) -> None:
    """Mend every page's HTML, once all are written."""
    if error is None and app.builder.format == "html":
        begun = {}
        for page in sorted(Path(app.outdir).rglob("*.html")):
            text = page.read_text(encoding="utf-8")
            mended = mend(text, page.parent)
            if mended != text:
                page.write_text(mended, encoding="utf-8")
            if sections := beginnings(text):
                begun[page.relative_to(app.outdir).as_posix()] = sections
        # For a search of pages on a disk, which a browser may not fetch.
        script = f"window.xailib.summaries = {json.dumps(begun, ensure_ascii=False)};\n"
        Path(app.outdir, "_static", "summaries.js").write_text(script, encoding="utf-8")


def beginnings(html: str) -> dict[str, str]:
    """Return by its anchor how each section of a page begins, and each entry of a glossary."""
    found = {}
    for section in _SECTION.finditer(html):
        paragraph = re.search(r"<p>(.*?)</p>", section[0], re.DOTALL)
        if paragraph:
            words = re.sub(r'<span class="math.*?</span>|<[^>]*>', "", paragraph[1])
            found[section[1]] = textwrap.shorten(unescape(words), 160, placeholder=" …")
    return found


def mend(html: str, folder: Path) -> str:
    """Return a page without what browsers stumble over.

    - The theme's font preloads: opened from a disk, a browser reports each as an error. The fonts
      themselves load all the same, by the style sheet. The script that draws the same icons again.
    - Pictures get their size, so that nothing moves when they arrive, and those further down are
      fetched when they are near.
    - Names for a screen reader: of the arrows in the table of contents, of the search field's
      button, which the theme calls otherwise than it reads, and of the bibliography's entries.
      What scrolls can be reached by keyboard.
    - A number and its per cent sign stand apart and on one line, however a page wrote them, and a
      negative number has a minus.
    """
    for pattern, mended in _MENDED:
        html = re.sub(pattern, mended, html)
    html = _PER_CENT.sub(_apart, html)
    seen = 0

    def sized(found: re.Match[str]) -> str:
        nonlocal seen
        tag = found[0]
        source = re.search(r'src="([^":#]+)[#"]', tag)
        size = source and _size(folder / source[1])
        if not size or " width=" in tag:
            return tag
        seen += 1
        lazy = ' loading="lazy"' if seen > 2 else ""
        return tag.replace("<img ", f'<img width="{size[0]}" height="{size[1]}"{lazy} ', 1)

    return re.sub(r"<img [^>]*>", sized, html)


def _apart(found: re.Match[str]) -> str:
    part = found[0]
    if part.startswith("<img "):
        return _ALT.sub(lambda alt: _PER_CENT.sub(_apart, alt[0]), part)
    if part == "-":
        return "\N{MINUS SIGN}"
    return part if part.startswith("<") else "\N{NO-BREAK SPACE}%"


@cache
def _size(file: Path) -> tuple[int, int] | None:
    """Return a picture's (width, height) in CSS pixels; None if there is no such file."""
    if not file.is_file():
        return None
    if file.suffix == ".svg":
        head = file.read_text(encoding="utf-8")[:2000]
        sides = [re.search(rf'\b{side}="([\d.]+)(pt)?"', head) for side in ("width", "height")]
        if None in sides:
            return None
        width, height = (float(s[1]) * (4 / 3 if s[2] else 1) for s in sides if s)
        return round(width), round(height)
    with Image.open(file) as image:
        return image.size


def setup(app: Sphinx) -> None:
    """Connect to Sphinx's events."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", keep_together, priority=400)  # before napoleon
    app.connect("config-inited", serve_mathjax, priority=100)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", describe)
    app.connect("build-finished", draw_card)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", mend_pages)
    app.connect("build-finished", drop_unused)
