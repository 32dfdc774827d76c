"""One precision policy: switched on around passes, off behind them, part of a result's identity."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import Plain, classifier, offer_engines, photograph, seeded
from torch import nn

from xailib.explain.cam.methods import METHODS, explain_cam, guided_backprop
from xailib.explain.lime import explain_lime
from xailib.networks.forward import PRECISIONS, computing, forward_batches

CUDA = torch.device("cuda")


def switches():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("before", [(True, False), (False, True), (False, False), (True, True)])
@pytest.mark.parametrize(("precision", "inside"), [("exact", False), ("tf32", True)])
def test_tf32_is_switched_and_switched_back(before, precision, inside):
    """The switches of PyTorch exist without a card, too."""
    original = switches()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    try:
        with pytest.raises(ZeroDivisionError), computing(precision, CUDA):
            assert switches() == (inside, inside)
            raise ZeroDivisionError
        assert switches() == before
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = original


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="older than PyTorch's names of 2.9"
)
def test_switches_set_by_their_newer_names_are_respected():
    conv, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, products.fp32_precision
    try:
        conv.fp32_precision, products.fp32_precision = "ieee", "tf32"
        with computing("exact", CUDA):
            assert (conv.fp32_precision, products.fp32_precision) == ("ieee", "ieee")
        with computing("tf32", CUDA):
            assert (conv.fp32_precision, products.fp32_precision) == ("tf32", "tf32")
        assert (conv.fp32_precision, products.fp32_precision) == ("ieee", "tf32")
    finally:
        conv.fp32_precision, products.fp32_precision = before
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False


def test_nothing_is_switched_for_a_cpu():
    before = switches()
    with computing("tf32", torch.device("cpu")):
        assert switches() == before
        assert not torch.is_autocast_enabled("cpu")
    with computing("half", torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


class Watching(nn.Module):
    """Takes note of whether its passes are in half precision."""

    def __init__(self):
        super().__init__()
        self.inside = seeded(Plain)
        self.seen = []

    def forward(self, batch):
        self.seen.append(torch.is_autocast_enabled(batch.device.type))
        return self.inside(batch)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_pass_of_every_method_has_the_classifier_s_precision(precision):
    net = replace(classifier(Watching), precision=precision, cam_layer="inside.body")
    photo = photograph()
    net.module.seen.clear()  # those by which it was made
    net.predict(photo)
    found = [explain_lime(net, photo, num_samples=20, segments="slic", engine="eager")]
    for layer in ("inside.body", "inside.stem"):
        found += [explain_cam(net, photo, m, layer=layer, engine="eager") for m in METHODS]
    guided_backprop(net, photo)
    assert set(net.module.seen) == {precision == "half"}
    assert {one.parameters["precision"] for one in found} == {precision}
    assert all(np.isfinite(one.raw).all() for one in found)


def test_half_is_near_exact_and_not_exact():
    nets = [replace(classifier(), precision=precision) for precision in ("exact", "half")]
    exact, half = (
        explain_lime(net, photograph(), 1, num_samples=40, segments="slic") for net in nets
    )
    difference = np.abs(exact.raw - half.raw).max()
    assert 0 < difference < 0.05 * np.abs(exact.raw).max() + 1e-3
    assert nets[0].identity != nets[1].identity
    assert nets[0].id == nets[1].id  # the same network, whose maps may be compared


def test_an_engine_is_checked_at_its_own_precision(monkeypatch):
    """What is near enough for half precision is another network for exact."""
    set_up = []

    def shifted(module, _example):
        set_up.append(1)
        return lambda batch: module(batch) + 0.01

    offer_engines(monkeypatch, fused=shifted)
    module = seeded(Plain)
    pictures = torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for precision, engine in (("exact", "eager"), ("half", "fused"), ("exact", "eager")):
        found = forward_batches(module, lambda a, b: pictures[a:b], 60, precision=precision)
        assert found.engine == engine
    assert len(set_up) == 2  # each precision has its own


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("allowed", [True, False])
def test_exact_is_exact_whatever_the_process_allows(allowed):
    original = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        here, there = classifier(device="cpu"), classifier(device="cuda")
        view = here.view(photograph()).pixels[None]
        np.testing.assert_allclose(there.logits(view), here.logits(view), rtol=1e-5, atol=1e-6)
    finally:
        torch.backends.cudnn.allow_tf32 = original
