"""How far explanations agree, as tidy tables. Nothing here sees a network."""

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32

from xailib.compare.chance import chance_iou
from xailib.compare.masks import area_mask, lime_mask, value_mask
from xailib.errors import InputError, check_name
from xailib.explain.explanation import Explanation
from xailib.images.frames import change_frame

RULES = ("area", "value")
# Name: the signs among the ten superpixels, and which of them form the mask.
LIME_MASKS = {"LIME 1": "positive", "LIME 2": "both"}


def iou(a: Bool[np.ndarray, "height width"], b: Bool[np.ndarray, "height2 width2"]) -> float:
    """Return intersection over union of two masks of one shape (else `InputError`), 0 to 1.

    NaN for two empty masks: there is nothing to agree on, and neither 0 nor 1 would be true.
    """
    if a.shape != b.shape:
        raise InputError(f"masks: shapes {a.shape} and {b.shape} differ; use one frame")
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else float("nan")


def check_comparable(a: Explanation, b: Explanation, allow: Collection[str] = frozenset()) -> None:
    """Raise, naming what differs, unless two explanations are of one image, network and target.

    `allow` says which of ``"classifier"`` and ``"target"`` may differ after all.
    """
    for name in allow:
        check_name("allow", name, ("classifier", "target"))
    if a.image_sha256 != b.image_sha256:
        raise InputError(f"explanations: of different photographs, {a.image!r} and {b.image!r}")
    if a.classifier != b.classifier and "classifier" not in allow:
        raise InputError(f"explanations: of two networks, {a.classifier} and {b.classifier}")
    if a.target != b.target and "target" not in allow:
        raise InputError(
            f"explanations: of two targets for {a.image!r}, {a.target_name!r} and {b.target_name!r}"
        )


def in_frame_of(
    explanation: Explanation, other: Explanation
) -> Float32[np.ndarray, "height width"]:
    """Return an explanation's saliency in the other's frame; NaN where it shows nothing."""
    return change_frame(explanation.saliency, explanation.frame, other.frame)


def lime_cam_agreement(
    limes: Iterable[Explanation],
    cams: Iterable[Explanation],
    *,
    num_features: int = 10,
    rule: str = "area",
    threshold: float = 0.5,
    allow: Collection[str] = frozenset(),
) -> pd.DataFrame:
    """Compare LIME's masks with heatmaps, image by image, in LIME's frame.

    Parameters
    ----------
    limes, cams : iterables of Explanation
        Those of one photograph, network and target are compared; a photograph that only one
        side has is left out, and so is what says nothing (`xailib.explain.record`).
    num_features : int
        Superpixels in each LIME mask.
    rule : str, "area" or "value"
        How a heatmap becomes a mask: as many of its highest pixels as the LIME mask has, or
        all pixels above `threshold`.
    threshold : float
        For ``rule="value"``, of the map scaled to [0, 1].
    allow : collection of {"classifier", "target"}
        See `check_comparable`.

    Returns
    -------
    DataFrame
        One row for each image, LIME mask and heatmap: image, target, lime ("LIME 1" supports
        only, "LIME 2" both signs merged as the seed did), cam, iou, chance (mean IoU of random
        masks of the two areas), lime_area and cam_area (shares of the frame), opposing (share
        of the LIME mask that opposes the target).

    Raises
    ------
    InputError
        If explanations of two networks or targets would be compared, or nothing can be, or a
        photograph has two LIMEs.
    """
    check_name("rule", rule, RULES)
    by_image: dict[tuple[str, str], Explanation] = {}
    for lime in limes:
        if by_image.setdefault((lime.image_sha256, lime.image), lime) is not lime:
            raise InputError(f"limes: two of {lime.image!r}; give one for each photograph")
    rows, silent = [], ""
    for cam in cams:
        if (cam.image_sha256, cam.image) not in by_image:
            continue
        lime = by_image[cam.image_sha256, cam.image]
        check_comparable(lime, cam, allow)
        if lime.no_signal or cam.no_signal:
            silent = f"; in {lime.image!r}: {lime.no_signal or cam.no_signal}"
            continue
        saliency = in_frame_of(cam, lime)
        if np.isnan(saliency).any():
            raise InputError(f"frames: {cam.method} does not cover LIME's view of {cam.image!r}")
        for name, signs in LIME_MASKS.items():
            signed = lime_mask(lime, num_features, signs)  # type: ignore[arg-type]
            chosen = signed != 0
            area = int(chosen.sum())
            cut = area_mask(saliency, area) if rule == "area" else value_mask(saliency, threshold)
            rows.append(
                {
                    "image": lime.image,
                    "target": lime.target_name,
                    "lime": name,
                    "cam": cam.method,
                    "iou": iou(chosen, cut),
                    "chance": chance_iou(area, int(cut.sum()), chosen.size),
                    "lime_area": area / chosen.size,
                    "cam_area": float(cut.mean()),
                    "opposing": float((signed < 0).sum() / area) if area else float("nan"),
                }
            )
    if not rows:
        both = "both a LIME and a CAM explanation"
        says = " that says anything" if silent else ""
        raise InputError(f"explanations: no photograph has {both}{says}{silent}")
    return pd.DataFrame(rows)
