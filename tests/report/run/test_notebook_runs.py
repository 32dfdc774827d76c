import json
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import sweeps
import yaml
from click.testing import CliRunner
from conftest import ROOT
from faults_table import says
from PIL import Image

from xailib.errors import InputError, XailibError
from xailib.files import delete_if_only
from xailib.report.cli import main
from xailib.report.params import profiles
from xailib.report.params.profiles import Profile, load_profile, profile_names
from xailib.report.run import job as doing
from xailib.report.run import plan, preflight, staleness
from xailib.report.run.notebook import parameters_of
from xailib.report.run.plan import Job
from xailib.report.run.results import MANIFEST, read_manifest
from xailib.report.run.scheduler import run_plan

NOTEBOOK = """
from xailib.images.load import load_images
from xailib.report.run.results import start_run
from xailib.errors import InputError
photographs = load_images(images)
if num_samples == 13:
    raise InputError("num_samples: 13 is unlucky")
if num_samples == 14:
    raise RuntimeError("14 is worse")
run = start_run(out_dir, TASK, {"images": images}, photographs)
run.save_metrics({"n": len(photographs)})
_ = run.finish()
"""
CELL = 'images: list = ["chelsea"]  # pictures\nnum_samples: int = 15  # n\nout_dir: str = "x"\n'


@pytest.fixture
def project(tmp_path, picture):
    """A project with two small tasks, the second of which reads the first."""
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    reading = 'lime_run: str = "y"\nsteps: int = 3\n'
    for task, more in (("2_lime", ""), ("4_agreement", reading)):
        sweeps.notebook(tmp_path, task, [CELL + more, NOTEBOOK.replace("TASK", repr(task))])
    (tmp_path / "_toc.yml").touch()
    Image.fromarray(picture).save(tmp_path / "one.png")
    profile = {"images": [str(tmp_path / "one.png")], "num_samples": 17}
    (tmp_path / "params" / "mine.yaml").write_text(yaml.safe_dump(profile))
    with sweeps.inside(tmp_path):
        yield tmp_path


@pytest.fixture
def here(monkeypatch):
    """Cells run in this process, where what is tested is when a notebook runs, not in what."""

    def execute(source, target, parameters, **_):
        notebook, names = nbformat.read(source, 4), {}
        for cell in notebook.cells:
            exec(cell.source, names)
            names |= parameters if "parameters" in cell.metadata.get("tags", ()) else {}
        nbformat.write(notebook, target)

    monkeypatch.setattr(papermill, "execute_notebook", execute)


def run_profile(profile, only=None):
    """Do what is left of a profile in this process."""
    jobs = plan.plan(profile, only)
    return list(run_plan(profile, jobs, staleness.unfinished(profile, jobs)))


def pending(profile, only=None, **options):
    """The tasks that would run."""
    return [job.name for job in staleness.unfinished(profile, plan.plan(profile, only), **options)]


def up_to_date(profile, task):
    return staleness.is_current(profile, Job(task, task))


def states(profile, only=None):
    return list(sweeps.run(profile, only).values())


def edited(**values):
    """The profile, after these lines of its file are changed."""
    file = Path("params/mine.yaml")
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **values}))
    return load_profile("mine")


def change(notebook):
    found = json.loads(notebook.read_text())
    found["cells"][1]["source"] += "\n# changed"
    notebook.write_text(json.dumps(found))
    sweeps.forget()


def test_a_pair_out_of_step_is_refused(project):
    import jupytext

    notebook = project / "notebooks" / "2_lime.ipynb"
    jupytext.write(jupytext.read(notebook), notebook.with_suffix(".py"), fmt="py:percent")
    profile = load_profile("mine")
    change(notebook)
    (outcome,) = run_profile(profile, only="2_lime")
    assert "2_lime.ipynb and 2_lime.py differ; run 'xailib pair'" in outcome.message


