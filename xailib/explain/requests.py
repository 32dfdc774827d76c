"""What the parameters of a notebook ask of its methods: options, and what a stored result is of.

The notebook and the jobs that share its photographs out both take it from here, so that each
finds what the other has stored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from xailib.errors import unknown_name
from xailib.explain.cam.methods import cam_layer_of, check_methods, explain_cam
from xailib.explain.explanation import Explanation
from xailib.explain.lime import explain_lime
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier


@dataclass(frozen=True)
class Work:
    """One method of a notebook.

    Attributes
    ----------
    method : str
        As in `Explanation`.
    key : mapping
        What decides its result, besides the photograph and the network, as JSON values.
    make : callable
        Explains a photograph.
    """

    method: str
    key: Mapping[str, Any]
    make: Callable[[Photograph], Explanation]


def works_of(task: str, classifier: Classifier, parameters: Mapping[str, Any]) -> list[Work]:
    """Return what a notebook does with each of its photographs, one method after the other.

    Parameters
    ----------
    task : str
        A key of `WORKS`.
    classifier : Classifier
        What is explained.
    parameters : mapping
        By the names of the notebook's parameters cell; other names do not matter, so that a
        notebook may give its ``globals()``.

    Raises
    ------
    InputError
        For another task, an unknown category, layer or method, before anything is explained.
    """
    if task not in WORKS:
        raise unknown_name("task", task, WORKS)
    return WORKS[task](classifier, parameters)


def _lime(classifier: Classifier, parameters: Mapping[str, Any]) -> list[Work]:
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
    make = partial(explain_lime, classifier, target=_target(classifier, parameters), **options)
    return [Work("lime", {"target": parameters["target"], **options}, make)]


def _cam(classifier: Classifier, parameters: Mapping[str, Any]) -> list[Work]:
    check_methods(parameters["methods"])
    target = _target(classifier, parameters)
    layer = cam_layer_of(classifier, parameters["layer"] or None)
    key = {"target": parameters["target"], "layer": layer}
    make = partial(explain_cam, classifier, target=target, layer=layer)
    return [Work(method, key, partial(make, method=method)) for method in parameters["methods"]]


def _target(classifier: Classifier, parameters: Mapping[str, Any]) -> int | None:
    """Return the index of the category to explain; None for the predicted one."""
    target = parameters["target"]
    return None if target == "" else classifier.category_index(target)


WORKS: Mapping[str, Callable[[Classifier, Mapping[str, Any]], list[Work]]] = {
    "2_lime": _lime,
    "3_cam": _cam,
}
