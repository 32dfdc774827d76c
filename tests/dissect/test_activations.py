"""Recording activations: what is recorded, and what a kill, a full disk or a change does."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

from xailib.dissect import activations
from xailib.dissect import blocks as recording
from xailib.dissect.activations import record_activations
from xailib.errors import InputError, StorageError
from xailib.images.probe import load_probe
from xailib.networks.layers import recorded

LAYERS = ["stem", "body", "fc"]


@pytest.fixture
def probe(tmp_path):
    return load_probe(nets.photographs_in(tmp_path / "pictures", 11))


def literal(classifier, layers, probe, pool):
    """One image at a time, the whole maps, pooled with NumPy."""
    rows = {name: [] for name in layers}
    for photograph in probe:
        view = classifier.view(photograph).pixels[None]
        with torch.inference_mode(), recorded(classifier.module, layers) as outputs:
            classifier.module(classifier.input_tensor(view))
        for name in layers:
            value = outputs[name][0].numpy()
            if value.ndim == 3:
                value = value.mean((1, 2)) if pool == "avg" else value.max((1, 2))
            rows[name].append(value)
    return {name: np.stack(values) for name, values in rows.items()}


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_are_the_pooled_outputs(tmp_path, probe, pool, dtype):
    net = nets.classifier()
    found = record_activations(
        net, LAYERS, probe, folder=tmp_path / "a", pool=pool, dtype=dtype, batch_size=4
    )
    assert list(found) == LAYERS
    assert found.ids == probe.ids
    tolerance = 2e-3 if dtype == "float16" else 1e-5
    for name, expected in literal(net, LAYERS, probe, pool).items():
        assert isinstance(found[name], np.memmap)
        assert found[name].dtype == dtype
        np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=tolerance)


def test_token_networks(tmp_path, probe):
    vit = nets.classifier(nets.vit)
    found = record_activations(vit, ["blocks.1"], probe, folder=tmp_path / "a", dtype="float32")
    tokens = literal(vit, ["blocks.1"], probe, "none")["blocks.1"]
    np.testing.assert_allclose(found["blocks.1"], tokens[:, 0], rtol=1e-4, atol=1e-5)

    swin = nets.classifier(nets.swin)  # units last: (images, height, width, units)
    found = record_activations(swin, ["layers.0"], probe, folder=tmp_path / "b", dtype="float32")
    view = swin.view(probe.photograph("p00")).pixels[None]
    with torch.inference_mode(), recorded(swin.module, ["layers.0"]) as outputs:
        swin.module(swin.input_tensor(view))
    expected = outputs["layers.0"][0].mean((0, 1))
    assert expected.shape == (12,)
    np.testing.assert_allclose(found["layers.0"][0], expected, rtol=1e-4, atol=1e-5)


def test_a_finished_recording_is_used_again(tmp_path, probe, monkeypatch):
    net = nets.classifier()
    first = record_activations(net, LAYERS, probe, folder=tmp_path / "a")
    monkeypatch.setattr(activations, "_pooled", None)  # a forward pass would fail
    again = record_activations(net, LAYERS, probe, folder=tmp_path / "a")
    np.testing.assert_array_equal(first["fc"], again["fc"])


def test_another_recording_is_never_used(tmp_path, probe):
    net = nets.classifier()
    folder = tmp_path / "a"
    record_activations(net, LAYERS, probe, folder=folder)
    other = load_probe([image.file for image in probe.images[:-1]])
    for changes, what in [
        ({"classifier": nets.classifier(seed=1)}, "classifier"),
        ({"layers": ["fc"]}, "layers"),
        ({"pool": "max"}, "pool"),
        ({"dtype": "float32"}, "dtype"),
        ({"probe": other}, "probe"),
    ]:
        given = {"classifier": net, "layers": LAYERS, "probe": probe, "folder": folder, **changes}
        with pytest.raises(InputError, match=rf"holds another recording: .*{what}"):
            record_activations(**given)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"is damaged: .*; delete the folder to record anew"):
        record_activations(net, LAYERS, probe, folder=folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="holds something else"):
        record_activations(net, LAYERS, probe, folder=folder)


@pytest.mark.parametrize("spoil", ["append", "flip", "remove"])
def test_a_damaged_recording_is_made_again_and_said(tmp_path, probe, caplog, spoil):
    net = nets.classifier()
    folder = tmp_path / "a"
    whole = {
        k: np.array(v) for k, v in record_activations(net, LAYERS, probe, folder=folder).items()
    }
    file = folder / "table01.bin"
    data = file.read_bytes()
    if spoil == "remove":
        file.unlink()
    else:
        file.write_bytes(data + b"x" if spoil == "append" else bytes([data[0] ^ 1]) + data[1:])
    again = record_activations(net, LAYERS, probe, folder=folder)
    assert "is damaged; it is recorded anew" in caplog.text
    for name in LAYERS:
        np.testing.assert_array_equal(again[name], whole[name])
    caplog.clear()
    record_activations(net, LAYERS, probe, folder=folder)
    assert not caplog.text


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import nets
from xailib.dissect import activations
from xailib.dissect import blocks as recording
from xailib.images.probe import load_probe
append, batches = recording._append, []
def killed(folder, rows, dtype):
    batches.append(1)
    if len(batches) == 3:  # in the middle of a batch: one layer is written, two are not
        append(folder, dict([next(iter(rows.items()))]), dtype)
        os.kill(os.getpid(), signal.SIGKILL)
    append(folder, rows, dtype)
recording._append = killed
probe = load_probe(sys.argv[2])
layers = ["stem", "body", "fc"]
activations.record_activations(
    nets.classifier(), layers, probe, folder=sys.argv[3], dtype="float32", batch_size=2)
"""


