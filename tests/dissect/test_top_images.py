"""Top images and labels over blocks against the same from everything at once."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from xailib.dissect.concepts import from_names
from xailib.dissect.evidence import product
from xailib.dissect.label import label_units
from xailib.dissect.similarity import soft_wpmi, top_images
from xailib.dissect.top_images import RunningTop, label_tops, soft_wpmi_of_tops
from xailib.errors import InputError

PROBE, COUNT = 120, 7
# Where blocks begin and end, also smaller than the count and of one image.
CUTS = [(0, 120), (0, 5, 6, 60, 118, 120), (0, 40, 80, 120)]


def activations(units, seed):
    """As of a ReLU in half precision: many zeros, many equals."""
    values = np.random.default_rng(seed).normal(size=(PROBE, units)).round(1)
    return np.maximum(values, 0).astype(np.float16)


def shown(values, cuts):
    return RunningTop.of((values[start:stop] for start, stop in pairwise(cuts)), COUNT)


def unit_rows(count, seed):
    rows = np.random.default_rng(seed).normal(size=(count, 9)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("cuts", CUTS)
def test_the_running_top_is_that_of_the_whole(cuts):
    values = activations(11, 0)
    top = shown(values, cuts)
    assert (top.images == top_images(values, COUNT)).all()
    literal = np.lexsort((np.arange(PROBE)[:, None] + 0 * values, -values), axis=0)[:COUNT]
    assert (top.images.numpy() == literal).all()
    assert (top.values.numpy() == np.take_along_axis(values, literal, axis=0)).all()
    assert top.seen == PROBE


@pytest.mark.parametrize("cuts", CUTS)
def test_soft_wpmi_over_blocks_is_that_of_one(cuts):
    layers = [activations(6, 2), activations(13, 3)]
    images, texts = unit_rows(PROBE, 4), unit_rows(30, 5)
    asked = []

    def rows(index):
        asked.extend(index)
        return images[index]

    found = soft_wpmi_of_tops([shown(v, cuts) for v in layers], rows, texts, lam=0.9)
    whole = soft_wpmi(product(images, texts, "cpu"), layers, top_k=COUNT, lam=0.9)
    np.testing.assert_array_equal(found, whole)
    assert asked == sorted({int(i) for v in layers for i in top_images(v, COUNT).flatten()})


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize(("top_k", "top_count"), [(COUNT, 3), (2, COUNT)])
def test_the_table_over_blocks_is_that_of_the_whole(cuts, top_k, top_count):
    layers = {"a": activations(6, 2), "b": activations(13, 3)}
    layers["a"][:, 2] = 0  # dead
    layers["b"][:, 4] = 0
    layers["b"][7, 4] = 1  # nearly
    images, texts = unit_rows(PROBE, 4), unit_rows(30, 5)
    concepts = from_names([f"word {n}" for n in range(30)], "a test")
    names = [f"image {n}" for n in range(PROBE)]
    options = {"top_k": top_k, "top_count": top_count}
    found = label_tops(
        {layer: shown(values, cuts) for layer, values in layers.items()},
        lambda index: images[index],
        lambda index: [names[n] for n in index],
        texts,
        concepts,
        **options,
    )
    whole = label_units(layers, images, texts, concepts, ids=names, **options)
    pd.testing.assert_frame_equal(found, whole, check_exact=True)
    assert found["dead"].sum() == 1


def test_what_does_not_fit_is_refused():
    values = activations(3, 6)
    with pytest.raises(InputError, match="count: 0"):
        RunningTop(0)
    top = shown(values, (0, 60))
    with pytest.raises(InputError, match="2 units, not 3"):
        top.add(values[60:, :2])
    with pytest.raises(InputError, match="not all are finite from image 60 on"):
        top.add(np.full((2, 3), np.nan, np.float16))
    for count in (0, COUNT + 1):
        with pytest.raises(InputError, match="between 1 and the 7"):
            top.first(count)
    with pytest.raises(InputError, match="same images"):
        soft_wpmi_of_tops([top, shown(values, (0, 120))], np.take, unit_rows(3, 7))
    with pytest.raises(InputError, match="7 images are to be stored of 5"):
        soft_wpmi_of_tops([shown(values, (0, 5))], np.take, unit_rows(3, 7))
