"""Crops made ahead by processes: those of one process, in order, and what goes wrong on the way."""

import os
import shutil
import signal
from collections import namedtuple
from itertools import islice

import nets
import numpy as np
import pytest
import torch
from PIL import Image

from xailib.dissect.activations import record_activations
from xailib.errors import InputError, UnavailableError
from xailib.images import pool
from xailib.images.pool import crops, workers_for
from xailib.images.probe import load_probe

CUT = nets.classifier().preprocessing.crop
CPU = torch.device("cpu")


@pytest.fixture
def probe(tmp_path):
    """Ten photographs of other sizes than the network's, with three parts of each."""
    rng = np.random.default_rng(0)
    for number in range(10):
        pixels = rng.integers(0, 256, (40 + number, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"p{number}.jpg")
    return load_probe(tmp_path, crops=3)


@pytest.mark.parametrize("start", [0, 5, 39, 40])
@pytest.mark.parametrize(("workers", "chunk"), [(1, 16), (2, 3), (2, 1)])
def test_processes_give_what_one_gives(monkeypatch, probe, start, workers, chunk):
    monkeypatch.setattr(pool, "_CHUNK", chunk)
    alone, together = (
        list(crops(probe.part(start, len(probe)), CUT, CPU, n)) for n in (0, workers)
    )
    assert [one.id for one in together] == [one.id for one in alone] == list(probe.ids[start:])
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_user_s_own_transform_need_not_be_sent(probe):
    found = list(crops(probe, lambda pixels: CUT(pixels)[:, ::-1], CPU, 2))
    np.testing.assert_array_equal(
        found[3].pixels[:, ::-1], CUT(probe.photograph(found[3].id).pixels)
    )


def test_little_shared_memory_means_smaller_chunks(monkeypatch, probe):
    usage = namedtuple("usage", "free")
    bytes_of_one = nets.SIDE**2 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2 * 3 * 2 * 2 * bytes_of_one))
    sizes, real = [], pool._loaded
    monkeypatch.setattr(
        pool, "_loaded", lambda chunks, n: (sizes.append(chunks.size), real(chunks, n))[1]
    )
    assert len(list(crops(probe, CUT, CPU, 2))) == 40
    assert sizes == [2]


def test_what_is_gone_is_one_line_after_what_was_before_it(probe):
    from pathlib import Path

    Path(probe.images[20].file).unlink()
    found = crops(probe, CUT, CPU, 2)
    assert [one.id for one in islice(found, 20)] == list(probe.ids[:20])
    with pytest.raises(InputError, match=r"^probe: .*p5.jpg' is gone: [^\n]*$"):
        next(found)


def test_a_process_that_is_killed_is_one_line(probe):
    def ending(pixels):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return CUT(pixels)

    parent = os.getpid()
    with pytest.raises(UnavailableError, match=r"^probe: a process that decodes[^\n]*$"):
        list(crops(probe, ending, CPU, 1))


def test_no_more_is_read_ahead_than_stated(monkeypatch, tmp_path, probe):
    def noting(pixels):
        (tmp_path / f"{os.getpid()}-{os.urandom(8).hex()}.seen").touch()
        return CUT(pixels)

    monkeypatch.setattr(pool, "_CHUNK", 1)
    found = crops(probe, noting, CPU, 2)
    next(found)
    del found
    # one here for its size; two chunks in waiting and one in work a process, and one handed over
    assert len(list(tmp_path.glob("*.seen"))) <= 1 + 2 * (pool._AHEAD + 1) + 1


def test_a_recording_is_the_same_with_processes(tmp_path, probe):
    net = nets.classifier()
    folders = [tmp_path / "alone", tmp_path / "together"]
    for workers, folder in zip((0, 2), folders, strict=True):
        record_activations(net, ["stem", "fc"], probe, folder=folder, workers=workers)
    one, other = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")} for folder in folders
    )
    assert one == other


def test_a_cpu_keeps_its_cores_for_the_network():
    assert workers_for(torch.device("cpu")) == 0
    cores = len(os.sched_getaffinity(0))
    assert workers_for(torch.device("cuda")) == min(cores - 1, 32)
