"""The measures against their literal definitions, unit by unit, in double precision."""

import numpy as np
import pytest
import torch

from xailib.dissect import evidence
from xailib.dissect.evidence import product
from xailib.dissect.similarity import (
    MEASURES,
    cos_similarity,
    cos_similarity_cubed,
    rank_reorder,
    soft_wpmi,
    top_images,
    wpmi,
)
from xailib.errors import InputError


def tables(probe=60, units=7, concepts=11, dimensions=8, seed=0):
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(probe, dimensions)), rng.normal(size=(concepts, dimensions))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    activations = rng.normal(size=(probe, units)).astype(np.float32)
    return images.astype(np.float32), texts.astype(np.float32), activations


def literal_soft_wpmi(similarity, activations, top_k, a, lam, min_prob, p_start, p_end):
    weights = np.exp(a * similarity.astype(np.float64))
    probability = weights / weights.sum(1, keepdims=True)
    evidence = np.zeros((activations.shape[1], similarity.shape[1]))
    for unit in range(activations.shape[1]):
        for j, image in enumerate(np.argsort(-activations[:, unit])[:top_k]):
            p = p_start - j / top_k * (p_start - p_end)
            evidence[unit] += np.log(1 + p * (probability[image] - 1) + min_prob)
    return evidence - lam * np.log(np.exp(evidence).mean(0))


@pytest.mark.parametrize("given", ["matrix", "embeddings"])
@pytest.mark.parametrize(
    ("top_k", "lam", "a", "sizes"),
    [
        (5, 1.0, 10.0, {}),
        (20, 0.3, 2.0, {}),
        (60, 1.0, 10.0, {}),
        (1, 0.0, 1.0, {}),
        (100, 1.0, 10.0, {"probe": 700, "units": 90, "concepts": 40}),  # many blocks
    ],
)
def test_soft_wpmi_is_its_definition(given, top_k, lam, a, sizes):
    images, texts, activations = tables(**sizes)
    similarity = images @ texts.T
    expected = literal_soft_wpmi(similarity, activations, top_k, a, lam, 1e-7, 0.998, 0.97)
    one = similarity if given == "matrix" else product(images, texts, "cpu")
    found = soft_wpmi(one, activations, top_k=top_k, a=a, lam=lam)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("threads", [2, 3, 100])
def test_any_number_of_threads_gives_the_same_bytes(threads):
    images, texts, activations = tables(probe=700, units=5, concepts=40)
    similarity, before = images @ texts.T, torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = soft_wpmi(similarity, activations)
        torch.set_num_threads(threads)
        with torch.inference_mode():  # which the other threads are not in
            together = soft_wpmi(similarity, activations)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)


def test_wpmi_is_its_definition():
    images, texts, activations = tables()
    similarity = images @ texts.T
    expected = literal_soft_wpmi(similarity, activations, 28, 2, 0.6, 1e-7, 1.0, 1.0)
    np.testing.assert_allclose(wpmi(similarity, activations), expected, rtol=1e-4)


def test_layers_together_are_as_if_measured_apart():
    images, texts, activations = tables()
    cosines = product(images, texts, "cpu")
    layers = {"one": activations[:, :3], "other": activations[:, 3:]}
    together = soft_wpmi(cosines, layers, top_k=5)
    apart = [soft_wpmi(cosines, layer, top_k=5) for layer in layers.values()]
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("power", [1, 3])
def test_cosines_are_their_definition(power):
    images, texts, activations = tables()
    similarity = images @ texts.T
    s, t = similarity.astype(float), activations.astype(float)
    if power == 3:
        s, t = (s - s.mean(0)) ** 3, (t - t.mean(0)) ** 3
    expected = np.array([[u @ c / np.linalg.norm(u) / np.linalg.norm(c) for c in s.T] for u in t.T])
    compare = cos_similarity if power == 1 else cos_similarity_cubed
    np.testing.assert_allclose(compare(similarity, activations), expected, atol=1e-5)
    np.testing.assert_allclose(
        compare(product(images, texts, "cpu"), activations), expected, atol=1e-5
    )


