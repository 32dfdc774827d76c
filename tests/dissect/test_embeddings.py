"""Recorded embeddings: what the encoder gives, used again, resumed, never another's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import nets
import numpy as np
import pytest
from conftest import ROOT

from xailib.dissect import blocks
from xailib.dissect.activations import record_activations, record_embeddings
from xailib.dissect.concepts import from_names
from xailib.dissect.label import label_units
from xailib.errors import InputError
from xailib.images.probe import load_probe


class Colours(nets.Colours):
    """It counts what it is shown."""

    def __init__(self, fails_after=1000):
        self.shown, self.fails_after = [], fails_after

    def encode_images(self, pictures):
        pictures = list(pictures)
        if len(self.shown) + len(pictures) > self.fails_after:
            raise KeyboardInterrupt
        self.shown += [picture.id for picture in pictures]
        return super().encode_images(pictures)


@pytest.fixture
def probe(tmp_path):
    return load_probe(nets.photographs_in(tmp_path / "pictures", 40))


@pytest.fixture
def short(monkeypatch):
    """Blocks of 16 images."""
    monkeypatch.setattr(blocks, "IMAGES", 16)


def test_rows_are_the_encoders_and_are_made_once(tmp_path, probe):
    encoder = Colours()
    first = record_embeddings(encoder, probe, folder=tmp_path / "a")["embeddings"]
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, Colours().encode_images(probe))
    assert encoder.shown == list(probe.ids)
    again = record_embeddings(encoder, probe, folder=tmp_path / "a")["embeddings"]
    np.testing.assert_array_equal(first, again)
    assert len(encoder.shown) == len(probe)  # not one image was shown again


def test_another_layer_or_measure_shows_the_encoder_nothing_again(tmp_path, probe):
    encoder, net = Colours(), nets.classifier()
    concepts = from_names(["red", "green", "blue"], "a test")
    texts = encoder.encode_texts(concepts.names)
    for number, (layer, measure, options) in enumerate(
        [("body", "soft_wpmi", {"top_k": 5}), ("fc", "cos_similarity_cubed", {})]
    ):
        images = record_embeddings(encoder, probe, folder=tmp_path / "images")["embeddings"]
        recorded = record_activations(net, [layer], probe, folder=tmp_path / str(number))
        table = label_units(recorded, images, texts, concepts, measure=measure, **options)
        assert len(table) == recorded[layer].shape[1]
    assert len(encoder.shown) == len(probe)


def test_an_interrupted_recording_goes_on_at_its_first_missing_block(tmp_path, probe, short):
    with pytest.raises(KeyboardInterrupt):
        record_embeddings(Colours(fails_after=35), probe, folder=tmp_path)
    encoder = Colours()
    found = record_embeddings(encoder, probe, folder=tmp_path)["embeddings"]
    assert encoder.shown == list(probe.ids[32:])  # two blocks of 16 were whole
    np.testing.assert_array_equal(found, Colours().encode_images(probe))


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_embeddings import Colours
from xailib.dissect import blocks
from xailib.dissect.activations import record_embeddings
from xailib.images.probe import load_probe
blocks.IMAGES = 16
class Killed(Colours):
    def encode_images(self, pictures):
        if self.shown:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_images(pictures)
record_embeddings(Killed(), load_probe(sys.argv[2]), folder=sys.argv[3])
"""


def test_a_kill_loses_no_whole_block(tmp_path, probe, short):
    pictures = Path(probe.images[0].file).parent
    words = [str(Path(__file__).parent), str(pictures), str(tmp_path / "a")]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    encoder = Colours()
    record_embeddings(encoder, probe, folder=tmp_path / "a")
    assert encoder.shown == list(probe.ids[16:])


def test_a_part_is_a_block_of_the_whole(tmp_path, probe, short):
    part = record_embeddings(Colours(), probe.part(16, 32), folder=tmp_path)["embeddings"]
    encoder = Colours()
    found = record_embeddings(encoder, probe, folder=tmp_path)["embeddings"]
    assert encoder.shown == [*probe.ids[:16], *probe.ids[32:]]
    np.testing.assert_array_equal(found, Colours().encode_images(probe))
    np.testing.assert_array_equal(found[16:32], part)


def test_anothers_embeddings_are_never_used(tmp_path, probe):
    record_embeddings(Colours(), probe, folder=tmp_path)
    other = Colours()
    other.sha256 = "1" * 64
    record_embeddings(other, probe, folder=tmp_path)
    assert other.shown == list(probe.ids)
    fewer, encoder = load_probe([image.file for image in probe.images[:-1]]), Colours()
    assert record_embeddings(encoder, fewer, folder=tmp_path).ids == fewer.ids
    assert encoder.shown == list(fewer.ids)


def test_rows_that_are_not_finite_name_their_image(tmp_path, probe):
    class Broken(Colours):
        def encode_images(self, pictures):
            rows = super().encode_images(pictures)
            rows[3] = np.nan
            return rows

    with pytest.raises(InputError, match="not finite for the image 'p03'"):
        record_embeddings(Broken(), probe, folder=tmp_path / "a")
