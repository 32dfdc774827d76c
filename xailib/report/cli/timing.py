"""What a network's passes take here: timed before a run, so that its time is known before.

Loading the network for it also finds what only a loaded one can tell: weights that do not fit, a
class or a layer that it does not have.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from xailib.errors import XailibError
from xailib.explain.cam.ablation import way_of
from xailib.explain.cam.gradient import layer_pass
from xailib.explain.cam.methods import cam_layer_of
from xailib.explain.cam.tail import Tail
from xailib.explain.preflight import workable
from xailib.networks.classifier import Classifier, load_classifier
from xailib.networks.forward import Work, choose
from xailib.networks.memory import enough
from xailib.report.params.profiles import Profile
from xailib.report.params.schema import OF_CLASSIFIER
from xailib.report.run.costs import Pace
from xailib.report.run.preflight import network_is_here

_LIME = ("2_lime", "5_faithfulness", "9_stability")  # tasks that need what LIME needs
_TIMED = 4  # images of a timed pass: a larger batch takes hardly less for each
_MANY = 1000  # passes, for which an engine is set up


def paces_of(profile: Profile, tasks: Collection[str]) -> tuple[dict[str, Pace], dict[str, str]]:
    """Return the pace of each task's network, and why some tasks can only fail.

    Loading a network also finds what only a loaded one can tell: weights that do not fit, a class
    or a layer that it does not have. Left out are tasks without a network, and networks whose
    weights are still to be fetched.
    """
    found: dict[str, Pace] = {}
    wrong: dict[str, str] = {}
    timed = cache(_timed_network)  # once for all its tasks
    for task in tasks:
        values = profile.values(task)
        if "model" not in values or values.get("descriptions") or not network_is_here(values):
            continue
        try:
            network = timed(**{name: values[name] for name in OF_CLASSIFIER})
            found[task] = _checked(*network, task, values)
        except XailibError as error:
            wrong[task] = f"{type(error).__name__}: {error}"  # as a notebook says it
    return found, wrong


def _timed_network(model: str, **how: Any) -> tuple[Classifier, Pace]:
    classifier = load_classifier(model, **how)
    module, precision = classifier.module, classifier.precision
    images = _images(classifier)
    size, of = enough(classifier.device), (module, "")
    work = Work(module, lambda start, stop: images[start:stop], _MANY, size, of, precision)
    with torch.no_grad(), classifier.running():
        engine = choose(work, "auto")
        return classifier, Pace(_seconds(module, images), _seconds(engine.run, images))


def _checked(classifier: Classifier, pace: Pace, task: str, values: Mapping[str, Any]) -> Pace:
    """Return a task's pace, once the network has the class and the layers that are asked for."""
    if values.get("target", "") != "":
        classifier.class_index(values["target"])
    for name in values.get("layers", ()):
        classifier.layer(name)
    if task in _LIME:
        workable(classifier, ["lime"])
    if not values.get("methods"):
        return pace
    layer = values["layer"] or None
    works, _ = workable(classifier, values["methods"], layer)
    if task != "3_cam":  # for its maps alone the layer's own passes are counted
        return pace
    images, name = _images(classifier), cam_layer_of(classifier, layer)
    with torch.no_grad(), classifier.running():
        found = layer_pass(classifier, name, images[:1], gradients=False)
        channels = found.maps.shape[1]
        seconds = 0.0
        if "ablationcam" in works:
            tail = Tail(classifier.module, name, images[:1])
            way = way_of(tail, found.layout, classifier.precision)
            if way == "tail":
                seconds = _seconds(tail, tail.output.expand(_TIMED, *tail.output.shape[1:]))
            elif way == "whole network":
                seconds = pace.eager
        return replace(pace, tail=seconds, channels=channels)


def _images(classifier: Classifier) -> Tensor:
    return classifier.trial().repeat(_TIMED, 1, 1, 1)


def _seconds(run: Callable[[Tensor], Any], images: Tensor) -> float:
    """Return the seconds for each of these images, the shorter of two passes."""
    cuda = images.is_cuda
    # Of processors, so that what else runs here does not count.
    clock = time.perf_counter if cuda else time.process_time
    times = []
    for _ in range(2):
        start = clock()
        run(images)
        if cuda:
            torch.cuda.synchronize(images.device)
        times.append(clock() - start)
    return min(times) / len(images) / (1 if cuda else torch.get_num_threads())