def test_of_two_edited_halves_neither_is_dropped(project):
    """And the outputs that a notebook has stay."""
    import jupytext

    folder = project / "notebooks"
    source, notebook = folder / "2_lime.py", folder / "2_lime.ipynb"
    jupytext.write(jupytext.read(notebook), source, fmt="py:percent")
    (folder / "jupytext.toml").write_text('formats = "ipynb,py:percent"')

    def pair(*words, code=0):
        result = CliRunner().invoke(main, ["pair", *words])
        assert result.exit_code == code, result.output
        return result.stderr

    assert pair() == ""  # alike, which is stored
    source.write_text(source.read_text() + "\n# %%\nin_the_py = 1\n")
    before = notebook.stat().st_mtime
    os.utime(source, (before - 99, before - 99))  # edited, though its time is the older one
    assert pair() == ""
    assert "in_the_py" in notebook.read_text()
    change(notebook)
    assert pair() == ""
    assert "# changed" in source.read_text()
    source.write_text(source.read_text() + "\nin_the_py = 2\n")
    notebook.write_text(notebook.read_text().replace("# changed", "# changed otherwise"))
    halves = source.read_text(), notebook.read_text()
    assert says("both_halves", pair(code=1))
    assert halves == (source.read_text(), notebook.read_text())
    assert pair("--keep", "ipynb") == ""
    assert "# changed otherwise" in source.read_text()
    assert "in_the_py = 2" not in source.read_text()
    assert pair() == ""


def test_only_what_changed_runs_again(here, project):
    profile = load_profile("mine")
    assert pending(profile) == pending(profile, only="4_agreement") == ["2_lime", "4_agreement"]
    assert states(profile) == ["done", "done"]
    assert pending(profile) == []
    assert pending(profile, "2_lime", force=True) == ["2_lime"]
    assert states(profile) == ["reused", "reused"]
    # A changed picture, under the same name.
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(project / "one.png")
    assert states(profile) == ["done", "done"]
    # A damaged result.
    (profile.folder("4_agreement") / "metrics.json").write_text("{}")
    assert states(profile) == ["reused", "done"]
    # A changed notebook.
    change(project / "notebooks" / "4_agreement.ipynb")
    assert states(profile) == ["reused", "done"]
    change(project / "notebooks" / "2_lime.ipynb")
    assert pending(profile) == ["2_lime", "4_agreement"]  # the second reads the first
    assert states(profile) == ["done", "reused"]  # which has given the same results
    # A changed parameter.
    profile = edited(num_samples=18)
    assert states(profile) == ["done", "done"]
    # An interrupted run.
    (profile.folder("2_lime") / MANIFEST).unlink()
    assert states(profile) == ["done", "reused"]


def test_values_changed_for_once_leave_the_profiles_own_results(here, project):
    profile = load_profile("mine")
    assert states(profile) == ["done", "done"]
    changed = load_profile("mine", {"num_samples": 18})
    assert pending(changed) == ["2_lime", "4_agreement"]
    assert states(changed, only="2_lime") == ["done"]
    assert changed.folder("2_lime").parent.name.startswith("mine+num_samples=18-")
    assert pending(load_profile("mine", {"num_samples": 18})) == ["4_agreement"]
    assert load_profile("mine", {"num_samples": 19}).beside != changed.beside
    # Of the tasks that a change does not reach there are no second results.
    assert states(load_profile("mine", {"steps": 4})) == ["reused", "done"]
    assert load_profile("mine", {"num_samples": 17}) == profile  # as it is in the file
    assert states(profile) == ["reused", "reused"]
    assert load_profile("mine", {"steps": 4}, whole=True).reached == profiles.TASKS  # for a site


def test_a_failed_task_is_one_line_and_stops_only_what_needs_it(project):
    outcomes = list(run_profile(load_profile("mine", {"num_samples": 13})))
    assert [outcome.state for outcome in outcomes] == ["failed", "skipped"]
    assert outcomes[0].message == "InputError: num_samples: 13 is unlucky"
    assert list((project / "results").iterdir()) == []  # nothing was made


def test_a_failed_run_leaves_the_finished_one(here, project):
    profile = load_profile("mine")
    assert states(profile, only="2_lime") == ["done"]
    assert states(edited(num_samples=13), only="2_lime") == ["failed"]
    assert up_to_date(profile, "2_lime")


