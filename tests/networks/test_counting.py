"""Passes are counted where images are shown to a network, and stand in the manifest of a run."""

from functools import partial
from threading import Thread

import torch
from nets import classifier, photograph

from xailib.dissect.activations import record_activations
from xailib.evaluate.randomisation import cascade
from xailib.explain.cam.methods import explain_cam
from xailib.explain.lime import explain_lime
from xailib.images.load import ImageSet
from xailib.images.probe import load_probe
from xailib.networks.counting import Passes, passed, passes
from xailib.report.run.results import read_manifest, start_run


def counted(work, *words, **options):
    """What we count, and what the network's own hook sees: pictures in whole passes."""
    net, seen = classifier(), []
    hook = net.module.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    before = passes()
    work(net, *words, **options)
    hook.remove()
    return (passes() - before).made, sum(seen)


def test_counted_is_what_the_network_was_shown(tmp_path):
    photo = photograph()
    made, seen = counted(explain_lime, photo, num_samples=30, engine="eager")
    assert made == seen
    assert 2 < made <= 1 + 30  # equal samples are shown once
    for method, most in (("gradcam", 1), ("scorecam", 1 + 12)):
        made, seen = counted(explain_cam, photo, method, layer="body", engine="eager")
        assert made == seen, method
        assert 1 <= made <= most, method
    made, seen = counted(record_activations, ["fc"], some_probe(), folder=tmp_path / "recording")
    assert made == seen == 5


def test_counted_is_what_randomising_shows():
    # Three stages: the output layer, and two with batch norms, which see mirror images too.
    net, seen = classifier(), []
    watch = torch.nn.modules.module.register_module_forward_hook
    hook = watch(lambda m, i, _o: seen.append(len(i[0])) if type(m) is type(net.module) else None)
    before = passes()
    list(cascade(net, [photograph(0), photograph(1)], 3))
    hook.remove()
    order = 1
    assert (passes() - before).made == sum(seen) == order + 3 * 2 + 2 * 4


def some_probe():
    probe = load_probe("packaged", 0)
    return type(probe)("some", probe.images[:5])


def test_a_recording_that_is_there_is_kept(tmp_path):
    found = []
    for _ in range(2):
        before = passes()
        record_activations(classifier(), ["fc"], some_probe(), folder=tmp_path / "recording")
        found.append(passes() - before)
    assert found == [Passes(made=5), Passes(kept=5)]


def test_the_manifest_tells_what_was_made_and_what_was_kept(tmp_path):
    photos = ImageSet((photograph(0), photograph(1)))
    told = []
    for count in (1, 2):  # an interrupted run, and the next one
        run = start_run(tmp_path / "run", "2_lime", {}, photos)
        make = partial(explain_lime, classifier(), num_samples=20, seed=0)
        run.explanations(photos[:count], "lime", {}, make)
        run.finish()
        told.append(Passes(**read_manifest(tmp_path / "run")["passes"]))
    first, second = told
    assert first.kept == 0
    assert second.kept == first.made > 2
    assert second.made > 2


def test_no_count_is_lost_between_threads():
    before = passes()
    threads = [Thread(target=lambda: [passed(1) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passes() - before == Passes(made=8000)
