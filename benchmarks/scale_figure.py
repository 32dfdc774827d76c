"""The figure of how cost grows with sizes and workers, from the tables that are kept."""

from pathlib import Path

import numpy as np
import pandas as pd
from drawing import keep
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from xailib.report.figures.style import PALETTE, style

LINE = {"marker": "o", "markersize": 3, "color": PALETTE[0]}
COLUMNS = 3
IDEAL = {"linestyle": "--", "linewidth": 1, "color": "gray"}


def draw(folder: Path) -> None:
    """Draw the tables beside them, once both are there: the same bytes for the same."""
    files = [folder / f"{name}.csv" for name in ("sizes", "workers")]
    if not all(file.is_file() for file in files):
        return
    sizes, workers = (pd.read_csv(file) for file in files)
    groups = list(sizes.groupby("growing", sort=False))
    rows = -(-(len(groups) + 1) // COLUMNS)
    with style():
        figure = Figure(figsize=(7.6, 2.4 * rows))
        axes = figure.subplots(rows, COLUMNS, squeeze=False)
        for axis, (what, group) in zip(axes.flat, groups, strict=False):
            _growing(axis, what, group)
        for axis in axes[:, 0]:
            axis.set_ylabel("seconds of a processor")
        _faster(axes.flat[len(groups)], workers)
        for axis in axes.flat[len(groups) + 1 :]:
            axis.set_axis_off()
        keep(folder, "scale", figure)


def _growing(axis: Axes, what: str, group: pd.DataFrame) -> None:
    size, seconds = group["size"].to_numpy(float), group["seconds"].to_numpy()
    axis.plot(size, seconds, **LINE)
    axis.plot(size, seconds[-1] * size / size[-1], **IDEAL)
    axis.set(xscale="log", yscale="log", xlabel=what)
    axis.xaxis.set(major_formatter="{x:,g}", minor_formatter=NullFormatter())
    axis.yaxis.set(major_formatter="{x:g}", minor_formatter=NullFormatter())
    axis.xaxis.set_major_locator(FixedLocator([size.min(), size.max()]))


def _faster(axis: Axes, workers: pd.DataFrame) -> None:
    count, cores = workers["workers"].to_numpy(float), workers["cores"].to_numpy(float)
    axis.plot(count, workers["speedup"], **LINE)
    axis.plot(count, np.minimum(count, cores), **IDEAL)
    axis.set(xlabel="workers", ylabel="times one worker", ylim=(0, None))
    axis.xaxis.set_major_locator(FixedLocator(count))
    axis.xaxis.set_minor_locator(NullLocator())
