"""Networks of every family, and odd ones: explained and dissected, or refused in one line."""

from pathlib import Path

import families
import numpy as np
import pytest
import torch
from faults_table import shown
from PIL import Image

from xailib.dissect.activations import record_activations
from xailib.dissect.concepts import from_names
from xailib.dissect.label import label_units
from xailib.errors import InputError
from xailib.explain.cam.methods import METHODS, cam_layer_of, explain_cam
from xailib.explain.lime import explain_lime
from xailib.images.load import from_array
from xailib.images.probe import load_probe
from xailib.networks.classifier import Classifier, load_classifier

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


@pytest.mark.parametrize("name", [*families.FAMILIES, *ODD])
def test_every_family_is_explained_and_dissected(name, photograph, probe, tmp_path):
    net = load(name)
    before = {key: value.clone() for key, value in net.module.state_dict().items()}
    size = net.view(photograph).frame.size
    for method in METHODS:
        found = explain_cam(net, photograph, method, engine="eager", batch_size=64)
        assert found.saliency.shape == size
        assert min(found.raw.shape) > 1
        assert np.isfinite(found.raw).all()
        assert np.ptp(found.raw) > 0, method
    lime = explain_lime(net, photograph, num_samples=40, segments="slic", engine="eager")
    assert lime.saliency.shape == size
    assert np.abs(lime.raw).max() > 0
    units = record_activations(net, net.dissect_layers, probe, folder=tmp_path / "units")
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(4, 8)).astype(np.float32), np.eye(8, dtype=np.float32)
    table = label_units(units, images, texts, from_names("abcdefgh", "letters"), top_k=2)
    assert len(table) == sum(units[layer].shape[1] for layer in net.dissect_layers)
    assert table["similarity"].notna().all()
    assert not net.module.training
    torch.testing.assert_close(dict(net.module.state_dict()), before, rtol=0, atol=0)


def test_a_single_category_is_a_sigmoids(photograph):
    """A softmax over one category would be 1 for every picture, and LIME's weights 0."""
    net = load("one_category")
    logit = net.logits(net.view(photograph).pixels[None])[0, 0]
    probability = net.predict(photograph)[0].probability
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logit)), rtol=1e-5)
    assert explain_cam(net, photograph).probability == pytest.approx(probability)
    assert explain_lime(net, photograph, num_samples=10).probability == pytest.approx(probability)


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