def test_a_photograph_that_is_left_out_is_named(project):
    Path("torn.png").write_bytes(b"no picture")
    (outcome,) = run_profile(edited(images=["one.png", "torn.png"]), only="2_lime")
    assert outcome.state == "done"
    assert outcome.message.startswith("not explained: 'torn.png' is not an image")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["run", "mine", "--only", "2_lime", "-p", "steps=4"], "2_lime: none has 'steps'; it"),
        (["run", "mine", "-p", "out_dir=elsewhere"], "--out FOLDER"),  # the pipeline decides where
        (["run", "mien"], "profile: unknown name 'mien'; did you mean mine"),
        (["run", "mine", "--only", "9_x"], "allowed: 2_lime, 4_agreement"),
        (["run", "mine", "-p", "nonsense"], "not NAME=VALUE"),
    ],
)
def test_wrong_words_are_one_clear_line(project, words, reason):
    result = CliRunner().invoke(main, words)
    assert result.exit_code != 0
    assert reason in result.output
    assert "Traceback" not in result.output


def lines(words, also=""):
    """What a run says of each task, as scripts read it, and what else it says."""
    result = CliRunner().invoke(main, ["run", "mine", *words, "--json"])
    assert result.exit_code == 0, result.output
    assert re.search(also, result.stderr)
    return {line["task"]: line for line in map(json.loads, result.stdout.splitlines())}


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".txt"}


def test_one_task_brings_what_it_reads_and_leaves_earlier_runs(here, project):
    first = lines(["--only", "4_agreement"])
    assert [line["state"] for line in first.values()] == ["done", "done"]
    assert [Path(line["folder"]) for line in first.values()] == [
        project / "results" / "mine" / task for task in ("2_lime", "4_agreement")
    ]
    before = files(project / "results")
    again = lines(["--only", "4_agreement", "--only", "2_lime"])
    assert [line["state"] for line in again.values()] == ["reused", "reused"]
    changes = ["-p", "images: [chelsea, coffee]", "-p", "num_samples=19"]
    said = r"Changed values: results/mine\+images=chelsea,coffee\+num_samples=19-\w+; those in "
    other = lines(["--only", "4_agreement", *changes], f"{said}results/mine stay")
    assert {line["state"] for line in other.values()} == {"done"}
    assert "/mine+images=chelsea,coffee+num_samples=19-" in other["2_lime"]["folder"]
    manifest = read_manifest(Path(other["2_lime"]["folder"]))
    assert list(manifest["inputs"]["images"]) == ["chelsea", "coffee"]
    assert before.items() <= files(project / "results").items()
    # For people, each finished line ends with its folder.
    text = CliRunner().invoke(main, ["run", "mine"]).stdout
    assert [line.split()[-1] for line in text.splitlines()] == [
        f"results/mine/{task}" for task in ("2_lime", "4_agreement")
    ]
    listed = CliRunner().invoke(main, ["results"]).stdout.splitlines()[1:]
    assert [line.split()[0].split("/")[1][:16] for line in listed] == [
        "mine", "mine", *["mine+images=chel"] * 2
    ]  # fmt: skip


def test_a_folder_of_ones_own_is_filled_and_never_overwritten_unasked(here, project, tmp_path):
    own = tmp_path / "elsewhere" / "mine"
    found = lines(["--only", "4_agreement", "--out", str(own)])
    assert {Path(line["folder"]) for line in found.values()} == {
        own / "2_lime", own / "4_agreement"
    }  # fmt: skip
    assert not (project / "results").exists()
    assert {line["state"] for line in lines(["--out", str(own)]).values()} == {"reused"}
    before = files(own)
    words = ["run", "mine", "--out", str(own), "-p", "num_samples=19"]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert says("out_other", refused.stderr)
    assert files(own) == before
    assert CliRunner().invoke(main, [*words, "--force"]).exit_code == 0
    (run, *_) = json.loads(CliRunner().invoke(main, ["results", str(own), "--json"]).stdout)
    assert run["task"] == "2_lime"
    assert run["parameters"]["num_samples"] == 19
    # Below results/ it is a name, which other machines know too.
    assert load_profile("mine", out="results/x").beside == "x"
    for wrong, line in (("one.png", "is a file"), (str(own), "takes only what is below results/")):
        more = ["--store", "memory://x"] if line.startswith("takes") else []
        refused = CliRunner().invoke(main, ["run", "mine", "--out", wrong, *more])
        assert refused.exit_code == 2
        assert line in refused.stderr


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--workers", "2"]])
@pytest.mark.parametrize(
    ("images", "key"),
    [("torn.png", "images_none"), ("[torn.png, gone.png]", "images_none"), ("", "images_nothing")],
)
def test_photographs_none_of_which_can_be_used_are_told_before_a_kernel_starts(
    project, monkeypatch, images, key, more
):
    monkeypatch.setattr(doing, "execute", None)
    Path("torn.png").write_bytes(b"no picture")
    words = ["run", "mine", "--only", "2_lime", "-p", f"images={images}", *more]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert says(key, result.stderr)
    assert not (project / "results").exists()


