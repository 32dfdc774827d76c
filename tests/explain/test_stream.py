"""A stream of images: the results of one at a time, in order, with failures in their places."""

import numpy as np
import pytest
import torch
from nets import CATEGORIES, Plain, Skipping, classifier, photograph, photographs_in
from sklearn.linear_model import Ridge

from xailib.errors import InputError
from xailib.explain import lime_engine
from xailib.explain.cam import gradient
from xailib.explain.cam.methods import METHODS, Cam, explain_cam, guided_backprop, guided_backprops
from xailib.explain.lime import Lime, explain_lime_targets
from xailib.explain.requests import explain_many
from xailib.explain.stream import Seen, stream
from xailib.images import load
from xailib.images.load import Failure, from_array, load_images
from xailib.networks.classifier import Classifier
from xailib.networks.counting import passes

PHOTOS = [photograph(seed) for seed in range(5)]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LIME = {"num_samples": 60, "segments": "slic", "engine": "eager"}


def together(explainer, group):
    """What several images at once give: the paths of a GPU, also on a CPU's tensors."""
    explainer.together = True
    explainer.on_device = getattr(explainer, "options", {}).get("segments") == "quickshift"
    items = list(stream(explainer.classifier, PHOTOS, [explainer], group=group))
    return [found for item in items for outcome in item.found for found in outcome]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("group", "options"),
    [
        (1, {}),
        (2, {"hide_color": None, "batch_size": 7}),
        (5, {"design": "antithetic", "num_samples": 31}),
        (5, {"num_samples": "auto", "max_samples": 400, "num_features": 1}),
        (5, {"segments": "quickshift"}),
    ],
)
def test_lime_of_several_images_at_once_is_that_of_each_alone(device, group, options):
    options = {**LIME, **options}
    here, net = classifier(), classifier(device=device)
    found = together(Lime(net, (2, None), **options), group)
    expected = [e for p in PHOTOS for e in explain_lime_targets(here, p, (2, None), **options)]
    if options["num_samples"] == "auto":
        assert len({len(one.superpixels.shown) for one in expected}) > 1
    for one, other in zip(found, expected, strict=True):
        assert (one.image, one.target) == (other.image, other.target)
        assert one.target_name == other.target_name
        assert one.probability == pytest.approx(other.probability, rel=1e-5)
        ours, theirs = one.superpixels, other.superpixels
        np.testing.assert_array_equal(ours.segments, theirs.segments)
        np.testing.assert_array_equal(ours.shown, theirs.shown)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5)
        scale = np.abs(theirs.weights).max()
        # This tiny network's scores move little, so that their rounding is more of a weight.
        tolerance = 1e-5 if device == "cpu" else 3e-5
        np.testing.assert_allclose(ours.weights / scale, theirs.weights / scale, atol=tolerance)
        assert ours.intercept == pytest.approx(theirs.intercept, rel=1e-5)
        assert ours.fit == pytest.approx(theirs.fit, abs=1e-4)
        assert ours.ranked(10) == theirs.ranked(10)
        assert one.parameters == other.parameters


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("make", "layer"), [(Plain, "body"), (Plain, "stem"), (Skipping, "body"), (Skipping, "mix")]
)
def test_maps_of_several_images_at_once_are_those_of_each_alone(device, method, make, layer):
    found = together(Cam(classifier(make, device=device), method, (2, None), layer=layer), 3)
    net = classifier(make)
    expected = [
        explain_cam(net, p, method, target, layer=layer) for p in PHOTOS for target in (2, None)
    ]
    for one, other in zip(found, expected, strict=True):
        assert (one.image, one.target) == (other.image, other.target)
        how = {"engine"} if device == "cuda" else set()  # several images are worth another one
        assert {k: v for k, v in one.parameters.items() if k not in how} == {
            k: v for k, v in other.parameters.items() if k not in how
        }
        scale = np.abs(other.raw).max()
        np.testing.assert_allclose(one.raw / scale, other.raw / scale, atol=2e-5)
        np.testing.assert_allclose(one.saliency, other.saliency, atol=1e-4)


@pytest.mark.parametrize("target", [None, 1])
def test_guided_gradients_of_several_images_are_those_of_each(target):
    net = classifier()
    expected = [guided_backprop(net, photo, target) for photo in PHOTOS]
    views = net.input_tensor(np.stack([net.view(photo).pixels for photo in PHOTOS]))
    together = gradient.guided_gradients(net, views, target).movedim(1, -1)
    np.testing.assert_allclose(together, np.stack(expected), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.stack(list(guided_backprops(net, PHOTOS, target))), expected)


@pytest.mark.parametrize("targets", [1, 3])
def test_the_ridge_is_scikit_learn_s(targets):
    rng = np.random.default_rng(0)
    counts = [9, 14, 12]
    data = [rng.integers(0, 2, (50, count)) for count in counts]
    data[1] = data[1][:30]  # fewer samples than the others
    scores = [rng.random((len(rows), targets)) for rows in data]
    scores[2][:] = 0.25  # nothing to explain
    near = [rng.random(len(rows)) for rows in data]
    rows = torch.from_numpy(lime_engine.padded(data))
    values = torch.zeros(3, 50, targets, dtype=torch.float64)
    weight = torch.zeros(3, 50, dtype=torch.float64)
    for image in range(3):
        values[image, : len(data[image])] = torch.from_numpy(scores[image])
        weight[image, : len(data[image])] = torch.from_numpy(near[image])
    weights, intercepts, fits = lime_engine.fit(rows, values, weight)
    for image in range(3):
        for target in range(targets):
            peer = Ridge(alpha=1).fit(data[image], scores[image][:, target], near[image])
            ours = weights[image, target, : counts[image]]
            np.testing.assert_allclose(ours, peer.coef_, rtol=1e-9, atol=1e-15)
            assert not weights[image, target, counts[image] :].any()
            assert float(intercepts[image, target]) == pytest.approx(peer.intercept_)
            if image < 2:
                score = peer.score(data[image], scores[image][:, target], near[image])
                assert float(fits[image, target]) == pytest.approx(score)


