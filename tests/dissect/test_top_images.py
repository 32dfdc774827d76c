"""Top images and labels over blocks against the same from everything at once."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from xailib.dissect.concepts import from_names
from xailib.dissect.label import label_units
from xailib.dissect.similarity import top_images
from xailib.dissect.top_images import label_tops, running_top

PROBE, COUNT = 120, 7
# Where blocks begin and end, also smaller than the count and of one image.
CUTS = [(0, 120), (0, 5, 6, 60, 118, 120), (0, 40, 80, 120)]


def activations(units, seed):
    """As of a ReLU in half precision: many zeros, many equals."""
    values = np.random.default_rng(seed).normal(size=(PROBE, units)).round(1)
    return np.maximum(values, 0).astype(np.float16)


def shown(values, cuts):
    return running_top((values[start:stop] for start, stop in pairwise(cuts)), COUNT)


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
    options = {"top_k": top_k, "top_count": top_count, "device": "cpu"}
    asked = []

    def rows(index):
        asked.extend(index)
        return images[index]

    tops = {layer: shown(values, cuts) for layer, values in layers.items()}
    found = label_tops(
        tops, rows, lambda index: [names[n] for n in index], texts, concepts, **options
    )
    needed = torch.cat([top.images[:top_k].flatten() for top in tops.values()])
    assert asked == needed.unique().tolist()
    whole = label_units(layers, images, texts, concepts, ids=names, **options)
    pd.testing.assert_frame_equal(found, whole, check_exact=True)
    assert found["dead"].sum() == 1
