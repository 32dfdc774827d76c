"""cuDNN's joint calls: the network's rewriting by stand-ins on a CPU, the calls on a card."""

import operator

import pytest
import torch
from nets import InPlace, Plain, Skipping, seeded
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F  # noqa: N812

from xailib.networks.engines import with_relu

PICTURES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """Blocks as a ResNet has them: with the input added, as it is and through a convolution."""

    def __init__(self, add=operator.add):
        super().__init__()
        self.first, self.second, self.third, self.aside = (
            nn.Conv2d(3, 3, 3, 1, 1) for _ in range(4)
        )
        self.norm, self.relu, self.add = nn.BatchNorm2d(3), nn.ReLU(inplace=True), add

    def forward(self, x):
        inside = self.norm(self.second(self.relu(self.first(x))))
        x = self.relu(self.add(inside, x))
        return self.relu(self.add(self.third(x), self.aside(x))).mean((2, 3))


@pytest.fixture
def calls(monkeypatch):
    """What cuDNN would compute, on any device; returns the calls made."""
    made = []

    def relu(batch, weight, bias, *how):
        made.append("relu")
        return F.conv2d(batch, weight, bias, *how).relu()

    def add_relu(batch, weight, other, alpha, bias, *how):
        made.append("add")
        return (F.conv2d(batch, weight, bias, *how) + alpha * other).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu)
    return made


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Plain, ["relu", "relu"]),
        (Residual, ["relu", "add", "add"]),
        (lambda: Residual(operator.iadd), ["relu", "add", "add"]),
        (lambda: Residual(torch.add), ["relu", "add", "add"]),
        (lambda: Residual(torch.sub), ["relu"]),
        (Skipping, ["relu", "relu"]),
        (InPlace, ["relu", "relu"]),
    ],
)
def test_the_rewritten_network_is_the_same_function(calls, make, expected):
    module = seeded(make)
    with torch.no_grad():
        wanted = module(PICTURES)
        found = with_relu(fuse(module))(PICTURES)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert calls == expected
        torch.testing.assert_close(module(PICTURES), wanted)  # the network itself is as it was


def test_what_is_used_elsewhere_stays_apart(calls):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 3), nn.ReLU()

        def forward(self, x):
            inside = self.conv(x)
            return self.relu(inside) - inside

    module = seeded(Twice)
    with torch.no_grad():
        torch.testing.assert_close(with_relu(fuse(module))(PICTURES), module(PICTURES))
    assert calls == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_card(dtype):
    module = seeded(Residual).cuda()
    rewritten = with_relu(fuse(module)).to(memory_format=torch.channels_last)
    batch = PICTURES.cuda().contiguous(memory_format=torch.channels_last)
    half = dtype == torch.bfloat16
    with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=half):
        close = {"rtol": 3e-2, "atol": 3e-2} if half else {"rtol": 1e-3, "atol": 1e-3}
        torch.testing.assert_close(rewritten(batch).float(), module(batch).float(), **close)
