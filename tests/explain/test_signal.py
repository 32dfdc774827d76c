"""Maps that say nothing: known before they are scaled, and left out of all that is counted."""

import gc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import explanation, lime_explanation
from faults_table import shown
from nets import CATEGORIES, Plain, Skipping, classifier, photograph, vit
from torch import nn

from xailib.compare.iou import lime_cam_agreement
from xailib.compare.masks import lime_mask
from xailib.compare.pairs import maps_of, pair_table
from xailib.errors import InputError
from xailib.evaluate.faithfulness import explanation_curves
from xailib.evaluate.randomisation import explain_targets
from xailib.evaluate.sanity import compare, null_baseline, verdict
from xailib.evaluate.stability import runs_table
from xailib.explain.cam.methods import METHODS, explain_cam
from xailib.explain.explanation import Explanation
from xailib.explain.lime import explain_lime
from xailib.explain.record import exact_to, no_signal, rounding
from xailib.explain.requests import explain_many
from xailib.explain.stability import mask_is_stable, stability
from xailib.report.replication.findings import smoothness_findings

PHOTO = photograph()
FEW = {"num_samples": 40, "segments": "slic"}
RNG = np.random.default_rng(0)


def changed(make=Plain, **tensors):
    """A classifier with some of its weights multiplied."""
    found = classifier(make)
    for name, factor in tensors.items():
        found.module.get_parameter(name.replace("__", ".")).data.mul_(factor)
    return found


def untrained_head():
    return changed(fc__weight=0, fc__bias=0)


def everything(net, layer=None):
    maps = (explain_cam(net, PHOTO, method, layer=layer) for method in METHODS)
    return [explain_lime(net, PHOTO, **FEW), *maps]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (untrained_head, "constant|exactly zero"),
        (lambda: changed(fc__weight=0), "constant|exactly zero"),  # only a bias answers
        (lambda: changed(fc__weight=1e-12, fc__bias=100), "within its rounding|constant|rounding"),
        (lambda: changed(body__1__weight=0, body__1__bias=0), "constant|exactly zero"),  # dead
    ],
    ids=["head of zeros", "bias alone", "below the rounding", "dead layer"],
)
def test_a_network_that_does_not_answer_to_the_picture(make, words, tmp_path):
    net = make()
    net.module.body[1].running_mean.zero_()
    found = everything(net)
    for one in found:
        assert one.no_signal, one.method
        assert any(word in one.no_signal for word in words.split("|")), (one.method, one.no_signal)
        assert not one.saliency.any()
        one.save(tmp_path / "x.npz")
        assert Explanation.load(tmp_path / "x.npz").no_signal == one.no_signal
    assert np.isnan(found[0].superpixels.fit)
    for signs in ("positive", "both"):
        assert not lime_mask(found[0], 3, signs).any()


@pytest.mark.parametrize("size", [0.1, 1, 10])
@pytest.mark.parametrize("make", [Plain, Skipping, vit])
def test_a_signal_does_not_depend_on_the_size_of_the_scores(make, size):
    layer = "body" if make is Skipping else None
    net = classifier(make)
    last = [part for part in net.module.modules() if isinstance(part, nn.Linear)][-1]
    last.weight.data *= size
    last.bias.data *= size
    lime, *maps = everything(net, layer)
    assert not lime.no_signal
    for found in maps:
        empty = found.raw.max() <= 0  # a ReLU leaves nothing of it
        assert bool(found.no_signal) == empty, (found.method, found.no_signal)


@pytest.mark.parametrize("target", [0, 1])
def test_a_probability_that_is_exactly_one_or_zero_is_constant(target):
    net = changed(fc__weight=0)
    net.module.fc.bias.data.copy_(torch.tensor([200.0, *[0.0] * (CATEGORIES - 1)]))
    lime = explain_lime(net, PHOTO, target, **FEW)
    assert lime.probability == 1 - target
    assert lime.no_signal == "the score is constant"


