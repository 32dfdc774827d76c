"""The figure of how cost grows with sizes and workers, from the tables that are kept."""

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from xailib.figures import PALETTE, style
from xailib.files import write_atomic

LINE = {"marker": "o", "markersize": 3, "color": PALETTE[0]}
IDEAL = {"linestyle": "--", "linewidth": 1, "color": "gray"}


def draw(folder: Path) -> None:
    """Draw ``scale.svg`` beside the tables, once both are there: the same bytes for the same."""
    files = [folder / f"{name}.csv" for name in ("sizes", "workers")]
    if not all(file.is_file() for file in files):
        return
    sizes, workers = (pd.read_csv(file) for file in files)
    groups = list(sizes.groupby("growing", sort=False))
    reproducible = {"svg.hashsalt": "scale", "svg.fonttype": "none"}
    with style(), mpl.rc_context(reproducible):
        figure = Figure(figsize=(2.1 * (len(groups) + 1), 2.6), layout="constrained")
        *axes, last = figure.subplots(1, len(groups) + 1)
        for axis, (what, group) in zip(axes, groups, strict=True):
            _growing(axis, what, group)
        axes[0].set_ylabel("seconds of a processor")
        _faster(last, workers)
        file = BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    write_atomic(folder / "scale.svg", file.getvalue())


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
