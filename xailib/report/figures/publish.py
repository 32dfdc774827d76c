"""How a figure or table of a run is saved and shown: for a notebook now, for the site later.

Every figure has two looks, on white and on the dark ground of the site's dark mode: grays are
turned over, colours and images stay as they are. A raster is drawn twice, a chart has both looks
in one SVG file.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from jaxtyping import UInt8
from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from pandas.api.types import is_numeric_dtype
from PIL import Image

from xailib.report.run.results import Run, why

AnyPixels = UInt8[np.ndarray, "_ _ 3"]
GROUND = "#121212"  # of the site's dark mode
KEPT = "kept"  # the gid of an artist on an image: its colour stays as it is
_LISTED = 20  # images that a run could not use, before the rest is only counted
LONG = 12  # rows of a table that are shown unfolded
_WORDS = 26  # characters of a cell that stand in one line
_NUMBERS = re.compile(r"(?<=>)[+-]?\d[\d.]*( to [+-]?\d[\d.]*)?(?=<)")  # a cell of one or two
_UNSAID = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # what an SVG says of itself
# What Markdown reads as markup; within a word an underscore is none.
_MARKS = re.compile(r"[\\`*\[\]{}<>$|~^&]|(?<![^\W_])_|_(?![^\W_])")
_SIGNED_ZERO = re.compile(r"[+-](?=0(\.0+)?(?![\d.]))")
_PLACE = re.compile(r"scale\([^)]*\)|-?\b\d+\.\d{3,}")  # a place in an SVG, or the scale of letters


def verbatim(name: str) -> str:
    """Return a name of a file or class as Markdown that shows it as it is."""
    escaped = _MARKS.sub(r"\\\g<0>", name)
    return " ".join(escaped.split())


def many(count: int, noun: str) -> str:
    """Return a number of things in words: 1 photograph, 2 photographs."""
    return f"{count} {noun}{'s' * (count != 1)}"


def not_used(failures: Iterable[Mapping[str, str]], title: str = "Not explained") -> str:
    """Return a paragraph that names the images that runs could not use; empty if there is none."""
    said = list(dict.fromkeys(map(why, failures)))
    lines = [f"- {verbatim(line)}" for line in said[:_LISTED]]
    lines += [f"- and {len(said) - _LISTED} more"] if len(said) > _LISTED else []
    return f"**{title}:**\n\n" + "\n".join(lines) if lines else ""


@dataclass(frozen=True)
class Gallery:
    """Images in a grid. A notebook shows the whole figure, the site each image, as many as fit."""

    figure: Figure  #: all of it
    #: one a photograph; words in place of an image; None, not computed
    rows: Sequence[Sequence[AnyPixels | str | None]]
    titles: Sequence[str]  #: of the columns
    labels: Sequence[str]  #: of the rows
    key: Mapping[str, str]  #: colours by what they mean
    scales: Sequence[tuple[list[str], str, str, str]]  #: of maps, (colours, low, high, words)


def publish(
    run: Run,
    figure: Figure | Gallery,
    name: str,
    caption: str,
    alt: str,
    data: pd.DataFrame,
    *,
    raster: bool = True,
    tab: str = "",
    folded: bool = False,
) -> None:
    """Save a figure with its data, and show it with its caption.

    Writes ``figures/name.webp`` at twice screen resolution and, for a dark page,
    ``figures/name-dark.webp`` (``figures/name.svg`` unless `raster`, dark as ``name.svg#dark``; of
    a `Gallery` each image, ``figures/name-N.webp``), and ``figures/name.csv``. In a notebook the
    figure appears with its caption below; the site shows the saved file as a numbered figure with
    alternative text and a link to the data.

    Parameters
    ----------
    run : Run
        Where it is saved.
    figure : Figure or Gallery
        What is shown.
    name : str
        Letters, digits and hyphens: also the anchor on the page.
    caption : str
        Stands alone; Markdown.
    alt : str
        Alternative text for readers who cannot see it.
    data : DataFrame
        What the figure shows, for download.
    raster : bool
        False for charts: lines stay sharp at any size.
    tab : str
        The site shows neighbouring figures with such a name as tabs.
    folded : bool
        The site folds all rows of a gallery but the first.
    """
    site: dict[str, Any] = {"name": name, "caption": caption, "alt": alt, "tab": tab}
    whole = figure.figure if isinstance(figure, Gallery) else figure
    shown = _png(whole, dpi=100).getvalue()
    if isinstance(figure, Gallery):
        site |= {"gallery": _cells(run, figure, name), "folded": folded}
    elif raster:
        site |= {"image": f"figures/{name}.webp", "dark": f"figures/{name}-dark.webp"}
        _save(run, figure, site["image"])
        with darkened(figure):
            _save(run, figure, site["dark"])
    else:
        site["image"] = site["dark"] = f"figures/{name}.svg"
        with run.open(site["image"]) as file:
            file.write(svg(figure, name).encode())
    site["data"] = save_data(run, name, data)
    display({"image/png": shown, "text/plain": alt}, raw=True, metadata={"xailib": site})
    display(Markdown(f"*{caption}*"), metadata={"xailib": {"caption_of": name}})


def _cells(run: Run, figure: Gallery, name: str) -> dict[str, Any]:
    """Save a gallery's images, and return how they stand together."""
    rows = []
    for place, (row, label) in enumerate(zip(figure.rows, figure.labels, strict=True)):
        cells = []
        for column, (pixels, title) in enumerate(zip(row, figure.titles, strict=True)):
            if pixels is None or isinstance(pixels, str):
                cells.append([title, "", pixels or "not computed"])
                continue
            path = f"figures/{name}-{place}-{column}.webp"
            save_image(run, path, pixels)
            cells.append([title, path, ""])
        rows.append([label, cells])
    return {"rows": rows, "key": list(figure.key.items()), "scales": list(figure.scales)}


