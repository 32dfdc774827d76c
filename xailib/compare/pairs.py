"""Every pair of explanations of one prediction: overlap at equal area, ranks, chance levels.

LIME's two signs are two maps: what supports the target, and what opposes it. Nothing here sees a
network.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int, Int64
from scipy.stats import spearmanr

from xailib.compare.chance import against, chance_iou, moved_iou, shuffled_iou
from xailib.compare.intervals import holm, paired
from xailib.compare.iou import check_comparable, in_frame_of, iou
from xailib.compare.masks import Mask, highest_first, lime_mask
from xailib.errors import InputError
from xailib.explain.explanation import Explanation
from xailib.images.frames import Frame

SUPPORTS, OPPOSES = "lime+", "lime-"
AREAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
BASELINES = ("chance", "null_mean", "others")  # the weakest first
DEFAULT_AREA = 0.25  # of the frame, where there is no LIME mask to take it from


@dataclass(frozen=True)
class Map:
    """One way to rank the pixels of one photograph's view."""

    image: str
    name: str  #: the method; LIME's signs are "lime+" and "lime-"
    values: Float32[np.ndarray, "height width"]  #: higher ranks first
    frame: Frame  #: the same for all maps of the photograph
    area: float  #: share of the frame to which maps of this photograph are thresholded, LIME 1's
    segments: Int[np.ndarray, "height width"] | None = None  #: LIME's superpixels
    sha256: str = ""  #: the photograph's; the same under another name is not another photograph

    @cached_property
    def order(self) -> Int64[np.ndarray, " pixels"]:
        """The flat indices of all pixels, the highest first: a map is thresholded many times."""
        return highest_first(self.values)

    def mask(self, share: float) -> Mask:
        """Return the mask of the highest pixels, a share of the frame, as `area_mask` does."""
        if not 0 <= share <= 1:
            raise InputError(f"area: {share:g} is not a share between 0 and 1")
        mask = np.zeros(self.values.size, bool)
        mask[self.order[: round(share * mask.size)]] = True
        return mask.reshape(self.values.shape)


def maps_of(
    explanations: Sequence[Explanation],
    num_features: int = 10,
    allow: Collection[str] = frozenset(),
) -> list[Map]:
    """Return all maps of one photograph in one frame: LIME's if there is one, else the first's.

    What says nothing is left out (`xailib.explain.record`); there may be no map at all. ``allow``
    names what may differ after all, see `xailib.compare.iou.check_comparable`. `InputError` is
    raised where something else differs, one does not cover the frame, or two are of one method.
    """
    if not explanations:
        raise InputError("explanations: none given")
    lime = next((one for one in explanations if one.superpixels), None)
    base = lime or explanations[0]
    area = float((lime_mask(lime, num_features, "positive") != 0).mean()) if lime else 0.0
    area = area or DEFAULT_AREA
    found: list[Map] = []
    for one in explanations:
        check_comparable(base, one, allow)
        if one.no_signal:
            continue
        values = in_frame_of(one, base)
        if np.isnan(values).any():
            raise InputError(f"frames: {one.method} does not cover the view of {one.image!r}")
        kinds, segments = {one.method: values}, None
        if one.superpixels:
            kinds, segments = {SUPPORTS: values, OPPOSES: -values}, one.superpixels.segments
        for name, ranked in kinds.items():
            if any(other.name == name for other in found):
                raise InputError(f"explanations: two of {base.image!r} are called {name!r}")
            found.append(Map(one.image, name, ranked, base.frame, area, segments, one.image_sha256))
    return found


