"""Many passes: every engine gives eager's scores, in bounded memory, and touches nothing."""

import gc
import importlib.util
import logging
import shutil

import nets
import pytest
import torch
from nets import CATEGORIES, InPlace, Plain, Stubborn, classifier, offer_engines, photograph, seeded
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from xailib.errors import InputError, UnavailableError
from xailib.explain.cam.methods import explain_cam
from xailib.explain.lime import explain_lime
from xailib.networks import engines, forward
from xailib.networks.forward import ENGINES, forward_batches

PICTURES = torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(0))
HAS_OPENVINO = bool(importlib.util.find_spec("openvino"))


def make(start, stop):
    return PICTURES[start:stop].contiguous(memory_format=torch.channels_last)


def eager(module):
    with torch.no_grad():
        return module(PICTURES)


@pytest.fixture
def cheap(monkeypatch):
    """Every engine pays from the first pass on, and none is found slow."""
    monkeypatch.setattr(forward, "_WORTH", dict.fromkeys(forward._WORTH, 1))
    monkeypatch.setattr(forward, "_faster", lambda *_: True)


@pytest.fixture
def set_up(cheap, monkeypatch):
    """The modules for which the fused engine, the only one, is set up."""
    found = []

    def counted(module, example):
        found.append(module)
        return engines.SET_UPS["fused"](module, example)

    offer_engines(monkeypatch, fused=counted)
    return found


def usable(name):
    if name == "openvino" and not HAS_OPENVINO:
        pytest.skip(f"{name} is not installed")
    if name == "compile" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")


@pytest.mark.parametrize("name", ["openvino", "fused", "eager"])
@pytest.mark.parametrize("net", [Plain, InPlace, Stubborn, nets.vit, nets.swin])
def test_engine_gives_eager_s_scores_and_leaves_the_network(name, net):
    usable(name)
    module = seeded(net)
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    contents = [sorted(vars(part)) for part in module.modules()]
    try:
        found = forward_batches(module, make, 11, batch_size=4, engine=name)
    except InputError:
        assert name == "fused"  # which cannot follow every network's Python code
        found = None
    assert all(part.training for part in module.modules())
    assert [sorted(vars(part)) for part in module.modules()] == contents
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    if found is not None:
        assert found.engine == name
        torch.testing.assert_close(found.logits, eager(module.eval()), rtol=1e-4, atol=1e-5)


