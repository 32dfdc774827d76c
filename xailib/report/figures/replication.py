"""Figures of the audit: tables and images in, matplotlib figures out."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xailib.report.figures.style import (
    NAMES,
    SHADES,
    Pixels,
    colour_of,
    drawing,
    legend,
    outlined,
    two_masks,
)
from xailib.report.replication.audit import PUBLISHED, lime_frame, masks
from xailib.report.replication.published import CAMS, LIMES, Published

MARKERS = "os^"
STEPS = {
    PUBLISHED: "as\npublished", "edges": "+ nearest\nneighbour", "frame": "+ same\nframe",
    "area": "+ equal\narea", "signs": "+ positive\nonly",
}  # fmt: skip


def row(case: Published, image: Pixels) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Return a photograph's line in the gallery; see `TITLES`."""
    view = lime_frame(case).show(image)
    published = _squared(two_masks(image, *masks(case, LIMES[0], CAMS[0]), CAMS[0]))
    repaired = [
        two_masks(view, *masks(case, LIMES[0], cam, ("frame", "area")), cam) for cam in CAMS
    ]
    limes = [outlined(view, case.limes[lime]) for lime in LIMES]
    return [*limes, published, *repaired]


def _squared(image: Pixels) -> UInt8[np.ndarray, "side side 3"]:
    """Return the image on a white square, so that all in a line are equally large."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


TITLES = [*LIMES, "as published", *(NAMES[cam] for cam in CAMS)]


def area_chart(steps: pd.DataFrame) -> Figure:
    """Draw each published IoU against what a CAM that is one everywhere would have got."""
    table = steps[(steps["step"] == PUBLISHED) & (steps["cam"] == CAMS[0])]
    with drawing(4.6, 4.2) as (figure, (axis,)):
        limits = table[["iou", "lime_area"]].to_numpy()
        ends = limits.min() - 0.02, limits.max() + 0.02
        axis.plot(ends, ends, color="0.6", lw=1, label="equal", zorder=1)
        for index, lime in enumerate(LIMES):
            part = table[table["lime"] == lime]
            axis.scatter(
                part["lime_area"], part["iou"], marker=MARKERS[index], color=SHADES[index],
                s=30, label=lime, zorder=2,
            )  # fmt: skip
        axis.set(xlabel="IoU of LIME's mask with an all-ones mask", xlim=ends, ylim=ends)
        axis.set(ylabel="IoU with Grad-CAM, as published", aspect="equal")
        legend(figure, *axis.get_legend_handles_labels())
    return figure


def step_chart(steps: pd.DataFrame) -> Figure:
    """Draw mean IoU and the chance level as one repair is added to another, by LIME mask."""
    table = steps[steps["mode"] == "cumulative"]
    means = table.groupby(["lime", "cam", "step"], as_index=False)[["iou", "chance"]].mean()
    places = np.arange(len(STEPS))
    with drawing(8.2, 3.5, 1, len(LIMES), sharey=True) as (figure, panels):
        for axis, lime in zip(panels, LIMES, strict=True):
            chance = _by_step(means, lime, CAMS[0])["chance"]
            axis.bar(places, chance, color="0.86", width=0.75, label="chance level (Grad-CAM)")
            for index, cam in enumerate(CAMS):
                values = _by_step(means, lime, cam)["iou"]
                axis.plot(
                    places, values, marker=MARKERS[index], ms=5, lw=1.2, color=colour_of(cam),
                    label=NAMES[cam],
                )  # fmt: skip
                if index == 0:
                    _write(axis, places, values.to_numpy(), chance.to_numpy())
            axis.set(title=lime, xticks=places, ylim=(0, 1.12 * means["iou"].max()))
            axis.set_xticklabels(list(STEPS.values()), fontsize=8)
            axis.grid(visible=False, axis="x")
        panels[0].set_ylabel("mean intersection over union")
        legend(figure, *panels[0].get_legend_handles_labels())
    return figure


def _by_step(means: pd.DataFrame, lime: str, cam: str) -> pd.DataFrame:
    part = means[(means["lime"] == lime) & (means["cam"] == cam)]
    return part.set_index("step").reindex(list(STEPS))


def _write(axis: Axes, places: np.ndarray, values: np.ndarray, chance: np.ndarray) -> None:
    for place, value, low in zip(places, values, chance, strict=True):
        axis.annotate(
            f"{value:.3f}", (place, value), (0, 7), textcoords="offset points", ha="center",
            fontsize=7.5,
        )  # fmt: skip
        axis.text(place, low / 2, f"{low:.3f}", ha="center", fontsize=7.5, color="0.35")


def sweep_chart(sweep: pd.DataFrame) -> Figure:
    """Draw mean IoU against chance, and the CAM's area, by the threshold on the CAM."""
    with drawing(8.2, 3.3, 1, 2) as (figure, (left, right)):
        for cam in CAMS:
            part = sweep[sweep["cam"] == cam]
            colour = colour_of(cam)
            left.plot(part["threshold"], part["iou"], color=colour, label=NAMES[cam])
            left.plot(part["threshold"], part["chance"], color=colour, ls=":", lw=1.2)
            right.plot(part["threshold"], part["cam_area"], color=colour, label=NAMES[cam])
        left.plot([], [], color="0.4", ls=":", label="chance level, same areas")
        left.set(xlabel="threshold on the CAM", ylabel="mean IoU with LIME 1", ylim=(0, None))
        right.set(xlabel="threshold on the CAM", ylabel="mean share of the image", ylim=(0, 1.02))
        for axis in (left, right):
            axis.axvline(0, color="0.4", lw=0.8)
            axis.set_xlim(-0.02, 0.97)
        legend(figure, *left.get_legend_handles_labels())
    return figure


def corrected_chart(table: pd.DataFrame) -> Figure:
    """Draw the corrected IoU by photograph beside chance and the two other baselines."""
    images = list(dict.fromkeys(table["image"]))
    first = table[table["cam"] == CAMS[0]].set_index("image").reindex(images)
    places = np.arange(len(images))
    with drawing(7.4, 1.1 + 0.32 * len(images)) as (figure, (axis,)):
        axis.barh(places, first["chance"], color="0.86", height=0.8, label="chance level", zorder=1)
        line: Any = {"ls": "", "marker": "|", "ms": 11, "mew": 2}
        axis.plot(
            first["others"], places, color="0.35", label="Grad-CAM of other photographs", **line
        )
        axis.plot(first["centre"], places, color="0.65", label="centred disc", **line)
        for index, cam in enumerate(CAMS):
            values = table[table["cam"] == cam].set_index("image")["iou"].reindex(images)
            axis.plot(
                values, places, ls="", marker=MARKERS[index], ms=5, color=colour_of(cam),
                label=NAMES[cam], zorder=3,
            )  # fmt: skip
        axis.set(xlabel="intersection over union with LIME 1", xlim=(0, None))
        axis.set_yticks(places, images)
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        legend(figure, *axis.get_legend_handles_labels())
    return figure
