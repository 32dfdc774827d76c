"""The notebooks themselves: pairs in step, no outputs, and what their readers do with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from conftest import ROOT
from jupytext.compare import compare_notebooks

from xailib.dissect.label import read_descriptions

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
BIN = Path(sys.executable).parent


def papermill(*words, cwd):
    command = [str(BIN / "papermill"), *map(str, words), "--no-progress-bar"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def in_git(path: Path) -> bytes:
    """What git holds of a file: the copy on disk may have a reader's outputs."""
    command = ["git", "-C", str(ROOT), "show", f":{path.relative_to(ROOT).as_posix()}"]
    done = subprocess.run(command, capture_output=True, check=False)
    return path.read_bytes() if done.returncode else done.stdout


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_pair_is_in_step_and_has_no_outputs(source):
    committed = in_git(source.with_suffix(".ipynb"))
    paired = jupytext.reads(committed.decode(), fmt="ipynb")
    reviewed = jupytext.reads(in_git(source).decode(), fmt="py:percent")
    compare_notebooks(paired, reviewed, fmt="py:percent")
    for cell in paired.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    command = [sys.executable, "-m", "nbstripout"]
    stripped = subprocess.run(command, input=committed, capture_output=True, check=True).stdout
    assert stripped == committed  # so that a fresh clone's filter changes nothing


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_long_functions_in_notebooks(source):
    import ast

    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 10, node.name


def test_saving_in_jupyterlab_keeps_the_pair_in_step_and_outputs_out_of_git(tmp_path):
    """What JupyterLab does on save, with jupytext's contents manager, then ``git add``."""
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class

    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("2_lime.py", "2_lime.ipynb", "jupytext.toml"):
        (folder / name).write_bytes((ROOT / "notebooks" / name).read_bytes())
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)(root_dir=str(tmp_path))
    model = manager.get("notebooks/2_lime.ipynb", content=True)
    cell = nbformat.v4.new_code_cell("edited = 1 + 1")
    cell.outputs = [nbformat.v4.new_output("stream", text="a secret output")]
    model["content"]["cells"].append(cell)
    manager.save(model, "notebooks/2_lime.ipynb")
    assert "edited = 1 + 1" in (folder / "2_lime.py").read_text()
    assert "a secret output" in (folder / "2_lime.ipynb").read_text()  # kept for the reader

    def git(*words):
        command = ["git", "-C", str(tmp_path), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    (tmp_path / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    git("config", "filter.nbstripout.clean", f'"{sys.executable}" -m nbstripout')
    git("add", "-A")
    assert "edited = 1 + 1" in git("show", ":notebooks/2_lime.ipynb")
    assert "a secret output" not in git("show", ":notebooks/2_lime.ipynb")


def test_a_readers_own_photograph_with_another_network(tmp_path, photo_file):
    """The README's command, from the project's folder."""
    out = tmp_path / "out.ipynb"
    images = f"images: [{photo_file}, {tmp_path / 'absent.jpg'}]"
    words = ["-p", "model", "tf_efficientnet_lite2", "-y", images, "-p", "num_samples", 30]
    words += ["-p", "out_dir", tmp_path / "run"]
    done = papermill(ROOT / "notebooks" / "2_lime.ipynb", out, *words, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    text = out.read_text()
    assert "Not explained" in text  # the missing file is named, the other explained
    assert "absent.jpg" in text
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["inputs"]["weights"]["model"] == "tf_efficientnet_lite2"
    assert list(manifest["inputs"]["images"]) == ["photo"]


def test_published_descriptions_give_the_seeds_figures(tmp_path, shared):
    runs = shared / "published" / "task-1" / "result_final"
    file = runs / "resnet18_24_07_24_15_58" / "descriptions.csv"
    words = ["-p", "descriptions", file, "-p", "out_dir", tmp_path / "run"]
    notebook = ROOT / "notebooks" / "1_clip_dissect.ipynb"
    done = papermill(notebook, tmp_path / "o.ipynb", *words, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    bars = (tmp_path / "run" / "figures" / "run-bars.csv").read_text().splitlines()
    units = sum(int(line.rsplit(",", 1)[1]) for line in bars[1:])
    assert units == len(file.read_text().splitlines()) - 1
    assert (tmp_path / "run" / "figures" / "run-scatter.webp").exists()
    for other in runs.glob("*/descriptions.csv"):
        assert len(read_descriptions(other)) == len(other.read_text().splitlines()) - 1


def test_a_notebook_without_widgets_is_not_told_to_install_them():
    """What lime and timm import, as in a kernel; without ours the warning comes."""
    kernel = "import IPython, ipykernel.zmqshell; {}import tqdm.auto"

    def said(code):
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    assert "IProgress not found" in said(kernel.format(""))
    assert said(kernel.format("import xailib; ")) == ""


def test_in_jupyterlab_a_py_opens_as_a_notebook(tmp_path):
    """The setting that ``make`` writes is one that JupyterLab's server reads, and its name."""
    (line,) = [w for w in (ROOT / "Makefile").read_text().splitlines() if "jupytext-config" in w]
    words = line.replace("$(BIN)", str(BIN)).replace(".venv/etc/jupyter", str(tmp_path)).split()
    subprocess.run(words, check=True, capture_output=True)
    code = (
        "from jupyterlab_server.settings_utils import _get_overrides as read; "
        "print(read('none')[0]['@jupyterlab/docmanager-extension:plugin']['defaultViewers'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JUPYTER_CONFIG_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "{'python': 'Jupytext Notebook'}"


def test_before_a_commit_pairs_are_brought_in_step_and_outputs_taken_out(tmp_path):
    """What ``make hooks`` installs, run on a clone in which one half of a pair was edited."""
    for name in ("notebooks/2_lime.py", "notebooks/2_lime.ipynb", "notebooks/jupytext.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".pre-commit-config.yaml").write_bytes(
        (ROOT / ".pre-commit-config.yaml").read_bytes()
    )
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(BIN)
    source, paired = (tmp_path / "notebooks" / f"2_lime.{end}" for end in ("py", "ipynb"))
    notebook = nbformat.read(paired, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="a secret output")]
    nbformat.write(notebook, paired)
    later = paired.stat().st_mtime + 10
    source.write_text(source.read_text() + "\n# %%\nedited = 1 + 1\n")
    os.utime(source, (later, later))

    def commit_hooks(*names):
        for name in names:
            command = [sys.executable, "-m", "pre_commit", "run", name, "--all-files"]
            environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "cache")}
            yield subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "notebooks", ".pre-commit-config.yaml"], cwd=tmp_path, check=True)
    first = [done.returncode for done in commit_hooks("jupytext", "nbstripout")]
    assert first == [1, 1], "a commit with either must be stopped"
    text = paired.read_text()
    assert "edited = 1 + 1" in text
    assert "a secret output" not in text
    subprocess.run(["git", "add", "notebooks"], cwd=tmp_path, check=True)
    assert [done.returncode for done in commit_hooks("nbstripout")] == [0]
