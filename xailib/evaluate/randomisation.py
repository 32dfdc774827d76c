"""Sanity checks (Adebayo et al. 2018): networks that have forgotten, and the maps made of them.

A map that stays as it was when all that the network has learnt is gone explains the image,
not the network. `xailib.evaluate.sanity` compares the maps and judges.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile

import numpy as np
import torch
from skimage.color import rgb2gray
from skimage.filters import sobel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from xailib.errors import InputError, check_name
from xailib.explain.cam import methods as cam
from xailib.explain.explanation import Explanation, scaled
from xailib.explain.lime import explain_lime_targets
from xailib.explain.record import record
from xailib.explain.stream import explain_alone
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier
from xailib.networks.counting import passed
from xailib.networks.layers import evaluation, hookable, hooked
from xailib.networks.weights import hash_of

METHODS = ("lime", *cam.METHODS, "guided", "edges")


@dataclass(frozen=True)
class Stage:
    """What is randomised in one step: layers that follow one another."""

    index: int  #: 1 for the output layer
    name: str  #: of the lowest block in it, with which everything behind it is random
    layers: tuple[str, ...]  #: the modules with parameters of their own, from the output backwards


def stages_of(classifier: Classifier, stages: int = 5) -> list[Stage]:
    """Split a network into at most so many stages of about equally many layers, output first.

    The first of at least two stages is the output layer alone. The others end where a block does
    (``layer4``, ``blocks.5``); a block that would fill more than a stage is split into its own
    blocks. Layers stand in the order in which they are first used; parameters outside of any layer
    (a class token, position embeddings) belong to the input.
    """
    order = _in_order_of_use(classifier)
    if stages < 2 or len(order) < 2:
        raise InputError(
            f"stages: at least 2 are needed; given {stages}, of a network with {len(order)} layers"
        )
    *rest, output = order
    count, done = min(stages, len(order)) - 1, 0
    parts: list[list[list[str]]] = [[] for _ in range(count)]
    for block in reversed(_blocks(rest, len(rest) / count)):
        parts[(2 * done + len(block)) * count // (2 * len(rest))].append(block)  # by its middle
        done += len(block)
    found = [Stage(1, output, (output,))]
    for index, some in enumerate(parts, 2):
        layers = tuple(name for block in some for name in reversed(block))
        found.append(Stage(index, _shared(some[-1]), layers))
    return found


def _in_order_of_use(classifier: Classifier) -> list[str]:
    """Return the modules with parameters of their own, in the order in which they start."""
    started: dict[str, int] = {}

    def note(name: str, _inputs: object) -> None:
        started.setdefault(name, len(started))

    parts = hookable(classifier.module)
    owners = [name for name, part in parts.items() if any(True for _ in part.parameters(False))]
    if not owners:
        raise InputError(f"model: {classifier.name} has no layers that could be randomised")
    with hooked(parts, note, before=True):
        classifier.scores(classifier.trial())

    def place(name: str) -> int:
        while name and name not in started:  # used by its parent, without a call of its own
            name = name.rpartition(".")[0]
        return started.get(name, 0)

    return sorted(owners, key=place)


def _blocks(layers: Sequence[str], most: float, depth: int = 1) -> list[list[str]]:
    """Group layers that follow one another by the outermost blocks of at most `most` layers."""
    found = []
    for _, group in groupby(layers, key=lambda name: name.split(".")[:depth]):
        block = list(group)
        small = len(block) <= max(most, 1)
        found += [block] if small else _blocks(block, most, depth + 1)
    return found


def _shared(layers: Sequence[str]) -> str:
    """Return the name of the block that contains the layers."""
    steps = zip(*(name.split(".") for name in layers), strict=False)
    common = takewhile(lambda step: len(set(step)) == 1, steps)
    return ".".join(step[0] for step in common) or "input"


def cascade(
    classifier: Classifier, photographs: Iterable[Photograph], stages: int = 5, seed: int = 0
) -> Iterator[tuple[Stage, Classifier]]:
    """Randomise a network from the output down: yield each stage, and the network after it.

    Every parameter is redrawn from a normal distribution with its own mean and standard deviation,
    and batch norms get the running statistics that the photographs and their mirror images have in
    the randomised network. So activations keep their scale: with PyTorch's own initial values, the
    scores of EfficientNet-Lite0 for three photographs differ by 1e-9, and a map would change for
    that reason alone. The given network and torch's random state are left alone; each copy has a
    hash of its own.

    Parameters
    ----------
    classifier, photographs
        The trained one, and what batch norms are measured on, at least one; of views that differ
        in size, those of the first one's.
    stages, seed : int
        See `stages_of`; of the values, the same for any number of stages.

    Raises
    ------
    InputError
        At once for wrong stages or no photograph; on the way if scores are not finite.
    """
    parts = stages_of(classifier, stages)
    views = [classifier.view(photograph).pixels for photograph in photographs]
    if not views:
        raise InputError("photographs: none given; batch norms need at least one")
    views = [view for view in views if view.shape == views[0].shape]
    images = classifier.input_tensor(np.stack(views))

    def randomised() -> Iterator[tuple[Stage, Classifier]]:
        generator = torch.Generator().manual_seed(seed)
        module, names = classifier.module, list[str]()
        for stage in parts:
            module = copy.deepcopy(module)
            names += stage.layers
            for name in stage.layers:
                for parameter in module.get_submodule(name).parameters(recurse=False):
                    with torch.no_grad():
                        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
                        parameter.copy_(drawn * parameter.std(correction=0) + parameter.mean())
            _measure_norms(module, names, images)
            with torch.no_grad(), evaluation(module):
                passed(len(images))
                if not module(images).isfinite().all():
                    raise InputError(
                        f"stages: scores are not finite when random down to {stage.name}"
                    )
            label = f"{classifier.weights}, random down to {stage.name}, seed {seed}"
            sha256 = hash_of(module)
            yield stage, replace(classifier, module=module, weights=label, weights_sha256=sha256)

    return randomised()


def _measure_norms(module: nn.Module, names: Iterable[str], images: Tensor) -> None:
    """Set the running statistics of batch norms to those of the images, by one pass."""
    norms = [part for name in names if isinstance(part := module.get_submodule(name), _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        with torch.no_grad(), evaluation(module):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = 1.0  # of one pass, that pass alone counts
                norm.train()
            if norms:
                module(torch.cat([images, images.flip(-1)]))
                passed(2 * len(images))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def explain_targets(
    classifier: Classifier,
    photograph: Photograph,
    method: str,
    targets: Sequence[int],
    *,
    num_samples: int = 200,
    seed: int = 0,
    layer: str | None = None,
) -> list[Explanation]:
    """Explain several classes by one method; what can serve all of them is computed once.

    Besides LIME (of `num_samples` and `seed`) and the CAMs (of `layer`) there are ``"guided"``,
    guided backpropagation as a map (the largest absolute gradient of a pixel's channels), and
    ``"edges"``, the Sobel filter of the view: it sees neither network nor class, and has to fail
    every check. An unknown method raises `InputError`.
    """
    check_name("method", method, METHODS)
    if method == "lime":
        return explain_lime_targets(
            classifier, photograph, targets, num_samples=num_samples, seed=seed
        )
    if method in cam.METHODS:
        maps = cam.Cam(classifier, method, targets, layer=layer)
        return explain_alone(classifier, photograph, maps)
    found, view = [], classifier.view(photograph)
    for target in targets:
        if method == "edges":
            raw = sobel(rgb2gray(view.pixels)).astype(np.float32)
        else:
            raw = np.abs(cam.guided_backprop(classifier, photograph, target)).max(axis=2)
        kept = {"saliency": scaled(raw, signed=False), "raw": raw}
        chosen = classifier.target(photograph, target)
        found.append(record(method, classifier, photograph, chosen, view, **kept))
    return found