@pytest.mark.parametrize(
    ("raw", "signed", "options", "words"),
    [
        (np.zeros((3, 3)), False, {}, "the map is exactly zero"),
        (np.full((3, 3), 2.0), False, {}, "the map is constant"),
        (np.full((3, 3), 2.0), True, {}, "the map is constant"),
        (1 + 1e-8 * RNG.random((3, 3)), False, {}, "the map is constant"),
        (1e-9 * RNG.random((3, 3)), False, {"terms": 1.0}, "the map is constant"),
        (-RNG.random((3, 3)), False, {}, "no value of the map is positive"),
        (-RNG.random((3, 3)), True, {}, ""),
        (1e-30 * RNG.random((3, 3)), True, {}, ""),  # nothing larger that it is a rounding of
        (RNG.random((3, 3)), False, {"moved": 0.0}, "the score is constant"),
        (
            RNG.random((3, 3)), False, {"moved": 1e-9, "exact_to": 1e-8},
            "the score is constant within its rounding",
        ),
        (
            RNG.random((3, 3)), False, {"moved": 0.0, "what": "gradient"},
            "gradient times activation is exactly zero",
        ),
        (RNG.random((3, 3)), False, {"relative": 2.0}, "the map is constant"),  # half precision
    ],
)  # fmt: skip
def test_what_a_map_can_lack(raw, signed, options, words):
    assert no_signal(raw, signed=signed, **options) == words


def test_rounding_follows_the_type_of_the_weights_and_the_precision():
    exact = classifier()
    half = replace(exact, precision="half")
    assert rounding(exact) < 2e-6 < 1e-3 < rounding(half)
    exact.module.half()
    assert rounding(exact) == torch.finfo(torch.float16).eps
    # A probability near one is exact to its own last digits, whatever the scores.
    assert exact_to(np.array([1.0]), 1e-6, 50.0) == pytest.approx(1e-6)
    assert exact_to(np.array([0.5]), 1e-6, 50.0) == pytest.approx(1.3e-5)


def test_drawing_until_stable_never_ends_as_stable_on_noise():
    lime = explain_lime(untrained_head(), PHOTO, **{**FEW, "num_samples": "auto"}, max_samples=2000)
    assert lime.parameters["stopped"] == "no signal"
    assert len(lime.superpixels.shown) == 250  # at the first look
    samples = RNG.random((400, 12)) < 0.5
    samples[0] = True
    noise = 0.7 + 1e-8 * RNG.random(400).astype(np.float32)
    clear = samples @ np.linspace(1, 2, 12)
    assert not mask_is_stable(samples, noise, 3)
    assert not mask_is_stable(samples, np.full(400, 0.5), 3)
    assert mask_is_stable(samples, clear, 3)
    # With fewer superpixels than are asked for there is no choice that could be stable.
    assert not mask_is_stable(samples, clear, 12)
    parts = lime_explanation(np.arange(12).reshape(3, 4), [0.0] * 12).superpixels
    parts = replace(parts, shown=samples, scores=clear)
    assert [stability(parts, count).stable for count in (3, 12, 40)] == [True, False, False]


# What says nothing counts nowhere.


def blob(seed, **changes):
    raw = np.random.default_rng(seed).normal(size=(20, 20)).cumsum(0).cumsum(1)
    return explanation(raw, image=f"p{seed}", image_sha256=f"{seed:064d}", **changes)


SEGMENTS = np.arange(400).reshape(20, 20) // 40


def limes(count, silent=()):
    return [
        lime_explanation(
            SEGMENTS, list(RNG.normal(size=10)), image=f"p{n}", image_sha256=f"{n:064d}",
            no_signal="the score is constant" if n in silent else "",
        )
        for n in range(count)
    ]  # fmt: skip


def test_tables_leave_out_what_says_nothing():
    some, cams = limes(4, {1}), [blob(n, no_signal="x" if n == 2 else "") for n in range(4)]
    assert set(lime_cam_agreement(some, cams, num_features=3)["image"]) == {"p0", "p3"}
    with pytest.raises(InputError, match=shown("no_signal")):
        lime_cam_agreement(limes(1, {0}), cams[:1])
    maps = [one for pair in zip(some, cams, strict=True) for one in maps_of(pair, 3)]
    assert [(one.image, one.name) for one in maps if one.image in ("p1", "p2")] == [
        ("p1", "gradcam"), ("p2", "lime+"), ("p2", "lime-"),
    ]  # fmt: skip
    assert set(pair_table(maps, draws=20)["image"]) == {"p0", "p3"}
    with pytest.raises(InputError, match="long runs"):
        runs_table([replace(one, no_signal="x") for one in some], [10])
    scores = [blob(n, method="scorecam") for n in range(4)]
    found = smoothness_findings({"gradcam": cams, "scorecam": scores})
    assert {one.count for one in found} == {3}