def test_a_killed_recording_goes_on_behind_its_last_whole_batch(tmp_path, probe, monkeypatch):
    folder, tests = tmp_path / "a", ROOT / "tests"
    pictures = Path(probe.images[0].file).parent
    command = [sys.executable, "-c", KILLED, str(tests), str(pictures), str(folder)]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert "complete" not in json.loads((folder / "manifest.json").read_text())

    starts = []
    pooled = activations._pooled

    def watched(*arguments):
        starts.append(arguments[4])
        return pooled(*arguments)

    monkeypatch.setattr(activations, "_pooled", watched)
    net = nets.classifier()
    options = {"dtype": "float32", "batch_size": 2}
    resumed = record_activations(net, LAYERS, probe, folder=folder, **options)
    whole = record_activations(net, LAYERS, probe, folder=tmp_path / "b", **options)
    assert starts == [4, 0]
    for name in LAYERS:
        np.testing.assert_array_equal(resumed[name], whole[name])


def test_parts_are_copied_and_only_the_rest_is_shown(tmp_path, probe, monkeypatch):
    net = nets.classifier()

    def part(name, start, stop, classifier=net, **options):
        folder = tmp_path / name
        rows = record_activations(
            classifier, LAYERS, probe.part(start, stop), folder=folder, **options
        )
        return {layer: np.array(values) for layer, values in rows.items()}

    whole = part("whole", 0, 11)
    parts = {(7, 9): part("p1", 7, 9), (2, 5): part("p0", 2, 5), (4, 6): part("p2", 4, 6)}
    # What must be passed over: other weights, another pooling, a damaged one, an unfinished one.
    part("other", 0, 2, nets.classifier(seed=1))
    part("pool", 0, 2, pool="max")
    part("damaged", 9, 11)
    file = tmp_path / "damaged" / "table01.bin"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    part("unfinished", 0, 2)
    note = tmp_path / "unfinished" / "manifest.json"
    note.write_text(note.read_text().replace('"complete": true', '"complete": false'))

    asked = []
    pooled = activations._pooled

    def watched(*arguments):
        asked.append((arguments[4], len(arguments[2])))
        return pooled(*arguments)

    monkeypatch.setattr(activations, "_pooled", watched)
    folders = [path for path in tmp_path.iterdir() if path.name != "whole"]
    found = record_activations(net, LAYERS, probe, folder=tmp_path / "a", parts=folders)
    assert asked == [(0, 2), (6, 7), (9, 11)]
    for layer in LAYERS:
        np.testing.assert_allclose(found[layer], whole[layer], rtol=2e-3, atol=2e-3)
        np.testing.assert_array_equal(found[layer][2:5], parts[2, 5][layer])
        np.testing.assert_array_equal(found[layer][5:6], parts[4, 6][layer][1:])
        np.testing.assert_array_equal(found[layer][7:9], parts[7, 9][layer])


def test_a_full_disk_is_told_before_and_during(tmp_path, probe, monkeypatch):
    net = nets.classifier()
    with monkeypatch.context() as patch:
        usage = type("Usage", (), {"free": 100})
        patch.setattr(recording.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(InputError, match="0 MB free"):
            record_activations(net, LAYERS, probe, folder=tmp_path / "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (500, hard)
    )  # enough for the manifest, not for a layer
    try:
        with pytest.raises(StorageError, match="make room and run again to go on"):
            record_activations(net, LAYERS, probe, folder=tmp_path / "b", dtype="float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = record_activations(net, LAYERS, probe, folder=tmp_path / "b", dtype="float32")
    assert found["stem"].shape == (11, 8)


def test_what_is_not_finite_or_too_large_is_refused(tmp_path, probe):
    net = nets.classifier()
    with torch.no_grad():
        net.module.fc.bias[2] = 1e6
    with pytest.raises(InputError, match=r"'fc' exceeds float16; record it as float32"):
        record_activations(net, ["fc"], probe, folder=tmp_path / "a")
    record_activations(net, ["fc"], probe, folder=tmp_path / "b", dtype="float32")
    with torch.no_grad():
        net.module.fc.bias[2] = float("nan")
    with pytest.raises(InputError, match=r"layer 'fc' is not finite for the image 'p00'"):
        record_activations(net, ["fc"], probe, folder=tmp_path / "c")


class Idle(nets.Plain):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ["fcc"]}, "unknown name 'fcc'; did you mean fc"),
        ({"layers": []}, "name at least one"),
        ({"layers": "fc"}, "name at least one, in a list"),
        ({"layers": ["fc", "fc"]}, "named twice"),
        ({"layers": ["unused"]}, "the network does not use unused"),
        ({"pool": "mean"}, "pool: 'mean'"),
        ({"dtype": "int8"}, "dtype: 'int8'"),
    ],
)
def test_bad_arguments_are_named(tmp_path, probe, changes, message):
    given = {"layers": ["fc"], "pool": "avg", "dtype": "float16", **changes}
    net = nets.classifier(Idle)
    with pytest.raises(InputError, match=message):
        record_activations(net, given.pop("layers"), probe, folder=tmp_path / "a", **given)


def test_hooks_and_modes_are_as_before(tmp_path, probe):
    net = nets.classifier()
    net.module.train()
    record_activations(net, ["body"], probe, folder=tmp_path / "a")
    assert net.module.training
    assert not any(part._forward_hooks for part in net.module.modules())