def save_image(run: Run, path: str, pixels: AnyPixels) -> None:
    """Write an image to a run's folder, as WebP."""
    with run.open(path) as file:
        Image.fromarray(pixels).save(file, "WEBP", quality=70, method=6)


def publish_table(
    run: Run,
    table: pd.DataFrame,
    name: str,
    caption: str,
    headings: Mapping[str, str],
    formats: Mapping[str, str] | None = None,
) -> None:
    """Save a table whole, and show the columns named in `headings` under these names.

    Writes ``name.parquet`` and ``figures/name.csv``; the site shows the caption and a link to
    the data. `formats` has a format specification by column, such as ``"{:.2f}"``. A table of
    more than `LONG` rows is folded, below its means by the column that is headed ``method``.
    """
    run.save_table(name, table)
    html = table_html(table, name, headings, formats)
    if len(table) > LONG:
        html = f"<details><summary>All {len(table)} rows</summary>\n{html}</details>"
        if by := [column for column, heading in headings.items() if heading == "method"]:
            shown = table[list(headings)].groupby(by, sort=False)
            means = shown.mean(numeric_only=True).reset_index()
            columns = {column: headings[column] for column in headings if column in means}
            html = f"{table_html(means, f'{name}-means', columns, formats)}\n{html}"
    site = {"name": name, "caption": caption, "data": save_data(run, name, table)}
    display({"text/html": html, "text/plain": caption}, raw=True, metadata={"xailib": site})


def save_data(run: Run, name: str, table: pd.DataFrame) -> str:
    """Write ``figures/name.csv``, numbers with six digits, and return that path."""
    path = f"figures/{name}.csv"
    with run.open(path) as file:
        table.to_csv(file, index=False, float_format="%.6g")
    return path


def table_html(
    table: pd.DataFrame,
    name: str,
    headings: Mapping[str, str],
    formats: Mapping[str, str] | None = None,
) -> str:
    """Return the columns named in `headings` as HTML; a missing number is a dash.

    What is shown as zero has no sign, and negative values have a minus, not a hyphen. Words
    stand on the left of their column, and wrap where they are long; the site's style sheet puts
    numbers on the right.
    """
    shown = table[list(headings)].rename(columns=dict(headings))
    look: Any = {headings[c]: form for c, form in (formats or {}).items() if c in headings}
    words = [name for name in shown if not is_numeric_dtype(shown[name])]
    long = [name for name in words if shown[name].astype(str).str.len().max() > _WORDS]
    wrapped = " white-space: normal; min-width: 9rem;"
    left: Any = {
        name: [{"selector": "", "props": f"text-align: left;{wrapped if name in long else ''}"}]
        for name in words
    }
    html: str = (
        shown.style.format(look, na_rep="–", escape="html")
        .set_table_styles(left)
        .hide(axis="index")
        .to_html(table_uuid=name)
    )
    return _NUMBERS.sub(lambda cell: _SIGNED_ZERO.sub("", cell[0]).replace("-", "−"), html)


