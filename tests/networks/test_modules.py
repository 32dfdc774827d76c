"""Networks as people have them: what their output means, how they are wrapped, what they lack.

Each kind is checked against a literal reference: the module's own output, a loop of passes with a
plain hook, or the same network without what is odd about it.
"""

import copy
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from warnings import catch_warnings

import numpy as np
import pytest
import torch
from faults_table import says, shown
from PIL import Image
from torch import nn
from torch.nn.utils import parametrizations
from torchvision import models as tv
from torchvision import transforms as T  # noqa: N812

from xailib.errors import InputError
from xailib.explain.cam.methods import cam_layer_of, explain_cam, guided_backprop
from xailib.explain.lime import explain_lime
from xailib.explain.record import rounding
from xailib.images.load import from_array
from xailib.networks.classifier import classifier_from
from xailib.networks.forward import ROUNDING

SIDE, NAMES = 32, list("abcde")
RESIZE = T.Compose([T.Resize((SIDE, SIDE)), T.ToTensor()])


class Net(nn.Module):
    """Convolutions, a pool and a linear layer; what comes `before` and behind is up to others."""

    def __init__(self, classes=5, out=lambda scores: scores, before=lambda x: x):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.act = nn.ReLU()
        self.body = nn.Conv2d(8, 12, 3, 2, 1)
        self.fc = nn.Linear(12, classes)
        self.out, self.before = out, before

    def features(self, x):
        return self.act(self.body(self.act(self.stem(x))))

    def forward(self, x):
        return self.out(self.fc(self.features(self.before(x)).mean((2, 3))))


def seeded(make, seed=0):
    torch.manual_seed(seed)
    module = make()
    for part in module.modules():  # scores that differ, of classes and of images
        if isinstance(part, nn.Linear) and part.out_features in (1, 2, 5):
            nn.init.normal_(part.weight, std=2.0)
    return module.eval()


@pytest.fixture(scope="module")
def photograph():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return from_array(np.array(Image.fromarray(coarse).resize((48, 40))), "blobs")


def made(module, names=NAMES, transform=RESIZE, **options):
    return classifier_from(module, transform, names, **options)


def own_input(photograph):
    return RESIZE(Image.fromarray(photograph.pixels))[None]


def own_output(module, photograph):
    """What the module itself gives for a photograph."""
    with torch.no_grad():
        return module(own_input(photograph).clone())[0]


def probabilities(net, photograph):
    return net.probabilities(net.view(photograph).pixels[None])[0]


close = partial(np.testing.assert_allclose, atol=1e-5)
by_lime = partial(explain_lime, num_samples=20, segments="slic")
by_cam = partial(explain_cam, engine="eager")


def literal_gradcam(module, score, layer, image):
    """Grad-CAM's weighted sum by a plain hook and ``backward``; the score is a function."""
    held = []
    handle = layer.register_forward_hook(  # copied: it may be changed in place
        lambda _m, _i, output: held.append(output) or output.clone()
    )
    with torch.enable_grad():
        value = score(module(image.clone().requires_grad_()))
    handle.remove()
    (gradient,) = torch.autograd.grad(value, held[0])
    return (gradient.mean((2, 3), keepdim=True) * held[0]).sum(1)[0].detach().numpy()


def literal_ablation(module, score, layer, image, axis=1):
    """AblationCAM's weighted sum: one full pass for each channel that is set to zero."""
    held, zeroed = [], [None]

    def hook(_module, _inputs, output):
        held.append(output.detach())
        output = output.clone()
        if zeroed[0] is not None:
            output.select(axis, zeroed[0]).zero_()
        return output

    handle = layer.register_forward_hook(hook)
    with torch.no_grad():
        whole = score(module(image))
        weights = []
        for channel in range(held[0].shape[axis]):
            zeroed[0] = channel
            weights.append((whole - score(module(image))) / whole.abs())
    handle.remove()
    return torch.tensordot(held[0], torch.stack(weights), ([axis], [0]))[0].numpy()