def test_results_come_in_order_and_failures_in_their_places(tmp_path):
    folder = photographs_in(tmp_path / "photographs", 4)
    (folder / "p01b.png").write_bytes(b"no picture")
    names = [folder / "p03.png", folder / "p00.png", folder / "p01b.png", "nonesuch", folder]
    options = {"num_samples": 20, "segments": "slic"}
    found = list(explain_many(classifier(), names, ["lime", "gradcam"], **options))
    told = [one.source if isinstance(one, Failure) else (one.image, one.method) for one in found]
    broken = str(folder / "p01b.png")
    expected = []
    for name in ("p03", "p00", broken, "nonesuch", "p01", broken, "p02"):
        whole = name in (broken, "nonesuch")
        expected += [name] if whole else [(name, "lime"), (name, "gradcam")]
    assert told == expected


@pytest.mark.parametrize("group", [1, 3])
def test_one_image_that_fails_does_not_take_others_with_it(monkeypatch, group):
    """Its scores are not finite."""
    net = classifier()
    bad = from_array(np.zeros((32, 32, 3), np.uint8), "black")

    def broken(_module, inputs, output):
        black = inputs[0].flatten(1).amax(1) == inputs[0].flatten(1).amin(1)
        dark = inputs[0].flatten(1).amax(1) < -1
        return torch.where((black | dark)[:, None], torch.nan, output)

    handle = net.module.register_forward_hook(broken)
    images = [PHOTOS[0], bad, Failure("gone.png", "images: gone"), PHOTOS[1]]
    explainers = [Cam(net, "gradcam"), Cam(net, "ablationcam"), Lime(net, **LIME)]
    items = list(stream(net, images, explainers, group=group))
    handle.remove()
    assert [isinstance(item.image, Failure) for item in items] == [False, False, True, False]
    for outcome in items[1].found:
        assert isinstance(outcome, InputError)
        assert "not finite" in str(outcome)
    assert items[2].found == ()
    for item in (items[0], items[3]):
        assert [found[0].image for found in item.found] == [item.image.id] * 3


def test_images_are_read_a_few_ahead_and_no_more(monkeypatch):
    read = []

    def images():
        for photo in PHOTOS * 10:
            read.append(photo.id)
            yield photo

    found = explain_many(classifier(), images(), ["gradcam"])
    for number in range(20):
        next(found)
        assert len(read) <= number + 8
    found.close()  # ends its threads


def test_an_image_set_keeps_what_it_would_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "HELD_BYTES", 1)
    photographs = load_images(photographs_in(tmp_path / "photographs", 3))
    (tmp_path / "photographs" / "p01.png").write_bytes(b"changed")
    found = list(explain_many(classifier(), photographs, ["gradcam"]))
    assert [getattr(one, "image", "failed") for one in found] == ["p00", "failed", "p02"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "methods: the list is empty"),
        ({"methods": ["lime", "gradcan"]}, "methods: unknown name 'gradcan'"),
        ({"smaples": 3}, "option: unknown name 'smaples'.*num_samples"),
        ({"num_samples": 3}, "num_samples: 3"),
        ({"methods": ["gradcam"], "num_samples": 30}, "option: unknown name 'num_samples'"),
        ({"target": CATEGORIES}, "target: index 5"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_read(arguments, message):
    def images():
        pytest.fail("an image was read")
        yield

    with pytest.raises(InputError, match=message):
        explain_many(classifier(), images(), **arguments)


def test_batches_are_full_across_images(monkeypatch):
    net, sizes = classifier(), []
    original = Classifier.forward_batches

    def recorded(self, make, count, **options):
        def counted(start, stop):
            sizes.append(stop - start)
            return make(start, stop)

        return original(self, counted, count, **options)

    monkeypatch.setattr(Classifier, "forward_batches", recorded)
    before = passes()
    found = together(Lime(net, **{**LIME, "batch_size": 32}), 5)
    assert len(found) == 5
    assert set(sizes[-9:-1]) == {32}
    assert sum(size == 32 for size in sizes) >= 8
    assert (passes() - before).made <= 5 * 61


def staged(explainer):
    views = [Seen(photo, explainer.classifier.view(photo)) for photo in PHOTOS]
    return explainer.stage(views, [explainer.prepare(view) for view in views])


def test_no_result_is_fetched_before_all_is_queued(monkeypatch):
    """`start` neither reads a number nor copies to the host: the device is never waited for."""
    net = classifier()
    seen = []
    for name in ("cpu", "item", "numpy", "tolist", "__float__", "__int__", "__bool__", "nonzero"):
        original = getattr(torch.Tensor, name)

        def noted(self, *args, name=name, original=original, **kwargs):
            seen.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, noted)
    monkeypatch.setattr(Classifier, "check_finite", lambda *_: None)  # not asked on a GPU
    for explainer in (Lime(net, **LIME), Cam(net, "gradcam"), Cam(net, "layercam")):
        explainer.together = True
        ready = staged(explainer)
        seen.clear()
        started = explainer.start(ready)
        assert not seen
        explainer.finish(started)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", ["lime", "gradcam", "layercam"])
def test_nothing_waits_for_the_card(method):
    net = classifier(device="cuda")
    explainer = Lime(net, **LIME) if method == "lime" else Cam(net, method)
    for warm in (True, False):
        ready = staged(explainer)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("default" if warm else "error")
        try:
            started = explainer.start(ready)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        explainer.finish(started)
