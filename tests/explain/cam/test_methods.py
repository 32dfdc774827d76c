"""The CAMs against grad-cam called directly, and against their slow literal definitions."""

import contextlib
import copy
import gc
import io
import weakref

import families
import numpy as np
import pytest
import torch
from faults_table import shown
from nets import CATEGORIES, InPlace, Plain, Skipping, Stubborn, classifier, photograph, swin, vit
from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from xailib.errors import InputError
from xailib.explain.cam.ablation import ablation_weights
from xailib.explain.cam.gradient import GRADIENT_METHODS
from xailib.explain.cam.layout import Layout, layout_of
from xailib.explain.cam.methods import METHODS, cam_layer_of, explain_cam, guided_backprop
from xailib.explain.cam.tail import Tail
from xailib.networks import engines, forward
from xailib.networks.classifier import classifier_from
from xailib.networks.layers import get_layer

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LAYERS = [
    (Plain, "body", "closed form"),
    (Plain, "stem", "tail"),
    (Plain, "body.0", "tail"),
    (Skipping, "body", "tail"),
    (InPlace, "body", "tail"),
    (Skipping, "mix", "tail"),
    (Stubborn, "body", "whole network"),
]


def peer(net, photo, method, layer, target, reshape=None):
    """grad-cam's own map and its raw weighted sum."""
    options = {}
    if method == "ablationcam":
        options["ablation_layer"] = AblationLayer() if reshape is None else AblationLayerVit()
    picture = net.input_tensor(net.view(photo).pixels[None])
    raw, module = [], copy.deepcopy(net.module)  # where it may leave what it likes
    with net.computing(), contextlib.redirect_stderr(io.StringIO()):
        cam = METHODS[method](
            module, [get_layer(module, layer)], reshape_transform=reshape, **options
        )
        cam.batch_size = 16
        combine = cam.get_cam_image
        cam.get_cam_image = lambda *a, **k: raw.append(combine(*a, **k)) or raw[0]
        saliency = cam(picture, [ClassifierOutputTarget(target)])[0]
        cam.activations_and_grads.release()
    return saliency, raw[0][0]


def seen_by(net, seed=0):
    """A photograph as the network's input."""
    return net.input_tensor(net.view(photograph(seed)).pixels[None])


def state(module):
    """All that an explanation must leave as it was."""
    return (
        {key: value.clone() for key, value in module.state_dict().items()},
        [part.training for part in module.modules()],
        [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
        ["forward" in vars(part) for part in module.modules()],
        [(p.grad, p.requires_grad) for p in module.parameters()],
        [type(part) for part in module.modules()],
    )


@contextlib.contextmanager
def untouched(module):
    """Assert that a network is left as it was."""
    before = state(module)
    yield
    after = state(module)
    assert before[1:] == after[1:]
    assert all(torch.equal(value, after[0][key]) for key, value in before[0].items())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (Plain, "body"),
        (Plain, "stem"),
        (Skipping, "body"),
        (vit, None),
        (swin, "layers.1.blocks.0.norm1"),
    ],
)
def test_equals_grad_cam(device, method, make, layer):
    if method == "ablationcam" and make is swin:
        pytest.skip("grad-cam's AblationLayerVit takes tokens in one row only")
    net, photo = classifier(make, device=device), photograph()
    if layer is None:
        assert net.cam_layer is None
        layer = cam_layer_of(net)
    layout = layout_of(Tail(net.module, layer, seen_by(net)).output.shape, (32, 32), layer)
    assert layout.axis == (-1 if make in (vit, swin) else 1)
    tokens = layout.maps if layout.axis == -1 else None
    saliency, raw = peer(net, photo, method, layer, 2, reshape=tokens)
    found = explain_cam(net, photo, method, 2, layer=layer, rule="gradcam")
    scale = np.abs(raw).max()
    np.testing.assert_allclose(found.raw / scale, raw / scale, atol=1e-4)
    np.testing.assert_allclose(found.saliency, saliency, atol=1e-3 if tokens else 1e-4)
    assert found.parameters["layer"] == layer


@pytest.mark.parametrize("method", METHODS)
def test_operations_in_place_do_not_reach_the_recorded_maps(method):
    """They do in grad-cam, whose maps are then those of something behind the layer."""
    expected = explain_cam(classifier(Skipping), photograph(), method, 2, layer="body")
    found = explain_cam(classifier(InPlace), photograph(), method, 2, layer="body")
    np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("make", "layer", "how"), LAYERS)
