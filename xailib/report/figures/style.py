"""The report's figures: arrays and tables in, matplotlib figures out.

Maps use perceptually uniform scales that the colour-blind can read: a sequential one for maps
in [0, 1], one that diverges around zero for signed ones. Nothing here sees a network.
"""

import logging
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int8, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from skimage.segmentation import find_boundaries

from xailib.compare.iou import LIME_MASKS
from xailib.compare.masks import area_mask, lime_mask
from xailib.errors import InputError
from xailib.explain.explanation import Explanation
from xailib.report.figures.publish import KEPT, Gallery
from xailib.report.figures.publish import many as many
from xailib.report.figures.publish import not_used as not_used
from xailib.report.figures.publish import publish as publish
from xailib.report.figures.publish import publish_table as publish_table
from xailib.report.figures.publish import verbatim as verbatim

Pixels = UInt8[np.ndarray, "height width 3"]
NAMES = {
    "lime": "LIME", "lime2": "LIME, absolute", "lime+": "LIME, supporting",
    "lime-": "LIME, opposing", "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++",
    "xgradcam": "XGrad-CAM", "hirescam": "HiResCAM", "layercam": "LayerCAM",
    "ablationcam": "AblationCAM", "scorecam": "ScoreCAM", "guided": "Guided backprop",
    "edges": "Edge detector",
}  # fmt: skip
# Each method has one colour, in every figure: those of Okabe & Ito, and others between them.
COLOURS = MappingProxyType(
    {
        "lime": "#E69F00", "lime+": "#E69F00", "lime-": "#56B4E9",
        "gradcam": "#0072B2", "ablationcam": "#009E73", "scorecam": "#CC79A7",
        "gradcam++": "#7B6FD0", "xgradcam": "#1FA2A8", "hirescam": "#B0487A",
        "layercam": "#999933", "guided": "#D55E00", "edges": "#8C8C8C",
    }
)  # fmt: skip
SHADES = ("#E69F00", "#946400", "#F3C566", "#5E4000")  # of LIME's colour: its runs, photographs
BOTH = "#FFFFFF"  # what two masks share
# Of networks and photographs: none is a method's (Tol's muted scheme).
PALETTE = ("#CC6677", "#44AA99", "#AA4499", "#DDCC77", "#88CCEE", "#117733")
SCALES = MappingProxyType(
    {
        "heat": ("inferno", (0, 1), "heatmap, relative to its maximum"),
        "frequency": ("inferno", (0, 1), "selection frequency"),
        "signed": ("RdBu_r", (-1, 1), "LIME's weight, relative to the largest"),
    }
)
CELL = 1.6  # inches an image in a gallery
HEADING = 0.2  # inches above it
_LAST = "Last Resort High-Efficiency"  # matplotlib's own: a box for any character
_SCRIPTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Hiragino Sans", "PingFang SC",
    "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS", _LAST,
)  # fmt: skip
PER_CENT = "\N{NO-BREAK SPACE}%"  # as the site writes it behind a number


def style() -> AbstractContextManager[None]:
    """Return the context in which every figure of the report is drawn."""
    settings: dict[Any, Any] = {
        "axes.axisbelow": True, "axes.grid": True, "axes.spines.right": False,
        "axes.spines.top": False, "axes.titlesize": 9, "figure.constrained_layout.use": True,
        "figure.facecolor": "white", "font.family": _fonts(), "font.size": 9, "grid.alpha": 0.25,
        "legend.frameon": False,
        "text.parse_math": False,  # names of files and classes may hold dollar signs
    }  # fmt: skip
    context: AbstractContextManager[None] = mpl.rc_context(settings)
    return context


@contextmanager
def drawing(
    width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any
) -> Iterator[tuple[Figure, list[Any]]]:
    """Yield a figure of this size in inches, to be drawn in `style`, and its axes row by row."""
    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(rows, columns, squeeze=False, **shared)
        yield figure, axes.ravel().tolist()


