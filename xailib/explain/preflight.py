"""What a network can be explained by: each method is tried on a made-up image, before any work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from xailib.errors import InputError, XailibError
from xailib.explain.cam.ablation import way_of
from xailib.explain.cam.gradient import guided_gradients, layer_pass
from xailib.explain.cam.methods import GRADIENT_METHODS, METHODS, cam_layer_of
from xailib.explain.cam.tail import Tail
from xailib.networks.classifier import Classifier
from xailib.networks.counting import uncounted
from xailib.networks.engines import cache_of

ALL = ("lime", *METHODS, "guided")


@dataclass(frozen=True)
class Answer:
    """Whether a method works with a network.

    Attributes
    ----------
    method, how : str
        As in `Explanation`, or ``"guided"``; in which way it works, or why not.
    works : bool
        Whether it gave something.
    """

    method: str
    works: bool
    how: str


def preflight(
    classifier: Classifier, methods: Sequence[str] = ALL, layer: str | None = None
) -> list[Answer]:
    """Try methods on a made-up image: a few passes each, whatever the number of channels.

    Parameters
    ----------
    classifier : Classifier
        What is to be explained.
    methods : sequence of str
        Of `ALL`; others are taken to work.
    layer : str, optional
        For class activation maps, see `xailib.explain.cam.methods.cam_layer_of`.
    """
    # Apart from the engines, of which the cache of a network holds few.
    cache = cache_of(classifier.module).setdefault("preflight", {})
    precision, found = classifier.precision, []
    if precision not in cache:
        with uncounted():
            cache[precision] = _indifferent(classifier)
    for method in methods:
        way = "gradient" if method in GRADIENT_METHODS else method  # these need the same
        key = (way, layer, precision)
        if method in ALL and cache[precision]:
            cache[key] = Answer(method, False, cache[precision])
        elif key not in cache:
            with uncounted():
                cache[key] = _answer(classifier, method, layer)
        found.append(replace(cache[key], method=method))
    return found


def workable(
    classifier: Classifier, methods: Sequence[str], layer: str | None = None
) -> tuple[list[str], list[str]]:
    """Return the methods that work with a network, and a line for each that does not.

    `InputError` is raised if none works: why the first does not.
    """
    if layer:
        classifier.layer(layer)
    answers = preflight(classifier, methods, layer)
    works = [answer.method for answer in answers if answer.works]
    if methods and not works:
        raise InputError(f"methods: none works; {answers[0].method}: {answers[0].how}")
    return works, [f"{one.method} is left out: {one.how}" for one in answers if not one.works]


def _answer(classifier: Classifier, method: str, layer: str | None) -> Answer:
    try:
        if method not in ALL:
            return Answer(method, True, "")
        if method == "lime":
            height, width = classifier.trial().shape[-2:]
            return Answer(method, True, f"on the {height} x {width} input")
        if method == "guided":
            works = bool(guided_gradients(classifier, classifier.trial()).any())
            how = "by the network's ReLUs" if works else "the guided gradient is exactly zero"
            return Answer(method, works, how)
        name = cam_layer_of(classifier, layer)
        return Answer(method, True, f"layer {name}: {_way(classifier, method, name)}")
    except XailibError as error:
        return Answer(method, False, str(error))


def _indifferent(classifier: Classifier) -> str:
    """Return why nothing can be explained, ``""`` unless all images have the same scores."""
    image = classifier.trial()
    channels, height, width = image.shape[1:]
    try:
        first = classifier.scores(torch.cat([image, torch.zeros_like(image)]))
        if not torch.equal(first[0], first[1]):
            return ""
        # It may look at one colour only.
        plain = torch.eye(channels, device=image.device)[:, :, None, None] * image.abs().max()
        plain = plain.expand(-1, -1, height, width)
        others = classifier.scores(torch.cat([-image, plain, -plain]))
    except XailibError as error:
        return str(error)
    same = bool((others == first[:1]).all())
    return f"the scores of {2 + len(others)} different images are the same" if same else ""


def _way(classifier: Classifier, method: str, layer: str) -> str:
    """Return in which way a class activation map works; raise where it does not."""
    image, gradients = classifier.trial(), method in GRADIENT_METHODS
    with classifier.running():
        found = layer_pass(classifier, layer, image, gradients=gradients)
        channels = found.maps.shape[1]
        if method == "scorecam":
            return f"up to {channels} passes"
        if method == "ablationcam":
            tail = Tail(classifier.module, layer, image)
            way = way_of(tail, found.layout, classifier.precision)
            closed = way == "closed form"
            return "one pass by the closed form" if closed else f"{channels} passes of the {way}"
        gradient = found.gradient(found.logits.argmax(1))
        if gradient is None:
            raise InputError(f"no gradient reaches layer {layer}")
        if not found.layout.maps(gradient).any():
            raise InputError(f"the gradient is exactly zero at layer {layer}")
        return "maps of {} x {}".format(*found.layout.grid)