@pytest.mark.parametrize("rule", ["centred", "gradcam"])
def test_ablation_by_its_definition(make, layer, how, rule):
    """Every channel by one whole pass each, with the layer's output replaced by a hook."""
    net = classifier(make, seed=3)
    picture, layer_part = seen_by(net), net.layer(layer)
    with torch.no_grad():
        tail = Tail(net.module, layer, picture)
        lowest, count = tail.output.min(), tail.output.shape[1]
        scores = [tail.logits[0]]
        for channel in range(count):
            changed = tail.output.clone()
            far = 0 if rule == "centred" or lowest == 0 else lowest - 1e7 * (channel % 16 + 1)
            changed[:, channel] = far
            with layer_part.register_forward_hook(lambda *_, value=changed: value):
                scores.append(net.module(picture)[0])
    logits = torch.stack(scores).double()
    if rule == "centred":
        logits = logits - logits.mean(1, keepdim=True)
        logits = logits / logits[0, 1].abs()
        expected = logits[0, 1] - logits[1:, 1]
    else:
        expected = 1 - logits[1:, 1] / logits[0, 1]
    layout = Layout(1, tuple(tail.output.shape[2:]))
    found = ablation_weights(net, tail, layout, torch.tensor([1]), rule, {})
    assert found.how == how
    torch.testing.assert_close(found.weights[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("layer", ["body", "stem"])
def test_ablation_does_not_see_a_shift_of_all_logits(layer):
    net, photo = classifier(), photograph()

    def maps():
        rules = ("centred", "gradcam")
        return [explain_cam(net, photo, "ablationcam", 1, layer=layer, rule=r).raw for r in rules]

    before, originals = maps()
    with torch.no_grad():
        net.module.fc.bias -= 50
    after, shifted = maps()
    np.testing.assert_allclose(after, before, atol=1e-3 * np.abs(before).max())
    assert np.abs(shifted - originals).max() > 0.5 * np.abs(originals).max()


@pytest.mark.parametrize("dead", [0, 5, 12])
def test_score_cam_makes_one_pass_for_all_dead_channels(dead):
    net, photo = classifier(), photograph()
    with torch.no_grad():
        net.module.body[1].bias[:] = 1.0
        net.module.body[1].bias[:dead] = -100
    seen = []
    handle = net.module.register_forward_hook(lambda _m, i, _o: seen.append(len(i[0])))
    found = explain_cam(net, photo, "scorecam", 2, layer="body", batch_size=5)
    handle.remove()
    saliency, raw = peer(net, photo, "scorecam", "body", 2)
    np.testing.assert_allclose(found.raw, raw, atol=1e-5)
    np.testing.assert_allclose(found.saliency, saliency, atol=1e-4)
    assert max(seen) <= 5
    assert sum(seen) == 1 + (12 - dead) + (dead > 0)


@pytest.mark.parametrize(
    ("shape", "size", "patch", "expected"),
    [
        ((1, 64, 7, 7), (224, 224), None, Layout(1, (7, 7))),
        ((1, 7, 7, 64), (224, 224), None, Layout(-1, (7, 7))),
        ((1, 7, 7, 7), (224, 224), None, Layout(1, (7, 7))),
        ((1, 64, 7, 9), (224, 288), None, Layout(1, (7, 9))),
        ((1, 7, 9, 64), (224, 288), None, Layout(-1, (7, 9))),
        ((1, 197, 192), (224, 224), None, Layout(-1, (14, 14), 1)),
        ((1, 198, 192), (224, 224), None, Layout(-1, (14, 14), 2)),
        ((1, 261, 192), (256, 256), None, Layout(-1, (16, 16), 5)),
        ((1, 49, 192), (224, 224), None, Layout(-1, (7, 7), 0)),
        ((1, 13, 192), (96, 128), None, Layout(-1, (3, 4), 1)),
        ((1, 64, 84, 125), (333, 500), None, Layout(1, (84, 125))),  # rounded up twice
        ((1, 6, 8, 64), (21, 32), None, Layout(-1, (6, 8))),
        # Without the patches' size it would be a grid of 3 x 3.
        ((1, 9, 24), (32, 32), 16.0, Layout(-1, (2, 2), 5)),
        ((1, 9, 24), (32, 32), None, Layout(-1, (3, 3))),
        ((1, 25, 24), (32, 32), 8.0, Layout(-1, (4, 4), 9)),  # eight registers and a class token
        ((1, 4, 24), (32, 32), 8.0, Layout(-1, (2, 2))),  # patches put together
        ((1, 5, 24), (32, 32), 4.0, Layout(-1, (2, 2), 1)),
        ((1, 9, 24), (32, 32), 8.0, None),  # latents that stand for nothing in space
        ((1, 10), (224, 224), None, None),
        ((1, 64, 1, 1), (224, 224), None, None),
        ((1, 45, 8), (224, 224), None, None),
        ((1, 64, 5, 9), (224, 224), None, None),
        ((1, 2, 3, 4, 5), (224, 224), None, None),
    ],
)
def test_layouts(shape, size, patch, expected):
    with contextlib.nullcontext() if expected else pytest.raises(InputError, match="'x' outputs"):
        assert layout_of(shape, size, "x", patch and (patch, patch)) == expected


@pytest.mark.parametrize(("patch", "registers"), [(16, 4), (8, 8), (8, 4)])
def test_registers_before_the_grid_are_not_taken_for_patches(patch, registers):
    """Grad-CAM by a plain hook, of the tokens that come from the patches."""
    torch.manual_seed(0)
    module = VisionTransformer(
        32, patch, num_classes=5, embed_dim=24, depth=2, num_heads=2, reg_tokens=registers
    )
    nn.init.normal_(module.head.weight)
    net, held = classifier_from(module.eval(), families.colour(32), list("abcde")), []
    layer = net.layer(cam_layer_of(net))
    with layer.register_forward_hook(lambda _m, _i, output: held.append(output)):
        scores = module(seen_by(net).requires_grad_())
    (gradient,) = torch.autograd.grad(scores[0, 1], held[0])
    side = 32 // patch
    tokens, weights = held[0][0, 1 + registers :], gradient[0, 1 + registers :].mean(0)
    expected = (tokens @ weights).reshape(side, side).detach().numpy()
    np.testing.assert_allclose(explain_cam(net, photograph(), target=1).raw, expected, rtol=1e-4)


class Windowed(nn.Module):
    """Two parts of an image side by side in the batch, as attention over windows has them."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 1, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        found = self.stem(x)
        found = self.inner(torch.cat([found[:, :, :4], found[:, :, 4:]]))
        return self.fc(torch.cat(found.chunk(2), 2).relu().mean((2, 3)))


def test_a_layer_whose_rows_are_parts_of_images_is_not_taken():
    torch.manual_seed(0)
    net = classifier_from(Windowed().eval(), families.colour(32), list("abcde"))
    assert net.cam_layer == "stem"
    for method in ("gradcam", "ablationcam", "scorecam"):
        with pytest.raises(InputError, match=shown("parts_of_images")):
            explain_cam(net, photograph(), method, layer="inner")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": CATEGORIES}, "target: index 5"),
        ({"target": -1}, "target: index -1"),
        ({"target": "thing 9"}, "target: unknown name"),
        ({"method": "gradcan"}, "method: unknown name"),
        ({"layer": "boody"}, "layer: unknown name"),
        ({"layer": "fc"}, "layer: 'fc' outputs"),
        ({"engine": "steam"}, "engine: unknown name"),
        ({"rule": "none"}, "rule: unknown name"),
        ({"batch_size": 0}, "batch_size: 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_the_network(arguments, message):
    net = classifier()
    with untouched(net.module), pytest.raises(InputError, match=message):
        explain_cam(net, photograph(), **{"method": "gradcam", **arguments})


@pytest.mark.parametrize("method", [*METHODS, "guided"])
@pytest.mark.parametrize("layer", ["body", "stem"])
def test_the_network_is_left_as_it_was(method, layer):
    net = classifier()
    net.module.train()
    net.module.stem.eval()
    net.module.fc.weight.grad = torch.ones_like(net.module.fc.weight)
    net.module.fc.bias.requires_grad_(False)
    with untouched(net.module):
        if method == "guided":
            assert guided_backprop(net, photograph(), 1).shape == (32, 32, 3)
        else:
            explain_cam(net, photograph(), method, layer=layer)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_failure_in_the_middle_leaves_the_network_as_it_was(method, calls):
    net = classifier()
    net.module.train()
    seen = []

    def fail(*_):
        seen.append(1)
        if len(seen) > calls:
            raise ZeroDivisionError

    net.module.pool.register_forward_hook(fail)
    with untouched(net.module), contextlib.suppress(InputError):
        explain_cam(net, photograph(), method, layer="stem", engine="eager")


def test_a_layer_without_gradient_is_an_error():
    net = classifier()
    with pytest.raises(InputError, match="layer: gradcam cannot use"):
        net.module.stem.requires_grad_(False)
        original = net.module.body.forward
        net.module.body.forward = lambda x: original(x).detach()
        explain_cam(net, photograph(), "gradcam", layer="body.2")


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_gradients_where_the_caller_has_switched_them_off(method):
    net = classifier()
    expected = explain_cam(net, photograph(), method)
    with torch.no_grad():
        found = explain_cam(net, photograph(), method)
    np.testing.assert_array_equal(found.raw, expected.raw)


def test_tail_replays_the_network():
    net = classifier(Skipping)
    picture = seen_by(net)
    tail = Tail(net.module, "body", picture)
    with torch.no_grad():
        torch.testing.assert_close(tail(tail.output), net.module(picture))
        outputs = torch.cat([tail.output, tail.output * 2, tail.output - 1])
        torch.testing.assert_close(tail(outputs), tail.whole(outputs))


@pytest.mark.parametrize(
    ("make", "layer", "alone"),
    [
        (Plain, "body", True),
        (Plain, "stem", True),
        (Skipping, "body", False),
        (Skipping, "mix", True),
        (InPlace, "body", False),
        (vit, "blocks.0", True),
        (swin, "layers.0", True),
    ],
)
def test_a_tail_that_reads_nothing_else_stands_alone(make, layer, alone):
    """By the definition: whether the tails of two pictures are one function."""
    net = classifier(make)
    first, second = (Tail(net.module, layer, seen_by(net, seed)) for seed in (0, 1))
    assert first.stands_alone() is alone
    with torch.no_grad():
        assert torch.allclose(first(first.output), second(first.output)) is alone


@pytest.fixture
def openvino_tails(monkeypatch):
    """Any number of channels is worth an engine; returns what was set up."""
    pytest.importorskip("openvino")
    set_up = []

    def counted(module, example):
        set_up.append(module.layer)
        return engines.SET_UPS["openvino"](module, example)

    monkeypatch.setattr(forward, "_WORTH", {"openvino": 1})
    monkeypatch.setattr(forward, "_faster", lambda *_: True)
    monkeypatch.setattr(forward, "SET_UPS", {"openvino": counted})
    return set_up


@pytest.mark.parametrize(("make", "layer", "times"), [(Plain, "stem", 1), (Skipping, "body", 3)])
def test_a_compiled_tail_serves_every_photograph_that_it_can(openvino_tails, make, layer, times):
    net = classifier(make)
    for seed in range(3):
        photo = photograph(seed)
        expected = explain_cam(net, photo, "ablationcam", 2, layer=layer, engine="eager")
        found = explain_cam(net, photo, "ablationcam", 2, layer=layer)
        assert found.parameters["engine"] == "openvino"
        np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-3, atol=1e-5)
    assert openvino_tails == [layer] * times


@pytest.mark.parametrize("way", ["in place", "data", "loaded"])
def test_no_compiled_tail_outlives_the_weights(openvino_tails, way):
    """As the sanity checks randomise them."""
    net, photo = classifier(), photograph()
    before = explain_cam(net, photo, "ablationcam", 2, layer="stem")
    with torch.no_grad():
        weight = net.module.body[0].weight
        if way == "in place":
            weight.normal_()
        elif way == "data":
            weight.data.normal_()
        else:
            net.module.load_state_dict(
                {k: torch.randn(v.shape).abs() for k, v in net.module.state_dict().items()}
            )
    expected = explain_cam(net, photo, "ablationcam", 2, layer="stem", engine="eager")
    found = explain_cam(net, photo, "ablationcam", 2, layer="stem")
    np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-3, atol=1e-5)
    assert np.abs(before.raw - expected.raw).max() > 0.01
    assert len(openvino_tails) == 2


def test_compiled_tails_die_with_their_network(openvino_tails):
    net = classifier()
    explain_cam(net, photograph(), "ablationcam", 2, layer="stem")
    gone = weakref.ref(net.module)
    del net
    gc.collect()
    assert openvino_tails
    assert gone() is None


def test_a_layer_that_is_computed_twice_has_no_tail():
    net = classifier(Skipping)
    with pytest.raises(InputError, match="is computed twice"):
        Tail(net.module, "act", torch.zeros(1, 3, 32, 32))