@cache
def _fonts() -> list[str]:
    """Return matplotlib's own font, and behind it those installed for other scripts.

    What none has is a box. That the font of boxes is not bold in headings is not worth a warning.
    """
    log = logging.getLogger("matplotlib.font_manager")
    log.addFilter(lambda record: _LAST not in record.getMessage())
    found = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _SCRIPTS if name in found)]


def heat(image: Pixels, saliency: Float32[np.ndarray, "height width"]) -> Pixels:
    """Return a map in [0, 1] over the grayed image: what is salient keeps its light."""
    gray = image.mean(axis=2, keepdims=True) / 255
    colour = colormaps["inferno"](saliency)[..., :3]
    strength = 0.25 + 0.6 * saliency[..., None]
    blend = (1 - strength) * (0.15 + 0.75 * gray) + strength * colour
    return np.round(255 * blend.clip(0, 1)).astype(np.uint8)


def signed_heat(image: Pixels, saliency: Float32[np.ndarray, "height width"]) -> Pixels:
    """Return a map in [-1, 1] over the grayed image: red supports, blue opposes."""
    gray = image.mean(axis=2, keepdims=True) / 255
    colour = colormaps["RdBu_r"]((saliency + 1) / 2)[..., :3]
    strength = 0.2 + 0.65 * np.abs(saliency)[..., None]
    blend = (1 - strength) * (0.2 + 0.7 * gray) + strength * colour
    return np.round(255 * blend.clip(0, 1)).astype(np.uint8)


