"""Charts of how far pairs of explanations agree; tables in, figures out."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from xailib.compare.pairs import SUPPORTS
from xailib.report.figures.publish import KEPT
from xailib.report.figures.style import NAMES, colour_of, drawing, legend

_BASELINES = {
    "chance": ("scattered pixels", "|", "0.45"),
    "null_mean": ("same blobs or superpixels elsewhere", "x", "0.3"),
    "others": ("maps of other photographs", "D", "0.05"),
}


def matrix_chart(summary: pd.DataFrame) -> Figure:
    """Draw mean IoU (above the diagonal) and Spearman's correlation (below) of every pair."""
    names = list(dict.fromkeys([*summary["a"], *summary["b"]]))
    place = {name: index for index, name in enumerate(names)}
    shown = np.full((len(names), len(names)), np.nan)
    np.fill_diagonal(shown, 1)
    for row in summary.itertuples():
        first, second = sorted((place[row.a], place[row.b]))
        shown[first, second], shown[second, first] = row.iou, row.spearman
    labels = [_name(name).replace(", ", ",\n") for name in names]
    with drawing(1.6 + 0.95 * len(names), 1.3 + 0.72 * len(names)) as (figure, (axis,)):
        image = axis.imshow(shown, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
        for down, across in product(range(len(names)), repeat=2):
            value = shown[down, across]
            text = "–" if np.isnan(value) else "1" if down == across else f"{value:.2f}"
            text = text.replace("-", "−")
            colour = "white" if abs(value) > 0.7 else "black"
            kept = None if np.isnan(value) else KEPT  # where nothing is coloured is the ground
            axis.text(across, down, text, ha="center", va="center", color=colour, gid=kept)
        axis.set_xticks(range(len(names)), labels)
        axis.set_yticks(range(len(names)), labels)
        axis.tick_params(length=0)
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
        axis.set_title("above the diagonal: mean IoU; below: mean rank correlation", loc="left")
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def baseline_chart(summary: pd.DataFrame) -> Figure:
    """Draw each pair's mean IoU with its chance level under three null models."""
    labels = [f"{_name(r.a)} × {_name(r.b)}" for r in summary.itertuples()]
    places = np.arange(len(summary))
    with drawing(7.4, 1.3 + 0.3 * len(summary)) as (figure, (axis,)):
        axis.barh(places, summary["iou"], color="0.8", height=0.7, label="IoU")
        for column, (label, marker, colour) in _BASELINES.items():
            axis.plot(
                summary[column], places, ls="", marker=marker, ms=7, mew=1.8, color=colour,
                mfc="none", label=label,
            )  # fmt: skip
        axis.set_yticks(places, labels)
        axis.invert_yaxis()
        axis.set(xlim=(0, 1), xlabel="mean intersection over union")
        legend(figure, *axis.get_legend_handles_labels())
    return figure


def sweep_chart(sweep: pd.DataFrame) -> Figure:
    """Draw mean IoU against the area of the thresholded maps, with the level of scattered pixels.

    Left: the pairs of LIME's supporting superpixels, where it is the first of each, else those of
    the first method; right: all others. What opposes is left out.
    """
    first = SUPPORTS if SUPPORTS in set(sweep["a"]) else sweep["a"].iloc[0]
    with drawing(7.4, 3.4, 1, 2, sharey=True) as (figure, (left, right)):
        other = sweep[(sweep["a"] != first) & (sweep["a"] != "lime-") & (sweep["b"] != "lime-")]
        own = sweep[(sweep["a"] == first) & (sweep["b"] != "lime-")]
        parts = ((left, own), (right, other))
        for axis, part in parts:
            pairs = part.groupby(["a", "b"], sort=False)
            for index, (key, lines) in enumerate(pairs):
                a, b = map(str, key)
                means = lines.groupby("area")[["iou", "chance"]].mean()
                colour = colour_of(b if axis is left else a)
                axis.plot(
                    means.index, means["iou"], color=colour, mfc=colour_of(b),
                    marker="os^Dv<"[index % 6], ms=5, label=f"{_name(a)} × {_name(b)}",
                )  # fmt: skip
            chance = sweep.groupby("area")["chance"].mean()
            axis.plot(chance.index, chance, color="0.5", ls="--", label="scattered pixels")
            axis.set(xlabel="selected share of the view", ylim=(0, 1))
        both = (axis.get_legend_handles_labels() for axis in (left, right))
        found = {str(n): h for handles, names in both for h, n in zip(handles, names, strict=True)}
        legend(figure, list(found.values()), list(found))
        left.set(ylabel="mean IoU", title=f"{_name(first)} with …")
        right.set_title("pairs of heatmaps")
    return figure


def _name(key: object) -> str:
    return NAMES.get(str(key), str(key))
