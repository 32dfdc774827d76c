"""Networks of every family, and odd ones: explained and dissected, or refused in one line."""

import re
from pathlib import Path

import families
import numpy as np
import pytest
import torch
from faults_table import shown
from PIL import Image
from torch.nn.functional import interpolate

from xailib.dissect.activations import record_activations
from xailib.dissect.concepts import from_names
from xailib.dissect.label import label_units
from xailib.errors import InputError
from xailib.explain.cam.layout import layout_of
from xailib.explain.cam.methods import METHODS, cam_layer_of, explain_cam, guided_backprop
from xailib.explain.lime import explain_lime
from xailib.explain.preflight import preflight
from xailib.images.load import from_array
from xailib.images.probe import load_probe
from xailib.networks.classifier import Classifier, load_classifier
from xailib.networks.layers import recorded

FILE = Path(families.__file__)
ODD = [
    "one_category",
    "two_categories",
    "as_many_categories_as_channels",
    "small_input",
    "grayscale",
]


def load(name: str) -> Classifier:
    torch.manual_seed(0)
    return load_classifier(f"{FILE}:{name}", device="cpu")


def picture(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((96, 72)))


@pytest.fixture(scope="module")
def photograph():
    return from_array(picture(), "blobs")


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    for seed in range(4):
        Image.fromarray(picture(seed)).save(folder / f"{seed}.png")
    return load_probe(folder)


class Literal:
    """Each method's weighted sum of a layer's maps by plain hooks and full passes.

    Scores are the classifier's logits; channels first, last and of tokens are read by `axis`.
    """

    def __init__(self, net, photograph):
        self.net, self.layer = net, net.layer(cam_layer_of(net))
        self.image = net.input_tensor(net.view(photograph).pixels[None])
        output = self.passed(self.image)[1]
        self.layout = layout_of(tuple(output.shape), tuple(self.image.shape[-2:]), "layer")
        self.maps = self.layout.maps(output).detach()
        self.target = int(self.passed(self.image)[0].argmax())

    def passed(self, images, zeroed=None, gradients=False):
        """Return scores and the layer's output; of each image another channel may be zeroed."""
        held = []

        def hook(_layer, _inputs, output):
            held.append(output if gradients else output.detach())
            output = output.clone()
            for row, channel in enumerate(() if zeroed is None else zeroed):
                output[row].select(self.layout.axis - (self.layout.axis > 0), channel)[...] = 0
            return output

        handle = self.layer.register_forward_hook(hook)
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.set_grad_enabled(gradients):
                images = images.clone().requires_grad_(gradients)
                return self.net.module(images), held[0]
        finally:
            handle.remove()
            torch.backends.mha.set_fastpath_enabled(before)

    def summed(self, weights):
        return (weights[:, None, None] * self.maps[0]).sum(0).numpy()

    def gradcam(self):
        scores, output = self.passed(self.image, gradients=True)
        (gradient,) = torch.autograd.grad(scores[0, self.target], output)
        return self.summed(self.layout.maps(gradient)[0].mean((1, 2)))

    def ablationcam(self):
        whole, _ = self.passed(self.image)
        every = range(self.maps.shape[1])
        images = self.image.expand(len(every), *self.image.shape[1:])
        scores, _ = self.passed(images, every)
        before, after = (s[:, self.target] - s.mean(1) for s in (whole, scores))
        return self.summed((before - after) / before.abs())

    def scorecam(self):
        size = tuple(self.image.shape[-2:])
        large = interpolate(self.maps, size, mode="bilinear", align_corners=True)[0]
        low, high = large.amin((1, 2), True), large.amax((1, 2), True)
        masked = self.image * ((large - low) / (high - low + 1e-8))[:, None]
        scores, _ = self.passed(masked)
        return self.summed(scores[:, self.target].softmax(0))


