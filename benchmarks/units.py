r"""Make the kept tables of the page on units: two networks, labelled by membership and certified.

Run it with folders of photographs by class or scene, and one network or several::

    python benchmarks/units.py --probe PHOTOGRAPHS --probe SCENES \
        --network ImageNet resnet18 resnet18.pth layer3,layer4,fc \
        --network Places365 file.py:load "" features.6,features,head \
        --published FOLDER --cosy FOLDER

Activations are recorded into results/scratch/units, and what is there is used again. Only our own
numbers are kept, in book/_data/dissect: no photograph, and no label that others have published
but the most frequent ones, counted.
"""

import argparse
import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import timm.data
import torch

from xailib.compare.intervals import mean_interval, share_interval
from xailib.dissect import certificates as tests
from xailib.dissect.activations import record_activations
from xailib.dissect.blocks import Recording
from xailib.dissect.label import read_descriptions
from xailib.dissect.membership import (
    Membership,
    compositions,
    hypernyms,
    membership_of,
    rows_by_concept,
)
from xailib.dissect.similarity import top_images
from xailib.files import sha256_of
from xailib.images.probe import ProbeSet, load_probe
from xailib.networks.classifier import Classifier, load_classifier
from xailib.networks.weights import hash_of
from xailib.report.replication.published import COMMIT, LABELS, REPOSITORY
from xailib.versions import environment, git_commit

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "book" / "_data" / "dissect"
RECORDED = ROOT / "results" / "scratch" / "units"
# Seeds of the networks with random weights. The correction asks of a layer's last certified unit a
# p of about 0.004: the null has units and shuffles enough that p comes in far smaller steps.
RANDOM = {"view": (1, 2), "null": (3, 4, *range(6, 12)), "control": (5,)}
DRAWS = 5000
BINS = 12  # of a unit's histogram
SHOWN = 20  # concepts of a layer, as the replicated report counts them
FIVE = ["correlation", "cosine", "auprc", "f1", "iou"]


def untrained(classifier: Classifier, seed: int) -> Classifier:
    """Return a network with random weights, initialised as torchvision does its ResNets.

    By PyTorch's own defaults what passes a deep plain network shrinks to rounding.
    """
    if ".py:" not in classifier.name:
        return load_classifier(classifier.name, "random", "cpu", seed)
    module = copy.deepcopy(classifier.module)
    torch.manual_seed(seed)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                torch.nn.init.zeros_(part.bias)
    return replace(classifier, module=module, weights="random", weights_sha256=hash_of(module))


def recorded(classifier: Classifier, layers: list[str], probe: ProbeSet) -> Recording:
    """Return the activations, recorded unless they are there."""
    return record_activations(classifier, layers, probe, folder=RECORDED)


def label(
    name: str, recordings: dict[str, list[Recording]], layers: list[str], members: Membership
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, np.ndarray]]:
    """Return a network's units, its layers, and each layer's `untrained_view`."""
    both, views = compositions(members), {}
    parts: dict[str, list[pd.DataFrame]] = {"own": [], "control": []}
    for layer in layers:
        views[layer] = tests.untrained_view(side_by_side(recordings["view"], layer))
        null = side_by_side(recordings["null"], layer)
        for kind, found in parts.items():
            table = side_by_side(recordings[kind], layer)
            part = tests.certify(table, null, members.masks, view=views[layer], draws=DRAWS)
            if kind == "own":
                part = pd.concat([part, composed(table, views[layer], both), shown(table)], axis=1)
            found.append(part.assign(layer=layer))
    units, control = (pd.concat(found, ignore_index=True) for found in parts.values())
    for table in (units, control):
        table["p"] = tests.adjust(table["p"])
        table["certified"] = table["p"] < tests.LEVEL
    rows = [overview(units, control, layer, members) for layer in layers]
    units["kind"] = np.array(members.kinds)[units["concept"]]
    for column in ("concept", "again"):
        units[column] = np.array(members.names)[units[column]]
    return units.assign(network=name), pd.DataFrame(rows).assign(network=name), views


def side_by_side(recordings: list[Recording], layer: str) -> np.ndarray:
    """Return a layer's activations of one or more networks, (probe, units)."""
    return np.hstack([one[layer].astype(np.float32) for one in recordings])


def composed(activations: np.ndarray, view: np.ndarray, both: Membership) -> pd.DataFrame:
    """Return each unit's best composition of two concepts and its held-out score."""
    first, second = tests.halves(len(activations))
    known = both.masks[:, first].any(1) & both.masks[:, second].any(1)
    masks, names = both.masks[known], np.array(both.names)[known]
    best = tests.partial(activations[first], masks[:, first], view[first]).argmax(1)
    held_out = tests.partial(activations[second], masks[:, second], view[second])
    score = held_out[np.arange(len(best)), best]
    return pd.DataFrame({"composition": names[best], "composition_score": score})


