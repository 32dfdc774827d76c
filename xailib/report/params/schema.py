"""The notebooks' parameters: what each may be, and which of them exclude each other.

A parameter means the same in every notebook, so there is one table of them. It is looked at in
each notebook's first cell, and for a whole profile before anything runs; neither needs a
network, so a wrong value is answered in a moment.
"""

import ast
from collections.abc import Callable, Collection, Mapping, MutableMapping
from typing import Any

from xailib.errors import InputError, unknown_name
from xailib.report.params import checks as values
from xailib.report.params.rules import (
    a_file,
    a_folder,
    category,
    flag,
    one_of,
    percentiles,
    share,
    text,
    whole,
    wholes,
    words,
)

HEATMAPS = (
    "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "ablationcam", "scorecam",
)  # fmt: skip
METHODS = ("lime", *HEATMAPS, "guided", "edges")
MEASURES = ("soft_wpmi", "wpmi", "rank_reorder", "cos_similarity", "cos_similarity_cubed")
DESIGNS = ("independent", "antithetic", "orthogonal")
SEGMENTATIONS = ("quickshift", "slic", "felzenszwalb")
RUNS = {  # a parameter that names a finished run: of which notebook
    "dissect_run": "1_clip_dissect",
    "lime_run": "2_lime",
    "cam_run": "3_cam",
    "agreement_run": "4_agreement",
    "faithfulness_run": "5_faithfulness",
    "replication_run": "6_replication",
}
MANAGED = frozenset({"out_dir", *RUNS})  # set by the pipeline, not by a profile
_SEEDS = 2**32 - 1  # what numpy takes

RULES = {
    "model": text("the name of a network", values.network, empty=False),
    "compare": text("the name of a network", values.network),
    "weights": text("a file or the name of weights"),
    "compare_weights": text("a file or the name of weights"),
    "images": words("names, files or folders", least=1),
    "probe": words("names, files or folders", least=1),
    "concepts": words("names or files", values.concepts, 1),
    "target": category(),
    "layer": text("the name of a layer"),
    "layers": words("names of layers"),
    "encoder": text("clip:NAME, openclip:NAME or conse:CLASSIFIER", values.encoder, empty=False),
    "encoder_weights": text("a file", a_file("the encoder's weights")),
    "device": text("auto, cpu, cuda or mps", values.device, empty=False),
    "boxes": text("packaged or a file", values.boxes),
    "descriptions": text("a file", a_file("a published descriptions.csv")),
    "published": text("a folder", a_folder("leave it empty to fetch the files")),
    "out_dir": text("a folder", values.new_folder, empty=False),
    "methods": words("names of heatmaps", one_of(HEATMAPS)),
    "others": words("names of methods", one_of(METHODS)),
    "sparse": words("names of methods", one_of(METHODS)),
    "heatmap": text("the name of a heatmap", one_of(HEATMAPS), empty=False),
    "measure": text("the name of a measure", one_of(MEASURES), empty=False),
    "design": text("the name of a design", one_of(DESIGNS), empty=False),
    "designs": words("names of designs", one_of(DESIGNS)),
    "segmentation": text("the name of a segmentation", one_of(SEGMENTATIONS), empty=False),
    "mask_rule": text("area or value", one_of(("area", "value")), empty=False),
    "allow": words("what may differ", one_of(("classifier", "target"))),
    "threshold": share(),
    "num_samples": whole(10),
    "lime_samples": whole(10),
    "max_samples": whole(10),
    "long_runs": whole(1),
    "pool": whole(20),
    "sizes": wholes(10),
    "design_pool": whole(20),
    "design_size": whole(10),
    "cut_samples": whole(10),
    "num_features": whole(1),
    "hide_color": whole(0, 255),
    "crops": whole(0),
    "top_k": whole(1),
    "steps": whole(1),
    "road_percentiles": percentiles(),
    "draws": whole(1),
    "first": whole(2),
    "sparse_first": whole(2),
    "redraws": whole(1),
    "stages": whole(2),
    "seed": whole(0, _SEEDS),
    "control": flag(),
    "until_stable": flag(),
    "middle": flag(),
    "store": flag(),
    **{name: text("the folder of a run", empty=False) for name in RUNS},
}

# Looks at all values of a notebook and the names that were given by hand; raises.
Together = Callable[[Mapping[str, Any], Collection[str]], None]