def test_openvino_leaves_the_cores_to_all_processes(monkeypatch):
    """Pinned, the threads of each take the first cores: two workers would run on one of two."""
    openvino = pytest.importorskip("openvino")
    compile_model, compiled = openvino.Core.compile_model, []

    def recording(*given):
        compiled.append(compile_model(*given))
        return compiled[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", recording)
    forward_batches(seeded(Plain), make, 11, batch_size=4, engine="openvino")
    assert not compiled[0].get_property("ENABLE_CPU_PINNING")
    assert compiled[0].get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()


def test_compile_gives_eager_s_scores():
    usable("compile")
    module = seeded(lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5)))
    found = forward_batches(module, make, 11, batch_size=4, engine="compile")
    torch.testing.assert_close(found.logits, eager(module), rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


def test_auto_is_eager_for_few_passes_and_an_engine_for_many(cheap, monkeypatch):
    module = seeded(Plain)
    found = forward_batches(module, make, 11)
    assert found.engine == ("openvino" if HAS_OPENVINO else "compile")
    monkeypatch.setattr(forward, "_WORTH", dict.fromkeys(forward._WORTH, 12))
    assert forward_batches(module, make, 11).engine == "eager"
    monkeypatch.setattr(forward, "_WORTH", dict.fromkeys(forward._WORTH, 1))
    offer_engines(monkeypatch, faster=False, fused=engines.SET_UPS["fused"])
    assert forward_batches(seeded(Plain), make, 11).engine == "eager"


@pytest.mark.parametrize("error", [ImportError, RuntimeError, KeyError, AssertionError])
def test_auto_falls_back_silently(cheap, monkeypatch, caplog, error):
    def broken(*_):
        raise error("no compiler here\nand a long story")

    offer_engines(monkeypatch, compile=broken, fused=engines.SET_UPS["fused"])
    module = seeded(Plain)
    with caplog.at_level(logging.INFO, "xailib.networks.forward"):
        assert forward_batches(module, make, 11).engine == "fused"
        assert forward_batches(module, make, 11).engine == "fused"
    assert caplog.text.count("compile cannot be used") == 1  # and is not tried again
    with pytest.raises(InputError, match="engine: 'compile' cannot be used here"):
        forward_batches(module, make, 11, engine="compile")


@pytest.mark.parametrize("change", [0.01, "argmax", "shape"])
def test_an_engine_that_gives_other_scores_is_not_used(cheap, monkeypatch, change):
    def wrong(module, _example):
        def run(batch):
            scores = module(batch)
            if change == "shape":
                return scores[:, :-1]
            return scores.flip(1) if change == "argmax" else scores + change

        return run

    offer_engines(monkeypatch, compile=wrong)
    module = seeded(Plain)
    found = forward_batches(module, make, 11)
    assert found.engine == "eager"
    torch.testing.assert_close(found.logits, eager(module))
    with pytest.raises(InputError, match="engine: 'compile' differs from eager"):
        forward_batches(module, make, 11, engine="compile")


@pytest.mark.parametrize("trace", [True, False], ids=["seen by torch", "behind its back"])
def test_an_engine_is_set_up_once_and_again_when_weights_change(set_up, trace):
    """A change of ``data`` leaves no trace in the tensor's version: scores give it away."""
    module = seeded(Plain)
    for _ in range(3):
        forward_batches(module, make, 11)
    assert len(set_up) == 1
    with torch.no_grad():
        (module.fc.weight if trace else module.fc.weight.data).mul_(-2)
    found = forward_batches(module, make, 11)
    assert len(set_up) == 2
    assert found.engine == "fused"
    torch.testing.assert_close(found.logits, eager(module), rtol=1e-4, atol=1e-5)


def test_engines_die_with_their_network():
    module = seeded(Plain)
    forward_batches(module, make, 11, engine="fused")
    gc.collect()  # of what other tests have left
    shelves = len(engines._caches)
    del module
    gc.collect()
    assert len(engines._caches) == shelves - 1


def test_only_the_last_engines_are_kept(monkeypatch):
    monkeypatch.setattr(engines, "MOST", 2)
    module = seeded(Plain)
    things = engines.cache_of(module)
    for key in "abac":
        engines.store(things, key, key)
    assert engines.cache_of(module) == {"a": "a", "c": "c"}


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.fc.bias.zero_(),
        lambda net: net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}),
        lambda net: setattr(net, "fc", nn.Linear(12, CATEGORIES)),
        lambda net: net.stem[1].running_mean.add_(0),
        lambda net: nn.init.normal_(net.stem[0].weight),
        lambda net: setattr(net.fc, "weight", nn.Parameter(net.fc.weight.clone())),
    ],
)
def test_nothing_is_kept_for_weights_that_were_written_to(change):
    module = seeded(Plain)
    engines.store(engines.cache_of(module), "key", "thing")
    module(PICTURES)
    assert engines.cache_of(module) == {"key": "thing"}
    with torch.no_grad():
        change(module)
    assert engines.cache_of(module) == {}


def test_a_part_that_is_made_anew_finds_its_engine_with_its_network(set_up):
    network = seeded(Plain)
    for name in ("whole", "whole", "other"):
        part = nn.Sequential(network)
        found = forward_batches(part, make, 11, of=(network, name))
        torch.testing.assert_close(found.logits, eager(network), rtol=1e-4, atol=1e-5)
    assert len(set_up) == 2


NO_MEMORY = torch.OutOfMemoryError("full"), MemoryError(), RuntimeError("can't allocate memory")