def centred(index):
    return lambda logits: logits[0, index] - logits[0].mean()


def alike(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


# What an output means


def logs(output):
    return output.log() if output.min() >= 0 else output


MEANT = [
    (nn.Softmax(1), "probabilities"),
    (lambda z: z.softmax(1), "probabilities"),
    (lambda z: z.log_softmax(1).exp(), "probabilities"),
    (lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2, "probabilities"),  # of several networks
    (lambda z: z.log_softmax(1), "logits"),
    (torch.sigmoid, "multilabel"),
    (nn.Sigmoid(), "multilabel"),
    (lambda z: (z.sigmoid() + z.sigmoid()) / 2, "multilabel"),
]


@pytest.mark.parametrize(("out", "meant"), MEANT)
def test_a_softmax_or_sigmoid_is_not_applied_twice(out, meant, photograph):
    module = seeded(lambda: Net(out=out))
    net, image = made(module), own_input(photograph)
    own = own_output(module, photograph)
    own = own if own.min() >= 0 else own.exp()
    assert net.outputs == meant
    close(probabilities(net, photograph), own)
    assert net.predict(photograph)[0].probability == pytest.approx(float(own.max()), abs=1e-5)
    single = meant == "multilabel"
    undo, index = (torch.logit, int(own.argmin())) if single else (logs, int(own.argmax()))
    rule = (lambda z: z[0, index]) if single else centred(index)  # less nobody's mean
    for method, literal, score in (
        ("gradcam", literal_gradcam, lambda z: z[0, index]),
        ("ablationcam", literal_ablation, rule),
    ):
        found = by_cam(net, photograph, method, target=index)
        layer = net.layer(net.cam_layer)
        alike(found.raw, literal(module, lambda o, score=score: score(undo(o)), layer, image))


def test_independent_labels_of_logits_can_be_stated(photograph):
    module = seeded(lambda: Net(3, out=lambda z: z * 0 + torch.tensor([4.0, 4.0, -4.0])))
    net = made(module, list("abc"), outputs="multilabel")
    # Results of one meaning are not taken for another's; of logits they are stored as ever.
    assert net.identity == made(module, list("abc")).identity | {"outputs": "multilabel"}
    assert net.id == made(module, list("abc")).id + "+multilabel"
    close(probabilities(net, photograph), [0.982, 0.982, 0.018], atol=1e-3)
    close(probabilities(made(module, list("abc")), photograph), [0.5, 0.5, 0], atol=1e-3)


@pytest.mark.parametrize(
    "out", [lambda z: z, torch.sigmoid, lambda z: z[:, 0], lambda z: z[:, :, None]]
)
@pytest.mark.parametrize("names", [["crack"], ["sound", "crack"]])
def test_a_single_output_is_a_class_with_two_sides(out, names, photograph):
    module = seeded(lambda: Net(1, out=out))
    net = made(module, names)
    own = float(own_output(module, photograph))
    crack = own if out is torch.sigmoid else float(torch.tensor(own).sigmoid())
    assert net.outputs == "binary"
    for stated in ("binary", "multilabel"):  # a label that stands alone has two sides, too
        assert made(module, names, outputs=stated).class_names == net.class_names
    assert net.class_names == (tuple(names) if len(names) == 2 else ("crack", "not crack"))
    assert net.target(photograph, "crack").probability == pytest.approx(crack, abs=1e-5)
    for_it, against = (
        explain_cam(net, photograph, target=name).raw
        for name in (names[-1], net.class_names[len(names) - 2])
    )
    alike(for_it, -against)
    assert by_lime(net, photograph, "crack").probability == pytest.approx(crack, abs=1e-5)


class BySigmoid(torch.autograd.Function):
    """A sigmoid that autograd does not know by name."""

    @staticmethod
    def forward(ctx, x):
        found = x.sigmoid()
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx, gradient):
        (y,) = ctx.saved_tensors
        return gradient * y * (1 - y)


