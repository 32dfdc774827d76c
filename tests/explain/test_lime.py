"""LIME's engine against lime called directly."""

import contextlib
import io

import numpy as np
import pytest
import torch
from lime import lime_image
from lime.wrappers.scikit_image import SegmentationAlgorithm
from nets import CATEGORIES, classifier, photograph
from PIL import Image

from xailib.errors import InputError
from xailib.explain.lime import explain_lime, explain_lime_targets, segmentation
from xailib.explain.lime_engine import LimeImageExplainer
from xailib.images.load import from_array, load_images

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def blocks(image, side=4):
    """Sixteen square superpixels."""
    rows, columns = np.indices(image.shape[:2])
    return rows * side // image.shape[0] * side + columns * side // image.shape[1]


def four(image):
    """Four superpixels, so that most samples are drawn many times."""
    return blocks(image, 2)


def from_one(image):
    """Superpixels numbered from 1: lime never hides the last one."""
    return blocks(image) + 1


def peer(image, function, **options):
    with contextlib.redirect_stderr(io.StringIO()):
        explainer = lime_image.LimeImageExplainer(random_state=7)
        return explainer.explain_instance(image, function, **options)


def assert_same(found, expected, atol):
    np.testing.assert_array_equal(found.segments, expected.segments)
    np.testing.assert_array_equal(found.image, expected.image)
    assert list(found.local_exp) == list(expected.local_exp)
    for label in expected.local_exp:
        ours, theirs = dict(found.local_exp[label]), dict(expected.local_exp[label])
        assert ours.keys() == theirs.keys()
        for superpixel, weight in theirs.items():
            assert ours[superpixel] == pytest.approx(weight, abs=atol)
        assert found.intercept[label] == pytest.approx(expected.intercept[label], abs=atol)
    assert found.score == pytest.approx(expected.score, abs=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options",
    [
        {"segmentation_fn": segment, "hide_color": colour}
        for segment in (blocks, four, from_one, None, *map(segmentation, ("slic", "felzenszwalb")))
        for colour in (0, 200, None)
    ]
    + [{"top_labels": 2}, {"num_features": 4}, {"batch_size": 1}],
)
def test_equals_lime(device, options):
    net = classifier(device=device)
    image = net.view(photograph()).pixels
    usual = {"labels": (3, 1), "top_labels": None, "num_samples": 60, "segmentation_fn": blocks}
    options = {**usual, **options}
    expected = peer(image, net.probabilities, **options)
    for function in (net, net.probabilities):
        found = LimeImageExplainer(random_state=7).explain_instance(image, function, **options)
        assert_same(found, expected, 1e-6)
        assert getattr(found, "top_labels", 0) == getattr(expected, "top_labels", 0)


def test_one_sample_is_the_whole_image():
    net = classifier()
    image = net.view(photograph()).pixels
    explainer = LimeImageExplainer(random_state=7)
    for function in (net, net.probabilities):
        data, found = explainer.data_labels(image, 0 * image, blocks(image), function, 1)
        assert data.all()
        np.testing.assert_allclose(found, net.probabilities(image[None]), rtol=1e-5)


def test_a_gray_float_picture_for_a_function():
    image = np.random.default_rng(0).random((16, 20))

    def function(pictures):
        mean = pictures.mean((1, 2, 3))
        return np.stack([mean, 1 - mean], axis=1)

    options = {"hide_color": 0, "num_samples": 50, "segmentation_fn": blocks}
    expected = peer(image, function, **options)
    found = LimeImageExplainer(random_state=7).explain_instance(image, function, **options)
    assert_same(found, expected, 1e-12)


def test_equal_samples_are_scored_once():
    seen = []

    def function(pictures):
        seen.extend(pictures)
        return np.full((len(pictures), 2), 0.5)

    explainer, image = LimeImageExplainer(random_state=0), photograph().pixels
    explainer.explain_instance(image, function, num_samples=500, segmentation_fn=four, hide_color=0)
    assert len(seen) == 16 == len({picture.tobytes() for picture in seen})
    np.testing.assert_array_equal(seen[0], image)


def test_perturbed_pictures_are_those_that_lime_makes():
    """Bit by bit what normalising lime's own 8-bit pictures gives."""
    net = classifier()
    image = net.view(photograph()).pixels
    theirs, ours = [], []
    peer(
        image,
        lambda pictures: theirs.extend(pictures) or np.full((len(pictures), 2), 0.5),
        num_samples=20,
        segmentation_fn=blocks,
        hide_color=None,
    )
    handle = net.module.register_forward_pre_hook(lambda _m, i: ours.extend(i[0].clone()))
    LimeImageExplainer(random_state=7, engine="eager").explain_instance(
        image, net, num_samples=20, segmentation_fn=blocks, hide_color=None, batch_size=3
    )
    handle.remove()
    torch.testing.assert_close(
        torch.stack(ours), net.input_tensor(np.stack(theirs)), rtol=0, atol=0
    )


