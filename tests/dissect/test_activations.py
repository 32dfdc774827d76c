"""Recording activations: what is recorded, and what a full disk, damage or a change does."""

import resource
from dataclasses import replace
from functools import partial
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
from torch import nn

from xailib.dissect import activations, blocks
from xailib.dissect.activations import networks_of, record_activations
from xailib.errors import InputError, StorageError
from xailib.images.probe import load_probe, probe_of
from xailib.networks.classifier import BATCH
from xailib.networks.layers import recorded

LAYERS = ["stem", "body", "fc"]


@pytest.fixture
def probe(tmp_path):
    return load_probe(nets.photographs_in(tmp_path / "pictures", 11))


@pytest.fixture
def short(monkeypatch):
    """Blocks of four photographs, so that eleven are three of them."""
    monkeypatch.setattr(blocks, "block_photographs", lambda crops: 4)


@pytest.fixture
def shown(monkeypatch):
    """The ids of what is shown to networks, a list for each block."""
    found, pooled = [], activations._pooled

    def watched(classifier, layers, images, *rest):
        crops = list(images)
        found.append([crop.id for crop in crops])
        return pooled(classifier, layers, iter(crops), *rest)

    monkeypatch.setattr(activations, "_pooled", watched)
    return found


def block_of(recording, number):
    return recording.blocks[number] / "01.npy"


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
        assert not found[name].flags.writeable
        assert found[name].dtype == dtype
        np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=tolerance)


def test_rows_are_of_the_classifiers_precision(tmp_path, probe):
    """And so are all that is labelled from them; 8 bits are left of a number in bfloat16."""
    net = nets.classifier()
    found = {
        one: record_activations(
            replace(net, precision=one), ["fc"], probe, folder=tmp_path / one, dtype="float32"
        )["fc"]
        for one in ("exact", "half")
    }
    expected = replace(net, precision="half").scores(
        net.input_tensor(np.stack([net.view(one).pixels for one in probe]))
    )
    gap = np.abs(found["half"] - found["exact"]).max()
    assert 1e-4 < gap < 0.1
    np.testing.assert_allclose(found["half"], expected.numpy(), atol=gap / 4)


@pytest.mark.parametrize("batch_size", [2, 4, 16])
def test_batches_that_are_waited_for_later_are_the_same(tmp_path, probe, monkeypatch, batch_size):
    """As on a GPU, which computes one while the next is read."""
    net, options = nets.classifier(), {"dtype": "float32", "batch_size": batch_size}
    at_once = record_activations(net, LAYERS, probe, folder=tmp_path / "a", **options)
    monkeypatch.setattr("xailib.dissect.activations._BEHIND", {"cpu": 1})
    found = record_activations(net, LAYERS, probe, folder=tmp_path / "b", **options)
    for name in LAYERS:
        np.testing.assert_array_equal(found[name], at_once[name])


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


@pytest.mark.parametrize("batch_size", [2, 4])
def test_blocks_are_the_whole_to_the_last_bit(tmp_path, probe, short, monkeypatch, batch_size):
    net, options = nets.classifier(), {"dtype": "float32", "batch_size": batch_size}
    found = record_activations(net, LAYERS, probe, folder=tmp_path / "a", **options)
    assert [len(block) for block in found.blocks_of("fc")] == [4, 4, 3]
    monkeypatch.undo()
    whole = record_activations(net, LAYERS, probe, folder=tmp_path / "b", **options)
    assert [len(block) for block in whole.blocks_of("fc")] == [11]
    assert found.ids == whole.ids == probe.ids
    for name in LAYERS:
        np.testing.assert_array_equal(found[name], whole[name])


def test_rows_and_ids_are_read_from_the_blocks_that_hold_them(tmp_path, probe, short):
    recording = record_activations(nets.classifier(), LAYERS, probe, folder=tmp_path)
    assert "fc" in recording
    assert "fcc" not in recording
    assert recording.images == 11
    for index in ([9, 0, 9, 4], [3], range(11)):
        rows = np.array(index)
        np.testing.assert_array_equal(recording.rows("body", rows), recording["body"][rows])
        assert recording.ids_at(rows) == [probe.ids[row] for row in index]


def test_another_recording_is_never_used_and_stays(tmp_path, probe, shown):
    net = nets.classifier()
    variants = [
        {},
        {"classifier": nets.classifier(seed=1)},
        {"layers": ["fc"]},
        {"pool": "max"},
        {"dtype": "float32"},
        {"probe": load_probe([image.file for image in probe.images[:-1]])},
        {"probe": load_probe([image.file for image in probe.images[::-1]])},
        {
            "classifier": replace(
                net, preprocessing=replace(net.preprocessing, mean=(0.1, 0.2, 0.3))
            )
        },
    ]
    for number, changes in enumerate(variants):
        given = {"classifier": net, "layers": LAYERS, "probe": probe, **changes}
        found = record_activations(**given, folder=tmp_path / "all")
        alone = record_activations(**given, folder=tmp_path / str(number))
        assert [block.name for block in found.blocks] == [block.name for block in alone.blocks]
        for name in given["layers"]:
            np.testing.assert_array_equal(found[name], alone[name])
    assert len(shown) == 2 * len(variants)
    assert len(list((tmp_path / "all").iterdir())) == len(variants)


