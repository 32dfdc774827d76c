"""What the notebooks' parameters may be, and that a wrong one is one clear line at once."""

import json
import subprocess
import sys
from typing import get_args

import jupytext
import pytest
from conftest import ROOT
from faults_table import shown
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xailib.downloads import names
from xailib.errors import InputError
from xailib.networks.forward import PRECISIONS
from xailib.networks.modules import OUTPUTS
from xailib.report.params import checks, schema
from xailib.report.params.profiles import TASKS, declared, load_profile
from xailib.report.params.schema import (
    FIELDS,
    MANAGED,
    check,
    check_notebook,
    parameters,
)


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def notebook(changes: str, task: str = "2_lime", **own) -> dict:
    """A kernel's namespace after a notebook's parameters cell and papermill's."""
    injected = f"# Parameters\n{changes}\n"
    namespace: dict = {"In": ["", cell(task), injected]}
    exec(cell(task), namespace)
    exec(injected, namespace)
    return {**namespace, **own}


# One model a notebook, its parameters cell, and the modules that do the work


def cell(task: str) -> str:
    """What a notebook's parameters cell has to be, from its model."""
    kinds = {"array": "list", "integer": "int", "number": "float", "boolean": "bool"}
    lines = []
    for name, told in parameters(task).items():
        value, kind = told["default"], kinds.get(told.get("type"), "str")
        shown = str(value) if kind == "bool" else json.dumps(value)
        lines.append(f"{name}: {kind} = {shown}  # {schema.explained(told)}")
    return "\n".join(lines)


@pytest.mark.parametrize("task", TASKS)
def test_a_parameters_cell_is_what_the_model_makes_of_it(task):
    """Paste the expected text into the notebook's .py, and run ``make pair``."""
    cells = jupytext.read(ROOT / "notebooks" / f"{task}.py").cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert "parameters" in code[0].metadata["tags"]
    assert code[0].source == cell(task)
    assert declared(task) == {name: told["default"] for name, told in parameters(task).items()}
    assert code[1].source.splitlines()[-1] == f'check_notebook("{task}", globals())'
    own = {name: value for name, value in declared(task).items() if name not in MANAGED}
    assert check(task, own) == own


def test_papermill_explains_each_parameter_as_the_command_does():
    import papermill
    from click.testing import CliRunner

    from xailib.report.cli import main

    for task in TASKS:
        told = papermill.inspect_notebook(str(ROOT / "notebooks" / f"{task}.ipynb"))
        help_text = CliRunner().invoke(main, ["run", "--only", task, "--help"]).output
        told_by_command = "".join(help_text.partition(f"Parameters of {task}:")[2].split())
        for name, one in parameters(task).items():
            assert told[name]["help"] == schema.explained(one)
            words = f"{name}{schema.explained(one)}[default:{json.dumps(one['default'])}]"
            assert ("".join(words.split()) in told_by_command) == (name not in MANAGED)
    help_text = CliRunner().invoke(main, ["run", "--help"]).output
    assert all(task in help_text for task in TASKS)


def test_a_parameter_means_the_same_in_every_notebook():
    for name in FIELDS:
        told = [parameters(task)[name] for task in TASKS if name in parameters(task)]
        free = {"description", *(["default"] if name == "out_dir" else [])}
        kinds = [{key: v for key, v in one.items() if key not in free} for one in told]
        assert kinds
        assert all(kind == kinds[0] for kind in kinds)
        assert all(len(one["description"]) > 10 for one in told), name


def test_the_names_are_those_of_the_modules_that_take_them():
    """The models are light, so they say again what heavy modules say: both must say the same."""
    from xailib.dissect import concepts
    from xailib.dissect.similarity import MEASURES
    from xailib.encoders.crops import import_optional
    from xailib.encoders.sentences import MODELS
    from xailib.evaluate import randomisation as sanity
    from xailib.explain import lime, sampling
    from xailib.explain.cam import methods as cam
    from xailib.images import archives as published_sets

    assert set(get_args(schema.Heatmap)) == set(cam.METHODS)
    assert set(get_args(schema.Design)) == set(sampling.DESIGNS)
    assert set(get_args(schema.Method)) == set(sanity.METHODS)
    assert set(get_args(schema.Measure)) == {"auto", *MEASURES}
    assert set(get_args(schema.Segmentation)) == set(lime.SEGMENTATIONS)
    assert (get_args(schema.Precision), get_args(schema.Outputs)) == (PRECISIONS, OUTPUTS)
    assert set(checks.PROBES) == {"packaged", *published_sets.ARCHIVES}
    assert concepts.WORDS in checks._LISTS
    assert concepts.PACKAGED in checks._LISTS
    for name in MODELS:
        checks.encoder("encoder", f"conse:resnet50+{name}")
    clip = import_optional("clip", "openai-clip")
    assert list(names.clip_networks()) == clip.available_models()


