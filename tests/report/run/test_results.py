import nbformat.v4 as nbf
import numpy as np
import pandas as pd
import pytest
from conftest import explanation
from PIL import Image

from xailib.errors import InputError
from xailib.images.load import load_images
from xailib.report.run import notebook, results
from xailib.report.run.results import (
    intact,
    leftovers,
    load_explanations,
    read_manifest,
    run_digest,
    start_run,
)


@pytest.fixture
def photographs(photo_file):
    return load_images([photo_file, photo_file.parent / "absent.png"])


def start(folder, photographs, files=(), **parameters):
    return start_run(folder, "2_lime", parameters, photographs, files, weights={"sha256": "ab"})


def make(photograph):
    return explanation(np.eye(4), image=photograph.id, image_sha256=photograph.sha256)


def test_a_finished_run_says_what_made_it(tmp_path, photographs, photo_file):
    run = start(tmp_path / "run", photographs, [photo_file], samples=10)
    run.save_table("t", pd.DataFrame({"a": [1]}))
    run.save_metrics({"x": 0.5})
    run.finish()
    manifest = read_manifest(tmp_path / "run")
    assert manifest["parameters"] == {"samples": 10}
    assert manifest["inputs"]["images"] == {"photo": photographs[0].sha256}
    assert manifest["inputs"]["files"] == {str(photo_file): photographs[0].sha256}
    assert manifest["failures"][0]["source"].endswith("absent.png")
    assert manifest["versions"]["torch"]
    assert set(manifest["outputs"]) == {"t.parquet", "metrics.json"}
    assert intact(tmp_path / "run", manifest)
    assert pd.read_parquet(tmp_path / "run" / "t.parquet")["a"].tolist() == [1]


def test_an_unfinished_run_is_no_run(tmp_path, photographs):
    start(tmp_path, photographs).finish()
    read_manifest(tmp_path)
    start(tmp_path, photographs)
    read_manifest(tmp_path)  # nothing was changed yet
    start(tmp_path, photographs).save_metrics({})  # begun again, and killed
    with pytest.raises(InputError, match="no finished run"):
        read_manifest(tmp_path)


def test_explanations_are_reused_only_when_everything_matches(tmp_path, photographs, monkeypatch):
    calls = []

    def counted(photograph):
        calls.append(photograph.id)
        return make(photograph)

    def again(key):
        run = start(tmp_path, photographs)
        run.explanations(photographs, "gradcam", key, counted)
        return len(calls)

    assert again({"layer": "a"}) == 1
    assert again({"layer": "a"}) == 1
    (old,) = (tmp_path / "explanations").glob("photo.gradcam.*.npz")
    assert again({"layer": "b"}) == 2
    assert again({"layer": "b"}) == 2
    assert again({"layer": "a"}) == 2  # that of before is still there
    (new,) = set((tmp_path / "explanations").glob("photo.gradcam.*.npz")) - {old}
    new.write_bytes(b"torn")
    assert again({"layer": "b"}) == 3
    new.with_suffix(".json").write_text("{")
    assert again({"layer": "b"}) == 4
    monkeypatch.setattr(results, "environment", lambda _: {"torch": "another"})
    assert again({"layer": "b"}) == 5
    monkeypatch.setattr(results, "source_hash", lambda _: "another")
    assert again({"layer": "b"}) == 6


def test_a_failing_photograph_leaves_the_others(tmp_path):
    both = load_images(["chelsea", "coffee"])

    def picky(photograph):
        if photograph.id == "chelsea":
            raise InputError("layer: no")
        return make(photograph)

    start(tmp_path, both).explanations(both, "gradcam", {"layer": "old"}, make)
    run = start(tmp_path, both)
    assert [e.image for e in run.explanations(both, "gradcam", {}, picky)] == ["coffee"]
    assert run.failures == [{"source": "scikit-image:chelsea", "reason": "layer: no"}]
    with pytest.raises(InputError, match="layer: no"):
        run.explanations(both[:1], "gradcam", {}, picky)
    run.finish()
    assert [e.image for e in load_explanations(tmp_path)] == ["coffee"]  # not the old one
    assert {place.name.partition(".")[0] for place in leftovers(tmp_path)} == {"chelsea", "coffee"}


def test_a_cache_belongs_to_its_key(tmp_path, photographs):
    run = start(tmp_path, photographs)
    first = run.cache("activations", {"crops": 1})
    first.mkdir(parents=True)
    run.finish()
    again = start(tmp_path, photographs)
    assert again.cache("activations", {"crops": 1}) == first
    other = start(tmp_path, photographs)
    second = other.cache("activations", {"crops": 2})
    second.mkdir(parents=True)
    other.finish()
    assert second.exists()
    assert leftovers(tmp_path) == [first]  # nothing is deleted that was not asked for


def test_equal_results_have_equal_digests(tmp_path, photographs):
    digests = []
    for name in "ab":
        run = start(tmp_path / name, photographs)
        run.explanations(photographs, "gradcam", {}, make)
        run.finish()
        digests.append(run_digest(tmp_path / name))
    assert digests[0] == digests[1]


def test_a_folder_that_cannot_be_written_says_so(tmp_path, photographs):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out_dir: cannot write"):
        start(tmp_path / "file" / "run", photographs)


def test_a_notebook_tells_how_far_it_is_and_keeps_no_line_of_it(
    tmp_path, picture, monkeypatch, capsys
):
    for turns, name in enumerate("abc"):
        Image.fromarray(np.rot90(picture, turns)).save(tmp_path / f"{name}.png")
    photographs = load_images([tmp_path / f"{name}.png" for name in "abc"])
    run = start(tmp_path / "run", photographs)
    run.explanations(photographs, "lime", {}, make)
    assert capsys.readouterr().out == ""  # not in a notebook
    monkeypatch.setattr("IPython.get_ipython", lambda: "a shell")
    monkeypatch.setattr(results, "_PAUSE", 0.0)
    run.explanations(photographs, "cam", {}, make)
    told = capsys.readouterr().out
    assert told == "".join(f"\r· cam: {count} of 3 photographs" for count in (1, 2, 3))
    assert list(run.told(photographs, "scores")) == list(photographs)
    said = capsys.readouterr().out
    assert said == "".join(f"\r· scores: {count} of 3 photographs" for count in (0, 1, 2))
    notebook._Progress().write(f"warmed up{told}")
    assert capsys.readouterr().err == "cam: 3 of 3 photographs\n"
    streams = [nbf.new_output("stream", name="stdout", text=text) for text in (told, f"{told}\rx")]
    cells = [nbf.new_code_cell(outputs=streams), nbf.new_markdown_cell("words")]
    first, second = notebook._without_progress(nbf.new_notebook(cells=cells))["cells"]
    assert [output["text"] for output in first["outputs"]] == ["\rx"]
    assert second["source"] == "words"