@pytest.mark.parametrize("spoil", ["append", "flip", "remove", "manifest"])
def test_a_damaged_block_alone_is_made_again_and_said(tmp_path, probe, short, shown, caplog, spoil):
    net = nets.classifier()
    recording = record_activations(net, LAYERS, probe, folder=tmp_path)
    whole = {name: np.array(values) for name, values in recording.items()}
    file = block_of(recording, 1)
    data = file.read_bytes()
    if spoil == "manifest":
        file.with_name("block.json").write_text("{")
    elif spoil == "remove":
        file.unlink()
    else:
        file.write_bytes(data + b"x" if spoil == "append" else data[:-1] + bytes([data[-1] ^ 1]))
    shown.clear()
    again = record_activations(net, LAYERS, probe, folder=tmp_path)
    assert f"{file.parent.name}' is damaged; it is recorded again" in caplog.text
    assert shown == [["p04", "p05", "p06", "p07"]]
    for name in LAYERS:
        np.testing.assert_array_equal(again[name], whole[name])
    caplog.clear()
    record_activations(net, LAYERS, probe, folder=tmp_path)
    assert not caplog.text


def test_parts_are_blocks_of_the_whole_whatever_cannot_be_used(tmp_path, short, shown):
    folder = nets.photographs_in(tmp_path / "pictures", 14)
    (folder / "p02.png").write_bytes(b"no picture")
    (folder / "p09.png").unlink()
    files = [str(folder / f"p{number:02d}.png") for number in range(14)]
    net = nets.classifier()

    def recorded(probe):
        shown.clear()
        return record_activations(net, LAYERS, probe, folder=tmp_path / "a").blocks

    listed = [(Path(file).stem, file) for file in files]
    parts = [recorded(probe_of(listed[start : start + 4])) for start in (4, 0)]
    assert shown == [["p00", "p01", "p03"]]
    whole = recorded(load_probe(files[:11]))
    assert shown == [["p08", "p10"]]
    assert whole[:2] == (*parts[1], *parts[0])
    # Images added at the end leave the full blocks before them.
    added = recorded(load_probe(files))
    assert shown == [["p08", "p10", "p11"], ["p12", "p13"]]
    assert added[:2] == whole[:2]


@pytest.mark.parametrize("crops", [0, 1, 7, 36, 55, 5000])
def test_a_block_is_whole_batches(crops):
    images = blocks.block_photographs(crops) * (1 + crops)
    assert images % BATCH == 0
    assert images <= max(blocks.IMAGES, BATCH * (1 + crops))


def test_a_full_disk_is_told_before_and_during(tmp_path, probe, monkeypatch):
    net = nets.classifier()
    with monkeypatch.context() as patch:
        usage = type("Usage", (), {"free": 100})
        patch.setattr(blocks.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(InputError, match="0 MB free"):
            record_activations(net, LAYERS, probe, folder=tmp_path / "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))  # not enough for a layer
    try:
        with pytest.raises(StorageError, match="make room and run again to resume"):
            record_activations(net, LAYERS, probe, folder=tmp_path / "b", dtype="float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = record_activations(net, LAYERS, probe, folder=tmp_path / "b", dtype="float32")
    assert found["stem"].shape == (11, 8)


@pytest.mark.parametrize("factor", [1e6, 1e-9])
def test_what_half_precision_cannot_hold_is_recorded_in_float32(tmp_path, probe, factor):
    net = nets.classifier()
    plain = record_activations(net, ["stem", "fc"], probe, folder=tmp_path / "a")
    with torch.no_grad():
        net.module.fc.weight *= factor
        net.module.fc.bias *= factor
    found = record_activations(net, ["stem", "fc"], probe, folder=tmp_path / "b")
    assert [found[name].dtype for name in ("stem", "fc")] == [np.float16, np.float32]
    np.testing.assert_array_equal(found["stem"], plain["stem"])
    np.testing.assert_allclose(found["fc"] / factor, plain["fc"], rtol=2e-3, atol=1e-3)


def test_what_is_not_finite_is_refused_by_the_name_of_its_layer(tmp_path, probe):
    net = nets.classifier()
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


def test_a_second_network_has_its_own_layers(monkeypatch):
    asked = []

    def load(name, weights, **how):
        asked.append((name, weights, how.get("outputs")))
        return nets.classifier()

    monkeypatch.setattr(activations, "load_classifier", load)
    words = dict.fromkeys(("weights", "compare_weights", "preprocessing"), "")
    words |= {"seed": 0, "device": "cpu", "precision": "exact", "outputs": "multilabel"}
    words |= {"model": "first", "compare": "second", "control": False, "layers": ["stem"]}
    found = networks_of({**words, "compare_layers": ["fc", "body"]})
    assert {name: layers for name, (_, layers) in found.items()} == {
        "first": ["stem"],
        "second": ["fc", "body"],
    }
    default = networks_of({**words, "compare_layers": []})["second"]
    assert default[1] == list(default[0].dissect_layers)
    with pytest.raises(InputError, match="nowhere"):
        networks_of({**words, "compare_layers": ["nowhere"]})
    del asked[:]
    networks_of({**words, "compare_layers": [], "control": True})
    meant = [("first", "", "multilabel"), ("second", "", None), ("first", "random", "multilabel")]
    assert asked == meant


def test_progress_counts_each_image_that_is_recorded(tmp_path, probe):
    said = []
    record = partial(record_activations, nets.classifier(), ["fc"], probe, folder=tmp_path / "a")
    record(tell=lambda *count: said.append(count))
    assert said == [(done, len(probe)) for done in range(len(probe))]
    del said[:]
    record(tell=lambda *count: said.append(count))  # all of it is stored
    assert said == []