def test_networks_are_read_from_the_source_as_the_packages_list_them():
    import timm
    import torchvision

    theirs = torchvision.models.list_models(module=torchvision.models)
    assert sorted(names.torchvision_networks()) == sorted(theirs)
    for name in theirs:
        members = torchvision.models.get_model_weights(name).__members__
        assert names.torchvision_networks()[name] == tuple(members), name
    assert names.timm_networks() == tuple(sorted(timm.list_models()))


# Wrong ones


WRONG = [
    ("2_lime", "num_samples = 3", "num_samples: 3 is not an integer of at least 10"),
    ("2_lime", "num_samples = 100.5", "num_samples: 100.5 is not an integer"),
    ("2_lime", "num_samples = True", "num_samples: True is not an integer"),
    ("2_lime", "seed = -1", "seed: -1 is not an integer from 0"),
    ("2_lime", "seed = 2**32", "seed: 4294967296 is not an integer from 0 to 4294967295"),
    ("2_lime", "images = 'cofee'", "images: unknown name 'cofee'; did you mean coffee"),
    ("2_lime", "images = ''", "images: '' is not a list of names, files or folders"),
    ("2_lime", "images = 3", "images: 3 is not a list of names, files or folders, at least 1; qu"),
    ("2_lime", "images = 2024", "at least 1; quote it, for papermill -r images 2024"),
    ("2_lime", "weights = 2024", "or the name of weights; quote it, for papermill -r weights"),
    ("2_lime", "weights = None", "allowed: a file or the name of weights, or '' for none"),
    ("2_lime", "seed = None", "allowed: an integer from 0 to 4294967295"),
    ("2_lime", "num_samples = '1e3'", "num_samples: '1e3' is not an integer of at least"),
    ("2_lime", "num_samples = '1,000'", "num_samples: '1,000' is not an integer"),
    ("2_lime", "images = []", "images: [] is not a list of names, files or folders, at least 1"),
    ("2_lime", "images = ['cofee']", "did you mean coffee"),
    ("2_lime", "images = ['no/a.jpg', 'no/b.jpg']", "'no/a.jpg' (and 1 more failed)"),
    ("2_lime", "images = [3]", "images: [3] is not a list"),
    ("2_lime", "images = ['a' * 5000]", "images: unknown name"),
    ("2_lime", "images = ['\\0/']", "images: no file or folder"),
    ("2_lime", "model = 'resnet51'", "did you mean resnet"),
    ("2_lime", "model = ''", "model: '' is not the name of a network"),
    ("2_lime", "model = 50", "model: 50 is not the name of a network; quote it"),
    ("2_lime", "model = 'my.py'", "name the function too, as in my.py:load"),
    ("2_lime", "model = 'params/replication_network.py:f'", "did you mean params/replication_net"),
    ("2_lime", "model = 'params/replication_networks.py:lime'", "did you mean lime_resnet50"),
    ("2_lime", "model = 'README.md/x.py:f'", "model: no file 'README.md/x.py'"),
    ("2_lime", "weights = 'IMAGENET1K_V1'", "'IMAGENET1K_V1' is neither a file nor one of random"),
    ("2_lime", "weights = 'no/w.pth'", "weights: 'no/w.pth' is neither a file"),
    ("2_lime", "segmentation = 'slick'", "segmentation: unknown name 'slick'; did you mean slic"),
    ("2_lime", "device = 'gpu'", "device: unknown name 'gpu'"),
    ("2_lime", "out_dir = 'README.md'", "out_dir: 'README.md' is a file"),
    (
        "2_lime",
        "target = 1.5",
        "the name or the index of a class; quote it, for papermill -r target",
    ),
    ("3_cam", "methods = ['gradcam', None]", "is not a list of names of heatmaps"),
    ("3_cam", "methods = []", "methods: the list is empty; allowed: gradcam"),
    ("3_cam", "methods = ['gradcm']", "methods: unknown name 'gradcm'; did you mean gradcam"),
    ("3_cam", "methods = 'gradcm'", "methods: unknown name 'gradcm'; did you mean gradcam"),
    ("3_cam", "methods = {}", "methods: {} is not a list of names of heatmaps"),
    ("4_agreement", "threshold = 1", "threshold: 1 is not a number of at least 0 and below 1"),
    ("4_agreement", "threshold = float('nan')", "threshold: nan is not a number"),
    ("4_agreement", "mask_rule = 'volume'", "mask_rule: unknown name 'volume'"),
    ("4_agreement", "allow = ['network']", "allow: unknown name 'network'"),
    ("5_faithfulness", "steps = 0", "steps: 0 is not an integer of at least 1"),
    ("5_faithfulness", "road_percentiles = [0]", "road_percentiles: [0] is not a list of numbers"),
    ("5_faithfulness", "draws = 0", "draws: 0 is not"),
    ("7_sanity", "first = 1", "first: 1 is not an integer of at least 2"),
    ("7_sanity", "images = ['coffee']", "images: at least two are needed"),
    ("7_sanity", "stages = 1", "stages: 1 is not"),
    ("7_sanity", "others = ['limes']", "did you mean lime"),
    ("7_sanity", "methods = []\nothers = []", "methods: the list is empty"),
    ("7_sanity", "middle = 'yes'", "middle: 'yes' is not true or false"),
    ("7_sanity", "middle = 1", "middle: 1 is not true or false"),
    ("1_clip_dissect", "crops = -1", "crops: -1 is not an integer of at least 0"),
    ("1_clip_dissect", "measure = 'wpmi'\ntop_k = 5", "top_k: only for measure soft_wpmi"),
    ("1_clip_dissect", "measure = 'wmpi'", "did you mean wpmi"),
    ("1_clip_dissect", "encoder = 'clip:ViT-B/17'", "did you mean ViT-B/16"),
    ("1_clip_dissect", "encoder = 'conse:resnet51'", "encoder: unknown name 'resnet51'"),
    ("1_clip_dissect", "encoder = 'conse:resnet50+no'", "neither minilm nor mpnet nor a folder"),
    ("1_clip_dissect", "encoder_weights = 'x.pt'", "encoder_weights: no file 'x.pt'"),
    ("1_clip_dissect", "concepts = ['20']", "concepts: unknown name '20'; did you mean 20k"),
    ("1_clip_dissect", "concepts = ['a/b.txt']", "concepts: no file 'a/b.txt'"),
    ("1_clip_dissect", "concepts = ['categories:imgnet']", "concepts: unknown name 'imgnet'"),
    ("1_clip_dissect", "probe = ['brodn']", "probe: unknown name 'brodn'; did you mean broden"),
    ("1_clip_dissect", "compare_weights = 'random'", "compare_weights: given without compare"),
    ("1_clip_dissect", "descriptions = 'a.csv'", "descriptions: no file 'a.csv'"),
    ("9_stability", "sizes = 5", "sizes: 5 is not a list of integers of at least 10"),
    ("9_stability", "sizes = [5]", "sizes: [5] is not a list of integers of at least 10"),
    ("9_stability", "sizes = []", "sizes: [] is not a list"),
    ("9_stability", "pool = 2048\nsizes = [1000]", "pool: 2048 samples are not four runs of 1000"),
    ("9_stability", "pool = 3999\nsizes = [1000]", "pool: 3999 samples are not four runs of 1000"),
    ("9_stability", "pool = 100\nsizes = [60]\nlong_runs = 1", "pool: 100 samples are not two run"),
    ("9_stability", "pool = 900", "pool: 900 samples are not four runs of 250"),
    ("9_stability", "pool = 1010", "pool: 1010 samples are not four runs of 256"),
    ("7_sanity", "sparse_first = 1", "sparse_first: 1 is not an integer of at least 2"),
    ("9_stability", "design_pool = 100", "design_pool: 100 samples are not two runs of 256"),
    ("9_stability", "design_size = 511", "design_size: 511 is odd"),
    ("9_stability", "designs = ['antithetical']", "did you mean antithetic"),
    ("2_lime", "max_samples = 50", "max_samples: only with until_stable"),
    ("6_replication", "published = 'nowhere'", "published: no folder 'nowhere'"),
    ("1_clip_dissect", "compare_layers = ['fc']", "compare_layers: given without compare"),
    ("2_lime", "images = 'testz'", "images: no file or folder 'testz'; did you mean tests?"),
    ("8_findings", "heatmap = 'gradcamm'", "did you mean gradcam"),
    ("2_lime", "outputs = 'logit'", "outputs: unknown name 'logit'; did you mean logits?"),
    ("3_cam", "model = 'resnet50'\npreprocessing = 'V2'", "did you mean IMAGENET1K_V2"),
    ("2_lime", "preprocessing = 'x.jpg'", "'tf_efficientnet_lite0' has no torchvision weights"),
]


