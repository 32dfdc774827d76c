"""Boxes around the object in a photograph, and how much of an explanation is inside.

The packaged boxes were drawn by us, by eye, to about 3 % of the photograph's side, around every
instance of the labelled class; they are under the project's own licence.
"""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from xailib.compare.pairs import Map
from xailib.errors import InputError
from xailib.images.frames import Frame

PACKAGED = "packaged"
_SIDES = ("left", "top", "right", "bottom")

Box = tuple[float, float, float, float]


def load_boxes(source: str | Path = PACKAGED) -> dict[str, list[Box]]:
    """Return (left, top, right, bottom) of each box, as shares of the photograph, by its id.

    Parameters
    ----------
    source : str or path
        ``"packaged"``, or a CSV file with the columns image, left, top, right, bottom. An empty
        string gives none.

    Raises
    ------
    InputError
        If the file is missing, lacks a column, or a box is not within 0 to 1.
    """
    if not source:
        return {}
    path = files("xailib.compare") / "boxes.csv" if source == PACKAGED else Path(source)
    try:
        with path.open(encoding="utf-8") as file:
            table = pd.read_csv(file, dtype={"image": str, **dict.fromkeys(_SIDES, float)})
    except (OSError, ValueError) as error:
        raise InputError(f"boxes: cannot read {str(source)!r}: {error}") from error
    missing = [name for name in ("image", *_SIDES) if name not in table]
    if missing:
        raise InputError(f"boxes: {str(source)!r} has no column {', '.join(missing)}")
    boxes: dict[str, list[Box]] = {}
    for row in table.itertuples():
        left, top, right, bottom = (getattr(row, side) for side in _SIDES)
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise InputError(
                f"boxes: {left, top, right, bottom} of {row.image!r} is not left < right and "
                "top < bottom in shares of the photograph, 0 to 1"
            )
        boxes.setdefault(str(row.image), []).append((left, top, right, bottom))
    return boxes


def inside(boxes: Iterable[Box], frame: Frame) -> Bool[np.ndarray, "height width"]:
    """Return which pixels of a frame are in one of the boxes."""
    height, width = frame.resized
    whole = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        rows = slice(round(top * height), round(bottom * height))
        whole[rows, round(left * width) : round(right * width)] = True
    first, start, rows_kept, columns_kept = frame.crop
    return whole[first : first + rows_kept, start : start + columns_kept]


def localisation(maps: Iterable[Map], boxes: Mapping[str, Iterable[Box]]) -> pd.DataFrame:
    """Compare maps with boxes: the pointing game, energy inside, and a mask's share inside.

    Parameters
    ----------
    maps : iterable of Map
        Those without a box are left out.
    boxes : mapping
        As `load_boxes` gives them.

    Returns
    -------
    DataFrame
        One row a map: image, map, box (the boxes' share of the frame, the score of an
        uninformative map), pointing (1 if the highest pixel lies inside; with ties, their
        share; Zhang et al. 2018), energy (share of the positive saliency inside; Wang et al.
        2020), precision (share inside of the mask of the map's own `area`), area.
    """
    rows = []
    for one in maps:
        if one.image not in boxes:
            continue
        box = inside(boxes[one.image], one.frame)
        mask = one.mask(one.area)
        positive = np.maximum(one.values, 0).astype(np.float64)
        total = positive.sum()
        rows.append(
            {
                "image": one.image,
                "map": one.name,
                "box": float(box.mean()),
                "pointing": float(box[one.values == one.values.max()].mean()),
                "energy": float(positive[box].sum() / total) if total > 0 else float("nan"),
                "precision": float(box[mask].mean()) if mask.any() else float("nan"),
                "area": float(mask.mean()),
            }
        )
    columns = ["image", "map", "box", "pointing", "energy", "precision", "area"]
    return pd.DataFrame(rows, columns=columns)
