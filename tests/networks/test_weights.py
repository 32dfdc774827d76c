"""Weights as they lie about, and the preprocessing that belongs to them."""

import argparse
import gzip
import subprocess
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from faults_table import shown
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms as T  # noqa: N812

from xailib.compare.iou import check_comparable
from xailib.dissect.activations import record_activations
from xailib.errors import InputError
from xailib.explain.cam.methods import explain_cam
from xailib.explain.lime import explain_lime
from xailib.images.load import from_array, load_images
from xailib.images.probe import load_probe
from xailib.networks.classifier import classifier_from, load_classifier
from xailib.networks.preprocessing import from_transform
from xailib.networks.weights import load_file
from xailib.networks.zoo import _timm_preprocessing


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.Sequential(OrderedDict(body=body, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(),
                                     fc=nn.Linear(4, 3)))  # fmt: skip


def called(prefix, state):
    return {prefix + key: value for key, value in state.items()}


class Config:
    """What a training script keeps beside its weights; its code must not be needed."""

    def __init__(self):
        self.rate = 0.1


CHECKPOINTS = {  # made of a network's own entries, and another's
    "plain": lambda own, _: own,
    "namespace and scalars": lambda own, _: {
        "model": own, "args": argparse.Namespace(lr=0.1, out=Path("x")), "best": np.float64(0.9),
        "epoch": 3,
    },
    "config": lambda own, _: {"net": own, "config": Config(), "history": [np.arange(3)]},
    "average": lambda own, other: {"state_dict": other, "state_dict_ema": own},
    "compiled": lambda own, _: called("module._orig_mod.", own),
    "compiled inside": lambda own, _: {
        key.replace("body.", "body._orig_mod."): value for key, value in own.items()
    },
    "lightning": lambda own, _: {
        "state_dict": {
            **called("model.", own), "criterion.weight": torch.ones(3),
            "hyper_parameters": {"lr": 0.1},
        },
        "epoch": 3,
    },
    "optimiser": lambda own, _: {
        "model_state_dict": own,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": []},
    },
    "nested": lambda own, _: {"checkpoint": {"models": {"student": own}}},
    "the same average twice": lambda own, other: {"ema": own, "model_ema": {**own}, "model": other},
    "in a row": lambda own, _: [({"epoch": 3}, own)],
    "stored whole": lambda *_: net(1),  # whose code is not run
    "average inside": lambda own, other: {
        "state_dict": called("net.", other) | called("net_ema.", own)
    },
    "twice inside": lambda own, _: called("net.", own) | called("loss.net.", own),
    "beside another": lambda own, other: called("net.", own)
    | called("decoder.", {name: tensor[..., None] for name, tensor in other.items()}),
}  # fmt: skip


PLACES = {
    "average": " (state_dict_ema)",
    "the same average twice": " (ema)",
    "average inside": " (state_dict.net_ema)",
    "twice inside": " (net)",
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_weights_are_found_in_a_checkpoint(kind, tmp_path):
    state, module = net(1).state_dict(), net(2)
    file = tmp_path / "some.pth"
    torch.save(CHECKPOINTS[kind](state, net(3).state_dict()), file)
    label = load_file(module, file)
    assert all(torch.equal(module.state_dict()[key], value) for key, value in state.items())
    assert label == f"some.pth{PLACES.get(kind, '')}"


@pytest.mark.parametrize("name", ["some.pth", "some.bin", "some.safetensors"])
@pytest.mark.parametrize("save", [torch.save, save_file])
def test_weights_are_read_whatever_their_file_is_called(name, save, tmp_path):
    module, other = net(2), net(1)
    save(other.state_dict(), tmp_path / name)
    load_file(module, tmp_path / name)
    assert torch.equal(module.fc.weight, other.fc.weight)


@pytest.mark.parametrize("name", ["some.pth", "some.safetensors"])
@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("weights_empty", b""),
        ("weights_page", b"<!DOCTYPE html>\n<html><head><title>Sign in</title>"),
        ("weights_page", b"\n <html lang=en>"),
        ("weights_pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"),
        ("weights_packed", gzip.compress(b"weights", mtime=0)),
        ("weights_text", b'{"error": "no such file"}'),
    ],
)
def test_what_was_downloaded_instead_of_weights_is_said(key, content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=shown(key)):
        load_file(net(), tmp_path / name)


