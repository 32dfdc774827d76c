"""The notebooks' parameters: what each may be, its default and its help, one model a notebook.

These stand here alone: the notebooks' parameters cells are tested against the models, and the
errors, the command's help and the book's table are made from them. Nothing here imports a
network or a table: a wrong value is refused in a moment.
"""

import contextlib
import json
import re
from collections.abc import Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import BaseModel, Field

from xailib.errors import InputError, unknown_name
from xailib.report.params import checks

Heatmap = checks.Heatmap
Method = Literal["lime", Heatmap, "guided", "edges"]
Measure = Literal[
    "auto", "soft_wpmi", "wpmi", "rank_reorder", "cos_similarity", "cos_similarity_cubed"
]
Design = Literal["independent", "antithetic", "orthogonal"]
Segmentation = Literal["quickshift", "slic", "felzenszwalb"]
Precision = Literal["exact", "tf32", "half"]
Outputs = Literal["auto", "logits", "probabilities", "multilabel", "binary"]
Texts = list[Annotated[str, MinLen(1)]]
RUNS = checks.RUNS
MANAGED = frozenset({"out_dir", *RUNS})  # set by the pipeline, not by a profile
# By which it is loaded, the first its name; the others are called as `load_classifier` calls them.
OF_CLASSIFIER = ("model", "weights", "device", "seed", "precision", "outputs", "preprocessing")


def _p(kind: Any, default: Any, description: str, title: str | None = None, **limits: Any) -> Any:
    """Return a parameter: its type, default and help, and what an error calls a text."""
    return Annotated[kind, Field(default, description=description, title=title, **limits)]


