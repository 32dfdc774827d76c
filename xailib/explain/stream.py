"""Explaining many images: a stream that keeps the device busy, in bounded memory.

Images are read and prepared on threads, ahead of the device. On a GPU several are explained at
once: their perturbed images share full batches, and while the results of some are fetched the
device works on the next. On a CPU one image follows the other, with the same results as alone.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from xailib.errors import XailibError, alone
from xailib.explain.explanation import Explanation
from xailib.images.load import (
    Failure,
    ImageSet,
    Photograph,
    Stored,
    as_photograph,
    find_images,
    read_place,
    unique,
)
from xailib.networks.classifier import Classifier, View
from xailib.networks.memory import measuring
from xailib.project import cores

GROUP = 16  # images that a GPU explains at once
_THREADS = min(16, cores())

Given = TypeVar("Given")
Made = TypeVar("Made")
Outcome = list[Explanation] | XailibError  # of one image: one explanation a target, or why none


@dataclass(frozen=True)
class Seen:
    """A photograph, and what the classifier sees of it."""

    photograph: Photograph
    view: View


@runtime_checkable
class Explainer(Protocol):
    """A method with its options, in the steps that a stream takes one ahead of the other."""

    classifier: Classifier  #: what is explained

    def prepare(self, seen: Seen) -> Any:
        """Do what one image needs on the host; on any thread."""

    def stage(self, seen: Sequence[Seen], prepared: Sequence[Any]) -> Any:
        """Take images of one size to the device; on another thread, in a CUDA stream of its own."""

    def start(self, staged: Any, images: int = 1) -> Any:
        """Let the device work; on a GPU, fill its queue and do not wait."""

    def finish(self, started: Any) -> list[Outcome]:
        """Wait for the results, and return them image by image."""


@dataclass(frozen=True)
class Item:
    """What became of one image: the photograph, or why it cannot be used, and by explainer."""

    image: Photograph | Failure
    found: Sequence[Outcome] = ()


# An image that is prepared for each explainer, or why it cannot be used.
Ready = tuple[Seen, Sequence[Any]] | Failure


def explain_alone(
    classifier: Classifier, photograph: Any, explainer: Explainer
) -> list[Explanation]:
    """Return the explanations of one photograph, or raise why there are none."""
    photograph = as_photograph(photograph)
    seen = Seen(photograph, classifier.view(photograph))
    staged = explainer.stage([seen], [explainer.prepare(seen)])
    (found,) = explainer.finish(explainer.start(staged))
    if isinstance(found, XailibError):
        raise found
    return found


def stream(
    classifier: Classifier,
    images: Iterable[Photograph | Stored | Failure],
    explainers: Sequence[Explainer],
    *,
    group: int | None = None,
) -> Iterator[Item]:
    """Explain images by several methods, in their order; a failure takes its image's place.

    Images are taken one at a time, a few ahead of the device; ``group`` are explained at once, by
    default `GROUP` on a GPU, and 1 elsewhere.
    """
    cuda = classifier.device.type == "cuda"
    size = group or (GROUP if cuda else 1)
    count = len(images) if isinstance(images, Sequence) else size
    side = torch.cuda.Stream(classifier.device) if cuda else None  # one: each has its own memory
    threads = ThreadPoolExecutor(_THREADS if cuda else 1)
    stager = ThreadPoolExecutor(1)
    try:
        ready = ahead(threads, partial(_prepared, classifier, explainers), images, 2 * size)
        together = of_one_shape(ready, _shape, size)
        groups = ahead(stager, partial(_staged, side, explainers), together, 1)
        waiting: Iterator[Item] = iter(())
        for some, staged in groups:
            started = [
                _attempt(partial(explainer.start, one, count))
                if not isinstance(one, XailibError)
                else one
                for explainer, one in zip(explainers, staged, strict=False)
            ]
            yield from waiting  # the group before, while the device works on this one
            waiting = _finished(classifier, explainers, some, started)
            if not cuda:
                yield from waiting
        yield from waiting
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
        stager.shutdown(wait=True, cancel_futures=True)


def sources_of(images: Any) -> Iterable[Photograph | Stored | Failure]:
    """Return what `stream` takes, read ahead, for whatever names images."""
    if isinstance(images, ImageSet):
        return [*images.photographs, *images.failures]
    if isinstance(images, str | Path):
        return _read_ahead(find_images(images))
    if getattr(images, "ndim", 0) in (2, 3) or not isinstance(images, Iterable):
        return [as_photograph(images)]  # an array, a tensor, a PIL image
    some = list(images) if isinstance(images, Sequence) else images
    if isinstance(some, list) and all(isinstance(one, str | Path) for one in some):
        return _read_ahead(find_images(some))
    return some


def _read_ahead(places: Iterable[Any]) -> Iterator[Photograph | Failure]:
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from unique(ahead(threads, read_place, places, 2 * _THREADS))


def ahead(
    threads: ThreadPoolExecutor,
    work: Callable[[Given], Made],
    given: Iterable[Given],
    count: int,
) -> Iterator[Made]:
    """Yield ``work(one)`` for each, in order, worked on `count` ahead of their use."""
    waiting: deque[Future[Made]] = deque()
    for one in given:
        waiting.append(threads.submit(work, one))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _prepared(
    classifier: Classifier,
    explainers: Sequence[Explainer],
    image: Photograph | Stored | Failure,
) -> Ready:
    source = image.place.source if isinstance(image, Stored) else getattr(image, "source", "image")
    try:
        if isinstance(image, Stored):
            image = image.read()
        if isinstance(image, Failure):
            return image
        image = as_photograph(image)
        seen = Seen(image, classifier.view(image))
        return seen, [explainer.prepare(seen) for explainer in explainers]
    except XailibError as error:
        return Failure(source, str(error))


def of_one_shape(
    given: Iterable[Given], shape_of: Callable[[Given], tuple[int, ...] | None], size: int
) -> Iterator[list[Given]]:
    """Yield up to `size` of one shape together, in their order, with those of none among them."""
    group: list[Given] = []
    shape: tuple[int, ...] | None = None
    for one in given:
        other = shape_of(one)
        if len(group) == size or (shape and other and other != shape):
            yield group
            group, shape = [], None
        group.append(one)
        shape = shape or other
    if group:
        yield group


def _shape(ready: Ready) -> tuple[int, ...] | None:
    return None if isinstance(ready, Failure) else ready[0].view.pixels.shape


def _staged(
    side: torch.cuda.Stream | None, explainers: Sequence[Explainer], group: Sequence[Ready]
) -> tuple[Sequence[Ready], list[Any]]:
    used = [one for one in group if not isinstance(one, Failure)]
    if not used:
        return group, []
    seen = [image for image, _ in used]
    columns = zip(*(prepared for _, prepared in used), strict=True)
    with measuring, nullcontext() if side is None else torch.cuda.stream(side):
        found = [
            _attempt(partial(explainer.stage, seen, column))
            for explainer, column in zip(explainers, columns, strict=True)
        ]
        if side is not None:
            side.synchronize()
    return group, found


def one_by_one(explained: Callable[[int], list[Explanation]], images: int) -> list[Outcome]:
    """Return what is explained of each image, by its number, or the error that it ends with."""
    return [_attempt(partial(explained, image)) for image in range(images)]


def _attempt(work: Callable[[], Any]) -> Any:
    """Return what the work gives, or the error of ours that it ends with."""
    try:
        return work()
    except XailibError as error:
        return alone(error)


def _finished(
    classifier: Classifier,
    explainers: Sequence[Explainer],
    group: Sequence[Ready],
    started: Sequence[Any],
) -> Iterator[Item]:
    used = [one[0].photograph for one in group if not isinstance(one, Failure)]
    columns = []
    for explainer, one in zip(explainers, started, strict=False):  # none, where none is used
        found = one if isinstance(one, XailibError) else explainer.finish(one)
        if isinstance(found, XailibError) and len(used) > 1:  # whose fault is it?
            found = [
                _attempt(partial(explain_alone, classifier, photograph, explainer))
                for photograph in used
            ]
        columns.append([found] if isinstance(found, XailibError) else found)
    outcomes = zip(used, zip(*columns, strict=True), strict=True)
    for one in group:
        yield Item(one) if isinstance(one, Failure) else Item(*next(outcomes))