def test_sanity_checks_leave_out_what_says_nothing():
    trained = [blob(n) for n in range(4)]
    random = [blob(n, classifier="r@0", no_signal="x" if n == 3 else "") for n in range(4)]
    table = compare({("gradcam", 0): trained, ("gradcam", 1): random}, 0, "stage", {"classifier"})
    assert (table["stage"] == 1).sum() == 3
    unrelated = null_baseline({"gradcam": [*trained[:3], random[3]]})
    assert set(unrelated["image"]) == {"p0", "p1", "p2"}
    silent = table[table["stage"] == 1].assign(method="silent")
    judged = verdict(pd.concat([table[table["stage"] == 1], silent]), unrelated)
    assert judged["method"].tolist() == ["gradcam"]
    assert judged["photographs"].tolist() == [3]


def test_a_photograph_under_another_name_is_no_other_photograph():
    first = blob(0)
    twin = replace(first, image="twin")
    assert null_baseline({"gradcam": [first, twin, blob(1)]})["spearman"].max() < 1
    pairs = [(lime, blob(n)) for n, lime in enumerate(limes(2))]
    again = [replace(one, image="twin") for one in pairs[0]]
    with_twin = [one for pair in [*pairs, again] for one in maps_of(pair, 3)]
    alone = [one for pair in pairs for one in maps_of(pair, 3)]
    of = [pair_table(maps, draws=20).set_index(["image", "a", "b"]) for maps in (with_twin, alone)]
    assert of[0].loc["p0", "others"].equals(of[1].loc["p0", "others"])


def test_no_curves_are_drawn_of_what_says_nothing():
    net = classifier()
    lime, cam = explain_lime(net, PHOTO, **FEW), explain_cam(net, PHOTO)
    options = {"steps": 2, "percentiles": (), "draws": 1}
    curves = explanation_curves(net, PHOTO, [replace(lime, no_signal="x"), cam], **options)
    assert set(curves["method"]) == {"gradcam", "random", "centre"}


def test_guided_backpropagation_of_a_dead_network_says_nothing():
    net = changed(fc__weight=0)
    (found,) = explain_targets(net, PHOTO, "guided", [0])
    assert found.no_signal == "the map is exactly zero"
    flat = replace(PHOTO, pixels=np.full_like(PHOTO.pixels, 90))
    assert explain_targets(net, flat, "edges", [0])[0].no_signal


class Overflowing(Plain):
    """Features beyond all numbers, whose classes are told apart all the same."""

    def forward(self, x):
        features = self.body(self.stem(x))
        return self.fc(torch.flatten(self.pool(features), 1).clamp(-1, 1))


def test_a_layer_that_overflows_is_named():
    net = classifier(Overflowing)
    net.module.body[1].bias.data[0] = float("inf")
    assert np.isfinite(net.logits(net.view(PHOTO).pixels[None])).all()
    for method in ("gradcam", "ablationcam"):
        with pytest.raises(InputError, match=shown("overflowing_layer")):
            explain_cam(net, PHOTO, method)


class Broken(Plain):
    """A network whose scores are no numbers."""

    def forward(self, x):
        return super().forward(x) * float("nan")


@pytest.mark.parametrize("make", [Plain, Skipping, vit, Broken])
def test_explanations_leave_no_tensor_behind(make):
    """Memory stays flat in one process, whether they succeed or fail: no cycle holds tensors."""
    net = classifier(make)
    layer = "body" if make is Skipping else None
    methods = ("lime", *METHODS)

    def explain():
        return len(list(explain_many(net, [PHOTO], methods, layer=layer, **FEW)))

    def tensors():
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    explain()
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        assert [explain() for _ in range(4)] == [len(methods)] * 4
        assert tensors() - before < 4
    finally:
        gc.enable()