def test_several_targets_from_one_sampling():
    net, photo = classifier(), photograph()
    passes = []
    handle = net.module.register_forward_hook(lambda _m, i, _o: passes.append(len(i[0])))
    options = {"num_samples": 30, "segments": "slic"}
    together = explain_lime_targets(net, photo, [2, "thing 4", None, 2], **options)
    assert 30 <= sum(passes) < 40
    handle.remove()
    for found, target in zip(together, [2, 4, None, 2], strict=True):
        alone = explain_lime(net, photo, target, **options)
        assert found.target == alone.target
        np.testing.assert_array_equal(found.raw, alone.raw)
        assert found.superpixels.fit == alone.superpixels.fit


def squares():
    """Four flat squares: quickshift cuts them where its noise says."""
    colours = np.random.default_rng(1).choice(np.array([0, 255]), (2, 2, 3)).astype(np.uint8)
    return from_array(colours.repeat(16, 0).repeat(16, 1), "squares")


@pytest.mark.parametrize("shown", ["blobs", "ties"])
def test_explanation_is_lime_s(shown):
    """The reviewers' counterexample: where ties abound, another seed cuts other superpixels."""
    net, photo = classifier(), photograph()
    if shown == "ties":
        photo = squares()
    found = explain_lime(net, photo, 1, num_samples=40, seed=7, hide_color=128)
    kernel = {"kernel_size": max(1, 4 * 32 / 224), "max_dist": 200, "ratio": 0.2}
    expected = peer(
        net.view(photo).pixels,
        net.probabilities,
        labels=(1,),
        top_labels=None,
        hide_color=128,
        num_samples=40,
        segmentation_fn=SegmentationAlgorithm("quickshift", **kernel),
    )
    given = dict(expected.local_exp[1])
    weights = np.array([given.get(i, 0.0) for i in range(expected.segments.max() + 1)])
    np.testing.assert_array_equal(found.superpixels.segments, expected.segments)
    np.testing.assert_allclose(found.superpixels.weights, weights, atol=1e-6)
    np.testing.assert_allclose(found.raw, weights[expected.segments], atol=1e-6)
    assert found.superpixels.fit == pytest.approx(expected.score, abs=1e-4)
    assert found.signed
    assert found.seed == 7
    assert found.parameters["engine"] == "eager"


def test_same_again_and_another_seed_another_result():
    net, photo = classifier(), photograph()
    first, again = (explain_lime(net, photo, num_samples=40, segments="slic") for _ in range(2))
    np.testing.assert_array_equal(first.raw, again.raw)
    other = explain_lime(net, photo, num_samples=40, segments="slic", seed=1)
    assert not np.array_equal(first.raw, other.raw)


def test_only_the_segments_own_seed_reaches_quickshift():
    net = classifier()
    cut, same, other = (
        explain_lime(net, squares(), num_samples=10, **seeds).superpixels.segments
        for seeds in ({"seed": 0}, {"seed": 1}, {"segment_seed": 1})
    )
    np.testing.assert_array_equal(cut, same)
    assert not np.array_equal(cut, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 9}, "num_samples: 9"),
        ({"hide_color": 256}, "hide_color: 256"),
        ({"segments": "quickshit"}, "segmentation: unknown name"),
        ({"target": CATEGORIES}, "target: index 5"),
        ({"engine": "steam"}, "engine: unknown name"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"num_samples": "many"}, "num_samples: 'many'"),
        ({"num_samples": "auto", "max_samples": 5}, "max_samples: 5"),
        ({"num_features": 0}, "num_features: 0"),
        ({"design": "orthogonl"}, "design: unknown name.*orthogonal"),
        ({"smaples": 3}, "option: unknown name"),
    ],
)
def test_bad_input_is_one_line_before_any_pass(arguments, message):
    net = classifier()
    net.module.register_forward_hook(lambda *_: pytest.fail("a pass was made"))
    with pytest.raises(InputError, match=message):
        explain_lime(net, photograph(), **arguments)


def test_no_target_is_an_error():
    with pytest.raises(InputError, match="targets: none given"):
        explain_lime_targets(classifier(), photograph(), [])


@pytest.mark.parametrize("name", ["quickshift", "slic", "felzenszwalb"])
@pytest.mark.parametrize("side", [32, 64, 128])
def test_small_views_have_superpixels_enough(name, side):
    """lime's own settings make one of 32 pixels, and five of 64."""
    pixels = np.array(Image.fromarray(load_images("chelsea")[0].pixels).resize((side, side)))
    assert 12 <= len(np.unique(segmentation(name)(pixels))) <= 80


def test_superpixels_of_a_view_of_224_pixels_are_lime_s():
    pixels = np.array(
        Image.fromarray(squares().pixels).resize((224, 224), Image.Resampling.NEAREST)
    )
    theirs = SegmentationAlgorithm("quickshift", kernel_size=4, max_dist=200, ratio=0.2)(pixels)
    np.testing.assert_array_equal(segmentation("quickshift")(pixels), theirs)