def cut(z):
    return z.sigmoid().clamp(1e-6, 1 - 1e-6)


LOGS = nn.functional.logsigmoid
BY_HAND = [lambda z: 1 / (1 + (-z).exp()), lambda z: (torch.tanh(z / 2) + 1) / 2, BySigmoid.apply]
STATED = [
    *((lambda z: z.softmax(1)[:, 1:], 2, stated) for stated in ("auto", "probabilities")),
    *((cut, classes, stated) for classes, stated in ((1, "probabilities"), (3, "multilabel"))),
    *((out, n, "auto") for out in (LOGS, lambda z: 1 - z.sigmoid()) for n in (1, 3)),
    *((out, n, stated) for out in BY_HAND for n, stated in ((1, "binary"), (3, "multilabel"))),
]


@pytest.mark.parametrize(("out", "classes", "stated"), STATED)
def test_a_sigmoid_is_undone_or_taken_at_the_users_word(out, classes, stated, photograph):
    module = seeded(lambda: Net(classes, out=out))
    own = own_output(module, photograph)
    names = list("abc")[: len(own)]
    if out in BY_HAND:
        with pytest.raises(InputError, match=shown("perhaps_probabilities")):
            made(module, names)
    net = made(module, names, outputs=stated)
    assert net.outputs == ("multilabel" if len(names) > 1 else "binary")
    close(probabilities(net, photograph)[: len(names)], own.exp() if out is LOGS else own)


def test_logits_between_0_and_1_stay_logits(photograph):
    """A head that has learnt nothing yet, and one that ends in a ReLU."""
    net = made(seeded(lambda: Net(out=lambda z: z.relu().clamp(max=0.9))))
    assert net.outputs == "logits"
    zero = seeded(Net)
    nn.init.zeros_(zero.fc.weight)
    assert made(zero).outputs == "logits"
    for act in (nn.Sigmoid(), nn.SiLU(), nn.Softmax(1)):  # of features, and then a linear layer
        low = seeded(Net)
        low.act = act
        nn.init.uniform_(low.fc.weight, 0, 0.02)
        nn.init.uniform_(low.fc.bias, 0.1, 0.3)
        assert made(low).outputs == "logits"


# The tensor of an output that holds the scores is found.
OUTPUTS = [
    lambda z: {"logits": z, "boxes": z[:, :4]},
    lambda z: {"scores": z},
    lambda z: {"aux": z * 2, "logits": z},
    lambda z: (z, z[:, :2]),
    lambda z: ({"head": {"logits": z}}, None),
    lambda z: z[:, :, None, None],  # maps of one pixel
    lambda z: z[:, None],  # a row of one token
    lambda z: SimpleNamespace(inner=SimpleNamespace(logits=z, aux=z * 2)),
    lambda z: [z.repeat(1, 4), z],  # features first
    lambda z: z.double(),
]


class OwnHook(Net):
    """What a hook of its own keeps, or changes, goes on."""

    def __init__(self, change):
        super().__init__()
        self.kept = []
        self.body.register_forward_hook(self._kept if change is None else change)

    def _kept(self, _part, _inputs, output):
        self.kept[:] = [output]

    def features(self, x):
        found = self.body(self.act(self.stem(x)))
        return self.act(self.kept.pop() if self.kept else found)


class Written(Net):
    """The same without hooks, where what they do is written into the forward."""

    def __init__(self, change):
        super().__init__()
        self.change = change or (lambda _m, _i, output: output)

    def features(self, x):
        return self.act(self.change(None, None, self.body(self.act(self.stem(x)))))


class WithoutGradients(Net):
    forward = torch.no_grad()(Net.forward)  # from the layer on they are on again


class OurNames(Net):
    def __init__(self):
        super().__init__(out=lambda z: {"logits": z})
        self.scores = self.how = self.inner = nn.Identity()


