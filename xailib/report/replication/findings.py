"""The replicated report's claims, each with the measure that tests it; tables in, a table out.

A claim gets one number with an interval over photographs (or units), and a verdict by one rule for
all: an interval on the claimed side of zero holds, one on the other side does not hold, one that
spans zero is undecided. What an interval decides, a test has to confirm, with its p adjusted for
all the tests of the page (Holm): see `xailib.compare.intervals`.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from xailib.compare.intervals import (
    LEVEL,
    compared_shares,
    decided,
    holm,
    no_more_than,
    paired,
)
from xailib.dissect.kinds import UNKNOWN
from xailib.errors import InputError
from xailib.explain.explanation import Explanation
from xailib.report.figures.faithfulness import MEASURES
from xailib.report.figures.style import NAMES

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
VERDICTS = (HOLDS, FAILS, UNDECIDED)
MARGIN = 0.05  # of IoU: a mean difference inside it is called none
THINGS = ("object", "animal", "plant", "food")
ABSTRACT = ("texture", "colour", "material")
SCENES = ("scene",)
PLACES = "places"  # in the name of a network of scenes
LAYERS = "Early layers respond to abstract concepts, the output layer to objects."
LEARNT = "The output layer of a Places365 network represents scenes, that of ImageNet objects."
SMOOTHER = "ScoreCAM's heatmaps are smoother than Grad-CAM's."
LESS = "ScoreCAM highlights a smaller area than Grad-CAM."
COMPACT = "LIME's mask extends beyond the object; Grad-CAM is more compact."
AGREE = "LIME and Grad-CAM agree no more than maps of different photographs."
SIGNS = "Counting opposing superpixels (LIME 2) does not change the agreement consistently."
BETTER = "Grad-CAM explains the prediction better than LIME."
# What the number of a claim on photographs is, and the label of the page with the evidence.
ABOUT = {
    SMOOTHER: (
        "mean step between neighbouring pixels, relative reduction from Grad-CAM to ScoreCAM",
        "task-cam",
    ),
    LESS: ("share of the view above half of the maximum, Grad-CAM minus ScoreCAM", "task-cam"),
    AGREE: (
        "mean IoU with maps of other photographs minus IoU with the same photograph's map",
        "task-agreement",
    ),
    SIGNS: (
        f"IoU of LIME 2 minus IoU of LIME 1; equivalence margin {MARGIN}", "task-agreement",
    ),
    COMPACT: (
        "share of the mask in the object's box, Grad-CAM minus LIME, at equal area",
        "task-agreement",
    ),
}  # fmt: skip
# What the report says of each claim, letter by letter, and where our form says more or less.
with Path(__file__).with_name("words.csv").open(encoding="utf-8", newline="") as _file:
    WORDS = {row["claim"]: (row["words"], row["ours"]) for row in csv.DictReader(_file)}
# What claims need that not every profile has.
NEEDS = {
    LAYERS: "units of known concept type in the first and the last layer",
    LEARNT: f"a second network (`compare`) named “…{PLACES}…”, and units of known concept type",
    SMOOTHER: "maps of the same photographs by Grad-CAM and ScoreCAM (`methods`)",
    LESS: "maps of the same photographs by Grad-CAM and ScoreCAM (`methods`)",
    COMPACT: "boxes around the objects of these photographs (`boxes`)",
}


@dataclass(frozen=True)
class Finding:
    """One claim, tested."""

    claim: str  #: in our words, after the report
    measure: str  #: what the number is; positive supports the claim unless said otherwise
    value: float  #: with the limits of its 95 % interval
    low: float
    high: float
    #: of the test of no difference, not adjusted; signed-rank over photographs, Fisher's for units
    p: float
    count: int  #: photographs or units
    page: str  #: the label of the page with the evidence
    margin: float = float("nan")  #: NaN, or the claim is that no difference is larger than this
    p_none: float = float("nan")  #: then of the test that one is


def verdict(
    low: float, high: float, p: float, margin: float = float("nan"), p_none: float = float("nan")
) -> str:
    """Return the verdict of an interval and an adjusted p: of a positive number, or of none.

    Without `margin`: holds above zero, does not hold below it. With one, the claim is that there
    is no difference: holds if the interval lies inside the margin and `p_none` agrees, does not
    hold if the interval excludes zero. All else, and an interval that cannot be given, is
    undecided.
    """
    none = not np.isnan(margin)
    if none and -margin < low and high < margin and p_none < LEVEL:
        return HOLDS
    side = int(decided(low, high, p))
    if side == 0:
        return UNDECIDED
    return FAILS if none or side < 0 else HOLDS


def tested(
    claim: str,
    measure: str,
    values: Float[np.ndarray, " values"] | pd.Series,
    page: str,
    *,
    margin: float = float("nan"),
) -> Finding:
    """Return a claim tested by one number a photograph; with `margin`, that there is none."""
    values = np.asarray(values, float)
    p_none = float("nan") if np.isnan(margin) else no_more_than(values, margin)
    one = paired(values)
    numbers = one.mean, one.low, one.high, one.p, one.count
    return Finding(claim, measure, *numbers, page, margin, p_none)


def _about(claim: str, values: np.ndarray | pd.Series, **options: float) -> Finding:
    """Return one of the claims in `ABOUT`, tested."""
    measure, page = ABOUT[claim]
    return tested(claim, measure, values, page, **options)


def agreement_findings(
    pairs: pd.DataFrame, masks: pd.DataFrame, inside: pd.DataFrame | None, cam: str
) -> list[Finding]:
    """Test the report's claims about LIME and the heatmap `cam`.

    The tables are those of `xailib.compare.pairs.pair_table`,
    `xailib.compare.iou.lime_cam_agreement` and `xailib.compare.localisation.localisation`. The last
    is None without boxes: what needs them is not tested.
    """
    own = pairs[(pairs["a"] == "lime+") & (pairs["b"] == cam)].set_index("image")
    wide = masks[masks["cam"] == cam].pivot(index="image", columns="lime", values="iou")
    found = [
        _about(AGREE, own["others"] - own["iou"]),
        _about(SIGNS, wide["LIME 2"] - wide["LIME 1"], margin=MARGIN),
    ]
    if inside is not None and len(inside):
        share = inside.pivot(index="image", columns="map", values="precision")
        measure, page = ABOUT[COMPACT]
        said = measure.replace("Grad-CAM", NAMES[cam])
        found.append(tested(COMPACT, said, share[cam] - share["lime+"], page))
    return found


def smoothness_findings(maps: Mapping[str, Sequence[Explanation]]) -> list[Finding]:
    """Test that ScoreCAM is smoother than Grad-CAM and highlights less.

    Only photographs that both explain are compared; none if there is no such.
    """
    cams, scores = (
        {one.image_sha256: one.saliency for one in maps.get(method, ()) if not one.no_signal}
        for method in ("gradcam", "scorecam")
    )
    both = [(cams[image], scores[image]) for image in cams if image in scores]
    if not both:
        return []
    rough = np.array([[variation(one) for one in pair] for pair in both])
    area = np.array([[(one > 0.5).mean() for one in pair] for pair in both])
    known = rough[:, 0] > 0  # a constant Grad-CAM has no steps to be compared with
    return [
        _about(SMOOTHER, 1 - rough[known, 1] / rough[known, 0]),
        _about(LESS, area[:, 0] - area[:, 1]),
    ]


def faithfulness_findings(scores: pd.DataFrame, cam: str = "gradcam") -> list[Finding]:
    """Test that Grad-CAM marks what the prediction uses better than LIME, by each measure."""
    found = []
    for (measure, better), part in scores.groupby(["measure", "better"], sort=False):
        wide = part.pivot(index="image", columns="method", values="value")
        if not {cam, "lime"} <= set(wide):  # one of them says nothing on any photograph
            continue
        gain = (wide[cam] - wide["lime"]) * (1 if better == "higher" else -1)
        said = f"{MEASURES[str(measure)]}: gain of {NAMES[cam]} over LIME"
        found.append(tested(BETTER, said, gain, "task-faithfulness"))
    return found


def layer_findings(counts: pd.DataFrame, whose: str, page: str) -> list[Finding]:
    """Test that early layers answer to abstract concepts, and the output layer to objects.

    Of `counts`, from `xailib.dissect.kinds.counted`, the first network counts, and units of a known
    kind; without such units in its first or its last layer nothing is tested. ``whose`` labels they
    are is said in words; `page` is the label of the page with the evidence.
    """
    if counts.empty:
        return []
    own = counts[counts["network"] == counts["network"].iloc[0]]
    first, last = own["layer"].iloc[0], own["layer"].iloc[-1]  # whether or not a kind is known
    early, late = (_known(own[own["layer"] == layer]) for layer in (first, last))
    if first == last or early.empty or late.empty:
        return []
    abstract = f"{whose}: share of units with a texture, colour or material, {first} minus {last}"
    things = f"{whose}: share of units with an object, animal, plant or food, {last} minus {first}"
    return [
        _gap(LAYERS, abstract, page, early, late, ABSTRACT),
        _gap(LAYERS, things, page, late, early, THINGS),
    ]


def scene_findings(counts: pd.DataFrame, whose: str, page: str) -> list[Finding]:
    """Test that the output layer of Places365 has learnt scenes, and that of ImageNet objects.

    The parameters are those of `layer_findings`. The network of scenes is the first whose name
    has `PLACES` in it; without one, or as the first of the table, nothing is tested.
    """
    names = list(dict.fromkeys(counts["network"]))
    scenic = next((name for name in names[1:] if PLACES in name.casefold()), None)
    if scenic is None:
        return []
    outputs = []
    for name in (scenic, names[0]):
        own = counts[counts["network"] == name]
        outputs.append(_known(own[own["layer"] == own["layer"].iloc[-1]]))
    places, objects = outputs
    if not places["units"].sum() or not objects["units"].sum():
        return []
    scenes = f"{whose}: share of output units with a scene, Places365 minus ImageNet"
    things = f"{whose}: share with an object, animal, plant or food, ImageNet minus Places365"
    return [
        _gap(LEARNT, scenes, page, places, objects, SCENES),
        _gap(LEARNT, things, page, objects, places, THINGS),
    ]


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return findings as a tidy table, one row each, with their verdicts.

    Every p is adjusted for the number of tests in the table (Holm). A claim of no difference
    makes two, one a way to decide it: p_adjusted is of the test that there is none, unless the
    verdict is that there is one. Without findings, `InputError` is raised.
    """
    table = pd.DataFrame([asdict(one) for one in findings])
    if table.empty:
        raise InputError("findings: none of the claims could be tested with these runs")
    decide(table)
    return table


