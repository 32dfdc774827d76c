"""Numbers of others beside ours: means, intervals and rankings, from small tables by hand."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

sys.path.insert(0, str(ROOT / "book/_ext"))
from beside import beside, rankings, single_deletion, texts
from runs import read_numbers

PUBLISHED = pd.DataFrame(
    {
        "source": "theirs",
        "network": "resnet18",
        "measure": "average_drop",
        "method": ["gradcam", "gradcam++", "layercam", "rise"],
        "value": [0.3, 0.5, 0.1, 0.2],
    }
)


def test_what_no_run_could_use_is_named_on_the_first_page(tmp_path, monkeypatch):
    monkeypatch.delenv("XAILIB_FAILED", raising=False)
    broken = {"source": "a/broken.jpg", "reason": "images: 'a/broken.jpg' is not an image"}
    for task, failures in (("2_lime", [broken]), ("3_cam", [broken]), ("7_sanity", [])):
        (tmp_path / task).mkdir()
        (tmp_path / task / "manifest.json").write_text(json.dumps({"failures": failures}))
    said = read_numbers(tmp_path)["not_used"]
    assert said == "**Images not used:**\n\n- 'a/broken.jpg' is not an image"
    monkeypatch.setenv("XAILIB_FAILED", json.dumps({"2_lime": "x", "3_cam": "y"}))
    assert read_numbers(tmp_path)["not_used"] == ""
    assert "{{ not_used }}" in (ROOT / "book" / "index.md").read_text()


def values(**means):
    rows = [
        ("resnet18", f"photo {k}", method, measure, mean + 0.01 * k)
        for method, mean in means.items()
        for measure in ("average_drop", "single_deletion")
        for k in range(5)
    ]
    columns = ["network", "image", "method", "measure", "value"]
    return pd.DataFrame(rows, columns=columns).replace({"method": {"gradcampp": "gradcam++"}})


def test_ours_stands_beside_each_published_number():
    kept = values(gradcam=0.2, gradcampp=0.4, layercam=0.3)
    table = beside(PUBLISHED, kept).set_index("method")
    some = 0.2 + 0.01 * np.arange(5)
    half = stats.t.ppf(0.975, 4) * some.std(ddof=1) / 5**0.5
    own = table.loc["gradcam"]
    assert (own["ours"], own["low"]) == pytest.approx((some.mean(), some.mean() - half))
    assert table["n"].tolist() == [5, 5, 5, 0]
    (line,) = rankings(table.reset_index())
    assert "τ 0.333 over 3 methods" in line  # one of three pairs is the other way round
    assert line.endswith("LayerCAM, Grad-CAM, Grad-CAM++; ours: Grad-CAM, LayerCAM, Grad-CAM++")
    (few,) = rankings(table.reset_index()[:2])
    assert "no ranking" in few
    assert single_deletion(kept)["ResNet-18"].str.contains("n = 5").all()


def test_the_page_has_every_published_number_with_its_source():
    rows = pd.read_csv(ROOT / "book/_data/evidence/published.csv")
    found = texts()["published_table"]
    for row in rows.itertuples():
        assert f"{row.value:.4f}" in found
    assert rows["address"].str.startswith("https://").all()
    assert set(rows["read"]) <= {"repository", "from memory"}
    assert len(rows) >= 10