CAMS = ("gradcam", "ablationcam", "scorecam")
SHIFTED = lambda _m, _i, output: output * 2 + 0.3  # noqa: E731
ALIKE = [  # an odd module, a plain one, the names of its classes, the methods
    *((partial(Net, out=out), Net, NAMES, CAMS) for out in OUTPUTS),
    # A row for two classes comes before a single score.
    (partial(Net, 2, lambda z: (z[:, :1], z)), partial(Net, 2), ["no", "yes"], CAMS),
    # Of a batch of one, ``squeeze`` leaves no axis.
    (partial(Net, 1, lambda z: z.squeeze()), partial(Net, 1), ["crack"], CAMS[:2]),
    (partial(Net, out=nn.Softmax(1)), Net, NAMES, ["ablationcam"]),
    (WithoutGradients, Net, NAMES, ["gradcam"]),
    (OurNames, Net, NAMES, ["gradcam"]),
    *((partial(OwnHook, how), partial(Written, how), NAMES, CAMS) for how in (None, SHIFTED)),
]


@pytest.mark.parametrize(("odd", "plain", "names", "methods"), ALIKE)
def test_what_is_odd_about_a_module_changes_no_map(odd, plain, names, methods, photograph):
    nets = [made(seeded(make), names) for make in (odd, plain)]
    close(*(probabilities(net, photograph) for net in nets))
    for method in methods:
        alike(*(by_cam(net, photograph, method).raw for net in nets))


def lazy():
    with catch_warnings(action="ignore"):
        body = nn.LazyConv2d(8, 3)
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(7))


@pytest.mark.parametrize(
    ("key", "make", "outputs"),
    [
        ("several_scores", lambda: Net(out=lambda z: (z, z * 2)), "auto"),
        ("no_scores", lambda: Net(out=lambda z: {"boxes": z[:, :4]}), "auto"),
        ("each_time_another", lambda: Net(out=lambda z: z + torch.rand_like(z)), "auto"),
        ("batch_of_one", lambda: Net(out=lambda z: z.reshape(1, 5)), "auto"),
        ("sees_its_neighbours", lambda: Net(out=lambda z: z - z.mean(0) * (len(z) > 1)), "auto"),
        ("sees_its_neighbours", lambda: Net(out=lambda z: z + 0.1 * z.mean(0)), "auto"),
        ("exits", lambda: Net(out=lambda z: sys.exit(3)), "auto"),
        ("not_probabilities", Net, "probabilities"),
        ("not_binary", Net, "binary"),
        ("unknown_outputs", Net, "logit"),
        ("no_probabilities", lambda: Net(out=lambda z: 100 * z.softmax(1)), "auto"),
        ("no_probabilities", lambda: Net(out=lambda z: 3 * (z.softmax(1) + z.sigmoid())), "auto"),
        ("meta_weights", lambda: Net().to("meta"), "auto"),
        ("lazy_layers", lazy, "auto"),
    ],
)
def test_a_network_that_cannot_be_explained_is_one_line(key, make, outputs):
    with pytest.raises(InputError, match=shown(key)):
        made(seeded(make), outputs=outputs)


