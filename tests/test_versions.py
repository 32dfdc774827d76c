"""What decides a result follows from imports: one changed line makes the right ones stale."""

import shutil
import sys
from pathlib import Path

import pytest
import setuptools
from conftest import ROOT

from xailib import versions
from xailib.report.run.results import code_of

# Where a line is changed, and which of some results that makes stale.
EXPLANATION, UNITS, AGREEMENT, SANITY, FAITHFUL = (
    {"xailib.explain"}, {"xailib.dissect", "xailib.encoders"}, "4_agreement", "7_sanity",
    "5_faithfulness",
)  # fmt: skip
RESULTS = {
    "explanation": EXPLANATION, "units": UNITS, "agreement": AGREEMENT, "sanity": SANITY,
    "faithfulness": FAITHFUL,
}  # fmt: skip
CHANGES = {
    "images/decode.py": {"explanation", "units", "agreement", "sanity", "faithfulness"},
    "networks/memory.py": {"explanation", "units", "sanity", "faithfulness"},
    "explain/stability.py": {"explanation", "sanity"},  # ends LIME's sampling
    "explain/cam/tail.py": {"explanation", "sanity"},
    "encoders/sentences.py": {"units"},
    "dissect/similarity.py": {"units"},
    "dissect/concepts.tsv": {"units"},
    "compare/chance.py": {"agreement", "sanity", "faithfulness"},
    "compare/boxes.csv": {"agreement"},
    "evaluate/perturbation.py": {"faithfulness"},
    "downloads/fetch.py": set(RESULTS),  # any image may be fetched
    "report/figures/sanity.py": {"sanity"},
    "report/run/costs.py": set(),
    "report/cli/running.py": set(),
    "report/params/checks.py": set(),
    "errors.py": set(RESULTS),
}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    package = shutil.copytree(
        ROOT / "xailib", tmp_path / "xailib", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(versions, "_ROOT", package)
    return package


def hashes() -> dict[str, str]:
    return {
        name: versions.source_hash(code_of(roots) if isinstance(roots, str) else roots)
        for name, roots in RESULTS.items()
    }


def test_one_changed_line_makes_exactly_the_right_results_stale(copied):
    before, found = hashes(), {}
    for place in CHANGES:
        file = copied / place
        kept = file.read_bytes()
        file.write_bytes(kept + b"\n# another line\n")
        now = hashes()
        found[place] = {name for name in now if now[name] != before[name]}
        file.write_bytes(kept)
    assert found == CHANGES


def test_a_help_text_of_the_command_changes_no_notebook(copied):
    tasks = [file.stem for file in (ROOT / "notebooks").glob("*.ipynb")]
    before = {task: versions.source_hash(code_of(task)) for task in tasks}
    for file in (copied / "report/cli").glob("*.py"):
        file.write_text(file.read_text() + "\n# help\n")
    assert {task: versions.source_hash(code_of(task)) for task in tasks} == before


def test_what_packages_themselves_require_is_recorded():
    found = versions.environment({"xailib.explain"})
    assert {"grad-cam", "lime", "opencv-python-headless", "torch", "timm"} <= found.keys()
    assert "tokenizers" in versions.environment({"xailib.encoders"})
    assert "papermill" not in found


def test_what_setuptools_has_in_itself_is_no_package(monkeypatch):
    """It is on the path once CLIP is imported; elsewhere, a job's result was never current then."""
    vendored = Path(setuptools.__file__).parent / "_vendor"
    assert list(vendored.glob("tomli-*"))
    path, found = [place for place in sys.path if place != str(vendored)], []
    for more in ([], [str(vendored)]):
        monkeypatch.setattr(sys, "path", path + more)
        versions._versions.cache_clear()
        found.append(versions.environment({"xailib.explain"}))
    assert found[0] == found[1]


def test_imports_are_found_wherever_they_stand():
    code = "import a.b\ndef f():\n    from c import d\n    import_module('e.f')\n"
    code += "if TYPE_CHECKING:\n    import g\n"
    assert versions.imports_of(code) == {"a.b", "c", "e.f"}
