"""Figures of faithfulness: the curves, what beats the baselines, one photograph's deletion.

Tables of `xailib.evaluate.scores` in, figures out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from xailib.compare.intervals import mean_interval
from xailib.errors import InputError
from xailib.report.figures.style import NAMES, PER_CENT, Pixels, colour_of, drawing, legend, style

BASELINE_NAMES = {"random": "random field", "centre": "centred blob"}
MEASURES = {
    "deletion": "deletion", "insertion": "insertion", "flipping": "region flipping", "road": "ROAD",
}  # fmt: skip
_AXES = {
    "deletion": "pixels deleted", "insertion": "pixels inserted", "flipping": "regions flipped",
}  # fmt: skip
_MARKERS = "os^Dv<"


def name_of(method: str) -> str:
    """Return a method's or a baseline's name for readers."""
    return BASELINE_NAMES.get(method) or NAMES.get(method, method)


def not_beaten(comparison: pd.DataFrame, baseline: str) -> str:
    """Return which methods do not beat a baseline on which measure, in words; empty if all do."""
    part = comparison[(comparison["baseline"] == baseline) & (comparison["verdict"] != "better")]
    said = []
    for measure in MEASURES:
        rows = part[part["measure"] == measure]
        names = [
            name_of(method) + (" (worse)" if verdict == "worse" else "")
            for method, verdict in zip(rows["method"], rows["verdict"], strict=True)
        ]
        if names:
            said.append(f"{MEASURES[measure]}: {', '.join(names)}")
    return "; ".join(said)


def curves_chart(curves: pd.DataFrame) -> Figure:
    """Draw mean curves of deletion, insertion and flipping, each in its band.

    Bands are 95 % intervals of the mean once what photographs have in common for all methods is
    taken out (Cousineau 2005, with Morey's factor): they show what a paired comparison sees.
    Lines of methods carry markers, baselines are gray and broken. Fractions must be the same
    for all photographs. `InputError` is raised if the table has none of the three.
    """
    measures = [m for m in _AXES if m in set(curves["measure"])]
    if not measures:
        raise InputError("curves: the table has none of deletion, insertion, flipping")
    with drawing(7.6, 3.1, 1, len(measures), sharey=True) as (figure, panels):
        for axis, measure in zip(panels, measures, strict=True):
            wide = curves[curves["measure"] == measure].pivot_table(
                index=["method", "image"], columns="fraction", values="score", sort=False
            )
            methods = list(dict.fromkeys(wide.index.get_level_values("method")))
            own = wide - wide.groupby(level="image").transform("mean")
            own *= np.sqrt(len(methods) / max(1, len(methods) - 1))
            for place, method in enumerate(methods):
                _curve(axis, wide.loc[method], own.loc[method], method, place)
            axis.set(title=MEASURES[measure], xlabel=_AXES[measure])
            axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=PER_CENT))
        panels[0].set(ylabel="probability of the class", ylim=(0, None))
        legend(figure, *panels[0].get_legend_handles_labels())
    return figure


def _curve(axis: Axes, wide: pd.DataFrame, own: pd.DataFrame, method: str, place: int) -> None:
    fractions = wide.columns.to_numpy(float)
    mean = wide.mean().to_numpy(float)
    low, high = (end - own.mean().to_numpy(float) for end in mean_interval(own.to_numpy(float)))
    baseline = method in BASELINE_NAMES
    colour = colour_of(method)
    axis.fill_between(fractions, mean + low, mean + high, color=colour, alpha=0.13, lw=0)
    axis.plot(
        fractions, mean, color=colour, lw=1.4, ls={"random": "--", "centre": ":"}.get(method, "-"),
        marker="" if baseline else _MARKERS[place % len(_MARKERS)], ms=4,
        markevery=(place, max(1, len(fractions) // 5)), label=name_of(method),
    )  # fmt: skip


def differences_chart(comparison: pd.DataFrame) -> Figure:
    """Draw each method's gain over each baseline with its interval, one panel a measure.

    Right of zero is better whatever the measure: for deletion the sign is turned. A filled mark
    is decided (`compare_with_baselines`), a hollow one is not.
    """
    measures = [m for m in MEASURES if m in set(comparison["measure"])]
    methods = list(dict.fromkeys(comparison["method"]))
    baselines = list(dict.fromkeys(comparison["baseline"]))
    with drawing(7.6, 1.2 + 0.42 * len(methods), 1, len(measures), sharey=True) as (figure, panels):
        for axis, measure in zip(panels, measures, strict=True):
            part = comparison[comparison["measure"] == measure]
            axis.axvline(0, color="0.3", lw=0.9, zorder=1)
            for index, baseline in enumerate(baselines):
                rows = part[part["baseline"] == baseline]
                shift = (index - (len(baselines) - 1) / 2) * 0.3
                _gains(axis, rows, [methods.index(m) + shift for m in rows["method"]], index)
            axis.set(title=MEASURES[measure], xlabel="gain")
            axis.locator_params(axis="x", nbins=4)
        panels[0].set_yticks(range(len(methods)), [name_of(m) for m in methods])
        panels[0].set_ylim(len(methods) - 0.5, -0.5)
        marks = [panels[0].plot([], [], **_look(i, True, "0.4"))[0] for i in range(len(baselines))]
        marks.append(panels[0].plot([], [], ls="", marker="o", mfc="white", color="0.4")[0])
        names = [*(f"vs {name_of(b)}" for b in baselines), "undecided (hollow)"]
        legend(figure, marks, names)
    return figure


def _gains(axis: Axes, rows: pd.DataFrame, places: Sequence[float], index: int) -> None:
    sign = np.where(rows["better"] == "higher", 1.0, -1.0)
    ends = np.sort([sign * rows["low"], sign * rows["high"]], axis=0)
    colours = [colour_of(method) for method in rows["method"]]
    axis.hlines(places, *ends, color=colours, lw=1.4, zorder=2)
    drawn = zip(sign * rows["difference"], places, rows["verdict"], colours, strict=True)
    for x, y, verdict, colour in drawn:
        axis.plot(x, y, zorder=3, **_look(index, verdict != "undecided", colour))


def _look(index: int, decided: bool, colour: str) -> dict[str, Any]:
    fill = colour if decided else "white"
    return {"ls": "", "marker": "oD"[index % 2], "ms": 5, "color": colour, "mfc": fill}


def film_strip(
    rows: Sequence[Sequence[Pixels]],
    scores: Sequence[Sequence[float]],
    titles: Sequence[str],
    labels: Sequence[str],
) -> Figure:
    """Draw one photograph being perturbed: a row a method, a column a fraction.

    `scores` is the target's probability for each image, printed below it.
    """
    if not rows or any(len(row) != len(titles) for row in (*rows, *scores)):
        raise InputError("film_strip: needs one title and one score for each image of a row")
    with style():
        figure = Figure(figsize=(1.35 * len(titles) + 0.5, 1.55 * len(rows) + 0.2))
        grid = figure.subplots(len(rows), len(titles), squeeze=False)
        for line, row, values, label in zip(grid, rows, scores, labels, strict=True):
            for axis, image, value in zip(line, row, values, strict=True):
                axis.imshow(image)
                axis.set(xticks=[], yticks=[])
                axis.grid(visible=False)
                axis.spines[:].set_visible(False)
                axis.set_xlabel(f"{value:.2f}", fontsize=8, labelpad=2)
            line[0].set_ylabel(label, weight="bold", fontsize=8)
        for axis, title in zip(grid[0], titles, strict=True):
            axis.set_title(title, weight="bold", fontsize=8)
    return figure