class OfItsBatch(Net):
    """A batch norm that its own forward keeps in training."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def features(self, x):
        self.norm.train()
        return self.act(self.body(self.act(self.norm(self.stem(x)))))


def test_a_batch_norm_that_is_always_in_training_is_one_line():
    module = seeded(OfItsBatch)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with pytest.raises(InputError, match=shown("sees_its_neighbours")):
        made(module)
    assert all(torch.equal(before[name], buffer) for name, buffer in module.named_buffers())


class Coarse(Net):
    """It computes in bfloat16 by itself, and its scores hardly move."""

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float() * 1e-3 + 1


def test_numbers_below_float32_inside_are_as_exact_as_they_are(photograph):
    """What moves less than their rounding is no signal, though the weights are in float32."""
    module = seeded(Coarse)
    net = made(module, outputs="logits")
    assert rounding(net) == torch.finfo(torch.bfloat16).eps
    assert by_lime(net, photograph).no_signal
    assert explain_cam(net, photograph, "ablationcam").no_signal
    assert rounding(made(seeded(Net))) == ROUNDING
    assert rounding(made(seeded(lambda: Net(out=lambda z: z.bfloat16())))) == rounding(net)


def test_names_are_matched_exactly_before_anything_else():
    names = ["Polish", "polish", "3", "crane", "crane"]
    net = made(seeded(Net), names)
    assert (net.class_index("Polish"), net.class_index("polish"), net.class_index("3")) == (0, 1, 2)
    assert net.class_index(3) == net.class_index(np.int64(3)) == 3
    with pytest.raises(InputError, match=shown("ambiguous_case")):
        net.class_index("POLISH")
    with pytest.raises(InputError, match=shown("ambiguous_name")):
        net.class_index("crane")
    with pytest.raises(InputError, match="unknown name '4'"):  # where names are numbers, no index
        net.class_index("4")
    with pytest.raises(InputError, match=shown("target_kind")):
        net.class_index(1.5)
    with pytest.raises(InputError, match=shown("target_named")):  # nor is an index a name
        made(seeded(Net), ["1", "2", "3", "4", "10"]).class_index(10)
    assert made(seeded(Net)).class_index("4") == 4


# Kinds of modules


class Wrap(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.full((1, 3, 1, 1), 0.5))

    def forward(self, x):
        return (x - self.mean) / 0.25


class Backbone(nn.Module):
    """A network without head inside, and a head."""

    def __init__(self):
        super().__init__()
        self.encoder = Wrap(tv.ResNet(tv.resnet.BasicBlock, [1, 1, 1, 1]))
        self.encoder.net.fc = nn.Identity()
        self.head = nn.Linear(512, 5)

    def forward(self, x):
        return self.head(self.encoder(x))


def resnet():
    return tv.ResNet(tv.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)


def compiled(module):
    return torch.compile(module, backend="eager")


WRAPPED = {
    "1.net.": lambda: nn.Sequential(Normalise(), Wrap(resnet())),
    "1.net.net.": lambda: nn.Sequential(T.Normalize([0.5] * 3, [0.5] * 3), Wrap(Wrap(resnet()))),
    "1.": lambda: nn.Sequential(nn.BatchNorm2d(3), resnet()),
    "encoder.net.": Backbone,
    "": lambda: nn.DataParallel(compiled(resnet())),
}


@pytest.mark.parametrize("prefix", WRAPPED)
def test_the_layers_of_a_wrapped_network_are_those_inside(prefix):
    """At 32 pixels the last stage is a single pixel."""
    net = made(seeded(WRAPPED[prefix]))
    last = "head" if WRAPPED[prefix] is Backbone else f"{prefix}fc"
    assert net.dissect_layers == (f"{prefix}layer2", f"{prefix}layer3", last)
    assert cam_layer_of(net) == f"{prefix}layer3"


class Cached(Net):
    """A tensor is made in the first pass, and kept."""

    scale = None

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.linspace(0.5, 1, 32)
        return super().forward(x * self.scale)


class FrozenBackbone(Net):
    """Gradients are off in front of the head only."""

    features = torch.no_grad()(Net.features)


class InPlace(Net):
    """What is in front of and behind activations is changed in place."""

    def features(self, x):
        found = self.stem(x)
        found += 1
        found = nn.functional.silu(torch.relu_(found))
        found *= 2
        found = self.body(found)
        found -= 0.1
        return torch.relu_(found)


class NoWayBack(Net):
    """The result of a ReLU is changed in place, which its gradient needs."""

    def features(self, x):
        return torch.relu(self.body(self.act(self.stem(x)))).mul_(2)


class Solid(Net):
    """A 3-D convolution inside, and weights of three axes."""

    def __init__(self):
        super().__init__()
        self.solid = nn.Conv3d(12, 12, (1, 3, 3), padding=(0, 1, 1))
        self.line = nn.Conv1d(12, 12, 1)

    def features(self, x):
        found = self.body(self.act(self.stem(x)))
        found = self.solid(found.unsqueeze(2)).squeeze(2)
        return self.line(found.flatten(2)).unflatten(2, found.shape[2:])


def viewing():
    """``view`` does not take inputs or maps that are stored channels last."""
    return Net(before=lambda x: x.view(len(x), -1).view(x.shape))


class Compiled(Net):
    """A part, a function and a method that torch.compile has wrapped."""

    def __init__(self):
        super().__init__()
        self.body = torch.compile(self.body, backend="eager")
        self.act.compile(backend="eager")


class Extra(Net):
    def get_extra_state(self):
        return {"epoch": 3, "note": "x", "table": np.arange(3), "w": torch.ones(2)}

    def set_extra_state(self, state):
        pass


LOW = [lambda: seeded(Net).half(), lambda: seeded(Net).bfloat16(), lambda: seeded(Net).double()]
MODULES = [Cached, FrozenBackbone, InPlace, Solid, viewing, Compiled, Extra, *LOW]


@pytest.mark.parametrize("make", MODULES)
def test_an_odd_module_is_explained_as_by_a_plain_loop(make, photograph):
    module, image = seeded(make), own_input(photograph)
    net = made(module)
    before = copy.deepcopy(module.state_dict())
    plain = copy.deepcopy(module).float() if make in LOW else module
    if make is Compiled:  # whose hooks are skipped
        plain = as_plain(module)
    by_lime(net, photograph, engine="eager")
    index = int(own_output(plain, photograph).argmax())
    expected = literal_ablation(plain, centred(index), plain.body, image)
    alike(by_cam(net, photograph, "ablationcam", layer="body").raw, expected)
    if make is FrozenBackbone:  # where a plain ``backward`` has nothing to go through
        plain = as_plain(module)
    expected = literal_gradcam(plain, lambda o: o[0, index], plain.body, image)
    alike(explain_cam(net, photograph, "gradcam", layer="body").raw, expected)
    assert np.isfinite(by_cam(net, photograph, "scorecam", layer="body").raw).all()
    after = module.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if isinstance(v, torch.Tensor))
    assert not module._forward_hooks


def as_plain(module):
    """Return the network with the same weights, and gradients all the way."""
    plain = Net().eval()
    plain.load_state_dict({k.replace("_orig_mod.", ""): v for k, v in module.state_dict().items()})
    return plain


def test_a_forward_without_gradients_is_explained_where_none_are_needed(photograph):
    net = made(seeded(WithoutGradients))
    for method in ("ablationcam", "scorecam"):
        assert np.ptp(by_cam(net, photograph, method).raw) > 0
    with pytest.raises(InputError, match=shown("no_gradient_input")):
        guided_backprop(net, photograph)


def test_a_gradient_that_autograd_cannot_make_is_one_line(photograph):
    net = made(seeded(NoWayBack))
    for explain in (explain_cam, guided_backprop):
        with pytest.raises(InputError, match=shown("no_gradient")):
            explain(net, photograph)
    assert np.ptp(explain_cam(net, photograph, "ablationcam").raw) > 0


def test_guided_gradients_pass_operations_in_place_and_functions(photograph):
    def reference(module, image):
        """Every positive part of a gradient, by a function of its own."""

        class Guided(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x.clamp(min=0)

            @staticmethod
            def backward(ctx, gradient):
                return gradient.clamp(min=0) * (ctx.saved_tensors[0] > 0)

        image = image.clone().requires_grad_()
        found = 2 * nn.functional.silu(Guided.apply(module.stem(image) + 1))
        scores = module.fc(Guided.apply(module.body(found) - 0.1).mean((2, 3)))
        (gradient,) = torch.autograd.grad(scores[0].max(), image)
        return gradient[0].movedim(0, -1).numpy()

    module = seeded(InPlace)
    alike(guided_backprop(made(module), photograph), reference(module, own_input(photograph)))


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_is_explained_by_lime_and_nothing_that_needs_hooks(how, photograph):
    plain = seeded(Net)
    with catch_warnings(action="ignore"):
        module = torch.jit.trace(plain, own_input(photograph))
        if how == "script":
            head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
            module = torch.jit.script(nn.Sequential(plain.stem, head).eval())
    net = made(module)
    lime, own = by_lime(net, photograph), own_output(module, photograph).softmax(0).max()
    assert lime.probability == pytest.approx(float(own), abs=1e-5)
    assert (net.cam_layer, net.dissect_layers) == (None, ())
    with pytest.raises(InputError, match=shown("torchscript")):
        explain_cam(net, photograph)


def test_a_quantised_network_is_explained_without_gradients(photograph):
    with catch_warnings(action="ignore"):
        module = torch.ao.quantization.quantize_dynamic(seeded(Net), {nn.Linear})
    net = made(module)
    assert len(net.id) > 12
    by_lime(net, photograph, engine="eager")
    found = by_cam(net, photograph, "ablationcam", layer="body")
    index = int(own_output(module, photograph).argmax())
    expected = literal_ablation(module, centred(index), module.body, own_input(photograph))
    np.testing.assert_allclose(found.raw, expected, atol=0.05 * np.abs(expected).max())
    with pytest.raises(InputError, match=shown("quantised")):
        explain_cam(net, photograph, layer="body")


class Encoder(nn.Module):
    """Patches, `nn.TransformerEncoder`, and a mean of the tokens or a class token."""

    def __init__(self, first=True, token=False):
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True, norm_first=first, dropout=0)
        self.patches = nn.Conv2d(3, 24, 8, 8)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.cls = nn.Parameter(torch.randn(1, 1, 24)) if token else None
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.cls is None:
            return self.fc(self.encoder(x).mean(1))
        return self.fc(self.encoder(torch.cat([self.cls.expand(len(x), 1, 24), x], 1))[:, 0])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("token", [True, False])
def test_the_fast_path_of_an_encoder_is_not_taken_by_replays(first, token, photograph):
    module = seeded(lambda: Encoder(first, token))
    net, image = made(module), own_input(photograph)
    name = cam_layer_of(net)
    layer = dict(module.named_modules())[name]
    gradcam = explain_cam(net, photograph).raw
    assert np.ptp(gradcam) > 0, "a layer was chosen that no gradient reaches"
    found = by_cam(net, photograph, "ablationcam")
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        score = centred(int(own_output(module, photograph).argmax()))
        expected = literal_ablation(module, score, layer, image, axis=-1)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    alike(found.raw, expected[int(token) :].reshape(4, 4))


# A live module


def test_three_lines_from_a_module_that_was_just_trained(tmp_path):
    """The README's example: train, make a classifier, explain whatever shows the photograph."""
    torch.manual_seed(0)
    module, transform = Net(2), RESIZE
    images = torch.rand(16, 3, SIDE, SIDE)
    labels = (images[:, 0].mean((1, 2)) > 0.5).long()
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    classifier = classifier_from(module, transform, ["dark", "light"])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    file = tmp_path / "mine.png"
    Image.fromarray(pixels).save(file)
    untrained = explain_cam(classifier, file)
    module.train()
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        optimiser.step()
    cam = explain_cam(classifier, file)
    assert cam.classifier != untrained.classifier  # another id: not the same network any more
    assert module.training
    again = classifier_from(module, transform, ["dark", "light"])
    assert explain_cam(again, file).classifier == cam.classifier
    module.fc.weight.data *= 2  # which PyTorch counts nowhere
    assert classifier.id != cam.classifier
    array = pixels.astype(np.float32) / 255
    tensor = torch.from_numpy(pixels).movedim(-1, 0)
    for image in (str(file), Image.open(file), pixels, array, tensor, tensor[None] / 255):
        assert by_lime(again, image).raw.any()
        np.testing.assert_allclose(explain_cam(again, image).raw, explain_cam(again, file).raw)


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("image_kind", seeded(Net)),
        ("image_values", torch.randn(3, 40, 40)),
        ("image_shape", np.zeros((40, 40, 7), np.uint8)),
        ("image_kind", object()),
        ("image_kind", None),
    ],
)
def test_what_is_no_image_is_one_line(key, image):
    net = made(seeded(Net))
    for explain in (explain_cam, explain_lime, guided_backprop):
        with pytest.raises(InputError, match=shown(key)):
            explain(net, image)