@contextmanager
def darkened(figure: Figure) -> Iterator[None]:
    """Turn a figure's grays over for a dark page, and back afterwards.

    Colours stay, and so do images and whatever has the gid `KEPT`.
    """
    with ExitStack() as undo:
        for artist in _artists(figure):
            if artist.get_gid() == KEPT:
                continue
            # All are read first: a mark's own colours may follow its line's, and turn twice.
            olds = {entry: getattr(artist, f"get_{entry}")() for entry in _colours(artist)}
            for entry, old in olds.items():
                setter = getattr(artist, f"set_{entry}")
                undo.callback(setter, old)
                setter(_turned(old))
        yield


def _artists(figure: Figure) -> list[Artist]:
    """Return all artists, with ticks that may only be shown once it is laid out again."""
    found: list[Artist] = figure.findobj()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        for tick in (*axis.majorTicks, *axis.minorTicks):
            found += tick.findobj()
    return list(dict.fromkeys(found))


def _colours(artist: Artist) -> tuple[str, ...]:
    """Return the names of an artist's colours, none if they encode values."""
    if isinstance(artist, Text):
        return ("color",)
    if isinstance(artist, Line2D):
        return ("color", "markerfacecolor", "markeredgecolor")
    if isinstance(artist, Patch) or (isinstance(artist, Collection) and artist.get_array() is None):
        return ("facecolor", "edgecolor")
    return ()


def _turned(colour: Any) -> Any:
    """Return a colour (or rows of them) as it shows on dark ground: a gray by its opposite."""
    if isinstance(colour, np.ndarray) and colour.ndim == 2:
        return [_turned(row) for row in colour]
    if isinstance(colour, str) and colour in ("none", "auto"):
        return colour
    red, green, blue, alpha = to_rgba(colour)
    if max(red, green, blue) - min(red, green, blue) > 0.02:
        return colour
    ground, ink = np.array(to_rgba(GROUND)[:3]), 0.92
    return (*(red * ground + (1 - red) * ink), alpha)


def _rounded(found: re.Match[str]) -> str:
    """Return a place with two digits; the scale of letters, a small number, as it is."""
    place = found[0]
    return place if place[0] == "s" else f"{float(place):.2f}".rstrip("0").rstrip(".")


def svg(figure: Figure, salt: str) -> str:
    """Return a figure as SVG that is dark where its address ends in ``#dark``.

    The same figure and `salt`, of the names in it, give the same text. Places are rounded to a
    hundredth of a point.
    """
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", metadata=_UNSAID)
    drawn = _PLACE.sub(_rounded, stream.getvalue())
    found = {*re.findall(r"\b(fill|stroke): (#[0-9a-f]{6})\b", drawn), ("fill", "#000000")}
    turned = {colour: to_hex(_turned(colour)) for _, colour in sorted(found)}
    grays = {colour: dark for colour, dark in turned.items() if dark != colour}
    rules = [  # by variables, which reach a mark that is drawn over and over
        f'[style*="{entry}: {colour}"] {{ {entry}: var(--of-{colour[1:]}, {colour}) !important }}'
        for entry, colour in sorted(found)
        if colour in grays
    ]
    for part, black in (("svg:target", turned["#000000"]), (f"#{KEPT}", "#000000")):
        looks = [f"--of-{c[1:]}: {c if black == '#000000' else dark}" for c, dark in grays.items()]
        rules.append(f"{part} {{ {'; '.join([*looks, f'fill: {black}'])} }}")
    drawn = drawn.replace("</style>", f" {' '.join(rules)}</style>", 1)
    return drawn.replace("<svg ", '<svg id="dark" ', 1)


def _save(run: Run, figure: Figure, path: str) -> None:
    image = Image.open(_png(figure, dpi=200)).convert("RGB")
    exact = not any(axes.images for axes in figure.axes)  # of points: smaller, and sharp
    if exact:
        image = image.quantize(128, dither=Image.Dither.NONE).convert("RGB")
    with run.open(path) as file:
        if exact:  # method 6 takes thirty times as long for a thousandth of the size
            image.save(file, "WEBP", lossless=True, quality=100, method=4)
        else:
            image.save(file, "WEBP", quality=75, method=6)


def _png(figure: Figure, dpi: int) -> io.BytesIO:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    stream.seek(0)
    return stream