@pytest.mark.parametrize(("task", "changes", "line"), WRONG, ids=[w[1][:40] for w in WRONG])
def test_a_wrong_parameter_is_one_clear_line(task, changes, line):
    with pytest.raises(InputError) as caught:
        check_notebook(task, notebook(changes, task))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["resnet50.a1_in1k", "tf_efficientnet_lite0.in1k"])
def test_a_network_of_timms_may_have_a_tag(model):
    assert check("2_lime", {"model": model}) == {"model": model}  # which tags there are, timm knows


TOLD = {
    "parameter_name": ("2_lime", "num_sample = 100"),
    "parameter_kind": ("2_lime", "num_samples = 'many'"),
    "parameter_range": ("2_lime", "hide_color = 256"),
    "parameter_list": ("2_lime", "images = '[coffee, chelsea]'"),
    "parameter_file": ("4_agreement", "boxes = 'mine.csv'"),
    "parameter_run": ("4_agreement", "lime_run = 'none'"),
    "parameter_pair": ("4_agreement", "threshold = 0.3"),
    "parameter_network": ("2_lime", "model = 'resnet51'"),
    "parameter_preprocessing": ("2_lime", "preprocessing = 'IMAGENET1K_V2'"),
    "parameter_weights": ("2_lime", "model = 'resnet50'\nweights = 'IMAGENET1K_V3'"),
    "parameter_encoder": ("1_clip_dissect", "encoder = 'ViT-B/16'"),
    "parameter_probe": ("1_clip_dissect", "crops = 0\ntop_k = 500"),
}


