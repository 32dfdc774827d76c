"""Which methods work with a network, known before any work, and the same as when it is done."""

import json
from pathlib import Path

import families
import pytest
import torch
from click.testing import CliRunner
from nets import classifier, photograph, vit
from torch import nn

from xailib.errors import InputError
from xailib.explain.cam.methods import METHODS, explain_cam
from xailib.explain.preflight import ALL, preflight, workable
from xailib.explain.requests import requests_of
from xailib.networks.classifier import classifier_from
from xailib.networks.counting import passes
from xailib.networks.forward import forward_batches
from xailib.report.cli import main

PARAMETERS = {"target": "", "methods": ["gradcam", "ablationcam"], "layer": ""}


class Frozen(nn.Module):
    """Nothing that could be trained, and no gradients."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, 2)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        with torch.inference_mode():
            return self.fc(self.features(x).mean((2, 3)))


def frozen():
    torch.manual_seed(0)
    module = Frozen().eval()
    nn.init.normal_(module.fc.weight)
    return classifier_from(module, families.colour(32), list("abcde"))


def test_each_answer_is_what_happens():
    for net in (classifier(), classifier(vit), frozen()):
        for answer in preflight(net, list(METHODS)):
            if answer.works:
                found = explain_cam(net, photograph(), answer.method, engine="eager")
                assert found.raw.any()
                assert found.parameters["layer"] in answer.how
                assert found.parameters.get("passes", "") in answer.how
            else:
                with pytest.raises(InputError):
                    explain_cam(net, photograph(), answer.method)


def test_a_network_that_gives_every_image_the_same_scores_is_explained_by_nothing():
    net = classifier()
    nn.init.zeros_(net.module.fc.weight)
    assert not any(answer.works for answer in preflight(net))
    with pytest.raises(InputError, match=r"lime: the scores of 9 different images are the same"):
        workable(net, ["lime"])


def test_a_network_that_looks_at_one_colour_only_is_explained():
    class Red(nn.Module):
        def forward(self, x):
            return nn.functional.relu(x[:, :1].mean((2, 3)) - x[:, 1:].mean((1, 2, 3))[:, None] - 1)

    net = classifier()
    net.module.forward = Red().forward
    assert workable(net, ["lime"]) == (["lime"], [])


def test_an_unknown_layer_is_the_reason_itself():
    with pytest.raises(InputError, match=r"^layer: unknown name 'boody'; did you mean body"):
        workable(classifier(), ["gradcam"], "boody")


def test_it_takes_a_few_passes_and_only_the_first_time(monkeypatch):
    net, shown, counted = classifier(), [], passes()
    net.module.register_forward_pre_hook(lambda _module, inputs: shown.append(len(inputs[0])))
    preflight(net)
    assert 0 < sum(shown) < 30
    assert passes() == counted  # as what a result has cost
    before = len(shown)
    assert [one.method for one in preflight(net)] == list(ALL)
    assert len(shown) == before
    forward_batches(net.module, lambda a, b: torch.zeros(b - a, 3, 32, 32), 2)  # nothing is left


def test_what_does_not_work_is_left_out_of_a_notebooks_requests():
    net = frozen()
    methods, (line,) = workable(net, PARAMETERS["methods"])
    assert methods == ["ablationcam"]
    assert line.startswith("gradcam is left out: ")
    assert [one.method for one in requests_of("3_cam", net, PARAMETERS)] == methods
    with pytest.raises(InputError, match="methods: none works; gradcam: "):
        workable(net, ["gradcam", "layercam"])


def test_a_gradient_that_is_zero_is_said():
    """Behind the last attention a ViT reads the class token alone."""
    (answer,) = preflight(classifier(vit), ["gradcam"], "blocks.1.norm2")
    assert (answer.works, answer.how) == (
        False,
        "the gradient is exactly zero at layer blocks.1.norm2",
    )


def test_the_command_lists_the_answers_of_an_own_network():
    name = f"{Path(families.__file__)}:timm_vit"
    done = CliRunner().invoke(main, ["models", name, "--json"], catch_exceptions=False)
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {*ALL, "dissection", "outputs"}
    assert rows["gradcam"] == {
        "what": "gradcam",
        "works": "yes",
        "how": "layer blocks.1.norm1: maps of 4 x 4",
    }
    assert rows["guided"]["works"] == "no"
    assert rows["outputs"]["how"] == "logits, 5 classes"