@pytest.mark.parametrize("name", [*families.FAMILIES, *ODD])
def test_every_family_is_explained_and_dissected(name, photograph, probe, tmp_path):
    net = load(name)
    before = {key: value.clone() for key, value in net.module.state_dict().items()}
    size = net.view(photograph).frame.size
    literal = Literal(net, photograph)
    answers = {answer.method: answer for answer in preflight(net)}
    for method in METHODS:
        assert answers[method].works, answers[method]
        found = explain_cam(net, photograph, method, engine="eager", batch_size=64)
        assert found.saliency.shape == size
        assert min(found.raw.shape) > 1
        assert np.isfinite(found.raw).all()
        assert np.ptp(found.raw) > 0, method
        if hasattr(literal, method) and literal.maps.shape[1] <= 128:
            expected = getattr(literal, method)()
            np.testing.assert_allclose(found.raw, expected, atol=1e-3 * np.abs(expected).max())
    lime = explain_lime(net, photograph, num_samples=40, segments="slic", engine="eager")
    assert lime.saliency.shape == size
    assert np.abs(lime.raw).max() > 0
    if answers["guided"].works:
        assert np.abs(guided_backprop(net, photograph)).max() > 0
    else:
        assert not re.search("resnet|vgg|densenet|mobilenet_v2|regnet|byob|input|gray", name)
        assert answers["guided"].how.endswith("has no ReLU, which guided backprop needs")
    units = record_activations(net, net.dissect_layers, probe, folder=tmp_path / "units")
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(4, 8)).astype(np.float32), np.eye(8, dtype=np.float32)
    table = label_units(units, images, texts, from_names("abcdefgh", "letters"), top_k=2)
    assert len(table) == sum(units[layer].shape[1] for layer in net.dissect_layers)
    assert table["similarity"].notna().all()
    assert not net.module.training
    torch.testing.assert_close(dict(net.module.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["timm_vit", "timm_cait", "timm_pooled_vit"])
def test_units_are_read_from_the_class_token_where_there_is_one(name, probe, tmp_path):
    """CaiT has a class token, but not in the blocks that see patches alone."""
    net = load(name)
    layer = "blocks.1"
    found = record_activations(net, [layer], probe, folder=tmp_path / "u", dtype="float32")[layer]
    with torch.no_grad(), recorded(net.module, [layer]) as outputs:
        photographs = list(probe.photographs())
        net.module(net.input_tensor(np.stack([net.view(p).pixels for p in photographs])))
    tokens = outputs[layer]
    assert tokens.shape[1] == (17 if name == "timm_vit" else 16)
    expected = tokens[:, 0] if name == "timm_vit" else tokens.mean(1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_network_in_gray_sees_the_gray_of_the_photograph(photograph):
    """From the view back to the input: what the transform gave, to 8 bits."""
    net = load("grayscale")
    seen = net.input_tensor(net.view(photograph).pixels[None])[0]
    direct = families.gray(Image.fromarray(photograph.pixels))
    torch.testing.assert_close(seen, direct, atol=2 * 2 / 255, rtol=0)
    assert np.ptp(net.view(photograph).pixels.astype(int), axis=2).max() <= 2  # shown as gray


def test_a_layer_with_as_many_channels_as_categories_is_no_output():
    assert cam_layer_of(load("as_many_categories_as_channels")) == "body"
    squeezenet = load_classifier("squeezenet1_1", "random", device="cpu")  # here it is one
    assert squeezenet.cam_layer == "features"


def test_small_input_takes_the_last_layer_with_a_grid():
    assert cam_layer_of(load("small_input")) == "layer3"  # in layer4 a single pixel is left


@pytest.mark.parametrize("method", METHODS)
def test_a_network_in_training_mode_is_put_back(method, photograph):
    net = load("two_categories")
    expected = explain_cam(net, photograph, method, engine="eager")
    net.module.train()
    net.module.drop.eval()
    modes = [part.training for part in net.module.modules()]
    found = explain_cam(net, photograph, method, engine="eager")
    np.testing.assert_array_equal(found.raw, expected.raw)
    explain_lime(net, photograph, num_samples=10)
    assert [part.training for part in net.module.modules()] == modes


@pytest.mark.parametrize("key", ["not_finite", "another_input", "names_as_numbers", "raising"])
def test_an_odd_network_is_refused_in_one_line(key):
    with pytest.raises(InputError, match=shown(key)):
        load(key)


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("own_syntax", "def load(:\n    pass\n"),
        ("own_import", "import nothing_of_this_name\n"),
        ("own_no_function", "def load():\n    pass\n"),
    ],
)
def test_own_code_that_fails_says_where(tmp_path, key, code):
    file = tmp_path / "mine.py"
    file.write_text(code)
    name = "laod" if key == "own_no_function" else "load"
    with pytest.raises(InputError, match=shown(key)):
        load_classifier(f"{file}:{name}")


@pytest.mark.parametrize("explain", [explain_cam, explain_lime])
def test_scores_that_stop_being_finite_are_noticed(photograph, explain):
    net = load("two_categories")
    with torch.no_grad():
        net.module.fc.weight.mul_(float("nan"))
    with pytest.raises(InputError, match=shown("not_finite")):
        explain(net, photograph)