def meant(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as they are meant: one text or number where a list is wanted is a list.

    So ``-p images my.jpg`` is enough, for papermill as for the command and in a profile.
    """
    return {name: RULES[name].meant(v) if name in RULES else v for name, v in found.items()}


def check(found: Mapping[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """Return a notebook's parameters as they are `meant`, or raise if they cannot be used.

    They are looked at each alone, and all together.

    Parameters
    ----------
    found : mapping
        From parameters' names to values; names without a rule are left alone.
    given : collection of str
        Those that were given by hand: one that another switches off is then an error.

    Returns
    -------
    dict
        From the same names to values.

    Raises
    ------
    InputError
        With the first that is wrong: its name, what was given, what is allowed.
    """
    values_meant = meant(found)
    for name, value in values_meant.items():
        if name in RULES:
            RULES[name].check(name, value)
    for together in _TOGETHER:
        together(values_meant, given)
    return values_meant


def check_notebook(namespace: MutableMapping[str, Any]) -> str | None:
    """Check the parameters of the notebook that calls this, with what papermill put in.

    Parameters
    ----------
    namespace : mutable mapping
        The notebook's ``globals()``; its parameters are then as they are `meant`.

    Returns
    -------
    str or None
        Which parameters were given that only other notebooks have, as a profile's are.

    Raises
    ------
    InputError
        As from `check`, and for a name that no notebook has, with the nearest that it has.
    """
    cells = [cell for cell in namespace.get("In", ()) if isinstance(cell, str)]
    declared = {name for cell in cells for name in _names(cell, ast.AnnAssign)}
    injected = [cell for cell in cells if cell.startswith("# Parameters")]  # papermill's words
    given = [name for cell in injected for name in _names(cell, ast.Assign)]
    given = [name for name in given if not name.startswith("PAPERMILL_")]  # its --inject-paths
    for name in given:
        if name not in declared and name not in RULES and name != "tasks":
            raise unknown_name("parameter", name, sorted(declared))
    namespace.update(check({n: namespace[n] for n in declared if n in namespace}, given))
    unused = [name for name in given if name not in declared]
    return f"Not parameters of this notebook: {', '.join(unused)}." if unused else None


def _names(cell: str, kind: type[ast.AnnAssign] | type[ast.Assign]) -> list[str]:
    """Return the names that a cell's own lines assign, with a type or without."""
    try:
        lines = ast.parse(cell).body
    except SyntaxError:  # a line that only IPython understands
        return []
    found = []
    for line in lines:
        if isinstance(line, kind):
            places = line.targets if isinstance(line, ast.Assign) else [line.target]
            found += [place.id for place in places if isinstance(place, ast.Name)]
    return found


def _weights(found: Mapping[str, Any], _given: Collection[str]) -> None:
    for network, weights in (("model", "weights"), ("compare", "compare_weights")):
        if found.get(weights):
            if not found.get(network):
                raise InputError(f"{weights}: given without {network}; name the network too")
            values.weights_of(weights, str(found[weights]), str(found[network]))


def _threshold(found: Mapping[str, Any], given: Collection[str]) -> None:
    if "threshold" in given and found.get("mask_rule") == "area":
        raise InputError("threshold: only for mask_rule value; mask_rule is 'area'")


def _samples(found: Mapping[str, Any], given: Collection[str]) -> None:
    if "max_samples" in given and not found.get("until_stable"):
        raise InputError("max_samples: only with until_stable; num_samples is how many are drawn")
    several = "four" if found.get("long_runs", 1) > 1 else "two"
    for name, sizes, runs in (  # all photographs but one have half of the pool
        ("pool", "sizes", several), ("pool", "cut_samples", "four"),
        ("pool", "design_size", "four"), ("design_pool", "design_size", "two"),
    ):  # fmt: skip
        if name in found and sizes in found:
            least = min(found[sizes]) if sizes == "sizes" else found[sizes]
            if found[name] < {"two": 2, "four": 4}[runs] * least:
                raise InputError(f"{name}: {found[name]} samples are not {runs} runs of {least}")
    if found.get("design_size", 0) % 2:
        raise InputError(f"design_size: {found['design_size']} is odd; samples come in pairs")


def _top_k(found: Mapping[str, Any], given: Collection[str]) -> None:
    measure = found.get("measure", "soft_wpmi")
    if "top_k" in given and measure != "soft_wpmi":
        raise InputError(f"top_k: only for measure soft_wpmi; measure is {measure!r}")
    if "top_k" in found and measure == "soft_wpmi" and not found.get("descriptions"):
        photographs = values.most_images(found.get("probe", [""]))
        count = (photographs or 0) * (1 + found.get("crops", 0))
        if photographs is not None and found["top_k"] > count:
            raise InputError(f"top_k: {found['top_k']} is more than the {count} probe images")


def _methods(found: Mapping[str, Any], _given: Collection[str]) -> None:
    if "methods" in found and not [*found["methods"], *found.get("others", [])]:
        raise InputError(f"methods: the list is empty; allowed: {', '.join(HEATMAPS)}")
    used = [*found.get("methods", []), *found.get("others", [])]
    if "heatmap" in found and used and found["heatmap"] not in used:
        raise InputError(f"heatmap: {found['heatmap']!r} is not among methods: {', '.join(used)}")


def _comparison(found: Mapping[str, Any], given: Collection[str]) -> None:
    if "compare" in given and found.get("compare") and found.get("descriptions"):
        raise InputError("compare: nothing is computed from descriptions; leave one of them empty")


def _photographs(found: Mapping[str, Any], _given: Collection[str]) -> None:
    for name in ("images", "probe"):
        values.any_image(name, found.get(name, []))
    count = values.most_images(found.get("images", [""]))
    if "first" in found and count is not None and count < 2:
        raise InputError("images: at least two are needed, to tell how alike unrelated maps are")


def _runs(found: Mapping[str, Any], _given: Collection[str]) -> None:
    for name, task in RUNS.items():
        if name in found:
            values.finished_run(name, found[name], task)


_TOGETHER: tuple[Together, ...] = (
    _weights, _threshold, _samples, _top_k, _methods, _comparison, _photographs, _runs,
)  # fmt: skip
