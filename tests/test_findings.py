"""The verdicts, and the claims' numbers against literal ones."""

import numpy as np
import pandas as pd
import pytest
from conftest import explanation

from xailib import findings
from xailib.errors import InputError

RNG = np.random.default_rng(2)
IMAGES = [f"photo-{k}" for k in range(10)]


@pytest.mark.parametrize(
    ("interval", "margin", "word"),
    [
        ((0.1, 0.2), None, "holds"),
        ((-0.2, -0.1), None, "does not hold"),
        ((-0.1, 0.2), None, "undecided"),
        ((float("nan"), float("nan")), None, "undecided"),
        ((-0.01, 0.02), 0.05, "holds"),
        ((0.01, 0.02), 0.05, "holds"),
        ((0.06, 0.2), 0.05, "does not hold"),
        ((-0.1, 0.2), 0.05, "undecided"),
    ],
)
def test_verdicts(interval, margin, word):
    assert findings.verdict(*interval, margin) == word


def tables(iou: float, others: float, inside_cam: float, inside_lime: float):
    noise = RNG.normal(0, 0.01, 10)
    pairs = pd.DataFrame(
        {"image": IMAGES, "a": "lime+", "b": "gradcam", "iou": iou + noise, "others": others}
    )
    masks = pd.concat(
        pd.DataFrame({"image": IMAGES, "lime": name, "cam": "gradcam", "iou": iou + noise + more})
        for name, more in (("LIME 1", 0), ("LIME 2", 0.001))
    )
    inside = pd.concat(
        pd.DataFrame({"image": IMAGES, "map": name, "precision": share + noise * sign})
        for name, share, sign in (("gradcam", inside_cam, 1), ("lime+", inside_lime, -1))
    )
    return pairs, masks, inside


def test_claims_of_agreement_follow_the_tables():
    found = findings.agreement_findings(*tables(0.5, 0.3, 0.9, 0.6), "gradcam")
    assert [one.verdict for one in found] == ["does not hold", "holds", "holds"]
    assert found[2].value == pytest.approx(0.3, abs=0.02)
    turned = findings.agreement_findings(*tables(0.2, 0.3, 0.5, 0.6), "gradcam")
    assert [one.verdict for one in turned] == ["holds", "holds", "does not hold"]
    without = findings.agreement_findings(
        *tables(0.2, 0.3, 0.5, 0.6)[:2], pd.DataFrame(), "gradcam"
    )
    assert len(without) == 2


def several(maps):
    return [explanation(raw, image_sha256=f"{number:064d}") for number, raw in enumerate(maps)]


def test_a_smoother_map_is_called_smoother():
    ramp = np.linspace(0, 1, 20)[None].repeat(20, 0)
    rough = several(RNG.random((7, 20, 20)))
    maps = {"gradcam": rough, "scorecam": several(ramp + RNG.random((7, 20, 20)) / 50)}
    smooth, _ = findings.smoothness_findings(maps)
    assert smooth.verdict == "holds"
    turned = {"gradcam": maps["scorecam"], "scorecam": maps["gradcam"]}
    assert findings.smoothness_findings(turned)[0].verdict == "does not hold"
    assert findings.smoothness_findings({"gradcam": maps["gradcam"]}) == []


def test_maps_are_paired_by_photograph_and_a_constant_one_has_no_steps():
    rough = several(RNG.random((7, 20, 20)))
    lacking = {"gradcam": rough, "scorecam": rough[:0:-1]}  # in another order, without the first
    for found in findings.smoothness_findings(lacking):
        assert (found.value, found.low, found.high, found.count) == (0, 0, 0, 6)
    flat = [*rough[:6], explanation(np.zeros((20, 20)), image_sha256=rough[6].image_sha256)]
    smooth, less = findings.smoothness_findings({"gradcam": flat, "scorecam": rough})
    assert (smooth.value, smooth.count, less.count) == (0, 6, 7)


def test_few_photographs_decide_nothing():
    assert findings.tested("c", "m", np.linspace(0.1, 0.2, 6), "p").verdict == "holds"
    for few in (np.linspace(0.1, 0.2, 5), np.array([0.1, 0.1])):
        assert findings.tested("c", "m", few, "p").verdict == "undecided"
        assert findings.tested("c", "m", few / 100, "p", margin=0.05).verdict == "undecided"
    assert findings.tested("c", "m", np.zeros(6), "p", margin=0.05).verdict == "holds"


def test_without_any_effect_few_claims_are_decided():
    """The interval alone would decide one in ten."""
    drawn = np.random.default_rng(0).normal(size=(100, 8))
    found = [findings.tested("c", "m", values, "p") for values in drawn]
    assert sum(findings.verdict(one.low, one.high) != "undecided" for one in found) > 8
    assert sum(one.verdict != "undecided" for one in found) <= 8


def test_lower_deletion_is_a_gain():
    scores = pd.DataFrame(
        [
            {"image": image, "method": method, "measure": measure, "better": better, "value": value}
            for image in IMAGES
            for measure, better in (("deletion", "lower"), ("insertion", "higher"))
            for method, value in (("gradcam", 0.2 + RNG.random() / 99), ("lime", 0.4))
        ]
    )
    found = {one.measure.split(":")[0]: one for one in findings.faithfulness_findings(scores)}
    assert found["deletion"].verdict == "holds"
    assert found["insertion"].verdict == "does not hold"


def test_units_of_the_output_layer():
    kinds = {"dog": "animal", "red": "colour"}
    labels = pd.DataFrame(
        {"layer": ["early"] * 40 + ["last"] * 40, "concept": ["red"] * 40 + ["Dog"] * 40}
    )
    found = findings.unit_findings(labels, kinds)[0]
    assert (found.value, found.count, found.verdict) == (1, 80, "holds")
    assert findings.unit_findings(labels[labels["layer"] == "last"], kinds) == []
    dead = labels.assign(dead=np.arange(80) >= 60)
    assert findings.unit_findings(dead, kinds)[0].count == 60


def test_no_finding_is_an_error():
    with pytest.raises(InputError, match="none of the claims"):
        findings.findings_table([])