def pair_table(maps: Iterable[Map], draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Compare every pair of maps of each photograph, thresholded to the same area.

    Parameters
    ----------
    maps : iterable of Map
        Of any number of photographs.
    draws, seed : int
        Of the shuffled superpixels.

    Returns
    -------
    DataFrame
        One row a photograph and pair: image, a, b, area (share of the frame), iou, spearman
        (of all pixels; NaN where a map is constant), chance (exact mean for scattered pixels),
        null ("superpixels": LIME's are chosen in random order; "moves": b is moved to all
        places and mirrored), null_mean, null_low, null_high (its central 95 %), p (share of the
        null at or above the IoU), others (mean IoU of a with the maps of method b of the other
        photographs, thresholded to the same area, where these have the same size: what keeps even
        the habit of looking at the middle).
    """
    by_image: dict[str, list[Map]] = {}
    for one in maps:
        by_image.setdefault(one.image, []).append(one)
    rows = []
    for image, group in by_image.items():
        for a, b in combinations(group, 2):
            if {a.name, b.name} == {SUPPORTS, OPPOSES}:
                continue  # one is the other upside down
            mask_a, mask_b = a.mask(a.area), b.mask(b.area)
            rows.append(
                {
                    "image": image,
                    "a": a.name,
                    "b": b.name,
                    "area": a.area,
                    "iou": iou(mask_a, mask_b),
                    "spearman": _spearman(a.values, b.values),
                    "chance": chance_iou(int(mask_a.sum()), int(mask_b.sum()), mask_a.size),
                    **_null(a, b, mask_a, mask_b, draws, seed),
                    "others": _others(mask_a, a, b.name, by_image),
                }
            )
    if not rows:
        raise InputError("maps: no photograph has two that could be compared")
    return pd.DataFrame(rows)


def sweep_table(maps: Sequence[Map], areas: Sequence[float] = AREAS) -> pd.DataFrame:
    """Return image, a, b, area, iou and chance for every pair at each of several areas."""
    rows = []
    for image in dict.fromkeys(one.image for one in maps):
        group = [one for one in maps if one.image == image]
        for area in areas:
            masks = {one.name: one.mask(area) for one in group}
            pixels = round(area * group[0].values.size)
            chance = chance_iou(pixels, pixels, group[0].values.size)
            rows += [
                {"image": image, "a": a, "b": b, "area": area, "iou": iou(x, y), "chance": chance}
                for (a, x), (b, y) in combinations(masks.items(), 2)
                if {a, b} != {SUPPORTS, OPPOSES}
            ]
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a pair: means over photographs and paired differences from each baseline.

    Columns: a, b, images, iou, spearman, and for each baseline (chance, null_mean, others) its
    mean, the mean difference from it with its interval (``_over``, ``_low``, ``_high``),
    Wilcoxon's p (``_p``), and that p adjusted for all tests of the table (``_adjusted``, Holm);
    surpassed: photographs whose IoU is above the null's central 95 %.
    """
    rows = []
    for (a, b), part in table.groupby(["a", "b"], sort=False):
        row: dict[str, object] = {
            "a": a,
            "b": b,
            "images": len(part),
            "iou": part["iou"].mean(),
            "spearman": part["spearman"].mean(),
            "surpassed": int((part["iou"] > part["null_high"]).sum()),
        }
        for name in BASELINES:
            test = paired((part["iou"] - part[name]).to_numpy())
            row |= {name: part[name].mean(), f"{name}_over": test.mean, f"{name}_p": test.p}
            row |= {f"{name}_low": test.low, f"{name}_high": test.high}
        rows.append(row)
    found = pd.DataFrame(rows)
    p = found[[f"{name}_p" for name in BASELINES]].to_numpy(float)
    found[[f"{name}_adjusted" for name in BASELINES]] = holm(p)
    return found


def _null(
    a: Map, b: Map, mask_a: Mask, mask_b: Mask, draws: int, seed: int
) -> dict[str, str | float]:
    """Return the kind of null, its mean and limits, and p; whichever map is LIME's is shuffled."""
    overlap = iou(mask_a, mask_b)
    if a.segments is not None:
        null = shuffled_iou(a.segments, mask_b, int(mask_a.sum()), draws, seed)
    elif b.segments is not None:
        null = shuffled_iou(b.segments, mask_a, int(mask_b.sum()), draws, seed)
    else:
        return {"null": "moves", **against(overlap, moved_iou(mask_a, mask_b))}
    return {"null": "superpixels", **against(overlap, null)}


def _others(mask: Mask, own: Map, method: str, by_image: Mapping[str, Sequence[Map]]) -> float:
    found = [
        iou(mask, other.mask(own.area))  # its own area would be smaller or larger: less overlap
        for image, group in by_image.items()
        for other in group
        if other.name == method
        and image != own.image
        and not (own.sha256 and other.sha256 == own.sha256)
        and other.values.shape == mask.shape
    ]
    return float(np.mean(found)) if found else float("nan")


def _spearman(
    a: Float32[np.ndarray, "height width"], b: Float32[np.ndarray, "height width"]
) -> float:
    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    return float(spearmanr(a.ravel(), b.ravel()).statistic)
