"""The figure of how our cost grows, from the table that is kept."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from xailib.files import write_atomic
from xailib.report.figures.publish import svg
from xailib.report.figures.style import colour_of, legend, style


def draw(folder: Path) -> None:
    """Draw ``growth.csv`` beside it: the same bytes for the same table."""
    table = pd.read_csv(folder / "growth.csv")
    groups = list(table.groupby("grows", sort=False))
    with style():
        figure = Figure(figsize=(7.6, 3.6))
        axes = figure.subplots(2, len(groups), sharex="col", sharey="row", squeeze=False)
        for (what, group), (time, memory) in zip(groups, axes.T, strict=True):
            for method, some in group.groupby("method", sort=False):
                line = {"marker": "o", "markersize": 3, "color": colour_of(str(method).lower())}
                time.plot(some["value"], some["seconds"], label=method, **line)
                memory.plot(some["value"], some["peak_mb"], **line)
            for axis in (time, memory):
                axis.set(xscale="log", yscale="log")
                axis.xaxis.set(major_formatter="{x:g}", minor_formatter=NullFormatter())
                axis.yaxis.set(major_formatter="{x:g}", minor_formatter=NullFormatter())
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_xticks([group["value"].min(), group["value"].max()])
            memory.set_xlabel(what)
        axes[0, 0].set_ylabel("seconds")
        axes[1, 0].set_ylabel("peak memory, MB")
        handles = {
            t: h for a in axes[0] for h, t in zip(*a.get_legend_handles_labels(), strict=True)
        }
        legend(figure, list(handles.values()), list(handles))
        write_atomic(folder / "growth.svg", svg(figure, "growth").encode())