def test_one_photograph_that_can_be_used_is_enough(project, monkeypatch):
    Path("torn.png").write_bytes(b"no picture")
    profile = load_profile("mine", {"images": ["torn.png", "one.png"]})
    seen = []
    with monkeypatch.context() as instead:
        instead.setattr(preflight, "_check_usable", lambda *words: seen.append(words))
        preflight.check_images(profile, ["2_lime", "4_agreement"])
    assert seen == [("images", ("torn.png", "one.png"))]  # once, for both tasks
    preflight.check_images(profile, ["2_lime"])
    with pytest.raises(InputError, match=r"none\.png"):
        preflight._check_usable("images", ["none.png"])
    Path("texts").mkdir()
    Path("texts", "a.txt").write_text("no image")
    monkeypatch.setattr(Profile, "values", lambda *_: {"probe": ["texts"]})
    with pytest.raises(InputError, match=r"^probe: .* holds no image"):
        preflight.check_images(profile, ["1_clip_dissect"])
    monkeypatch.setattr(preflight, "FEW", 1)  # more than are looked at
    preflight._check_usable("images", ["none.png", "one.png"])


def test_the_projects_own_profiles_name_real_parameters(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in profile_names():
        assert isinstance(load_profile(ROOT / "params" / f"{name}.yaml"), Profile)


def test_a_notebook_that_is_missing_says_so(project):
    (project / "notebooks" / "2_lime.ipynb").unlink()
    with pytest.raises(XailibError, match="xailib pair"):
        load_profile("mine")


def test_partial_output_of_a_failed_run_is_kept(project):
    (outcome,) = run_profile(edited(num_samples=14), only="2_lime")
    partial = Path("results/mine/2_lime/.2_lime.partial.ipynb")
    assert outcome.message == f"RuntimeError: 14 is worse (see {partial})"
    assert "14 is worse" in json.dumps(json.loads(partial.read_text()))


def test_only_a_folder_that_holds_nothing_else_is_taken_away(tmp_path):
    folder = tmp_path / "mine" / "2_lime"
    folder.mkdir(parents=True)
    for name in ("lock", "partial", "manifest.json"):
        (folder / name).touch()
    assert not delete_if_only(folder, {"lock", "partial"})
    assert len(list(folder.iterdir())) == 3
    (folder / "manifest.json").unlink()
    (tmp_path / "mine" / "3_cam").mkdir()
    assert delete_if_only(folder, {"lock", "partial"})
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["3_cam"]


def test_a_tasks_own_parameters_reach_only_that_task(project):
    file = project / "params" / "mine.yaml"
    own = {"num_samples": 15, "tasks": {"4_agreement": {"num_samples": 19}}}
    file.write_text(yaml.safe_dump(own))
    profile = load_profile("mine")
    assert parameters_of(profile, "2_lime")["num_samples"] == 15
    assert parameters_of(profile, "4_agreement")["num_samples"] == 19
    changed = load_profile("mine", {"num_samples": 13})  # by hand: for every task
    assert parameters_of(changed, "4_agreement")["num_samples"] == 13


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("tasks: {4_agree: {}}", "did you mean 4_agreement"),
        ("tasks: {2_lime: {samples: 3}}", "did you mean num_samples"),
        ("tasks: {2_lime: {num_samples: 1}}", "num_samples: 1 is not"),
        ("tasks: {2_lime: {out_dir: x}}", "out_dir"),
        ("tasks: {2_lime: 3}", "tasks: must be"),
        ("tasks: [1]", "tasks: must be"),
        ("- a\n- b", "must be 'parameter: value' lines"),
    ],
)
def test_what_no_profile_can_hold_is_named(project, content, line):
    (project / "params" / "mine.yaml").write_text(content)
    with pytest.raises(InputError, match=line):
        load_profile("mine")
