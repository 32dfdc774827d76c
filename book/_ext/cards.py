"""The performance page's tables of GPUs: what ``benchmarks/gpu.py`` has stored, card by card."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

PRECISIONS = ("exact", "tf32", "half")
_PEERS = ("lime, ", "grad-cam, ")
Rows = Mapping[str, Mapping[str, Any]]


def gpus(file: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a caption and a table, four for each card that was measured."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for card, run in found.items():
        rows = {name: row for name, row in run["rows"].items() if "failed" not in row}
        machine = f"{card}, {run['cores']} processor cores, PyTorch {run['torch']}"
        yield f"**{machine}: seconds for one image, ResNet-50 at 224 pixels**", _single(rows)
        yield f"**{machine}: streams, CLIP-Dissect and notebooks**", _streams(rows)
        yield f"**{machine}: difference from the CPU, by precision**", _differences(rows)
        yield f"**{machine}: LIME, difference from `exact`**", _against_exact(rows)


def _single(rows: Rows) -> pd.DataFrame:
    """Return one row a method: the fastest peer, ours by precision, and how many times faster."""
    found = []
    for name, row in rows.items():
        peers = {key: row[key] for key in row if key.startswith(_PEERS)}
        if not peers:
            continue
        peer = min(peers, key=lambda key: peers[key])
        ours = {precision: row[f"ours, {precision}"] for precision in PRECISIONS}
        found.append(
            {
                "method": name.removesuffix(", one image"),
                "reference": peer,
                "seconds, reference": f"{peers[peer]:.3f}",
                **{
                    f"seconds, {precision}": f"{seconds:.3f}" for precision, seconds in ours.items()
                },
                **{f"speed-up, {p}": f"{peers[peer] / ours[p]:.1f}" for p in PRECISIONS},
            }
        )
    return pd.DataFrame(found)


def _streams(rows: Rows) -> pd.DataFrame:
    found = []
    for name, row in rows.items():
        if "images_per_second" in row:
            found.append({"task": name, "measured": f"{row['images_per_second']:.1f} images/s"})
            bare = [row[key] for key in row if key.startswith("bare passes")]
            if bare:
                ratio = row["ours"] / min(bare)
                found[-1]["measured"] += f", {ratio:.2f} × the time of the forward passes"
        elif "resident" in row:
            for key, where in (("resident", "data on the GPU"), ("transferred", "with transfers")):
                found.append({"task": f"{name}, {where}", "measured": f"{row[key]:.3f} s"})
        elif name.startswith("notebook"):
            found.append({"task": name, "measured": f"{row['seconds']:.1f} s, including imports"})
    return pd.DataFrame(found, columns=["task", "measured"])


def _differences(rows: Rows) -> pd.DataFrame:
    """Return one row a precision: the largest differences, as shares of the largest value."""
    found = []
    for precision in PRECISIONS:
        row = rows.get(f"equal to the CPU, {precision}")
        if row is not None:
            found.append(
                {
                    "precision": precision,
                    "images": row["images"],
                    "LIME's weights": f"{row['lime_weights']:.0e}",
                    "Grad-CAM": f"{row['gradcam']:.0e}",
                    "AblationCAM": f"{row['ablationcam']:.0e}",
                    "segmentations that differ": row["segments_differ"],
                    "LIME masks that differ": row["other_masks"],
                    "commit": row.get("commit", ""),
                }
            )
    return pd.DataFrame(found)


def _against_exact(rows: Rows) -> pd.DataFrame:
    """Return one row a precision: how far LIME of many images differs from that at exact."""
    found = [
        {
            "precision": name.rpartition(", ")[2],
            "network": row["network"],
            "images": row["images"],
            "other predicted class": row["other_classes"],
            "weights, median": f"{row['median_gap']:.0e}",
            "weights, largest": f"{row['largest_gap']:.0e}",
            "LIME masks that differ": row["other_masks"],
        }
        for name, row in rows.items()
        if "median_gap" in row
    ]
    return pd.DataFrame(found)
