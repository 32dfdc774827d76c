"""The verdicts, and the claims' numbers against literal ones."""

import numpy as np
import pandas as pd
import pytest
from conftest import explanation
from scipy.stats import fisher_exact

from xailib.compare.intervals import holm
from xailib.dissect.kinds import counted
from xailib.errors import InputError
from xailib.report.replication import findings

RNG = np.random.default_rng(2)
IMAGES = [f"photo-{k}" for k in range(10)]


NONE = float("nan")


@pytest.mark.parametrize(
    ("interval", "p", "margin", "p_none", "word"),
    [
        ((0.1, 0.2), 0.01, NONE, NONE, "holds"),
        ((0.1, 0.2), 0.06, NONE, NONE, "undecided"),
        ((-0.2, -0.1), 0.01, NONE, NONE, "does not hold"),
        ((-0.1, 0.2), 0.01, NONE, NONE, "undecided"),
        ((NONE, NONE), NONE, NONE, NONE, "undecided"),
        ((-0.01, 0.02), 0.9, 0.05, 0.01, "holds"),
        ((-0.01, 0.02), 0.9, 0.05, 0.06, "undecided"),
        ((0.01, 0.02), 0.01, 0.05, 0.01, "holds"),
        ((0.06, 0.2), 0.01, 0.05, 0.9, "does not hold"),
        ((-0.1, 0.2), 0.9, 0.05, 0.9, "undecided"),
    ],
)
def test_verdicts(interval, p, margin, p_none, word):
    assert findings.verdict(*interval, p, margin, p_none) == word


def verdicts(found):
    return findings.findings_table(found)["verdict"].tolist()


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
    assert verdicts(found) == ["does not hold", "holds", "holds"]
    assert found[2].value == pytest.approx(0.3, abs=0.02)
    turned = findings.agreement_findings(*tables(0.2, 0.3, 0.5, 0.6), "gradcam")
    assert verdicts(turned) == ["holds", "holds", "does not hold"]


@pytest.mark.parametrize("inside", [None, pd.DataFrame()])
def test_without_boxes_the_claim_on_them_is_left_out_and_told(inside):
    *rest, boxed = tables(0.2, 0.3, 0.5, 0.6)
    without = findings.agreement_findings(*rest, inside, "gradcam")
    left_out = findings.untested(findings.findings_table(without))
    assert "boxes" in left_out[findings.COMPACT]
    whole = findings.findings_table(findings.agreement_findings(*rest, boxed, "gradcam"))
    assert left_out.keys() - findings.untested(whole).keys() == {findings.COMPACT}


def several(maps):
    return [explanation(raw, image_sha256=f"{number:064d}") for number, raw in enumerate(maps)]


def test_a_smoother_map_is_called_smoother():
    ramp = np.linspace(0, 1, 20)[None].repeat(20, 0)
    rough = several(RNG.random((7, 20, 20)))
    maps = {"gradcam": rough, "scorecam": several(ramp + RNG.random((7, 20, 20)) / 50)}
    smooth, _ = findings.smoothness_findings(maps)
    assert verdicts([smooth]) == ["holds"]
    turned = {"gradcam": maps["scorecam"], "scorecam": maps["gradcam"]}
    assert verdicts(findings.smoothness_findings(turned)[:1]) == ["does not hold"]
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
    assert verdicts([findings.tested("c", "m", np.linspace(0.1, 0.2, 6), "p")]) == ["holds"]
    for few in (np.linspace(0.1, 0.2, 4), np.array([0.1, 0.1])):
        assert verdicts([findings.tested("c", "m", few, "p")]) == ["undecided"]
        assert verdicts([findings.tested("c", "m", few / 100, "p", margin=0.05)]) == ["undecided"]
    assert verdicts([findings.tested("c", "m", np.zeros(7), "p", margin=0.05)]) == ["holds"]


def test_more_claims_ask_for_clearer_numbers():
    """The same six photographs decide one claim, and none of two: of six the least p is 1 in 32."""
    one = findings.tested("c", "m", np.linspace(0.1, 0.2, 6), "p")
    assert verdicts([one, one]) == ["undecided"] * 2
    table = findings.findings_table([one, one])
    assert table["p_adjusted"].tolist() == [2 * one.p] * 2


