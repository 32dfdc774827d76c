"""Figures of LIME's repeatability: tables of `xailib.evaluate.stability` in, figures out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, ScalarFormatter

from xailib.compare.masks import lime_superpixels
from xailib.explain.explanation import Explanation
from xailib.explain.stability import Stability
from xailib.report.figures.style import PALETTE, PER_CENT, SHADES, drawing, legend

_MEASURES = {
    "shared": "shared superpixels",
    "iou": "IoU of the masks",
    "rank_correlation": "rank correlation of the weights",
}


def runs_chart(table: pd.DataFrame) -> Figure:
    """Draw what two runs have in common, by their number of samples, one panel a measure.

    Solid: real runs. Broken, in the first panel: what a single run of twice as many says of
    itself.
    """
    sizes = sorted(set(table["samples"]))
    with drawing(7.6, 2.9, 1, len(_MEASURES), sharey=True) as (figure, panels):
        for axis, (measure, title) in zip(panels, _MEASURES.items(), strict=True):
            for place, (image, rows) in enumerate(table.groupby("image", sort=False)):
                look: Any = {"color": SHADES[place % len(SHADES)], "ms": 4}
                mark = "os^D"[place % 4]
                axis.plot(rows["samples"], rows[measure], marker=mark, label=str(image), **look)
                if measure == "shared":
                    look |= {"ls": "--", "marker": mark, "mfc": "white"}
                    axis.plot(rows["samples"], rows["halves"], **look)
            axis.set_xscale("log")
            _tick(axis.xaxis, sizes)
            axis.tick_params(axis="x", labelrotation=60)
            axis.set_title(title)
        panels[0].set_ylim(min(0.0, float(table[list(_MEASURES)].min().min())), 1.04)
        panels[1].set_xlabel("samples per run")
        handles, names = panels[0].get_legend_handles_labels()
        handles += panels[0].plot([], [], color="0.4", ls="--", marker="o", mfc="white", ms=4)
        legend(figure, handles, [*names, "split-half estimate"])
    return figure


def weights_chart(table: pd.DataFrame) -> Figure:
    """Draw every superpixel's weight with its interval, in the order of the table.

    Filled marks are in the mask; the lower panel shows how often halves select each.
    """
    chosen = table["chosen"].to_numpy(bool)
    places = np.arange(1, len(table) + 1)
    with drawing(7.6, 3.6, 2, 1, sharex=True, height_ratios=(2.4, 1)) as (figure, (top, below)):
        top.axhline(0, color="0.3", lw=0.8)
        top.vlines(places, table["low"], table["high"], color=SHADES[0], lw=1.2)
        for part, fill in ((chosen, SHADES[0]), (~chosen, "white")):
            top.plot(
                places[part], table["weight"][part], ls="", marker="o", ms=4.5,
                color=SHADES[0], mfc=fill,
            )  # fmt: skip
        top.set_ylabel("weight")
        colours = np.where(chosen, SHADES[0], "#B8B8B8")
        below.bar(places, table["chosen_again"], color=list(colours), width=0.8)
        below.set(ylabel="selection\nfrequency", ylim=(0, 1), xlabel="superpixel, by weight")
        below.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=PER_CENT))
    return figure


def designs_chart(table: pd.DataFrame) -> Figure:
    """Draw the share of independent sampling's passes that each design needs."""
    designs = list(dict.fromkeys(table["design"]))
    with drawing(5.2, 0.9 + 0.4 * len(designs)) as (figure, (axis,)):
        for place, (image, rows) in enumerate(table.groupby("image", sort=False)):
            axis.plot(
                rows["passes"], [designs.index(design) for design in rows["design"]], ls="",
                marker="os^D"[place % 4], color=SHADES[place % len(SHADES)], label=str(image),
            )  # fmt: skip
        means = table.groupby("design", sort=False)["passes"].mean()
        axis.barh(range(len(designs)), means[designs], color="0.88", height=0.6, zorder=0)
        axis.set_yticks(range(len(designs)), designs)
        axis.set(xlabel="passes for the same variance")
        axis.set_xlim(0, None)
        axis.invert_yaxis()
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=PER_CENT))
        legend(figure, *axis.get_legend_handles_labels())
    return figure


def truth_chart(errors: pd.DataFrame, stops: pd.DataFrame, samples: int) -> Figure:
    """Draw LIME's mean error by samples, one line a design, and where ``"auto"`` stops.

    ``errors`` and ``stops`` are from `xailib.evaluate.truth.design_errors` and `stable_errors`. The
    broken line marks the error of so many independent ``samples``.
    """
    mean = errors.groupby(["design", "samples"], sort=False)["error"].mean().unstack("samples")
    with drawing(6.2, 3.4) as (figure, (axis,)):
        for place, (design, row) in enumerate(mean.iterrows()):
            look: Any = {"color": PALETTE[place % len(PALETTE)], "marker": "os^Dv<"[place % 6]}
            axis.plot(row.index, row, ms=4, label=str(design), **look)
            own = stops[stops["design"] == design]
            if len(own):
                middle = own[["samples", "error"]].mean()
                axis.plot(*middle, ls="", ms=9, mfc="white", **look)
        axis.axhline(mean[samples].to_dict()["independent"], color="0.4", ls="--", lw=0.9)
        axis.set(xscale="log", yscale="log", xlabel="samples", ylabel="relative error of a weight")
        _tick(axis.xaxis, mean.columns)
        _tick(axis.yaxis, (0.03, 0.05, 0.1, 0.2, 0.3))
        legend(figure, *axis.get_legend_handles_labels())
    return figure


def _tick(line: Axis, values: Iterable[Any]) -> None:
    """Put ticks at these values of a logarithmic scale, and no others."""
    line.set_major_locator(FixedLocator([float(value) for value in values]))
    line.set_minor_locator(NullLocator())
    line.set_major_formatter(ScalarFormatter())


def selection_map(one: Explanation, found: Stability) -> Float32[np.ndarray, "height width"]:
    """Return for each pixel the share of halves that select its superpixel, in [0, 1]."""
    return found.selection_frequency[lime_superpixels(one).segments].astype(np.float32)