# fmt: off
_NAMED = {"pattern": r"\S"}  # a text that may not be empty
FIELDS = {
    "model": _p(str, "tf_efficientnet_lite0", "a name that load_classifier knows, or "
                "path/to/file.py:function", "the name of a network", **_NAMED),
    "weights": _p(str, "", "file with a state dict, name of torchvision weights, or random; empty: "
                  "the published ones", "a file or the name of weights"),
    "outputs": _p(Outputs, "auto", "what the network's output means; auto notices softmax, sigmoids"
                  " and a single output, but not that logits are of independent labels",
                  "a meaning"),
    "preprocessing": _p(str, "", "name of the torchvision weights whose transform is used; empty: "
                        "the transform of the weights, or of the own file", "the name of weights"),
    "label": _p(str, "", "short name of the network in captions; empty: model, without folders",
                "a name"),
    "layers": _p(Texts, [], "layers as in named_modules; empty: the last two stages and the output "
                 "layer", "names of layers"),
    "encoder": _p(str, "conse:tf_efficientnet_lite1", "clip:ViT-B/16, openclip:ARCH/PRETRAINED, or "
                  "conse:CLASSIFIER[+mpnet]", "clip:NAME, openclip:NAME or conse:CLASSIFIER",
                  **_NAMED),
    "encoder_weights": _p(str, "", "local file for the encoder; empty: fetched, or packaged for "
                          "conse", "a file"),
    "probe": _p(Texts, ["packaged"], "probe images: packaged, broden, imagenet-sample, files or "
                "folders", "names, files or folders", min_length=1),
    "crops": _p(int, 36, "parts cropped from each probe image besides the whole", ge=0),
    "concepts": _p(Texts, ["packaged", "categories:imagenet"], "packaged, categories:imagenet, or "
                   "a text file with one concept a line", "names or files", min_length=1),
    "measure": _p(Measure, "auto", "how units and concepts are compared; auto: cosine cubed for a "
                  "conse encoder, whose soft-WPMI saturates, else soft-WPMI", "a measure"),
    "top_k": _p(int, 20, "for soft_wpmi: the most activating probe images that decide a label, at "
                "most their number", ge=1),
    "compare": _p(str, "", "a second network to set beside the first: names as for model; empty: "
                  "none", "the name of a network"),
    "compare_weights": _p(str, "", "its weights, as for weights", "a file or the name of weights"),
    "compare_layers": _p(Texts, [], "its layers, as for layers", "names of layers"),
    "control": _p(bool, True, "also label the same network with random weights, which must fail"),
    "descriptions": _p(str, "", "a published descriptions.csv to draw instead of computing; empty: "
                       "compute", "a file"),
    "images": _p(Texts, ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper",
                         "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"],
                 "packaged names, files or folders", "names, files or folders", min_length=1),
    "target": _p(Annotated[int, Ge(0)] | str, "", "class to explain, by name or index, a name "
                 "that is a number in quotes; empty: each photograph's predicted one",
                 "the name or the index of a class", json_schema_extra={"type": "string"}),
    "num_samples": _p(int, 640, "perturbed images for each photograph", ge=10),
    "until_stable": _p(bool, False, "draw until the mask is stable instead, at most max_samples"),
    "max_samples": _p(int, 4000, "the most that until_stable draws", ge=10),
    "design": _p(Design, "orthogonal", "how samples are drawn, lime's way is independent",
                 "a design"),
    "num_features": _p(int, 10, "superpixels in a mask", ge=1),
    "segmentation": _p(Segmentation, "quickshift", "how photographs are segmented into superpixels",
                       "a segmentation"),
    "hide_color": _p(int, 0, "gray level of a hidden superpixel", ge=0, le=255),
    "methods": _p(list[Heatmap], ["gradcam", "ablationcam", "scorecam"], "heatmaps; the others are "
                  "compared with the first", "names of heatmaps"),
    "layer": _p(str, "", "layer whose maps are weighted, as in named_modules; empty: the last with "
                "feature maps", "the name of a layer"),
    "mask_rule": _p(Literal["area", "value"], "area", "as many pixels as the LIME mask has, or all "
                    "above threshold", "a rule"),
    "threshold": _p(float, 0.5, "only for mask_rule value: of the map scaled to [0, 1]; 0 is what "
                    "the seed did", ge=0, lt=1),
    "allow": _p(list[Literal["classifier", "target"]], [], "what may differ between LIME and the "
                "heatmaps; the page then says so", "what may differ"),
    "boxes": _p(str, "packaged", "boxes around the object: packaged, a CSV file (image, left, top, "
                "right, bottom in 0 to 1), or empty for none", "packaged or a file"),
    "steps": _p(int, 32, "of each curve from the whole image to none of it", ge=1),
    "road_percentiles": _p(list[Annotated[float, Gt(0), Lt(100)]], [70, 90], "ROAD imputes the "
                           "pixels above; empty: no ROAD, the slowest part"),
    "sensitivity": _p(int, 3, "photographs that are scored again with other settings, the first "
                      "ones", ge=1),
    "draws": _p(int, 3, "of the random baseline for each photograph, averaged", ge=1),
    "published": _p(str, "", "local folder with the report's files, in its own layout; empty: "
                    "fetched from its repository", "a folder"),
    "store": _p(bool, False, "store the tables in the project, for readers without a network"),
    "first": _p(int, 6, "how many of these photographs are checked, the first ones", ge=2),
    "others": _p(list[Method], ["lime", "guided", "edges"], "beside them: guided is "
                 "backpropagation, edges a control that must fail", "names of methods"),
    "sparse": _p(list[Method], ["lime", "scorecam"], "methods with hundreds of passes a map: made "
                 "only for the last stage, to save time", "names of methods"),
    "sparse_first": _p(int, 3, "photographs for these, the first ones", ge=2),
    "redraws": _p(int, 5, "how often random weights are drawn; not for sparse methods", ge=1),
    "middle": _p(bool, False, "make these for the middle stage too, about a minute more"),
    "stages": _p(int, 5, "steps in which the network is randomised, from the output layer down; "
                 "at most one a layer", ge=2),
    "lime_samples": _p(int, 200, "LIME's perturbed images, of trained and random networks alike",
                       ge=10),
    "heatmap": _p(Heatmap, "gradcam", "the heatmap that is set against LIME: one of the methods of "
                  "the runs", "the name of a heatmap"),
    "long_runs": _p(int, 2, "photographs that get the long runs below, the first ones", ge=1),
    "pool": _p(int, 8000, "samples of the first long run, split into shorter ones, the others are "
               "half as long; at least twice the largest of sizes that shall appear, and four times"
               " the smallest if long_runs is above 1", ge=20),
    "sizes": _p(list[Annotated[int, Ge(10)]], [100, 200, 500, 1000, 2000, 4000], "samples of the "
                "runs that are compared with each other", min_length=1),
    "designs": _p(list[Design], ["antithetic", "orthogonal"], "other ways to draw samples, "
                  "measured against independent ones; may be empty", "names of designs"),
    "design_pool": _p(int, 1024, "samples for each of these; at least twice design_size", ge=20),
    "design_size": _p(int, 256, "samples of the runs that they are split into, even", ge=10),
    "cut_samples": _p(int, 250, "samples of a run on another segmentation; at most a "
                      "quarter of pool", ge=10),
    "seed": _p(int, 0, "of all that is random", ge=0, le=2**32 - 1),  # what numpy takes
    "precision": _p(Precision, "exact", "how the network computes: exact is float32",
                    "a precision"),
    "device": _p(str, "auto", "auto, cpu, cuda or mps", "auto, cpu, cuda or mps", **_NAMED),
    "out_dir": _p(str, "results/scratch", "where this run is written; relative to the project",
                  "a folder", **_NAMED),
    **{name: _p(str, f"results/scratch/{task}", f"a finished run of {task}",
                "the folder of a run", **_NAMED) for name, task in RUNS.items()},
}
_SAME = {"cam_run": "a finished run of 3_cam, same network and targets"}
# Which notebook has which, as in its parameters cell, and where its help differs.
NOTEBOOKS: dict[str, tuple[str, dict[str, str]]] = {
    "1_clip_dissect": (
        "model weights outputs preprocessing label layers encoder encoder_weights probe crops "
        "concepts measure top_k compare compare_weights compare_layers control descriptions "
        "seed precision device out_dir",
        {"seed": "of the crops and the random weights"}),
    "2_lime": (
        "model weights outputs preprocessing label images target num_samples until_stable "
        "max_samples design num_features segmentation hide_color seed precision device "
        "out_dir",
        {"seed": "of the samples"}),
    "3_cam": (
        "model weights outputs preprocessing label images target methods layer seed precision "
        "device out_dir",
        {"seed": "only for random weights: the maps themselves have nothing random"}),
    "4_agreement": (
        "images lime_run cam_run num_features mask_rule threshold allow boxes seed out_dir",
        {"images": "the photographs of the two runs, for drawing", **_SAME,
         "seed": "of shuffled superpixels"}),
    "5_faithfulness": (
        "model weights outputs preprocessing label images lime_run cam_run steps "
        "road_percentiles draws sensitivity seed precision device out_dir",
        {"model": "the network of the two runs, by the same name", **_SAME,
         "images": "the photographs of the two runs",
         "seed": "of the random baseline and the noise"}),
    "6_replication": ("published store out_dir", {}),
    "7_sanity": (
        "model weights outputs preprocessing label images first methods others sparse "
        "sparse_first redraws middle stages lime_samples layer seed precision device out_dir",
        {"methods": "heatmaps that are checked", "seed": "of random weights and LIME's samples"}),
    "9_stability": (
        "model weights outputs preprocessing label images lime_run long_runs pool sizes "
        "designs design_pool design_size cut_samples num_features segmentation hide_color "
        "seed precision device out_dir",
        {"model": "the network of the LIME run, by the same name",
         "images": "the photographs of the LIME run", "seed": "of the samples"}),
    "8_findings": (
        "dissect_run cam_run agreement_run faithfulness_run replication_run heatmap out_dir", {}),
    "10_explore": (
        "model weights outputs preprocessing images lime_run cam_run agreement_run "
        "faithfulness_run num_features seed precision device out_dir",
        {"model": "the network of the two runs, by the same name",
         "images": "the photographs of the runs", "seed": "only for random weights"}),
}
# fmt: on