def outlined(image: Pixels, mask: Int8[np.ndarray, "height width"]) -> Pixels:
    """Return the image with the mask's superpixels outlined and the rest dimmed.

    Orange outlines support the target, blue ones oppose it.
    """
    shown = np.where((mask != 0)[..., None], image, image // 2 + 40).astype(np.uint8)
    for sign, colour in ((1, COLOURS["lime+"]), (-1, COLOURS["lime-"])):
        shown[find_boundaries(mask == sign, mode="thick")] = np.round(_rgb(colour))
    return shown


def tint(image: Pixels, gradient: Float32[np.ndarray, "height width channels"]) -> Pixels:
    """Return a gradient as an image around gray, as grad-cam's ``deprocess_image`` shows it."""
    centred = (gradient - gradient.mean()) / (gradient.std() + 1e-5)
    shown = (255 * (centred * 0.1 + 0.5).clip(0, 1)).astype(np.uint8)
    return shown if shown.shape == image.shape else np.repeat(shown[..., :1], 3, axis=2)


def drawn(image: Pixels, explanation: Explanation) -> Pixels | str:
    """Return a map over its view; of one that says nothing no image, but why (for `gallery`)."""
    if explanation.no_signal:
        return f"no signal: {explanation.no_signal}"
    return (signed_heat if explanation.signed else heat)(image, explanation.saliency)


def left_out(explanations: Iterable[Explanation], of: str = "") -> str:
    """Return a paragraph about the explanations that say nothing; empty if there is none.

    ``of`` says which explanations are meant, where a page has several kinds.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for one in explanations:
        if one.no_signal:
            found.setdefault((one.method, one.no_signal), []).append(one.image)
    said = "; ".join(
        f"{NAMES.get(method, method)} of {', '.join(map(verbatim, dict.fromkeys(images)))}: {why}"
        for (method, why), images in found.items()
    )
    return f"**No signal**{of}, left out of all means and counts: {said}." if said else ""


def colour_of(method: str) -> str:
    """Return a method's colour; of what is none, such as a baseline, a gray."""
    return COLOURS.get(method, "0.45")


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Put a legend below the plots, from the left, no wider than a phone shows of a figure."""
    columns = max(1, min(len(names), 46 // (5 + max(map(len, names), default=0))))
    figure.legend(handles, names, loc="outside lower left", ncols=columns)


def overlap_key(methods: Sequence[str]) -> dict[str, str]:
    """Return what the colours of overlaps with these heatmaps mean."""
    only = {f"only {NAMES.get(method, method)}": colour_of(method) for method in methods}
    return {"both": BOTH, "only LIME": COLOURS["lime"], **only}


def gallery(
    rows: Sequence[Sequence[Pixels | str | None]],
    titles: Sequence[str],
    labels: Sequence[str],
    *,
    key: Mapping[str, str] | None = None,
    scales: Sequence[str] = (),
) -> Gallery:
    """Draw images in a grid: one row a photograph, one column a method.

    Words stand in place of an image; None, not computed. Below stands what colours mean: `key`
    has a colour by name, `scales` names of `SCALES`.
    """
    if not rows or any(len(row) != len(titles) for row in rows) or len(rows) != len(labels):
        raise InputError("gallery: needs one label a row and one title a column")
    with style():
        height = (CELL + 0.22) * len(rows) + HEADING
        height += 0.3 * bool(key) + 0.55 * len(scales)
        figure = Figure(figsize=(CELL * len(titles), height))
        axes = figure.subplots(len(rows), len(titles), squeeze=False)
        # Room for the headings, which stand above the rows' own labels.
        inside = (0, 0, 1, 1 - HEADING / height)
        layout: Any = {"w_pad": 0.02, "h_pad": 0.02, "wspace": 0.01, "hspace": 0.01, "rect": inside}
        figure.set_layout_engine(ConstrainedLayoutEngine(**layout))
        for line, row, label in zip(axes, rows, labels, strict=True):
            for axis, image in zip(line, row, strict=True):
                _show(axis, image)
            line[0].set_title(label, loc="left", fontsize=8.5, pad=3)
        for axis, title in zip(axes[0], titles, strict=True):
            heading = axis.annotate(
                title, (0.5, 1), (0, 15), xycoords="axes fraction", textcoords="offset points",
                ha="center", weight="bold",
            )  # fmt: skip
            heading.set_in_layout(False)
        _say_colours(figure, axes.ravel().tolist(), key, scales)
    return Gallery(figure, rows, titles, labels, key or {}, [_stops(name) for name in scales])


def _stops(name: str) -> tuple[list[str], str, str, str]:
    """Return a scale as the site draws it: colours from one end to the other, and words."""
    colours, ends, words = SCALES[name]
    stops = [to_hex(colour) for colour in colormaps[colours](np.linspace(0, 1, 9))]
    low, high = (str(end).replace("-", "−") for end in ends)
    return stops, low, high, words


def _say_colours(
    figure: Figure,
    axes: Sequence[Axes],
    key: Mapping[str, str] | None,
    scales: Sequence[str],
    size: float = 8,
) -> None:
    for name in scales:
        colours, (low, high), words = SCALES[name]
        shade = ScalarMappable(Normalize(low, high), colours)
        place: Any = {"location": "bottom", "aspect": 5 * size, "shrink": size / 20, "pad": 0.01}
        bar = figure.colorbar(shade, ax=axes, ticks=[low, high], **place)
        bar.set_label(words, fontsize=size, labelpad=-size)
        bar.ax.set_xticklabels([str(low).replace("-", "−"), str(high)], fontsize=size)
    if key:
        marks = [Patch(facecolor=colour, edgecolor="0.4", gid=KEPT) for colour in key.values()]
        columns = max(1, int(figure.get_figwidth() / (0.19 * size)))
        legend: Any = {"loc": "outside lower left", "ncols": columns, "fontsize": size}
        names = figure.legend(marks, list(key), **legend)
        for mark in filter(None, names.legend_handles):  # copies, which have lost it
            mark.set_gid(KEPT)


def panels(
    images: Sequence[Pixels],
    titles: Sequence[str],
    key: Mapping[str, str] | None = None,
    scales: Sequence[str] = (),
) -> Figure:
    """Draw a few large images in rows of three, each under its own title; see `gallery`."""
    rows = -(-len(images) // 3)
    height = 2.72 * rows + 0.3 * bool(key) + 0.55 * len(scales)
    with drawing(7.5, height, rows, 3) as (figure, axes):
        figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
        for axis in axes[len(images) :]:
            axis.set_axis_off()
        for axis, image, title in zip(axes, images, titles, strict=False):
            _show(axis, image)
            axis.set_title(title, fontsize=13)
        _say_colours(figure, axes, key, scales, 13.0)
    return figure


def lime_row(image: Pixels, explanation: Explanation, num_features: int) -> list[Pixels | str]:
    """Return a photograph's view, LIME's weights, and the masks LIME 1 and LIME 2.

    Of an explanation that says nothing the words of `drawn`, and no masks.
    """
    if explanation.no_signal:
        return [image, drawn(image, explanation), *["no mask"] * len(LIME_MASKS)]
    masks = [lime_mask(explanation, num_features, s) for s in LIME_MASKS.values()]  # type: ignore[arg-type]
    return [image, drawn(image, explanation), *(outlined(image, mask) for mask in masks)]


def describe(explanation: Explanation) -> str:
    """Return a row's label: the photograph, the target and its probability."""
    return f"{explanation.image}: {explanation.target_name}, {explanation.probability:.2f}"


def overlap(
    image: Pixels,
    lime: Int8[np.ndarray, "height width"],
    saliency: Float32[np.ndarray, "height width"],
    method: str,
) -> Pixels:
    """Return where LIME's mask and a method's heatmap thresholded to its area agree."""
    chosen = lime != 0
    return two_masks(image, chosen, area_mask(saliency, int(chosen.sum())), method)


def two_masks(
    image: Pixels,
    lime: Bool[np.ndarray, "height width"],
    cam: Bool[np.ndarray, "height width"],
    method: str,
) -> Pixels:
    """Return the dimmed image in gray with two masks in the methods' colours; white is both."""
    gray = 255 * 0.08 + 0.5 * image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    shown = gray.copy()
    colours = BOTH, COLOURS["lime"], colour_of(method)
    for where, colour in zip((lime & cam, lime & ~cam, ~lime & cam), colours, strict=True):
        shown[where] = 0.35 * gray[where] + 0.65 * _rgb(colour)
    return np.round(shown).astype(np.uint8)


def _rgb(colour: str) -> Float[np.ndarray, "3"]:
    return 255 * np.array(mpl.colors.to_rgb(colour))


def agreement_chart(table: pd.DataFrame) -> Figure:
    """Draw IoU by photograph and heatmap against the chance level, one panel a LIME mask."""
    limes = list(dict.fromkeys(table["lime"]))
    cams = list(dict.fromkeys(table["cam"]))
    images = list(dict.fromkeys(table["image"]))
    size, both = (7.4, 0.9 + 0.27 * len(images)), {"sharex": True, "sharey": True}
    with drawing(*size, 1, len(limes), **both) as (figure, panels):
        for axis, lime in zip(panels, limes, strict=True):
            part = table[table["lime"] == lime]
            places = np.arange(len(images))
            chance = part.groupby("image", sort=False)["chance"].mean().reindex(images)
            axis.barh(places, chance, color="0.86", height=0.8, label="chance level", zorder=1)
            for index, cam in enumerate(cams):
                values = part[part["cam"] == cam].set_index("image")["iou"].reindex(images)
                axis.plot(
                    values, places, ls="", marker="os^Dv<"[index % 6], ms=5, color=colour_of(cam),
                    label=NAMES.get(cam, cam), zorder=2,
                )  # fmt: skip
            axis.set(title=lime, xlabel="intersection over union", xlim=(0, 1))
            axis.set_yticks(places, images)
        panels[0].invert_yaxis()
        legend(figure, *panels[0].get_legend_handles_labels())
    return figure


def _show(axis: Axes, image: Pixels | Bool[np.ndarray, "height width"] | str | None) -> None:
    axis.set_axis_off()
    if image is None or isinstance(image, str):
        axis.annotate(
            textwrap.fill(image or "not computed", 20), (0.5, 0.5), xycoords="axes fraction",
            ha="center", va="center", color="0.4", fontsize=7.5,
        )  # fmt: skip
    else:
        axis.imshow(image)