def shown(activations: np.ndarray) -> pd.DataFrame:
    """Return each unit's histogram, as counts in equal bins, and its five top images' rows."""
    low, high = activations.min(0), activations.max(0)
    place = (activations - low) / np.where(high > low, high - low, 1) * BINS
    bins = np.minimum(place.astype(int), BINS - 1)
    counts = np.stack([(bins == index).sum(0) for index in range(BINS)], 1)
    tops = top_images(activations, 5).T.tolist()
    texts = {"histogram": counts.tolist(), "top": tops}
    return pd.DataFrame(
        {"least": low, "greatest": high}
        | {name: [" ".join(map(str, row)) for row in rows] for name, rows in texts.items()}
    )


def overview(
    units: pd.DataFrame, control: pd.DataFrame, layer: str, members: Membership
) -> dict[str, float | str]:
    """Return one layer's row: certified, of random weights too, and how the halves agree."""
    own, other = (table[table["layer"] == layer] for table in (units, control))
    low, high = share_interval(int(own["certified"].sum()), len(own))
    agree = tests.agreement(own["concept"].to_numpy(), own["again"].to_numpy(), members.related())
    sure = own[own["certified"]]
    return {
        "layer": layer,
        "units": len(own),
        "certified": int(own["certified"].sum()),
        "share": float(own["certified"].mean()),
        "low": low,
        "high": high,
        "control": float(other["certified"].mean()),
        "score": float(own["score"].mean()),
        "control_score": float(other["score"].mean()),
        **agree,
        "concepts": int(sure["concept"].nunique()),
        "composition": float((own["composition_score"] > own["score"]).mean()),
    }


def own_class(values: np.ndarray, probe: ProbeSet) -> dict[str, float]:
    """Return for how many output units the photograph that activates them most is their class's."""
    known = {image.class_index: row for row, image in enumerate(probe.images)}
    known.pop(None, None)
    rows = [known[index] for index in sorted(known)]
    best = values[rows][:, sorted(known)].argmax(0)
    right = int((best == np.arange(len(rows))).sum())
    low, high = share_interval(right, len(rows))
    return {"own_class": right / len(rows), "own_class_low": low, "own_class_high": high}