WRONG = """
from torch import nn
from xailib.errors import InputError
from xailib.explain import explain_cam, explain_lime, guided_backprop
from xailib.networks import classifier_from
net = nn.Linear(2, 2)
for call in (
    lambda: explain_cam(net, "chelsea"),
    lambda: explain_lime(net, "chelsea"),
    lambda: guided_backprop(net, "chelsea"),
    lambda: classifier_from("resnet18", abs, ["a", "b"]),
    lambda: classifier_from(net, None, ["a", "b"]),
    lambda: classifier_from(net, abs, None),
):
    try:
        call()
    except InputError as error:
        print(error)
"""


def test_what_is_no_classifier_is_one_line():
    """In a process of its own: here beartype would refuse these before we do."""
    done = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    keys = [*["classifier_kind"] * 3, "module_kind", "transform_kind", "names_kind"]
    assert len(lines) == len(keys)
    for key, line in zip(keys, lines, strict=True):
        assert says(key, line), line


def test_a_network_that_writes_into_its_input_gets_a_copy(photograph):
    module = seeded(lambda: Net(before=lambda x: x.sub_(0.5).div_(0.25)))
    net, image = made(module), own_input(photograph)
    for _ in range(2):
        close(probabilities(net, photograph), own_output(module, photograph).softmax(0))
    found = explain_cam(net, photograph, "ablationcam", target=2)
    layer = net.layer(net.cam_layer)
    expected = literal_ablation(lambda x: module(x.clone()), centred(2), layer, image)
    alike(found.raw, expected)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_weights_that_are_computed_from_others(norm, photograph):
    module = seeded(Net)
    norm(module.body)
    net, image = made(module.eval()), own_input(photograph)
    layer = net.layer(net.cam_layer)
    found = explain_cam(net, photograph, "gradcam", target=1)
    alike(found.raw, literal_gradcam(module, lambda o: o[0, 1], layer, image))
    before = net.id
    with torch.no_grad():
        next(module.body.parametrizations.parameters()).mul_(2)
    assert net.id != before


def test_torchscript_that_was_frozen_or_lies_inside_is_explained_by_lime(photograph):
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with catch_warnings(action="ignore"):
        frozen = torch.jit.freeze(torch.jit.script(plain))
        inside = nn.Sequential(Normalise(), torch.jit.trace(seeded(Net), own_input(photograph)))
    for module in (frozen, inside.eval()):
        net = made(module)
        assert not by_lime(net, photograph).no_signal
        assert (net.cam_layer, net.dissect_layers) == (None, ())  # not the input's normalisation
        with pytest.raises(InputError, match=r"^layer: "):
            explain_cam(net, photograph)


def test_layers_inside_a_vmap_are_one_line(photograph):
    class Mapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = seeded(Net)

        def forward(self, x):
            return torch.func.vmap(lambda one: self.net(one[None])[0])(x)

    net = made(Mapped().eval())
    assert not by_lime(net, photograph).no_signal
    for method in ("gradcam", "ablationcam", "scorecam"):
        with pytest.raises(InputError, match=r"^model: .* fails: RuntimeError: "):
            explain_cam(net, photograph, method)