@pytest.mark.parametrize("error", [None, *NO_MEMORY])
def test_batches_are_halved_when_memory_runs_out(error):
    sizes, net = [], classifier()

    def small(start, stop):
        sizes.append(stop - start)
        if error and stop - start > 3:
            raise error
        return make(start, stop)

    found = net.forward_batches(small, 11, batch_size=8)
    torch.testing.assert_close(found.logits, eager(net.module), rtol=1e-4, atol=1e-5)
    assert sizes == ([8, 4, 2, 2, 2, 2, 2, 1] if error else [8, 3])


def test_an_error_that_is_not_about_memory_is_raised():
    module = seeded(Plain)
    module.train()

    def broken(_start, _stop):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        forward_batches(module, broken, 11)
    with pytest.raises(UnavailableError, match="memory: a single image does not fit"):
        forward_batches(module, lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()), 11)
    assert module.training


@pytest.mark.parametrize(
    "explain",
    [
        lambda net, photo: explain_lime(net, photo, num_samples=40, engine="eager"),
        lambda net, photo: explain_cam(net, photo, "scorecam", layer="body", engine="eager"),
        lambda net, photo: explain_cam(net, photo, "ablationcam", layer="stem", engine="eager"),
    ],
)
def test_no_operation_in_the_loops_waits_for_the_device(monkeypatch, explain):
    """On a GPU these would copy to the host: what reads numbers, finds places, changes device."""
    names = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function).removeprefix("aten."))
            return function(*args, **(kwargs or {}))

    original = forward._all

    def watched(*arguments):
        with Watch():
            return original(*arguments)

    monkeypatch.setattr(forward, "_all", watched)
    explain(classifier(), photograph())
    waits = {"item.default", "is_nonzero.default", "nonzero.default", "masked_select.default"}
    waits |= {"to.dtype_layout", "to.device"}  # to another device
    assert "convolution.default" in names
    assert not waits & set(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "steam"}, "engine: unknown name 'steam'"),
        ({"precision": "exakt"}, "precision: unknown name 'exakt'"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"count": 0}, "count: 0 is not at least 1"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(InputError, match=message):
        forward_batches(seeded(Plain), make, **{"count": 11, **arguments})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [name for name in ENGINES if name != "openvino"])
def test_cuda(name):
    module = seeded(Plain).cuda()
    found = forward_batches(module, lambda a, b: make(a, b).cuda(), 11, engine=name)
    assert found.logits.is_cuda
    torch.testing.assert_close(found.logits.cpu(), eager(module.cpu()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("again", [False, True])
@torch.no_grad()
def test_an_engine_that_is_set_up_works_first_and_is_checked_after(monkeypatch, again):
    """As on a GPU, where a check before would keep the card waiting."""
    order = []

    def made(module, _example):
        def run(batch):
            order.append(("engine", len(batch)))
            return module(batch)

        return run

    offer_engines(monkeypatch, fused=made)
    monkeypatch.setattr(forward, "_worthwhile", lambda _work: ["fused"])
    module = seeded(Plain)
    module.register_forward_hook(lambda _m, i, _o: order.append(("network", len(i[0]))))
    options = {"engine": "auto", "count": 11, "again": again}
    work = forward.Work(module, make, 11, 4, (module, "part"))
    assert forward._by_kept_engine(work, **options) is None  # nothing is set up
    forward.choose(work, "auto")
    order.clear()
    found = forward._by_kept_engine(work, **options)
    torch.testing.assert_close(found.logits, eager(module))
    passes = [("engine", 4), ("network", 4), ("engine", 4), ("network", 4), ("engine", 3)]
    passes.append(("network", 3))
    checks = [] if again else [("network", 2)]
    assert order[: len(passes) + len(checks)] == passes + checks
    module.fc.weight.data.mul_(-2)  # an engine that holds other weights than the network
    engines.cache_of(module)[forward._key("fused", work, PICTURES[:2])] = forward.Engine(
        "fused", lambda batch: torch.zeros(len(batch), CATEGORIES)
    )
    assert (forward._by_kept_engine(work, **options) is None) is not again