@pytest.mark.parametrize("key", TOLD)
def test_the_line_that_the_book_tells(key):
    task, changes = TOLD[key]
    with pytest.raises(InputError, match=shown(key)) as caught:
        check_notebook(task, notebook(changes, task))
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_is_found_wherever_the_notebook_stands():
    """In JupyterLab, cells run again, and variables of later cells are there too."""
    namespace = notebook("num_samples = 20", explanations=[], photographs=[], num_sample=3)
    namespace["In"] += ["explanations = 1", "%matplotlib inline", "def broken("]
    assert check_notebook("2_lime", namespace) is None
    namespace["In"].append("# Parameters\nnum_sample = 3")
    with pytest.raises(InputError, match="did you mean num_samples"):
        check_notebook("2_lime", namespace)


ALONE = [
    ("2_lime", "images", "coffee"),  # though 7_sanity, which will not run, wants two
    ("1_clip_dissect", "probe", "packaged"),
    ("1_clip_dissect", "layers", "bn2"),
    ("3_cam", "methods", "gradcam"),
    ("9_stability", "sizes", 100),
    ("5_faithfulness", "road_percentiles", 70),
    ("5_faithfulness", "road_percentiles", 62.5),
]


@pytest.mark.parametrize(("task", "name", "value"), ALONE)
def test_one_value_where_a_list_is_wanted_is_a_list_of_it(task, name, value):
    """As papermill's -p gives it, as the command's does, and as it may stand in a profile."""
    namespace = notebook(f"{name} = {value!r}", task)
    namespace = {key: found for key, found in namespace.items() if key not in MANAGED}
    assert check_notebook(task, namespace) is None
    assert namespace[name] == [value]
    assert load_profile("embedded", {name: value}, task).share(task)[name] == [value]
    assert load_profile("embedded", {name: [value]}, task).share(task)[name] == [value]


@pytest.mark.parametrize("changes", ["pool = 4000", "pool = 2048\nlong_runs = 1"])
def test_a_pool_may_be_just_long_enough_for_the_least_size(changes):
    """Of several photographs all but the first have half of it."""
    namespace = notebook(f"sizes = [9000, 1000]\n{changes}", "9_stability")
    namespace = {key: value for key, value in namespace.items() if key not in MANAGED}
    assert check_notebook("9_stability", namespace) is None