def test_rank_reorder_is_its_definition():
    images, texts, activations = tables(probe=200)
    similarity = np.abs(images @ texts.T)
    count, expected = 20, np.empty((7, 11))
    for unit in range(7):
        order = np.argsort(-activations[:, unit])[:count]
        target = activations[order, unit].astype(float)
        baseline = np.mean([abs(x - y) ** 3 for x in target for y in target])
        for concept in range(11):
            seen = similarity[order, concept]
            reordered = np.empty(count)
            reordered[np.argsort(seen)] = np.sort(target)
            error = np.mean(np.abs(target - reordered) ** 3)
            expected[unit, concept] = -error / baseline / np.sqrt(seen.mean())
    found = rank_reorder(similarity, activations, top_fraction=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("name", MEASURES)
def test_what_cannot_be_compared_is_refused(name):
    images, texts, activations = tables()
    similarity = images @ texts.T
    options = {"top_k": 5} if "wpmi" in name else {}
    activations[:, 1] = 0  # dead
    assert MEASURES[name](similarity, activations, **options).isfinite().all()
    with pytest.raises(InputError, match="of 59 probe images, but the similarity is of 60"):
        MEASURES[name](similarity, activations[:-1], **options)
    activations[3, 2] = np.nan
    with pytest.raises(InputError, match="unit 2 has values that are not finite"):
        MEASURES[name](similarity, activations, **options)
    with pytest.raises(InputError, match="no layer is given"):
        MEASURES[name](similarity, {}, **options)
    if name == "rank_reorder":
        with pytest.raises(InputError, match=r"top_fraction: 0\.01 of 60 probe images is 0"):
            MEASURES[name](similarity, tables()[2], top_fraction=0.01)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("probe", "count"), [(1007, 5), (1007, 250), (64, 64), (7, 1)])
def test_top_images_are_a_stable_sort_with_equals_and_dead_units(probe, count, dtype):
    """So long that maxima of groups bound what is sorted, also behind the last whole group."""
    rng = np.random.default_rng(1)
    values = np.maximum(np.round(rng.normal(size=(probe, 70)) * 4), 0).astype(dtype)
    values[::5] *= -0.0
    values[:, 3] = 0
    values[:, 4] = -np.arange(probe)
    values[:, 5] = np.arange(probe)  # its greatest are the last
    expected = np.argsort(-values.astype(float), axis=0, kind="stable")[:count]
    np.testing.assert_array_equal(top_images(values, count), expected)


@pytest.mark.parametrize("free", [2**30, 700 * 9, 1], ids=["whole", "9 concepts", "1 concept"])
@pytest.mark.parametrize("group", [2**22, 100])
@pytest.mark.parametrize("measure", [soft_wpmi, wpmi])
def test_what_a_gpu_does_is_the_definition(monkeypatch, free, group, measure):
    """On the CPU's tensors: rank by rank, all concepts at once or some, all units or some."""
    images, texts, activations = tables(probe=700, units=90, concepts=40)
    texts[3] = images[np.argmax(activations[:, 5])]  # a probability near one
    cosines = product(images, texts, "cpu")
    expected = measure(cosines, activations, a=100.0)
    monkeypatch.setattr(evidence, "_by_visits", evidence._by_ranks)
    monkeypatch.setattr(evidence, "_free_numbers", lambda device: free)
    monkeypatch.setattr(evidence, "_GROUP", group)
    found = measure(cosines, activations, a=100.0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MEASURES)
def test_a_gpu_gives_the_cpus_labels(name):
    images, texts, activations = tables(probe=3000, units=70, concepts=500, dimensions=64)
    options = {"top_fraction": 0.02} if name == "rank_reorder" else {}
    one, other = (
        MEASURES[name](product(images, texts, place), activations, **options).cpu()
        for place in ("cpu", "cuda")
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert (one.argmax(1) == other.argmax(1)).float().mean() > 0.97  # but for near equals
    np.testing.assert_array_equal(
        top_images(torch.from_numpy(activations).cuda(), 100).cpu(), top_images(activations, 100)
    )
