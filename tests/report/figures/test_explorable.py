"""What the page computes by itself, in a browser without a network, is what Python computes."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from faults_table import shown as told
from nets import CATEGORIES, Plain, Skipping, classifier, photograph
from sklearn.linear_model import Ridge

from xailib.compare.chance import chance_iou
from xailib.compare.masks import area_mask, lime_mask
from xailib.errors import InputError
from xailib.explain.cam.methods import Cam
from xailib.explain.lime import explain_lime, explain_lime_targets
from xailib.explain.stream import explain_alone
from xailib.images.load import ImageSet, load_images
from xailib.networks.classifier import load_classifier
from xailib.report.figures.live import NETWORK, explorable
from xailib.report.run.results import start_run

pytestmark = pytest.mark.site
PHOTOGRAPHS = [
    "bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper",
    "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum",
]  # fmt: skip
METHODS = ("gradcam", "ablationcam")
LIME = {"num_samples": 20, "segments": "slic"}


@pytest.fixture
def offline(browser):
    """A page with the scripts, opened from the disk, and no network."""
    context = browser.new_context(offline=True)

    def opened(folder):
        scripts = [ROOT / "book" / "_static" / name for name in ("elements.js", "live.js")]
        tags = "".join(f'<script src="{file.as_uri()}"></script>' for file in scripts)
        (folder / "page.html").write_text(f"<!doctype html><title>live</title>{tags}")
        page = context.new_page()
        page.goto((folder / "page.html").as_uri())
        return page

    yield opened
    context.close()


def computed(page, one, body, given=None):
    """What JavaScript returns that has a photograph's data at hand, and the network's if any."""
    code = """async ([source, name, network, given]) => {
        const { live } = xailib, shown = await live.load(source, name), { lime } = shown;
        const shared = network && await live.load(network, "network");
        return BODY; }"""
    own = [one.photograph, re.sub(r".*/|-live\.js", "", one.photograph)]
    return page.evaluate(code.replace("BODY", body), [*own, one.network, given])


def written(folder, net, photographs, **options):
    limes = [explain_lime(net, one, **{**LIME, **options}) for one in photographs]
    run = start_run(folder, "10_explore", {}, ImageSet(()))
    return limes, explorable(run, net, photographs, limes)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    net = load_classifier("tf_efficientnet_lite0", device="cpu")
    folder = tmp_path_factory.mktemp("real")
    photographs = list(load_images(PHOTOGRAPHS))
    return net, folder, photographs, *written(folder, net, photographs)


def test_maps_of_any_class_are_those_of_python(offline, real):
    net, folder, photographs, _, files = real
    page, rng = offline(folder), np.random.default_rng(0)
    for one, live in zip(photographs, files, strict=True):
        classes = [int(c) for c in rng.choice(len(net.class_names), 12, replace=False)]
        body = """given.methods.map((method) => given.classes.map((c) => {
            const raw = live.heatmap(method, shown, shared, c);
            const some = live.saliency(raw, shown.size).filter((_, i) => i % 13 === 0);
            return [Array.from(raw.values), Array.from(some), live.probability(shown, c)]; }))"""
        found = computed(page, live, body, {"classes": classes, "methods": METHODS})
        for method, rows in zip(METHODS, found, strict=True):
            expected = explain_alone(net, one, Cam(net, method, classes))
            for (raw, shown, probability), cam in zip(rows, expected, strict=True):
                span = np.ptp(cam.raw)
                assert np.abs(np.reshape(raw, cam.raw.shape) - cam.raw).max() < 1e-3 * span
                assert probability == pytest.approx(cam.probability, abs=1e-5)
                # Where clipping leaves little of a map, scaling enlarges its error.
                error = np.abs(shown - cam.saliency.ravel()[::13]).max()
                assert error * max(cam.raw.max(), 0) < 1e-3 * span
                assert cam.raw.max() > 0 or not np.any(shown)


@pytest.mark.parametrize("outputs", ["logits", "multilabel"])
def test_maps_of_a_small_network_with_few_or_independent_classes(offline, tmp_path, outputs):
    net, one = replace(classifier(Plain), outputs=outputs), photograph()
    _, (live,) = written(tmp_path, net, [one])
    body = """Array.from({ length: given }, (_, c) => [live.probability(shown, c),
        Array.from(live.heatmap("ablationcam", shown, shared, c).values)])"""
    found = computed(offline(tmp_path), live, body, CATEGORIES)
    expected = explain_alone(net, one, Cam(net, "ablationcam", range(CATEGORIES)))
    for (probability, raw), cam in zip(found, expected, strict=True):
        assert probability == pytest.approx(cam.probability, abs=1e-5)
        error = np.abs(np.reshape(raw, cam.raw.shape) - cam.raw).max()
        assert error < 1e-3 * np.ptp(cam.raw)


def test_linear_models_of_likely_classes_are_those_of_lime(offline, real):
    net, folder, photographs, _, files = real
    page = offline(folder)
    for one, live in list(zip(photographs, files, strict=True))[:3]:
        body = "lime.classes.map(([c], column) => [c, Array.from(live.ridge(lime, column))])"
        found = computed(page, live, body)
        classes = [index for index, _ in found]
        assert classes == [likely.index for likely in net.predict(one, top=20)]
        expected = explain_lime_targets(net, one, classes, **LIME)
        for (_, weights), theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(weights, theirs.superpixels.weights, atol=1e-4)


def test_fewer_samples_another_width_and_resampling(offline, tmp_path):
    net, one = classifier(Plain), photograph()
    options = {**LIME, "num_samples": 80, "design": "antithetic"}
    (_,), (live,) = written(tmp_path, net, [one], **options)
    body = """((counts) => [
        Array.from(live.ridge(lime, 2, { count: 50, width: 0.4 })), Array.from(counts),
        Array.from(live.ridge(lime, 2, { count: 60, counts }))
        ])(live.resampled(lime, 60, live.generator(3)))"""
    found = computed(offline(tmp_path), live, body)
    parts = explain_lime(net, one, net.predict(one)[2].index, **options).superpixels
    counts = np.array(found[1])
    assert counts[:2].tolist() == [1, 1]  # the whole image, and what was drawn with it
    assert counts.sum() == 60
    assert (counts[::2] == counts[1::2]).all()
    for weights, count, width, times in ((found[0], 50, 0.4, 1), (found[2], 60, 0.25, counts)):
        shown = parts.shown[:count]
        near = np.exp(-((1 - np.sqrt(shown.mean(axis=1))) ** 2) / width**2 / 2) * times
        expected = Ridge(alpha=1).fit(shown, parts.scores[:count], near).coef_
        np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_masks_and_their_chance_level(offline, real):
    _, folder, _, limes, files = real
    live, lime = files[1], limes[1]
    values = np.random.default_rng(4).permutation(lime.saliency.size).astype(np.float32)
    body = """((mask, cut) => [Array.from(mask), Array.from(cut), live.iou(mask, cut),
        live.chance(9000, 120, 50176), live.chance(40000, 30000, 50176),
        live.area(live.areaMask(new Float64Array(1000), 123)), live.chance(0, 0, 9)
        ])(live.limeMask(lime, live.supporters(live.ridge(lime, 0), 7)),
            live.areaMask(Float64Array.from(given), 9000))"""
    found = computed(offline(folder), live, body, values.tolist())
    mask = lime_mask(lime, 7, "positive") != 0
    cut = area_mask(values.reshape(lime.saliency.shape), 9000)
    assert (np.reshape(found[0], mask.shape) == mask).all()
    assert (np.reshape(found[1], cut.shape) == cut).all()
    assert found[2] == pytest.approx((mask & cut).sum() / (mask | cut).sum())
    assert found[3] == pytest.approx(chance_iou(9000, 120, 50176))
    assert found[4] == pytest.approx(chance_iou(40000, 30000, 50176))
    assert found[5] == 123
    assert np.isnan(found[6])


def test_files_are_small(real):
    _, folder, _, _, files = real
    assert {live.network for live in files} == {NETWORK}
    assert (folder / NETWORK).stat().st_size < 3e6
    for live in files:
        assert (folder / live.photograph).stat().st_size < 500_000


def test_without_pool_and_linear_only_lime_is_live(tmp_path):
    net = classifier(Skipping)
    _, (live,) = written(tmp_path, net, [photograph()])
    assert live.network == ""
    assert live.why.startswith("Only LIME is live.")
    text = (tmp_path / live.photograph).read_text()
    entries = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert len(entries["lime"]["classes"]) == CATEGORIES
    assert "levels" not in entries
    assert not (tmp_path / NETWORK).exists()


def test_another_network_is_refused(tmp_path):
    lime = explain_lime(classifier(Skipping), photograph(), **LIME)
    run = start_run(tmp_path, "10_explore", {}, ImageSet(()))
    with pytest.raises(InputError, match=told("live_other_network")):
        explorable(run, classifier(Plain), [photograph()], [lime])


def test_probabilities_of_samples_are_stored(tmp_path, monkeypatch):
    net = classifier(Plain)
    _, (first,) = written(tmp_path, net, [photograph()])
    text = (tmp_path / first.photograph).read_text()
    monkeypatch.setattr("xailib.report.figures.live._scored", None)  # no more passes
    _, (again,) = written(tmp_path, net, [photograph()])
    assert (tmp_path / again.photograph).read_text() == text