REFUSED = [  # instead of a network's own entries
    # Whole numbers would be taken for weights, and mean nothing without their scale.
    ("weights_whole", lambda own: {name: (9 * one).to(torch.int8) for name, one in own.items()}),
    ("no_tensors", lambda own: {name: one.numpy() for name, one in own.items()}),
    ("other_head", lambda own: {**own, "fc.weight": torch.zeros(7, 4), "fc.bias": torch.zeros(7)}),
    # None is guessed.
    ("two_sets", lambda own: {"student": own, "teacher": net(3).state_dict()}),
    (
        "two_sets",
        lambda own: called("student.", own) | called("teacher.", net(3).state_dict()),
    ),
]


@pytest.mark.parametrize(("key", "content"), REFUSED)
def test_entries_that_do_not_fit_are_refused_with_the_way_to_load_them(key, content, tmp_path):
    torch.save(content(net().state_dict()), tmp_path / "two.pth")
    with pytest.raises(InputError, match=shown(key)):
        load_file(net(), tmp_path / "two.pth")


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (subprocess.getoutput, (f"touch {tmp_path / 'touched'}",))

    file, module = tmp_path / "evil.pth", net(2)
    torch.save({"model": net(1).state_dict(), "args": Evil()}, file)
    load_file(module, file)
    assert torch.equal(module.fc.weight, net(1).fc.weight)
    assert not (tmp_path / "touched").exists()


def test_torchscript_is_no_state_dict(tmp_path):
    file = tmp_path / "some.pth"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(net()), file)
    with pytest.raises(InputError, match=shown("weights_torchscript")):
        load_file(net(), file)


def test_timms_names_with_a_tag():
    tagged = load_classifier("resnet10t.c3_in1k", "random", device="cpu")
    assert tagged.name == "resnet10t.c3_in1k"
    with pytest.raises(InputError, match=shown("unknown_tag")):
        load_classifier("resnet10t.c4_in1k", "random")


def test_a_network_without_classes_is_refused_before_it_is_fetched(monkeypatch):
    monkeypatch.setattr("xailib.networks.zoo.published_weights", lambda *_: pytest.fail("fetched"))
    monkeypatch.setattr("timm.create_model", lambda *_, **__: timm.models.VisionTransformer(
        img_size=28, patch_size=14, embed_dim=24, depth=1, num_heads=2, num_classes=0))  # fmt: skip
    with pytest.raises(InputError, match=shown("no_classes")):
        load_classifier("vit_small_patch14_dinov2")


def test_the_page_says_which_preprocessing_a_file_was_given(tmp_path):
    state = torchvision.models.resnet50().state_dict()
    members = torchvision.models.ResNet50_Weights
    torch.save(state, tmp_path / "resnet50-11ad3fa6.pth")  # as torchvision calls its V2 weights
    torch.save(state, tmp_path / "mine.pth")
    second = load_classifier("resnet50", tmp_path / "resnet50-11ad3fa6.pth", device="cpu")
    mine, stated, empty = (
        load_classifier("resnet50", tmp_path / "mine.pth", "cpu", preprocessing=given)
        for given in (None, "IMAGENET1K_V2", "")
    )
    assert second.preprocessing.resize == members.IMAGENET1K_V2.transforms().resize_size[0]
    assert mine.preprocessing.resize == members.IMAGENET1K_V1.transforms().resize_size[0]
    assert mine.weights == "mine.pth, with the preprocessing of IMAGENET1K_V1"
    assert stated.preprocessing == second.preprocessing
    assert stated.weights == "mine.pth, with the preprocessing of IMAGENET1K_V2"
    assert stated.identity != mine.identity  # no result of one is taken for the other's
    assert stated.id != mine.id
    assert empty.identity == mine.identity
    with pytest.raises(InputError, match="did you mean IMAGENET1K_V2"):
        load_classifier("resnet50", tmp_path / "mine.pth", preprocessing="IMAGENET1K_V3")


# Preprocessing


def small(*steps):
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 6, 3, 2), nn.AdaptiveAvgPool2d(1)
    module = nn.Sequential(*parts, nn.Flatten(), nn.Linear(6, 4)).eval()
    nn.init.normal_(module[-1].weight, std=3)
    return classifier_from(module, T.Compose(list(steps)), list("abcd"))


def standardised(x):
    return (x - x.mean()) / x.std()


