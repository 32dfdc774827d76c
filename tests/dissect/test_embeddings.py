"""Recorded embeddings: what the encoder gives, used again, never another's."""

import nets
import numpy as np
import pytest

from xailib.dissect.activations import record_embeddings
from xailib.errors import InputError
from xailib.images.probe import load_probe


class Colours(nets.Colours):
    """It counts what it is shown."""

    def __init__(self):
        self.shown = []

    def encode_images(self, pictures):
        pictures = list(pictures)
        self.shown += [picture.id for picture in pictures]
        return super().encode_images(pictures)


@pytest.fixture
def probe(tmp_path):
    return load_probe(nets.photographs_in(tmp_path / "pictures", 40))


def test_rows_are_the_encoders_and_are_made_once(tmp_path, probe):
    encoder = Colours()
    first = record_embeddings(encoder, probe, folder=tmp_path / "a")["embeddings"]
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, Colours().encode_images(probe))
    assert encoder.shown == list(probe.ids)
    again = record_embeddings(encoder, probe, folder=tmp_path / "a")["embeddings"]
    np.testing.assert_array_equal(first, again)
    assert len(encoder.shown) == len(probe)  # not one image was shown again


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
