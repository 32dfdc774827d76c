"""What a notebook's parameters request: methods with options, and the keys of stored results.

The notebook and the jobs that shard its photographs both use it, so that each finds what the
other has stored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xailib.errors import XailibError, check_name
from xailib.explain.cam.methods import Cam, CamOptions, cam_layer_of, check_methods
from xailib.explain.explanation import Explanation
from xailib.explain.lime import Lime, LimeOptions
from xailib.explain.preflight import workable
from xailib.explain.stream import Explainer, Item, sources_of, stream
from xailib.images.load import Failure, Photograph
from xailib.networks.classifier import Classifier

REQUESTS = ("2_lime", "3_cam")


@dataclass(frozen=True)
class Request:
    """One method of a notebook."""

    method: str  #: as in `Explanation`
    #: what decides its result, besides the photograph and the network, as JSON values
    key: Mapping[str, Any]
    explainer: Explainer  #: the method with its options

    def explain(self, photographs: Iterable[Photograph]) -> Iterator[Explanation | XailibError]:
        """Yield for each photograph, in order, its explanation or why there is none."""
        for item in stream(self.explainer.classifier, photographs, [self.explainer]):
            (found,) = item.found
            yield found if isinstance(found, XailibError) else found[0]


def requests_of(task: str, classifier: Classifier, parameters: Mapping[str, Any]) -> list[Request]:
    """Return what a notebook does with each of its photographs, one method after the other.

    ``task`` is one of `REQUESTS`; ``parameters`` are by the names of the notebook's parameters
    cell, and may be its ``globals()``. Unknown classes, layers and methods are refused before any
    work.
    """
    check_name("task", task, REQUESTS)
    named = parameters["target"]
    target = None if named == "" else classifier.class_index(named)
    if task == "3_cam":
        check_methods(parameters["methods"])
        methods, _ = workable(classifier, parameters["methods"], parameters["layer"] or None)
        layer = cam_layer_of(classifier, parameters["layer"] or None)
        cams = [Cam(classifier, method, (target,), layer=layer) for method in methods]
        return [Request(cam.method, {"target": named, "layer": layer}, cam) for cam in cams]
    auto = parameters["until_stable"]
    options: Any = {
        "num_samples": "auto" if auto else parameters["num_samples"],
        "design": parameters["design"],
        "segments": parameters["segmentation"],
        "hide_color": parameters["hide_color"],
        "seed": parameters["seed"],
    }
    if auto:
        options |= {name: parameters[name] for name in ("max_samples", "num_features")}
    lime = Lime(classifier, (target,), **options)
    return [Request("lime", {"target": named, **options}, lime)]


def explain_many(
    classifier: Classifier,
    images: str | Path | Iterable[Any],
    methods: Sequence[str] = ("lime",),
    target: int | str | None = None,
    **options: Any,
) -> Iterator[Explanation | Failure]:
    """Explain many images by one or several methods; yield the results as they are finished.

    Parameters
    ----------
    classifier
        What is explained.
    images
        Whatever `xailib.images.load.load_images` takes, an image set, or photographs. They are read
        when they are due: any number fits into the memory.
    methods : sequence of str
        ``"lime"``, or a name in `xailib.explain.cam.methods.METHODS`.
    target : int or str, optional
        A class's index or name; by default each image's predicted one.
    **options
        Of `xailib.explain.lime.LimeOptions` and of `xailib.explain.cam.methods.CamOptions`: each
        method takes those that it knows.

    Yields
    ------
    Explanation or Failure
        Image by image, in their order, one for each method. An image that cannot be used is one
        `Failure`, and a method that cannot explain one is another; the others go on. An unknown
        method, option or target, or a value out of range is refused before anything is read.
    """
    if set(methods) != {"lime"}:
        check_methods([method for method in methods if method != "lime"])
    known = {
        method: LimeOptions.__annotations__ if method == "lime" else CamOptions.__annotations__
        for method in methods
    }
    for name in options:
        check_name("option", name, sorted({name for names in known.values() for name in names}))
    chosen: list[Explainer] = []
    for method in methods:
        own: Any = {name: value for name, value in options.items() if name in known[method]}
        if method == "lime":
            chosen.append(Lime(classifier, (target,), **own))
        else:
            chosen.append(Cam(classifier, method, (target,), **own))
    return _flat(stream(classifier, sources_of(images), chosen))


def _flat(items: Iterable[Item]) -> Iterator[Explanation | Failure]:
    for item in items:
        if isinstance(item.image, Failure):
            yield item.image
            continue
        for found in item.found:
            if isinstance(found, XailibError):
                yield Failure(item.image.source, str(found))
            else:
                yield from found