@pytest.mark.parametrize(
    "name", ["dm_nfnet_f0", "tf_efficientnet_lite0", "vit_base_patch16_clip_224"]
)
def test_timms_crops_are_timms_own(name):
    """``crop_pct`` counts when a photograph is squashed, too."""
    module = timm.create_model("test_resnet", num_classes=5)
    module.pretrained_cfg = timm.get_pretrained_cfg(name).to_dict()
    config = timm.data.resolve_data_config({}, model=module)
    photograph = load_images("chelsea")[0]
    found = _timm_preprocessing(module)
    theirs = timm.data.create_transform(**config)(Image.fromarray(photograph.pixels))
    ours = found.normalise(torch.from_numpy(found.crop(photograph.pixels)[None]))[0]
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0)


def test_a_standardisation_of_each_image_is_run_for_each_perturbed_one():
    resize = T.Resize((48, 48))
    net = small(resize, T.ToTensor(), standardised)
    photograph = load_images("chelsea")[0]
    direct = standardised(T.ToTensor()(resize(Image.fromarray(photograph.pixels))))
    seen = net.input_tensor(net.view(photograph).pixels[None])[0]
    torch.testing.assert_close(seen, direct, atol=0.02, rtol=0)
    found = explain_lime(net, photograph, num_samples=30, segments="slic").superpixels
    for shown_here, score in zip(found.shown[:10], found.scores[:10], strict=True):
        image = net.view(photograph).pixels * shown_here[found.segments][..., None]
        with torch.no_grad():
            own = net.module(standardised(T.ToTensor()(image.astype(np.uint8)))[None]).softmax(1)
        target = net.predict(photograph)[0].index
        assert score == pytest.approx(float(own[0, target]), abs=1e-4)
    assert np.ptp(explain_cam(net, photograph).raw) > 0