def published_labels(folder: Path, layer: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of a method and its labels of ResNet-18, as WordNet ids; "" for none."""
    described = timm.data.ImageNetInfo("imagenet-1k").label_descriptions(detailed=True)
    wnids = timm.data.ImageNetInfo("imagenet-1k").label_names()
    classes = {text.casefold(): wnid for text, wnid in zip(described, wnids, strict=True)}
    words = {name.casefold(): wnid for wnid, (name, _) in reversed(hypernyms().items())}
    for method in ("CLIP-Dissect", "INVERT", "MILAN"):
        table = pd.read_csv(folder / method / f"resnet18-{layer}.csv", keep_default_na=False)
        if method == "INVERT":
            yield method, table["concept_id"].tolist()
            continue
        texts = table["description"].str.casefold()
        exact = texts.map(classes).fillna("")
        said = texts.map(lambda text: word_of(text, words))
        yield method, exact.where(exact != "", said).tolist()


def word_of(text: str, words: dict[str, str]) -> str:
    """Return the last word of a description that WordNet's table has, also without its s."""
    for word in reversed(re.findall(r"[a-z]+", text)):
        for form in (word, word.removesuffix("s"), word.removesuffix("es")):
            if form in words:
                return words[form]
    return ""


def compare_methods(
    folder: Path,
    layers: list[str],
    recording: Recording,
    views: dict[str, np.ndarray],
    probe: ProbeSet,
    members: Membership,
    units: pd.DataFrame,
) -> pd.DataFrame:
    """Score the labels of methods on the same held-out images, by layer, with intervals."""
    everything = rows_by_concept(probe)
    _, second = tests.halves(len(probe))
    rng, rows, both = np.random.default_rng(0), [], compositions(members)
    for layer in layers:
        values = recording[layer].astype(np.float32)
        ours = units[units["layer"] == layer]
        own = [members.ids[members.names.index(name)] for name in ours["concept"]]
        pairs = both.masks[[both.names.index(name) for name in ours["composition"]]]
        random = [members.ids[index] for index in rng.integers(len(members), size=len(own))]
        labels = {
            "membership (ours)": own,
            **dict(published_labels(folder, layer)),
            "random concepts": random,
        }
        masks = {
            method: masks_of(given, everything, len(probe)) for method, given in labels.items()
        }
        masks["membership, two concepts (ours)"] = pairs.T
        for method, mask in masks.items():
            part = mask[second]
            found = tests.of_each(values[second], part)
            rank = aligned_ranks(values[second], part, views[layer][second])
            found["score"] = np.where(part.any(0), rank, np.nan)
            usable = found.dropna()
            row = {"method": method, "layer": layer, "units": len(found), "scored": len(usable)}
            for column in ["score", *FIVE]:
                low, high = mean_interval(usable[column].to_numpy())
                row |= {column: usable[column].mean(), f"{column}_low": low, f"{column}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def masks_of(labels: list[str], rows: dict[str, list[int]], count: int) -> np.ndarray:
    """Return (probe, units): the images of each unit's label, none where it has no concept."""
    masks = np.zeros((count, len(labels)), bool)
    for unit, one in enumerate(labels):
        masks[rows.get(one, []), unit] = True
    return masks


def aligned_ranks(values: np.ndarray, masks: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Return `partial` of each unit with its own concept only."""
    found, where = np.unique(masks.T, axis=0, return_inverse=True)
    return tests.partial(values, found, view)[np.arange(len(where)), where.ravel()]


def published_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return counts of the report's labels by layer, and the similarities of its units."""
    counts, points = [], []
    for network, path in LABELS.items():
        table = read_descriptions(folder / path).assign(network=network)
        for layer, part in table.groupby("layer", sort=False):
            most = part["concept"].value_counts().head(SHOWN)
            counts.append(
                most.rename("units")
                .reset_index()
                .assign(
                    network=network,
                    layer=layer,
                    of=len(part),
                    distinct=part["concept"].nunique(),
                )
            )
            rank = part["concept"].map({name: index for index, name in enumerate(most.index)})
            points.append(part[["network", "layer", "unit", "similarity"]].assign(rank=rank))
    return pd.concat(counts), pd.concat(points).astype({"rank": "Int64"})


def main() -> None:
    """Make and store all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probe", action="append", required=True)
    parser.add_argument("--network", action="append", nargs=4, required=True)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--cosy", type=Path)
    options = parser.parse_args()
    probe = load_probe(options.probe)
    members = membership_of(probe)
    tables: dict[str, list[pd.DataFrame]] = {"units": [], "layers": []}
    used = {}
    for name, model, weights, names in options.network:
        classifier, layers = load_classifier(model, weights or None, "cpu"), names.split(",")
        recordings = {"own": [recorded(classifier, layers, probe)]}
        for kind, seeds in RANDOM.items():
            nets = [untrained(classifier, seed) for seed in seeds]
            recordings[kind] = [recorded(net, layers, probe) for net in nets]
        (own,) = recordings["own"]
        units, rows, views = label(name, recordings, layers, members)
        if len(classifier.class_names) == 1000:
            values = own[layers[-1]].astype(np.float32)
            rows.loc[rows.index[-1], list(own_class(values, probe))] = own_class(
                values, probe
            ).values()
            if options.cosy:
                tables["methods"] = [
                    compare_methods(options.cosy, layers, own, views, probe, members, units)
                ]
        tables["units"].append(units)
        tables["layers"].append(rows)
        used[name] = {"model": Path(model).name, "sha256": classifier.sha256, "layers": layers}
    if options.published:
        tables["published"], tables["points"] = ([t] for t in published_tables(options.published))
    KEPT.mkdir(parents=True, exist_ok=True)
    for name, parts in tables.items():
        pd.concat(parts).to_csv(KEPT / f"{name}.csv", index=False, float_format="%.4g")
    names = [f"{one.label}/{one.id}" if one.label else one.id for one in probe.images]
    images = [[name, one.sha256[:12]] for name, one in zip(names, probe.images, strict=True)]
    manifest = {
        "computed": datetime.now(UTC).date().isoformat(),
        "project": git_commit(),
        "networks": used,
        "probe": {"images": len(probe), "sha256": probe.sha256},
        "concepts": len(members),
        "seeds": RANDOM,
        "draws": DRAWS,
        "published": {"repository": REPOSITORY, "commit": COMMIT},
        "files": {
            f"{path.parent.name}/{path.name}": sha256_of(path)
            for path in sorted(options.cosy.rglob("resnet18-*.csv") if options.cosy else [])
            if path.stem.rpartition("-")[2] in ("layer3", "layer4", "fc")
        },
        "versions": environment(),
        "images": images,
    }
    (KEPT / "manifest.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
