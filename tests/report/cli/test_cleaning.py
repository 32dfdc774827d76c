"""``xailib clean``: only what is of no finished run goes, and only when that is asked for."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import explanation

from xailib.images.load import load_images
from xailib.report.cli import main
from xailib.report.run.results import intact, read_manifest, start_run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Two runs into one scratch folder, the second of other images and parameters."""
    (tmp_path / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path)
    for name, layer in (("chelsea", "a"), ("coffee", "b")):
        images = load_images([name])
        one = start_run("results/scratch/3_cam", "3_cam", {"images": [name]}, images)
        make = lambda p: explanation(np.eye(3), image=p.id, image_sha256=p.sha256)  # noqa: E731
        one.explanations(images, "gradcam", {"layer": layer}, make)
        one.cache("activations", {"layer": layer}).mkdir(parents=True)
        one.finish()
    return one.folder


def clean(*words):
    result = CliRunner().invoke(main, ["clean", *words])
    assert result.exit_code == 0, result.output
    return result.output


def kept(folder):
    return sorted(file.name.partition(".")[0] for file in folder.glob("explanations/*.npz"))


def test_nothing_of_an_earlier_run_is_missing_until_it_is_asked_for(run):
    assert kept(run) == ["chelsea", "coffee"]
    output = clean("scratch")
    assert "scratch/3_cam" in output
    assert "could be deleted" in output
    assert kept(run) == ["chelsea", "coffee"]
    assert clean("scratch", "--yes").splitlines()[-1].endswith("deleted")
    assert kept(run) == ["coffee"]
    assert len(list((run / "activations").iterdir())) == 1
    assert intact(run, read_manifest(run))
    assert clean() == "Nothing is left over.\n"


def test_what_was_interrupted_is_not_touched(run):
    (run / "manifest.json").unlink()
    assert json.loads(clean("--yes", "--json")) == {"deleted": True, "runs": []}
    assert kept(run) == ["chelsea", "coffee"]


def test_what_a_finished_job_recorded_stays(run):
    (block,) = [p for p in (run / "activations").iterdir() if p.name not in str(read_manifest(run))]
    (block / "00.npy").write_bytes(b"rows")
    job = run / "jobs" / "3_cam.0000"
    job.mkdir(parents=True)
    name = f"../../activations/{block.name}/00.npy"
    (job / "manifest.json").write_text(json.dumps({"outputs": {name: "hash"}}))
    (run / "jobs" / "torn").mkdir()
    (run / "jobs" / "torn" / "manifest.json").write_text("{")
    clean("--yes")
    assert (block / "00.npy").is_file()


@pytest.mark.parametrize("folder", ["scrach", "../..", "/"])
def test_a_folder_that_is_not_there_is_one_line(run, folder):
    result = CliRunner().invoke(main, ["clean", folder, "--yes"])
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: folder: {folder!r} is not below")
    assert kept(run) == ["chelsea", "coffee"]