def test_colours_that_are_not_linear_are_run_too():
    net = small(T.Resize((48, 48)), T.Lambda(lambda image: image.point(lambda v: 255 - v // 2)),
                T.RandomEqualize(p=1), T.ToTensor())  # fmt: skip
    assert not net.preprocessing.pixelwise
    explain_lime(net, "chelsea", num_samples=20, segments="slic")


RESIZE = T.Resize((48, 48))
TRANSFORMS = [
    *(
        ("random_transform", transform)
        for step in (T.RandomHorizontalFlip(), T.RandomGrayscale(0.4), T.ColorJitter(0.4))
        for transform in (
            T.Compose([RESIZE, step, T.ToTensor()]),
            lambda image, step=step: T.ToTensor()(step(image.resize((48, 48)))),
        )
    ),
    ("random_transform", lambda image: torch.rand(3, 8, 8)),
    ("random_transform", lambda image: T.ToTensor()(image) + torch.rand(1)[0].round()),
    ("random_transform", lambda image: T.ToTensor()(image) * (1 + 0.1 * torch.rand(1))),
    ("pads", T.Compose([T.Resize((40, 40)), T.Pad(10), T.ToTensor()])),
    ("turns", T.Compose([RESIZE, T.ToTensor(), standardised, lambda x: x.flip(-1)])),
    ("not_linear", lambda image: T.ToTensor()(image) ** 2),
    ("not_plain", lambda image: standardised(T.ToTensor()(image))),
    ("channels_last", lambda image: torch.from_numpy(np.array(image)) / 255),
    ("no_tensor", lambda image: image.resize((32, 32))),
    ("no_tensor", lambda image: np.array(image)),
]


@pytest.mark.parametrize(("key", "transform"), TRANSFORMS)
def test_a_transform_that_cannot_be_measured_is_one_line(key, transform):
    with pytest.raises(InputError, match=shown(key)):
        classifier_from(net(), transform, list("abc"))


class Letterbox:
    """The long side is resized, and the short one filled up."""

    def __init__(self, fill):
        self.fill = fill

    def __call__(self, image):
        scale = 32 / max(image.size)
        image = image.resize([max(1, round(scale * side)) for side in image.size])
        whole = Image.new("RGB", (32, 32), self.fill)
        whole.paste(image, ((32 - image.width) // 2, (32 - image.height) // 2))
        return T.ToTensor()(whole)


def padded(mode):
    return T.Compose([T.Resize((24, 24)), T.Pad(4, padding_mode=mode), T.ToTensor()])


@pytest.mark.parametrize(
    "transform",
    [Letterbox("white"), Letterbox("black"), Letterbox("gray"), padded("reflect"), padded("edge")],
)
def test_a_photograph_that_is_padded_is_refused(transform):
    """Whatever it is filled with: the frame would be that of another part of the photograph."""
    net = small(transform)
    with pytest.raises(InputError, match=shown("pads_photograph")):
        net.view(from_array(np.zeros((40, 90, 3), np.uint8), "wide"))


@pytest.mark.parametrize(
    "step",
    [
        T.RandomHorizontalFlip(p=1),
        lambda image: image.rotate(90),
        lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    ],
)
def test_a_transform_that_turns_the_photograph_is_refused(step):
    for shape in ((40, 40, 3), (60, 40, 3), (40, 60, 3)):
        with pytest.raises(InputError, match=shown("turns")):
            small(T.Resize((32, 32)), step, T.ToTensor()).view(
                from_array(np.zeros(shape, np.uint8), "x")
            )


@pytest.mark.parametrize("size", [(220, 300), (64, 64), (333, 500)])
def test_the_frame_of_a_squash_without_antialiasing_is_the_whole(size):
    resize = T.Resize((32, 32), interpolation=T.InterpolationMode.NEAREST)
    frame = from_transform(T.Compose([resize, T.ToTensor()])).frame(*size)
    assert (frame.resized, frame.crop) == ((32, 32), (0, 0, 32, 32))


def test_two_transforms_of_one_network_are_two_networks(tmp_path):
    """Neither are their maps compared, nor is a result of one taken for the other's."""
    resize = T.Resize((48, 48)), T.ToTensor()
    first = small(*resize)
    second = small(*resize, T.Normalize([0.5] * 3, [0.5] * 3))
    again = small(*resize, T.Normalize([0.0] * 3, [1.0] * 3))
    assert first.sha256 == second.sha256
    assert (first.id, first.identity) == (again.id, again.identity)
    assert first.id != second.id
    assert first.identity != second.identity
    maps = [explain_cam(classifier, "chelsea") for classifier in (first, second)]
    with pytest.raises(InputError, match="of two networks"):
        check_comparable(*maps)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "mine.pth")
    usual, squashed = (
        load_classifier("resnet18", tmp_path / "mine.pth", "cpu", preprocessing=given)
        for given in ("", T.Compose([T.Resize((64, 64)), T.ToTensor()]))
    )
    assert usual.id == f"resnet18@{usual.sha256[:12]}"  # its own transform is said by its name
    assert squashed.id.startswith(f"{usual.id}~")
    assert squashed.identity != usual.identity


@pytest.mark.parametrize("first", [T.Grayscale(), T.Resize((48, 48))])
def test_a_network_that_sees_no_colour_gets_its_own_input(first):
    torch.manual_seed(0)
    parts = nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    module = nn.Sequential(*parts, nn.Linear(6, 4)).eval()
    nn.init.normal_(module[-1].weight, std=3)
    second = T.Resize((48, 48)) if isinstance(first, T.Grayscale) else T.Grayscale()
    transform = T.Compose([first, second, T.ToTensor()])
    net, image = classifier_from(module, transform, list("abcd")), load_images("chelsea")[0]
    with torch.no_grad():
        own = module(transform(Image.fromarray(image.pixels))[None]).softmax(1)[0]
    found = net.probabilities(net.view(image).pixels[None])[0]
    np.testing.assert_allclose(found, own, atol=5e-3)  # of 8 bits
    assert np.ptp(explain_cam(net, image, "ablationcam").raw) > 0


def test_a_transform_that_does_not_resize_takes_one_image_at_a_time(tmp_path):
    net = small(T.ToTensor())
    sides, folder = [(60, 80), (60, 80), (48, 48)], tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, side in enumerate(sides):
        pixels = rng.integers(0, 256, (*side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    probe = load_probe(folder)
    found = record_activations(net, ["2"], probe, folder=tmp_path / "units", dtype="float32")
    with torch.no_grad():
        for row, photograph in zip(found["2"], load_images(folder), strict=True):
            image = T.ToTensor()(Image.fromarray(photograph.pixels))[None]
            expected = net.module[2](net.module[1](net.module[0](image))).mean((2, 3))[0]
            np.testing.assert_allclose(row, expected, atol=1e-2)