def decide(
    table: pd.DataFrame, tests: Sequence[str] = ("p", "p_none")
) -> Float[np.ndarray, "rows tests"]:
    """Add the columns verdict and p_adjusted, in place; return all p, adjusted together (Holm).

    ``tests`` are the columns of p, of which the first two decide: that there is a difference, and
    that there is none.
    """
    adjusted = holm(table[list(tests)].to_numpy(float))
    columns = table["low"], table["high"], adjusted[:, 0], table["margin"], adjusted[:, 1]
    table["verdict"] = [verdict(*row) for row in zip(*columns, strict=True)]
    of_none = table["margin"].notna() & (table["verdict"] != FAILS)
    table["p_adjusted"] = np.where(of_none, adjusted[:, 1], adjusted[:, 0])
    return adjusted


def untested(table: pd.DataFrame) -> dict[str, str]:
    """Return the claims that a table of `findings_table` lacks, each with what it needs."""
    return {claim: need for claim, need in NEEDS.items() if claim not in set(table["claim"])}


def _known(counts: pd.DataFrame) -> pd.DataFrame:
    """Return the counts of units whose kind is in the lexicon."""
    return counts[counts["kind"] != UNKNOWN]


def _gap(
    claim: str,
    measure: str,
    page: str,
    one: pd.DataFrame,
    other: pd.DataFrame,
    kinds: Sequence[str],
) -> Finding:
    """Return a claim tested by the shares of kinds among the units of two tables of counts."""
    numbers = []
    for part in (one, other):
        numbers += [part.loc[part["kind"].isin(kinds), "units"].sum(), part["units"].sum()]
    gap = compared_shares(*map(int, numbers))
    return Finding(claim, measure, gap.mean, gap.low, gap.high, gap.p, gap.count, page)


def variation(saliency: Float[np.ndarray, "height width"]) -> float:
    """Return the mean absolute step between neighbouring pixels."""
    steps = [np.abs(np.diff(saliency, axis=axis)).mean() for axis in (0, 1)]
    return float(np.mean(steps))
