"""An audit of a published table: what its numbers measure, and what is left when flaws go.

Balwani and Kaharova (2024) compared LIME with Grad-CAM by one IoU a photograph. Their masks and
maps are public (`xailib.report.replication.published`), so that each of the table's numbers can be
computed again, with one flaw after the other repaired. Nothing here sees a network.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import spearmanr

from xailib.compare.chance import chance_iou
from xailib.compare.intervals import holm, mean_interval, paired
from xailib.compare.iou import iou
from xailib.compare.masks import area_mask, value_mask
from xailib.images.frames import Frame, resize
from xailib.report.replication.published import CAMS, LIMES, Published

Mask = Bool[np.ndarray, "height width"]
# What can be repaired, in the order in which the steps add up.
REPAIRS = {
    "edges": "LIME's mask resized by nearest neighbour",
    "frame": "both maps in LIME's frame",
    "area": "CAM thresholded to LIME's area",
    "signs": "opposing superpixels excluded",
}
PUBLISHED = "published"
BASELINES = ("chance", "others", "centre")  # columns of `corrected` that the IoU is held against
THRESHOLDS = tuple(np.round(np.arange(0, 0.96, 0.05), 2))


def lime_frame(case: Published) -> Frame:
    """Return the frame of their LIME masks: squashed to 256 x 256, cropped to the centre 224."""
    height, width = case.cams[CAMS[0]].shape
    return Frame((height, width), (256, 256), (16, 16, 224, 224))


def masks(case: Published, lime: str, cam: str, repairs: Collection[str] = ()) -> tuple[Mask, Mask]:
    """Return LIME's mask and the CAM's as the report compared them, or with repairs.

    As published, LIME's mask is enlarged to the photograph by bilinear interpolation, and every
    pixel that is not zero belongs to a mask (their ``task-4/iou.ipynb``). Every photograph is
    larger than LIME's frame, so that it is always LIME's mask that is enlarged. ``lime`` is
    ``"LIME 1"`` or ``"LIME 2"``, ``cam`` a key of ``case.cams``, and ``repairs`` are keys of
    `REPAIRS`.
    """
    signed, saliency = case.limes[lime], case.cams[cam]
    if "signs" in repairs:
        signed = np.maximum(signed, 0)
    if "frame" in repairs:
        saliency = lime_frame(case).from_photograph(saliency)
    else:
        how = "nearest" if "edges" in repairs else "bilinear"
        signed = resize(signed.astype(np.float32), saliency.shape, how)  # type: ignore[arg-type]
    chosen = signed != 0
    if "area" in repairs:
        return chosen, area_mask(saliency, int(chosen.sum()))
    return chosen, value_mask(saliency, 0.0)


def compare(
    cases: Iterable[Published], repairs: Collection[str] = (), cams: Sequence[str] = CAMS
) -> pd.DataFrame:
    """Return the IoU of LIME's masks and the CAMs' for every photograph.

    One row for each photograph, LIME mask and CAM: image, lime, cam, iou, chance (mean IoU of
    random masks of the two areas), lime_area and cam_area (shares of the frame).
    """
    rows = []
    for case in cases:
        for lime in LIMES:
            for cam in cams:
                chosen, cut = masks(case, lime, cam, repairs)
                rows.append({"image": case.image, "lime": lime, "cam": cam, **_scores(chosen, cut)})
    return pd.DataFrame(rows)


def steps(cases: Sequence[Published]) -> pd.DataFrame:
    """Return what each repair does to the numbers, alone and added to those before it.

    The columns of `compare`, before them mode ("cumulative" for all CAMs, "alone" for Grad-CAM, the
    published table's) and step ("published" or a key of `REPAIRS`: the repair made last).
    """
    names = list(REPAIRS)
    parts = [compare(cases).assign(mode="cumulative", step=PUBLISHED)]
    for count, name in enumerate(names, start=1):
        added = compare(cases, names[:count]).assign(mode="cumulative", step=name)
        alone = compare(cases, [name], CAMS[:1]).assign(mode="alone", step=name)
        parts += [added, alone]
    table = pd.concat(parts, ignore_index=True)
    return table[["mode", "step", *table.columns.drop(["mode", "step"])]]


def corrected(cases: Sequence[Published]) -> pd.DataFrame:
    """Return IoU of LIME 1 and the CAMs in one frame at equal area, beside three baselines.

    Columns: image, cam, iou, chance (random masks of these areas), others (mean IoU with the same
    CAM's maps of the other photographs: as smooth, as central, and of another image) and centre
    (IoU with a disc in the middle), all at LIME 1's area.
    """
    maps = {
        (case.image, cam): lime_frame(case).from_photograph(case.cams[cam])
        for case in cases
        for cam in CAMS
    }
    rows = []
    for case in cases:
        chosen = case.limes[LIMES[0]] != 0
        area = int(chosen.sum())
        centre = iou(chosen, area_mask(_centred(*chosen.shape), area))
        for cam in CAMS:
            by_image = {
                other.image: iou(chosen, area_mask(maps[other.image, cam], area)) for other in cases
            }
            own = by_image.pop(case.image)
            row = {"image": case.image, "cam": cam, "iou": own}
            row |= {"chance": chance_iou(area, area, chosen.size)}
            row |= {"others": float(np.mean(list(by_image.values()))), "centre": centre}
            rows.append(row)
    return pd.DataFrame(rows)


def sweep(cases: Sequence[Published]) -> pd.DataFrame:
    """Return mean IoU of LIME 1 and each CAM, in LIME's frame, by the threshold on the CAM.

    Columns: cam, threshold, and over the photographs the means of iou, of chance (random masks of
    the same areas) and of cam_area (share of the frame).
    """
    rows = []
    for case in cases:
        chosen = case.limes[LIMES[0]] != 0
        for cam in CAMS:
            saliency = lime_frame(case).from_photograph(case.cams[cam])
            for threshold in THRESHOLDS:
                cut = value_mask(saliency, float(threshold))
                rows.append({"cam": cam, "threshold": threshold, **_scores(chosen, cut)})
    table = pd.DataFrame(rows).drop(columns="lime_area")
    return table.groupby(["cam", "threshold"], sort=False).mean().reset_index()


def rank_agreement(cases: Iterable[Published]) -> pd.DataFrame:
    """Return Spearman's rank correlation of each two CAMs, in LIME's frame.

    Columns: image, first, second, spearman.
    """
    rows = []
    for case in cases:
        maps = {cam: lime_frame(case).from_photograph(case.cams[cam]) for cam in CAMS}
        for a, b in combinations(CAMS, 2):
            rho = float(spearmanr(maps[a].ravel(), maps[b].ravel()).statistic)
            rows.append({"image": case.image, "first": a, "second": b, "spearman": rho})
    return pd.DataFrame(rows)


def opposing(cases: Iterable[Published]) -> pd.DataFrame:
    """Return what the opposing superpixels of LIME 2 are and whether Grad-CAM avoids them.

    Of the photographs that have any: image, pixels, share (of LIME 2), iou (with Grad-CAM in LIME's
    frame, thresholded to the opposing area) and chance (random masks of that area).
    """
    rows = []
    for case in cases:
        signed = case.limes[LIMES[1]]
        against = signed < 0
        pixels = int(against.sum())
        if pixels:
            saliency = lime_frame(case).from_photograph(case.cams[CAMS[0]])
            row = {"image": case.image, "pixels": pixels, "share": pixels / (signed != 0).sum()}
            row |= {"iou": iou(against, area_mask(saliency, pixels))}
            rows.append(row | {"chance": chance_iou(pixels, pixels, signed.size)})
    return pd.DataFrame(rows, columns=["image", "pixels", "share", "iou", "chance"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return one line a CAM of what `corrected` found.

    Columns: cam, iou, low, high (its interval), and for each baseline (chance, others, centre) its
    mean, the mean difference from it with low and high, p, adjusted (Holm's p, for all of the
    table's tests), and above: in how many photographs the IoU is larger.
    """
    rows = []
    for cam, part in table.groupby("cam", sort=False):
        row = {"cam": cam, "iou": part["iou"].mean()}
        row["low"], row["high"] = map(float, mean_interval(part["iou"].to_numpy()))
        for name in BASELINES:
            difference = (part["iou"] - part[name]).to_numpy()
            test = paired(difference)
            row |= {name: part[name].mean(), f"over_{name}": test.mean, f"{name}_low": test.low}
            row |= {f"{name}_high": test.high, f"{name}_p": test.p}
            row[f"above_{name}"] = int((difference > 0).sum())
        rows.append(row)
    found = pd.DataFrame(rows)
    p = found[[f"{name}_p" for name in BASELINES]].to_numpy(float)
    found[[f"{name}_adjusted" for name in BASELINES]] = holm(p)
    return found


def _scores(chosen: Mask, cut: Mask) -> dict[str, float]:
    areas = int(chosen.sum()), int(cut.sum())
    return {
        "iou": iou(chosen, cut),
        "chance": _chance(*areas, chosen.size),
        "lime_area": areas[0] / chosen.size,
        "cam_area": areas[1] / chosen.size,
    }


_chance = cache(chance_iou)  # the same areas come back in step after step


def _centred(height: int, width: int) -> Float[np.ndarray, "height width"]:
    y, x = np.mgrid[0:height, 0:width]
    return -np.hypot(y - (height - 1) / 2, x - (width - 1) / 2).astype(np.float32)
