"""The replicated report's claims, each beside the measure that tests it; tables in, a table out.

A claim gets one number with an interval over photographs (or units), and a verdict by one rule for
all: an interval on the claimed side of zero holds, one on the other side does not hold, one that
spans zero is undecided. Bootstrap intervals of few values are too narrow: of ten values without
any effect, one in ten excludes zero, of three, one in three. So over photographs Wilcoxon's
signed-rank test, which is exact, has to confirm what an interval decides.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from xailib.errors import InputError
from xailib.explanation import Explanation
from xailib.figures import NAMES
from xailib.intervals import paired

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
VERDICTS = (HOLDS, FAILS, UNDECIDED)
MARGIN = 0.05  # of IoU: a mean difference inside it is called none
LEVEL = 0.05  # of the signed-rank test, which fewer than six photographs cannot reach
FEWEST = 6
THINGS = ("object", "animal", "plant", "food")


@dataclass(frozen=True)
class Finding:
    """One claim, tested.

    Attributes
    ----------
    claim : str
        In our words, after the report.
    measure : str
        What the number is; positive supports the claim unless said otherwise.
    value, low, high : float
        With the limits of the 95 % bootstrap interval.
    p : float
        Of the signed-rank test over photographs; NaN for units, and where nothing differs.
    count : int
        Photographs or units.
    verdict : {"holds", "does not hold", "undecided"}
    page : str
        The label of the page with the evidence.
    """

    claim: str
    measure: str
    value: float
    low: float
    high: float
    p: float
    count: int
    verdict: str
    page: str


def verdict(low: float, high: float, margin: float | None = None) -> str:
    """Return what an interval says: of a positive number, or of none within a margin.

    Without `margin`: holds above zero, does not hold below it. With one, the claim is that there
    is no difference: holds if the interval lies inside the margin, does not hold if it excludes
    zero. All else, and an interval that cannot be given, is undecided.
    """
    if margin is not None and -margin < low and high < margin:
        return HOLDS
    if low > 0:
        return HOLDS if margin is None else FAILS
    if high < 0:
        return FAILS
    return UNDECIDED


def tested(
    claim: str,
    measure: str,
    values: Float[np.ndarray, " values"] | pd.Series,
    page: str,
    *,
    margin: float | None = None,
    seed: int = 0,
) -> Finding:
    """Return a claim tested by one number a photograph.

    The verdict is that of `verdict`, if at least `FEWEST` photographs have a number and, unless
    they all but agree on no difference, the signed-rank test's p is below `LEVEL`.
    """
    found = paired(np.asarray(values, float), seed)
    word = verdict(found.low, found.high, margin)
    none = margin is not None and word == HOLDS
    if found.count < FEWEST or not (none or found.p < LEVEL):
        word = UNDECIDED
    numbers = found.mean, found.low, found.high, found.p, found.count
    return Finding(claim, measure, *numbers, word, page)


def agreement_findings(
    pairs: pd.DataFrame, masks: pd.DataFrame, inside: pd.DataFrame, cam: str, seed: int = 0
) -> list[Finding]:
    """Test what the report says of LIME against heatmaps.

    Parameters
    ----------
    pairs : DataFrame
        From `xailib.pairs.pair_table`.
    masks : DataFrame
        From `xailib.agreement.lime_cam_agreement`.
    inside : DataFrame
        From `xailib.boxes.localisation`; may be empty.
    cam : str
        The heatmap.
    """
    own = pairs[(pairs["a"] == "lime+") & (pairs["b"] == cam)].set_index("image")
    wide = masks[masks["cam"] == cam].pivot(index="image", columns="lime", values="iou")
    found = [
        tested(
            "LIME and Grad-CAM agree little: no more than maps of different photographs do.",
            "mean IoU with other photographs' maps, less the IoU with the photograph's own",
            own["others"] - own["iou"],
            "task-agreement",
            seed=seed,
        ),
        tested(
            "Counting opposing superpixels (LIME 2) does not change the agreement consistently.",
            f"IoU of LIME 2 less that of LIME 1; none means within {MARGIN}",
            wide["LIME 2"] - wide["LIME 1"],
            "task-agreement",
            margin=MARGIN,
            seed=seed,
        ),
    ]
    if len(inside):
        share = inside.pivot(index="image", columns="map", values="precision")
        found.append(
            tested(
                "LIME's mask covers more than the object, Grad-CAM is more compact on it.",
                f"share of the mask in the object's box, {NAMES[cam]} less LIME, at equal area",
                share[cam] - share["lime+"],
                "task-agreement",
                seed=seed,
            )
        )
    return found


def smoothness_findings(maps: Mapping[str, Sequence[Explanation]], seed: int = 0) -> list[Finding]:
    """Test that ScoreCAM is smoother than Grad-CAM and highlights less.

    Only photographs that both explain are compared; none if there is no such.
    """
    cams, scores = (
        {one.image_sha256: one.saliency for one in maps.get(method, ())}
        for method in ("gradcam", "scorecam")
    )
    both = [(cams[image], scores[image]) for image in cams if image in scores]
    if not both:
        return []
    rough = np.array([[_variation(one) for one in pair] for pair in both])
    area = np.array([[(one > 0.5).mean() for one in pair] for pair in both])
    known = rough[:, 0] > 0  # a constant Grad-CAM has no steps to be compared with
    return [
        tested(
            "ScoreCAM's heatmaps are smoother than Grad-CAM's.",
            "mean step between neighbouring pixels, Grad-CAM's less ScoreCAM's, of Grad-CAM's",
            1 - rough[known, 1] / rough[known, 0],
            "task-cam",
            seed=seed,
        ),
        tested(
            "ScoreCAM highlights less than Grad-CAM.",
            "share of the view above half of the maximum, Grad-CAM's less ScoreCAM's",
            area[:, 0] - area[:, 1],
            "task-cam",
            seed=seed,
        ),
    ]


def faithfulness_findings(
    scores: pd.DataFrame, cam: str = "gradcam", seed: int = 0
) -> list[Finding]:
    """Test that Grad-CAM marks what the prediction uses better than LIME, by each measure."""
    found = []
    for (measure, better), part in scores.groupby(["measure", "better"], sort=False):
        wide = part.pivot(index="image", columns="method", values="value")
        gain = (wide[cam] - wide["lime"]) * (1 if better == "higher" else -1)
        found.append(
            tested(
                "Grad-CAM gives better insight into the prediction than LIME.",
                f"{measure}: gain of {NAMES[cam]} over LIME",
                gain,
                "task-faithfulness",
                seed=seed,
            )
        )
    return found


def unit_findings(labels: pd.DataFrame, kinds: Mapping[str, str], seed: int = 0) -> list[Finding]:
    """Test that the output layer answers to things, and layers before it to abstract concepts.

    Dead units, which answer to nothing, are left out, and so are concepts of no known kind. The
    interval is of a bootstrap over units, in the last layer and in the others.
    """
    if "dead" in labels:
        labels = labels[~labels["dead"]]
    kind = labels["concept"].str.casefold().map(dict(kinds))
    thing = kind.isin(THINGS)[kind.notna()]
    layers = labels["layer"][kind.notna()]
    last = labels["layer"].iloc[-1]
    late, early = thing[layers == last].to_numpy(float), thing[layers != last].to_numpy(float)
    if len(late) < 2 or len(early) < 2:
        return []
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(layer, (2000, len(layer))).mean(1) for layer in (late, early)]
    gaps = drawn[0] - drawn[1]
    low, high = (float(x) for x in np.quantile(gaps, (0.025, 0.975)))
    return [
        Finding(
            "Early layers answer to abstract concepts, the output layer to objects.",
            "share of units labelled object, animal, plant or food: output layer less the others",
            float(late.mean() - early.mean()),
            low,
            high,
            float("nan"),
            len(thing),
            verdict(low, high),
            "task-dissect",
        )
    ]


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return findings as a tidy table, one row each.

    Raises
    ------
    InputError
        If there is none.
    """
    rows = [asdict(one) for one in findings]
    if not rows:
        raise InputError("findings: none of the claims could be tested with these runs")
    return pd.DataFrame(rows)


def _variation(saliency: Float[np.ndarray, "height width"]) -> float:
    """Return the mean absolute step between neighbouring pixels."""
    steps = [np.abs(np.diff(saliency, axis=axis)).mean() for axis in (0, 1)]
    return float(np.mean(steps))
