"""How many pictures a task will show to networks, from its parameters alone.

What a run has shown them is counted (`xailib.networks.counting`) and stands in its manifest; the
page on cost sets the two side by side. The formulas say what each method does, so that a count
which differs points at work that nobody asked for.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from xailib.report.params.profiles import Profile
from xailib.report.run.plan import explained, probe_size

# Channels of the layer that heatmaps are taken from by default, and side of the input. These end
# in a pool and a linear layer, where AblationCAM needs no pass for a channel.
_NETWORKS = MappingProxyType(
    {
        "tf_efficientnet_lite0": (1280, 224),
        "tf_efficientnet_lite1": (1280, 240),
        "tf_efficientnet_lite2": (1280, 260),
        "resnet18": (512, 224),
        "resnet50": (2048, 224),
    }
)


def expected_passes(profile: Profile, task: str) -> int | None:
    """Return how many pictures a task shows to networks; None where that cannot be told ahead.

    Told is the most: samples of LIME that are equal, and channels that are zero, are shown once.

    Parameters
    ----------
    profile : Profile
        Of the run; its files are listed, not read.
    task : str
        Of `xailib.report.params.profiles.TASKS`.
    """
    parameters = profile.values(task)
    if task == "5_faithfulness":
        parameters["methods"] = profile.values("3_cam")["methods"]
    return _FORMULAS.get(task, _none)(parameters)


def _none(_parameters: Mapping[str, Any]) -> int | None:
    return 0


def _units(parameters: Mapping[str, Any]) -> int | None:
    if parameters["descriptions"]:
        return 0
    control = parameters["control"] and ".py:" not in parameters["model"]
    networks = 2 + bool(parameters["compare"]) + bool(control)  # one of them places the concepts
    return networks * probe_size(parameters) * (1 + int(parameters["crops"]))


def _lime(parameters: Mapping[str, Any]) -> int | None:
    samples = parameters["max_samples" if parameters["until_stable"] else "num_samples"]
    return explained(parameters) * (1 + int(samples))  # the first tells the category


def _heatmap(method: str, parameters: Mapping[str, Any]) -> int | None:
    """Return what one heatmap needs: one pass for the layer's maps, then what the channels do."""
    if method not in ("ablationcam", "scorecam"):
        return 1
    if parameters["layer"] or parameters["model"] not in _NETWORKS:
        return None
    return 1 if method == "ablationcam" else 1 + _NETWORKS[parameters["model"]][0]


def _cam(parameters: Mapping[str, Any]) -> int | None:
    each = [_heatmap(method, parameters) for method in parameters["methods"]]
    guided = 1 if parameters["model"] in _NETWORKS else None  # a network without ReLU has none
    return _times(explained(parameters), [*each, guided])


def _faithfulness(parameters: Mapping[str, Any]) -> int | None:
    from xailib.evaluate.perturbation import plan

    if parameters["model"] not in _NETWORKS:
        return None
    side = _NETWORKS[parameters["model"]][1]
    maps = ["lime", *parameters["methods"], *map(str, range(parameters["draws"])), "centre"]
    trials = plan(maps, (side, side), parameters["steps"], parameters["road_percentiles"])
    return explained(parameters) * len({trial.key for trial in trials})


def _sanity(parameters: Mapping[str, Any]) -> int | None:
    """Return the passes of three categories of the trained network, and of one at each stage."""
    photographs, stages = explained(parameters), int(parameters["stages"])
    fewer = min(photographs, int(parameters["sparse_first"]))
    made_sparsely = len({stages, (stages + 1) // 2}) if parameters["middle"] else 1
    later = int(parameters["redraws"]) - 1  # draws of which only the last stage is used
    total = photographs  # the predictions
    # Each random network's scores, and both mirror images where it has batch norms: where more
    # than the output layer is random.
    total += (1 + later) * photographs * (stages + 2 * (stages - 1))
    for method in dict.fromkeys([*parameters["methods"], *parameters["others"]]):
        first, shared = _of_sanity(method, parameters)
        if first is None:
            return None
        sparse = method in parameters["sparse"]
        times = made_sparsely if sparse else stages + later
        maps = 3 * first + shared + times * (first + shared)
        total += (fewer if sparse else photographs) * maps
    return total


def _of_sanity(method: str, parameters: Mapping[str, Any]) -> tuple[int | None, int]:
    """Return what a map needs for each category, and what one or several categories share."""
    if method == "lime":
        return 0, 1 + int(parameters["lime_samples"])
    if method == "edges":
        return 1, 0
    if method == "guided":
        return (2 if parameters["model"] in _NETWORKS else None), 0
    whole = _heatmap(method, parameters)
    return (None, 0) if whole is None else (0, whole)


def _stability(parameters: Mapping[str, Any]) -> int | None:
    """Return the passes of a long run, half ones, those of the designs and of two other cuts."""
    long, pool = explained(parameters), int(parameters["pool"])
    others = [int(parameters["design_pool"])] * len(parameters["designs"])
    others += [int(parameters["cut_samples"])] * 2
    pools = [pool, *[pool // 2] * (long - 1)][:long]
    runs = pools + others * long
    return len(runs) + sum(runs)  # the first of each tells the category


def _times(count: int, parts: list[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return count * sum(known) if len(known) == len(parts) else None


_FORMULAS: Mapping[str, Callable[[Mapping[str, Any]], int | None]] = MappingProxyType(
    {
        "1_clip_dissect": _units,
        "2_lime": _lime,
        "3_cam": _cam,
        "5_faithfulness": _faithfulness,
        "7_sanity": _sanity,
        "9_stability": _stability,
    }
)