class Notebook(BaseModel):
    """The parameters of a notebook, looked at by type and range, by what they name, together."""

    model_config = pydantic.ConfigDict(strict=True)

    @pydantic.model_validator(mode="after")
    def _available(self) -> "Notebook":
        found, spec = dict(self), type(self).model_fields
        given = [name for name in found if found[name] and name in self.model_fields_set]
        for name in given:
            if look := checks.EACH.get(name):
                look(name, found[name])
        checks.together(found, {name for name in found if found[name] != spec[name].default})
        for name in RUNS:
            if name in given:
                checks.finished_run(name, found[name])
        return self


@cache
def model(task: str) -> type[Notebook]:
    """Return the model of a notebook's parameters."""
    names, own = NOTEBOOKS[task]
    fields: dict[str, Any] = {
        name: (FIELDS[name], Field(description=own[name]) if name in own else Field())
        for name in names.split()
    }
    fields["out_dir"] = (FIELDS["out_dir"], Field(f"results/scratch/{task}"))
    return pydantic.create_model(task, __base__=Notebook, **fields)


@cache
def parameters(task: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of a notebook, by name, each as a JSON schema has it."""
    return dict(model(task).model_json_schema()["properties"])


def parameter(name: str) -> dict[str, Any]:
    """Return a parameter as the first notebook that has it declares it; empty for another name."""
    tasks = (task for task, (names, _) in NOTEBOOKS.items() if name in names.split())
    return next((parameters(task)[name] for task in tasks), {})


def holds_text(spec: Mapping[str, Any]) -> bool:
    """Return whether a parameter is a text or a list of texts."""
    return bool(spec.get("items", spec).get("type") == "string")


def typed_as_text(name: str, typed: str) -> bool:
    """Return whether what a user types for a parameter is a text, whatever it looks like."""
    spec = parameter(name)
    index = "anyOf" in spec and re.fullmatch(r"0|-?[1-9]\d*", typed)  # of a class
    return holds_text(spec) and not index


_RANGES = {  # of the limits that a JSON schema has, the first that is there
    "exclusiveMinimum": "between {exclusiveMinimum} and {exclusiveMaximum}",
    "exclusiveMaximum": "at least {minimum} and below {exclusiveMaximum}",
    "maximum": "from {minimum} to {maximum}",
    "minimum": "at least {minimum}",
}


def limits(spec: Mapping[str, Any]) -> str:
    """Return the choices or the range of a parameter in words; empty if it has none."""
    one = spec.get("items", spec)
    if names := one.get("enum"):
        return f"{'any of ' * ('items' in spec)}{', '.join(names[:-1])} or {names[-1]}"
    return next((words.format(**one) for key, words in _RANGES.items() if key in one), "")


def explained(spec: Mapping[str, Any]) -> str:
    """Return the help of a parameter, with its choices or range."""
    return spec["description"] + (f" ({words})" if (words := limits(spec)) else "")


def allowed(spec: Mapping[str, Any]) -> str:
    """Return what a parameter may be, as in "seed: 'x' is not an integer ..."."""
    one, many, span = spec.get("items", spec), "items" in spec, limits(spec)
    nouns = {"integer": "integer", "number": "number", "boolean": "true or false"}
    noun = nouns.get(one.get("type", ""), spec["title"])
    if one.get("type") in ("integer", "number"):
        article = "an" if noun == "integer" else "a"
        of = "of " if span.startswith("at") else ""
        noun = f"{noun}s {of}{span}" if many else f"{article} {noun} {of}{span}"
    such = f", such as {spec['default']}" if many and not holds_text(spec) else ""
    return f"a list of {noun}{', at least 1' * ('minItems' in spec)}{such}" if many else noun


def meant(name: str, value: Any) -> Any:
    """Return a value as it is meant, however it was typed.

    One value where a list is wanted is a list of it, so ``-p images my.jpg`` is enough; a text
    where a number or true is wanted is read as one, since papermill hands ``true`` on as text;
    ``~`` is the user's folder. A text in brackets that may be a name is left to be refused.
    """
    spec = parameter(name)
    if not spec:
        return value
    if isinstance(value, str) and not holds_text(spec):
        with contextlib.suppress(ValueError):
            value = json.loads(value.lower())
    fits = isinstance(value, str) if holds_text(spec) else isinstance(value, int | float)
    if "items" in spec and fits and not _bracketed(value):
        value = [value]
    return [_at_home(one) for one in value] if isinstance(value, list) else _at_home(value)


def _at_home(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("~"):
        with contextlib.suppress(RuntimeError):  # an unknown user
            return str(Path(value).expanduser())
    return value


def _bracketed(value: Any) -> bool:
    return isinstance(value, str) and value.strip()[:1] == "[" and value.strip()[-1:] == "]"


def check(task: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a notebook's parameters as they are `meant`; other names are left alone.

    `InputError` is raised with the first that cannot be used: its name, what was given, what is
    allowed.
    """
    values = {name: meant(name, value) for name, value in found.items()}
    try:
        model(task).model_validate(values)
    except pydantic.ValidationError as error:
        raise _refusal(task, found, error.errors()[0]) from None
    return values


def _refusal(task: str, found: Mapping[str, Any], wrong: Mapping[str, Any]) -> InputError:
    """Return the one line for what pydantic found first."""
    error: object = wrong.get("ctx", {}).get("error")
    if isinstance(error, InputError):
        return error
    name, given = wrong["loc"][0], wrong["input"]
    spec, value = parameters(task)[name], found[name]
    if value is None:
        none = (
            "" if {"items", "pattern", "enum"} & spec.keys() or limits(spec) else ", or '' for none"
        )
        may_be = limits(spec) if "enum" in spec else allowed(spec)
        return InputError(f"{name}: no value was given; allowed: {may_be}{none}")
    if wrong["type"] == "literal_error" and isinstance(given, str):
        return unknown_name(name, given, spec.get("items", spec)["enum"])
    hint, shown = "", repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    if "items" in spec and _bracketed(value):
        hint = f"; for papermill -y '{name}: {value}'"
    elif isinstance(value, int | float) and holds_text(spec):
        hint = f"; quote it, for papermill -r {name} {value}"
    return InputError(f"{name}: {shown} is not {allowed(spec)}{hint}")


def check_notebook(task: str, namespace: MutableMapping[str, Any]) -> str | None:
    """Check the parameters of the notebook that calls this, with what papermill put in.

    `namespace` is the notebook's ``globals()``; its parameters are then as they are `meant`, and
    its ``label`` is never empty.
    Returns one line if parameters were given that only other notebooks have, as a profile's are.
    `InputError` is raised as by `check`, and for a name that no notebook has, with the nearest.
    """
    cells = [cell for cell in namespace.get("In", ()) if isinstance(cell, str)]
    injected = "\n".join(cell for cell in cells if cell.startswith("# Parameters"))  # papermill's
    own = {*parameters(task), *re.findall(r"^(\w+): ?\w+ = ", "\n".join(cells), re.MULTILINE)}
    given = [n for n in re.findall(r"^(\w+) = ", injected, re.MULTILINE) if n not in own]
    unused = [name for name in given if not name.startswith("PAPERMILL_")]  # its --inject-paths
    for name in unused:
        if name not in FIELDS and name != "tasks":
            raise unknown_name("parameter", name, sorted(own))
    namespace.update(check(task, {n: namespace[n] for n in parameters(task) if n in namespace}))
    if namespace.get("label") == "" and "label" in parameters(task):
        namespace["label"] = namespace["model"].rpartition("/")[2]
    return f"Not parameters of this notebook: {', '.join(unused)}." if unused else None
