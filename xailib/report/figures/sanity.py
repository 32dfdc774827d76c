"""The charts of the sanity checks: tables in, figures out."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xailib.evaluate.sanity import MEASURES
from xailib.explain.explanation import Explanation
from xailib.report.figures import style as figures


def overlay(view: figures.Pixels, explanation: Explanation | None) -> figures.Pixels | str | None:
    """Return a map over its view, its highest hundredth clipped; None where there is no map.

    Of a map that says nothing the words of `xailib.report.figures.style.drawn`.
    """
    if explanation is None:
        return None
    if explanation.signed or explanation.no_signal:
        return figures.drawn(view, explanation)
    top = np.quantile(explanation.saliency, 0.99)  # of a gradient, a few pixels outshine all else
    return figures.heat(view, (explanation.saliency / (top or 1)).clip(0, 1).astype(np.float32))


def stage_chart(table: pd.DataFrame, judged: pd.DataFrame) -> Figure:
    """Draw similarity by stage, one panel a method, with the null baseline's interval as a band.

    The rank correlation is in colour; of the other `MEASURES` only the means are drawn, thin.
    ``table`` is from `compare`, with the columns ``stage_index`` and ``stage``, a stage's name;
    ``judged`` is from `verdict`.
    """
    names = table.sort_values("stage_index").drop_duplicates("stage_index")
    rows = -(-len(judged) // 3)
    both = {"sharex": True, "sharey": True}
    with figures.drawing(7.6, 2.25 * rows + 0.55, rows, 3, **both) as (figure, axes):
        for axis, line in zip(axes, judged.to_dict("records"), strict=False):
            method = line["method"]
            label = "null baseline: maps of two photographs"
            ends = line["floor_low"], line["floor_high"]
            if np.isnan(ends).any():  # of two photographs, without an interval
                axis.axhline(line["floor"], color="0.7", label=label)
            else:
                axis.axhspan(*ends, color="0.85", label=label)
            _curves(axis, table[table["method"] == method], figures.colour_of(method))
            axis.set_title(f"{figures.NAMES.get(method, method)}: {line['verdict']}", loc="left")
        for number, axis in enumerate(axes):
            axis.set_visible(number < len(judged))
            if number >= len(judged) - 3:
                axis.set_xticks(names["stage_index"], names["stage"], rotation=40, ha="right")
                axis.tick_params(axis="x", labelbottom=True)
        axes[0].set_ylim(min(-0.5, table["spearman"].min() - 0.05), 1.05)
        figure.supylabel("similarity to the trained network's map", fontsize=9)
        figures.legend(figure, *axes[0].get_legend_handles_labels())
    return figure


def _curves(axis: Axes, part: pd.DataFrame, color: str) -> None:
    means = part.groupby("stage_index")[list(MEASURES)].mean()
    for number, (_, own) in enumerate(part.groupby("image", sort=False)):
        own = own.sort_values("stage_index")
        label = f"{MEASURES['spearman']}, by photograph" if number == 0 else None
        axis.plot(own["stage_index"], own["spearman"], color=color, lw=0.8, alpha=0.7, label=label)
    label = f"{MEASURES['spearman']}, mean"
    axis.plot(means["spearman"], color=color, marker="o", ms=4, label=label)
    for other, style in (("ssim", "--"), ("iou", ":")):
        axis.plot(means[other], style, color="0.4", lw=1.2, label=f"{MEASURES[other]}, mean")