def test_one_value_may_stand_in_a_profiles_file(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text("images: coffee\ntasks: {2_lime: {images: chelsea}}")
    profile = load_profile(file, only="2_lime")
    assert profile.parameters["images"] == ["coffee"]
    assert profile.share("2_lime") == {"images": ["chelsea"]}


def test_a_whole_profile_may_be_given_to_one_notebook():
    paths = "PAPERMILL_INPUT_PATH = 'x'"  # what papermill adds by itself, if asked to
    note = check_notebook("2_lime", notebook(f"seed = 1\ntop_k = 5\ntasks = {{}}\n{paths}"))
    assert note == "Not parameters of this notebook: top_k, tasks."


def test_a_function_is_looked_up_without_running_the_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("raise SystemExit\nfrom os import path as given\nif True:\n  def load(): ...\n")
    for function in ("load", "given"):
        check("2_lime", {"model": f"{file}:{function}"})
    with pytest.raises(InputError, match=r"unknown name 'givn'; allowed: load$"):  # not an import
        check("2_lime", {"model": f"{file}:givn"})
    named = {"model": f"{file}:load", "weights": "", "label": ""}
    check_notebook("2_lime", named)
    assert named["label"] == "mine.py:load"  # what captions say
    check_notebook("2_lime", other := {**named, "label": "ours"})
    assert other["label"] == "ours"
    with pytest.raises(InputError, match=r"function in mine\.py: unknown name 'laod'; did you"):
        check("2_lime", {"model": f"{file}:laod"})
    with pytest.raises(InputError, match="'random' is for networks by name"):
        check("2_lime", {"model": f"{file}:load", "weights": "random"})
    file.write_text("def load(:\n")
    with pytest.raises(InputError, match="is not a Python file: invalid syntax"):
        check("2_lime", {"model": f"{file}:load"})


# Profiles


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_samples": 3}, "num_samples: 3 is not"),
        ({"images": "coffee"}, "images: at least two are needed"),
        ({"images": {"coffee": 1}}, "images: {'coffee': 1} is not a list"),
        ({"heatmap": "layercam"}, "heatmap: 'layercam' is not among methods: gradcam, abl"),
        ({"methods": ["scorecam"]}, "heatmap: 'gradcam' is not among methods: scorecam"),
        ({"threshold": 0.2}, "threshold: only for mask_rule value"),
        ({"lime_run": "x"}, "lime_run: only for papermill"),
    ],
)
def test_a_profiles_values_are_checked_before_anything_runs(changes, line):
    only = "2_lime" if "num_samples" in changes else None  # the task that has it
    with pytest.raises(InputError) as caught:
        load_profile("embedded", changes, only)
    assert line in str(caught.value)


def test_away_from_the_project_a_profile_is_not_just_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installed = tmp_path / "site-packages" / "xailib" / "project.py"  # without the report
    monkeypatch.setattr("xailib.project.__file__", str(installed))
    with pytest.raises(InputError, match="there is no params/ folder in"):
        load_profile("embedded")


def test_a_profiles_paths_start_at_the_project(monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    found = load_profile("replication").tasks["2_lime"]["model"]
    assert found.startswith("params/")


# Any value at all


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(sorted(FIELDS)), value=VALUES)
def test_any_value_is_taken_or_refused_in_one_line(name, value):
    task = next(task for task in TASKS if name in declared(task))
    try:
        check(task, {**declared(task), name: value})
    except InputError as error:
        assert "\n" not in str(error).replace(repr(value), "")


def test_papermill_stops_at_the_first_cell(tmp_path):
    """A name that only papermill sees, which would otherwise be a variable that nobody reads."""
    out, notebook = tmp_path / "out.ipynb", ROOT / "notebooks" / "2_lime.ipynb"
    words = [str(notebook), str(out), "-p", "num_sample", "50", "--no-progress-bar"]
    command = [sys.executable, "-m", "papermill", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    cells = json.loads(out.read_text())["cells"]
    ran = [cell for cell in cells if cell.get("execution_count")]
    assert "check_notebook" in "".join(ran[-1]["source"])
    assert not any("xailib.explain" in "".join(cell["source"]) for cell in ran)
    # Behind papermill's own stack there is one line, and none of ours before it; so in the page.
    line = "InputError: parameter: unknown name 'num_sample'; did you mean num_samples or"
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith(line)
    assert lines[-2] == f'Exception encountered at "In [{ran[-1]["execution_count"]}]":'
    assert set(lines[-3]) == {"-"}
    assert str(ROOT / "xailib") not in done.stderr
    (error,) = ran[-1]["outputs"]
    assert error["traceback"] == [lines[-1]]
    assert f"InputError: {error['evalue']}" == lines[-1]