def test_the_p_that_is_shown_is_the_one_that_decides():
    """Of a claim of no difference: that there is none, or if it does not hold that there is one."""
    clear, noisy = np.linspace(0.03, 0.04, 12), np.linspace(-0.1, 0.3, 12)
    small = [findings.tested("c", "m", values, "p", margin=0.05) for values in (clear, noisy)]
    large = findings.tested("c", "m", clear + 1, "p", margin=0.05)
    table = findings.findings_table([*small, large])
    assert table["verdict"].tolist() == ["holds", "undecided", "does not hold"]
    p = holm(table[["p", "p_none"]].to_numpy().ravel()).reshape(-1, 2)
    assert table["p_adjusted"].tolist() == [p[0, 1], p[1, 1], p[2, 0]]
    # The other test of the second is the smaller, and says nothing of the claim.
    assert p[1, 0] < p[1, 1]


def test_lower_deletion_is_a_gain():
    scores = pd.DataFrame(
        [
            {"image": image, "method": method, "measure": measure, "better": better, "value": value}
            for image in IMAGES
            for measure, better in (("deletion", "lower"), ("insertion", "higher"))
            for method, value in (("gradcam", 0.2 + RNG.random() / 99), ("lime", 0.4))
        ]
    )
    found = findings.findings_table(findings.faithfulness_findings(scores))
    said = dict(zip(found["measure"].str.split(":").str[0], found["verdict"], strict=True))
    assert said == {"deletion": "holds", "insertion": "does not hold"}


KINDS = {"dog": "animal", "red": "colour", "kitchen": "scene"}


def counts(**networks):
    """Counts of concepts by network and layer, as notebook 1 stores them."""
    tables = {
        name: pd.DataFrame(
            [
                {"layer": layer, "concept": concept}
                for layer, concepts in layers.items()
                for concept, number in concepts.items()
                for _ in range(number)
            ]
        )
        for name, layers in networks.items()
    }
    return counted(tables, KINDS)


def test_layers_of_a_network():
    own = {"early": {"red": 40, "zzz": 9}, "mid": {"kitchen": 5}, "out": {"Dog": 30, "red": 10}}
    found = findings.layer_findings(counts(net=own), "our labels", "p")
    assert [one.count for one in found] == [80, 80]  # of known kinds, in the first and last layer
    assert [one.value for one in found] == pytest.approx([1 - 1 / 4, 3 / 4])
    assert found[0].p == fisher_exact([[40, 0], [10, 30]]).pvalue
    assert verdicts(found) == ["holds", "holds"]
    turned = {"out": own["early"], "early": own["out"]}
    layers = {"early": turned["early"], "out": turned["out"]}
    assert verdicts(findings.layer_findings(counts(net=layers), "w", "p")) == ["does not hold"] * 2
    assert findings.layer_findings(counts(net={"out": own["out"]}), "w", "p") == []


def test_a_layer_whose_kinds_nobody_knows_is_not_replaced_by_its_neighbour():
    known, unknown = {"red": 40, "dog": 9}, {"zzz": 9}
    for layers in (
        {"early": known, "mid": known, "out": unknown},
        {"early": unknown, "mid": known, "out": known},
        {"early": unknown, "mid": unknown, "out": unknown},
    ):
        assert findings.layer_findings(counts(net=layers), "w", "p") == []
    whole = counts(net={"early": known, "mid": unknown, "out": known})
    assert [one.count for one in findings.layer_findings(whole, "w", "p")] == [98, 98]
    assert findings.layer_findings(whole[:0], "w", "p") == []


def test_scenes_of_a_network_of_places():
    objects = {"early": {"red": 9}, "fc": {"dog": 30, "kitchen": 2}}
    places = {"early": {"red": 9}, "fc": {"dog": 4, "kitchen": 20, "zzz": 3}}
    table = counts(resnet18=objects, resnet18_Places365=places)
    found = findings.scene_findings(table, "published labels", "p")
    assert [one.value for one in found] == pytest.approx([20 / 24 - 2 / 32, 30 / 32 - 4 / 24])
    assert verdicts(found) == ["holds", "holds"]
    same = counts(resnet18=objects, places=objects)
    assert verdicts(findings.scene_findings(same, "w", "p")) == ["undecided"] * 2
    # Any other second network has nothing to do with the claim.
    assert findings.scene_findings(counts(resnet18=objects, resnet50=places), "w", "p") == []
    assert findings.scene_findings(counts(places=places), "w", "p") == []


def test_no_finding_is_an_error():
    with pytest.raises(InputError, match="none of the claims"):
        findings.findings_table([])
