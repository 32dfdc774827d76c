"""Other machines than ours: what they lack, and where users call from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import project
import pytest
import torch
import yaml
from nets import Skipping, classifier, photograph, vit
from PIL import Image

from xailib.dissect.similarity import MEASURES
from xailib.evaluate.perturbation import imputed
from xailib.explain.cam.methods import METHODS, explain_cam
from xailib.explain.lime import explain_lime
from xailib.networks.forward import double
from xailib.project import cores, project_root
from xailib.report.params.profiles import load_profile
from xailib.report.run.results import peak_memory

PHOTO = photograph()


def refuse(_tensor):
    raise TypeError("Cannot convert a MPS Tensor to float64 dtype")


@pytest.mark.parametrize("make", [None, Skipping, vit])
def test_no_method_needs_float64_of_the_device(make, monkeypatch):
    """Apple's GPU has none: what is wanted so precisely is taken to the host first."""
    net = classifier() if make is None else classifier(make)
    layer = "body" if make is Skipping else None
    before = {method: explain_cam(net, PHOTO, method, layer=layer).raw for method in METHODS}
    monkeypatch.setattr(torch.Tensor, "double", refuse)
    for method, raw in before.items():
        np.testing.assert_array_equal(explain_cam(net, PHOTO, method, layer=layer).raw, raw)
    explain_lime(net, PHOTO, num_samples=20, segments="slic")
    rng = np.random.default_rng(0)
    tables = rng.random((30, 7), np.float32), rng.random((30, 4), np.float32)
    for name, measure in MEASURES.items():
        options = {"top_k": 5} if "wpmi" in name else {}
        options = {"top_fraction": 0.2} if name == "rank_reorder" else options
        assert torch.isfinite(measure(*tables, **options)).all()


def test_double_precision_is_the_hosts_where_the_device_has_none():
    class Apples(torch.Tensor):
        device = torch.device("mps")

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    tensor = torch.ones(2).as_subclass(Apples)
    assert double(tensor).device.type == "cpu"
    assert double(tensor).dtype == torch.float64
    kept = torch.ones(1, 4, 4, dtype=torch.bool)
    kept[0, 1, 1] = False
    assert torch.allclose(imputed(torch.ones(3, 4, 4), kept), torch.ones(()), atol=1e-5)


def test_cores_and_memory_where_the_system_does_not_say(monkeypatch):
    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    assert cores() == os.cpu_count()
    assert peak_memory() > 1e6
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peak_memory() == 0


def test_a_notebook_runs_in_our_interpreter_whatever_jupyter_finds_first(tmp_path):
    """Another environment's kernel of the same name stands first on Jupyter's path."""
    root = project.write_project(tmp_path / "project")
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    other = {"argv": ["/bin/false", "{connection_file}"], "display_name": "other"}
    (kernel / "kernel.json").write_text(json.dumps({**other, "language": "python"}))
    environment = {**os.environ, "JUPYTER_PATH": str(tmp_path / "jupyter")}
    done = subprocess.run(
        project.command(), cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (root / "results" / "mine" / "2_lime" / "manifest.json").is_file()


# From any folder: paths start where the user is.


def test_a_profile_and_its_paths_are_looked_up_where_the_user_is(tmp_path, monkeypatch):
    """A user's own folder with photographs, code and a profile, outside of the project."""
    (tmp_path / "album").mkdir()
    for seed in range(2):
        Image.fromarray(photograph(seed).pixels).save(tmp_path / "album" / f"{seed}.png")
    (tmp_path / "chelsea").mkdir()  # a packaged name wins over a folder
    (tmp_path / "mine.py").write_text("def load(): pass\n")
    values = {"images": ["album", "chelsea"], "model": "mine.py:load"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (project_root() / "notebooks").is_dir()
    expected = {
        "images": [str(tmp_path / "album"), "chelsea"],
        "model": f"{tmp_path / 'mine.py'}:load",
    }
    assert load_profile("mine.yaml").parameters == expected
    found = load_profile("smoke", {"images": "album", "boxes": ""}).parameters
    assert found["images"] == [str(tmp_path / "album")]
    assert found["model"] == "tf_efficientnet_lite0"
    monkeypatch.chdir(tmp_path / "below")  # then the profile's own folder
    assert load_profile("../mine.yaml").parameters == expected
    assert load_profile(Path("..", "mine.yaml")).folder("2_lime").parent.name == "mine"
