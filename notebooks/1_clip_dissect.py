# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (task-dissect)=
# # Neurons: what have they learnt?

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # a name that load_classifier knows, or path/to/file.py:function
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
outputs: str = "auto"  # what the network's output means; auto notices softmax, sigmoids and a single output, but not that logits are of independent labels (auto, logits, probabilities, multilabel or binary)
preprocessing: str = ""  # name of the torchvision weights whose transform is used; empty: the transform of the weights, or of the own file
label: str = ""  # short name of the network in captions; empty: model, without folders
layers: list = []  # layers as in named_modules; empty: the last two stages and the output layer
encoder: str = "conse:tf_efficientnet_lite1"  # clip:ViT-B/16, openclip:ARCH/PRETRAINED, or conse:CLASSIFIER[+mpnet]
encoder_weights: str = ""  # local file for the encoder; empty: fetched, or packaged for conse
probe: list = ["packaged"]  # probe images: packaged, broden, imagenet-sample, files or folders
crops: int = 36  # parts cropped from each probe image besides the whole (at least 0)
concepts: list = ["packaged", "categories:imagenet"]  # packaged, categories:imagenet, or a text file with one concept a line
measure: str = "auto"  # how units and concepts are compared; auto: cosine cubed for a conse encoder, whose soft-WPMI saturates, else soft-WPMI (auto, soft_wpmi, wpmi, rank_reorder, cos_similarity or cos_similarity_cubed)
top_k: int = 20  # for soft_wpmi: the most activating probe images that decide a label, at most their number (at least 1)
compare: str = ""  # a second network to set beside the first: names as for model; empty: none
compare_weights: str = ""  # its weights, as for weights
compare_layers: list = []  # its layers, as for layers
control: bool = True  # also label the same network with random weights, which must fail
descriptions: str = ""  # a published descriptions.csv to draw instead of computing; empty: compute
seed: int = 0  # of the crops and the random weights (from 0 to 4294967295)
precision: str = "exact"  # how the network computes: exact is float32 (exact, tf32 or half)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/1_clip_dissect"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("1_clip_dissect", globals())

# %% tags=["remove-input"]
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from xailib.dissect import kinds
from xailib.dissect.activations import networks_of, record_activations, record_embeddings
from xailib.dissect.concepts import lexicon, load_concepts
from xailib.dissect.label import (
    check_measure,
    evaluate_output_units,
    label_units,
    read_descriptions,
    saturated,
)
from xailib.encoders.load import load_encoder
from xailib.images.load import ImageSet
from xailib.images.probe import load_probe
from xailib.networks.zoo import imagenet_classes
from xailib.report.figures import style as figures
from xailib.report.figures import units as unit_figures
from xailib.report.run.results import start_run

parameters = {
    "model": model,
    "weights": weights,
    "layers": layers,
    "encoder": encoder,
    "probe": probe,
    "crops": crops,
    "concepts": concepts,
    "measure": measure,
    "top_k": top_k,
    "compare": compare,
    "compare_weights": compare_weights,
    "compare_layers": compare_layers,
    "control": control,
    "seed": seed,
    "descriptions": descriptions,
}
if measure == "auto":
    measure = "cos_similarity_cubed" if encoder.startswith("conse:") else "soft_wpmi"
options = {"top_k": top_k} if measure == "soft_wpmi" else {}
kept, made = unit_figures.kept()
if descriptions:
    published = read_descriptions(descriptions)
    run = start_run(out_dir, "1_clip_dissect", parameters, ImageSet(()), [Path(descriptions), *unit_figures.kept_files()])
    tables = {"published": published}
    source = f"labels read from {descriptions}"
else:
    networks = networks_of(globals())
    classifier, chosen = networks[model]
    compare = list(networks)[1] if compare else ""
    probe_set = load_probe(probe, crops, seed)
    check_measure(measure, len(probe_set), **options)
    words = load_concepts(concepts)
    reader = load_encoder(encoder, encoder_weights or None, device)
    source = reader.label
    named = [weights, encoder_weights, compare_weights, *concepts]
    files = {*classifier.files, *(Path(name) for name in named if name and Path(name).is_file())}
    run = start_run(
        out_dir,
        "1_clip_dissect",
        parameters,
        ImageSet((), probe_set.failures),
        sorted({*files, *unit_figures.kept_files()}),
        weights=classifier.identity,
        encoder={"name": encoder, "label": reader.label, "sha256": reader.sha256},
        probe={
            "source": probe,
            "crops": crops,
            "seed": seed,
            "count": len(probe_set),
            "sha256": probe_set.sha256,
        },
        concepts={"source": words.source, "count": len(words), "sha256": words.sha256},
    )
    embedded = record_embeddings(
        reader,
        probe_set,
        folder=run.cache("embeddings", {"encoder": f"{reader.name}@{reader.sha256}"}),
        tell=partial(run.tell, "embeddings", of="probe images"),
    )
    images, texts = embedded["embeddings"], reader.encode_texts(words.names)
    recordings = {
        kind: record_activations(
            net,
            names,
            probe_set,
            folder=run.cache("activations", {"net": net.identity, "layers": names}),
            tell=partial(run.tell, f"activations, {kind}", of="probe images"),
        )
        for kind, (net, names) in networks.items()
    }
    places = [image.place for image in probe_set.images]
    everything = {
        kind: label_units(recorded, images, texts, words, measure=measure, device=classifier.device, photographs=places, **options)
        for kind, recorded in recordings.items()
    }
    # A label is shown if both halves of the photographs give it, each with its crops.
    parts = [np.isin(places, half) for half in np.array_split(np.random.default_rng(seed).permutation(max(places) + 1), 2)]
    less = {"top_k": min(top_k, *(int(part.sum()) for part in parts))} if options else {}
    halved = {
        kind: [
            label_units({layer: recorded[layer][part] for layer in recorded}, images[part], texts, words, measure=measure, device=classifier.device, **less)
            for part in parts
        ]
        for kind, recorded in recordings.items()
    }
    tables = {
        kind: table.assign(certified=(one["concept"] == two["concept"]) & (one["concept"] == table["concept"]) & ~table["dead"])
        for (kind, table), (one, two) in zip(everything.items(), halved.values(), strict=True)
    }
labels = tables[next(iter(tables))]
chosen = list(dict.fromkeys(labels["layer"]))
# %% tags=["remove-input"]
first_name, second_name = made["networks"]
long_names = {first_name: "ResNet-18 (ImageNet)", second_name: "SqueezeNet (Places365)"}
layers_kept = kept["layers"]
own_units = {name: kept["units"][kept["units"]["network"] == name] for name in made["networks"]}
last = layers_kept.groupby("network").tail(1).set_index("network")
shown_labels = {name: unit_figures.reliable(table) for name, table in own_units.items()}
most = {name: table["concept"].value_counts().index[:3] for name, table in shown_labels.items()}
scenes = {name: (table["kind"] == "scene")[table["certified"]].mean() for name, table in own_units.items()}
kinds_of_concepts = {row.concept.casefold(): row.kind for table in own_units.values() for row in table.itertuples()}
test = kinds.compare_kind(*(table.dropna(subset="concept") for table in shown_labels.values()), kinds_of_concepts, last=3)
metrics = {
    "kept_units": len(kept["units"]),
    "kept_images": made["probe"]["images"],
    "certified_percent": 100 * kept["units"]["certified"].mean(),
    "scene_percent": 100 * scenes[first_name],
    "compare_scene_percent": 100 * scenes[second_name],
    "scene_odds": test.odds,
    "scene_p": test.p,
}
for row in layers_kept[layers_kept["network"] == first_name].itertuples():
    metrics |= {f"certified_{row.layer}_percent": 100 * row.share, f"control_{row.layer}_percent": 100 * row.control}
metrics["finding"] = (
    f"With {metrics['kept_images']:,} photographs of known class, {metrics['certified_percent']:.0f} % of the units of two networks get a certified "
    f"label. The network trained on Places365 has scenes on {metrics['compare_scene_percent']:.0f} % of its labelled units, "
    f"the one trained on ImageNet on {metrics['scene_percent']:.0f} %."
)
display(
    Markdown(
        f"**Answer.** {metrics['finding']} Most frequent are *{', '.join(most[first_name])}* in {long_names[first_name]} and "
        f"*{', '.join(most[second_name])}* in {long_names[second_name]}. The odds of a scene label are {test.odds:.1f} times as high "
        f"(95 % interval {test.odds_low:.1f} to {test.odds_high:.1f}; Fisher's exact test, which assumes independent units). "
        f"These results were computed on {made['computed']} and are stored with the project; this run's own are [below](this-machine)."
    )
)

# %% [markdown]
# ## What two networks learnt
#
# The first pair of figures shows the labels that the replicated report {cite}`balwani2024` published: ResNet-18 on ImageNet and
# ResNet-18 on Places365, labelled by CLIP-Dissect {cite}`oikarinen2023` with CLIP and Broden. The second pair shows our own stored
# results: labels derived from the known classes of the photographs, without an encoder, and only where they are certified.

# %% tags=["remove-input"]
sources = {"ImageNet": "resnet18", "Places365": "resnet18_places365"}
for tab, network in sources.items():
    table = unit_figures.published(kept, network)
    counts = kept["published"][kept["published"]["network"] == network]
    figures.publish(
        run,
        unit_figures.concept_bars(table),
        f"published-bars-{tab.lower()}",
        f"Published labels of ResNet-18 trained on {tab}: the twenty most frequent concepts of each layer.",
        "Bars of concept counts. " + " ".join(f"{layer}: most often {part['concept'].iloc[0]}." for layer, part in counts.groupby("layer", sort=False)),
        counts,
        raster=False,
        tab=tab,
    )

# %% tags=["remove-input"]
for tab, network in sources.items():
    table = unit_figures.published(kept, network)
    figures.publish(
        run,
        unit_figures.similarity_scatter(table),
        f"published-scatter-{tab.lower()}",
        f"Published similarity (soft-WPMI) of each unit of ResNet-18 trained on {tab} to its concept; the twenty most frequent concepts of a "
        "layer are coloured. Similarities are comparable within a layer only.",
        f"Scatter plots of similarity by unit for the layers {', '.join(table['layer'].unique())}.",
        table[["layer", "unit", "concept", "similarity"]],
        tab=tab,
    )

# %% tags=["remove-input"]
for tab, table in shown_labels.items():
    figures.publish(
        run,
        unit_figures.concept_bars(table),
        f"concept-bars-{tab.lower()}",
        f"Certified labels of {long_names[tab]}: the twenty most frequent concepts of each layer.",
        "Bars of concept counts. " + " ".join(f"{layer}: most often {part['concept'].value_counts().index[0]}." for layer, part in table.groupby("layer", sort=False)),
        table.groupby(["layer", "concept"], sort=False).size().rename("units").reset_index(),
        raster=False,
        tab=tab,
    )

# %% tags=["remove-input"]
for tab, table in shown_labels.items():
    figures.publish(
        run,
        unit_figures.similarity_scatter(table, column="score"),
        f"score-scatter-{tab.lower()}",
        f"Held-out score of each unit of {long_names[tab]} (top-down correlation of its activations with its concept, beyond what untrained networks "
        "see); the twenty most frequent certified concepts are coloured, units without a reliable label are gray.",
        f"Scatter plots of the held-out score by unit for the layers {', '.join(table['layer'].unique())}.",
        table[["layer", "unit", "concept", "score"]],
        tab=tab,
    )

# %% tags=["remove-input"]
both = kinds.compare_concepts(*shown_labels.values())
for which in ("first", "second"):
    both[f"also_{which}"] = [f"{100 * row[f'share_{which}']:.0f} % ({100 * row[f'low_{which}']:.0f} to {100 * row[f'high_{which}']:.0f})" for _, row in both.iterrows()]
figures.publish_table(
    run,
    both,
    "shared-concepts",
    "Certified concepts of the two networks by depth: distinct concepts, how many both have, the share of labelled units whose concept the "
    "other network has too (95 % interval, Wilson), and the most frequent concepts of one only.",
    {"layer": "layers", "concepts_first": f"concepts, {first_name}", "concepts_second": f"concepts, {second_name}", "shared": "shared", "also_first": f"{first_name} units with a shared concept", "also_second": f"{second_name} units with a shared concept", "only_first": f"only {first_name}", "only_second": f"only {second_name}"},
)
counts = {
    name: kinds.kinds_of(table.assign(concept=table["concept"].where(table["certified"], unit_figures.NO_LABEL)), {**kinds_of_concepts, unit_figures.NO_LABEL: unit_figures.NO_LABEL})
    for name, table in own_units.items()
}
figures.publish(
    run,
    unit_figures.kinds_chart(counts),
    "concept-kinds",
    "Kinds of certified concepts by network and layer.",
    f"Stacked bars of concept types for {', '.join(counts)}.",
    pd.concat([table.assign(network=name) for name, table in counts.items()]),
    raster=False,
)

# %% [markdown]
# ## Which labels are reliable
#
# Each unit is labelled on one half of the photographs and tested on the other. Its score is the top-down correlation {cite}`iman1987` of its
# activations with membership in the concept: a rank correlation in which the most activating photographs weigh most. The principal components
# of untrained networks' units are removed first, since such units follow brightness and texture, and therefore "sky". A label is *certified*
# if its score exceeds those of random labels and the units of other untrained networks, corrected for all units of the network {cite}`benjamini2001`.
# The control is one more untrained network, treated the same way. NeuronEval's sanity tests {cite}`oikarinen2025` run on all scores.

# %% tags=["remove-input"]
table = layers_kept.assign(
    interval=[f"{100 * row.low:.0f} to {100 * row.high:.0f} %" for row in layers_kept.itertuples()],
    halves=[f"{100 * row.same:.0f} % ({100 * row.same_chance:.0f})" for row in layers_kept.itertuples()],
    parents=[f"{100 * row.related:.0f} % ({100 * row.related_chance:.0f})" for row in layers_kept.itertuples()],
)
figures.publish_table(
    run,
    table,
    "certified-layers",
    f"Units with a certified label, {made['probe']['images']:,} photographs, {made['concepts']} concepts, {made['draws']:,} random labels a unit, "
    f"{len(made['seeds']['null'])} untrained networks. Halves agree: units that get the same concept "
    "from either half of the photographs, exactly or up to a shared parent; in brackets, by chance.",
    {"network": "network", "layer": "layer", "units": "units", "share": "certified", "interval": "95 % interval", "control": "control", "score": "mean score", "control_score": "control, score", "halves": "halves agree", "parents": "up to a parent", "concepts": "concepts"},
    {"share": "{:.0%}", "control": "{:.1%}", "score": "{:.2f}", "control_score": "{:.2f}"},
)
own = last.loc[first_name]
display(
    Markdown(
        f"Output units can be checked against their own class. With one photograph of each ImageNet class, none can be held out: for "
        f"**{100 * own['own_class']:.0f} %** of the {int(own['units']):,} output units (95 % interval {100 * own['own_class_low']:.0f} to {100 * own['own_class_high']:.0f} %) "
        "the photograph of their own class activates them most among those of all classes."
    )
)

# %% [markdown]
# ### Other methods' labels
#
# CLIP-Dissect, INVERT {cite}`bykov2023` and MILAN have published labels of ResNet-18. Labels that are single classes have one photograph
# here, which limits their score but not their AUPRC. Labels of hidden units score hardly more than random concepts for all three methods. Our
# weights were decoded from a compressed release, and their hidden units may be in another order: only the output layer can be compared.

# %% tags=["remove-input"]
methods = kept["methods"]
lines = methods.assign(interval=[f"{row.score_low:.3f} to {row.score_high:.3f}" for row in methods.itertuples()])
figures.publish_table(
    run,
    lines,
    "methods",
    "Labels of ResNet-18 by different methods, scored on the same held-out photographs: mean over units, and the score's 95 % interval (Student); "
    "above, means over layers. Only units whose label has a photograph there are scored: published class labels have one photograph or none. The "
    "data file has all five scores with their intervals.",
    {"layer": "layer", "method": "method", "scored": "units scored", "score": "score", "interval": "95 % interval", "correlation": "correlation", "auprc": "AUPRC", "iou": "IoU"},
    {"scored": "{:.0f}", "score": "{:.3f}", "correlation": "{:.3f}", "auprc": "{:.3f}", "iou": "{:.3f}"},
)
display(
    Markdown(
        "Published reference points: CLIP-Dissect's Table 2 reports 58.05 % of ResNet-18's Places365 output units with their own class name, mean cosine 0.9106 "
        "(CLIP) or 0.7024 (mpnet); its Table 3 reports 70.7 % for ResNet-50's ImageNet output units with Broden {cite}`oikarinen2023`."
    )
)

# %% [markdown]
# ## All units

# %% tags=["remove-input"]
names = [image for image, _ in made["images"]]
browsed = kept["units"].assign(
    top_images=[[names[int(index)] for index in text.split()] for text in kept["units"]["top"]],
    histogram=[[int(n) for n in text.split()] for text in kept["units"]["histogram"]],
    interval=[f"{row.low:.2f} to {row.high:.2f}" for row in kept["units"].itertuples()],
    certificate=np.where(kept["units"]["certified"], "certified", "not certified"),
)
pictures = {}
if not descriptions:
    mine = labels.assign(network=f"{label}, this run", score=labels["zscore"].round(3), histogram=[[] for _ in range(len(labels))], certificate=np.where(labels["certified"], "both halves agree", "halves disagree"))
    browsed = pd.concat([browsed, mine], ignore_index=True)
    wanted = set(browsed["top_images"].explode())
    pictures = {p.id: p.pixels for p in probe_set.photographs() if p.id in wanted}
unit_figures.publish_browser(
    run,
    browsed,
    pictures,
    "unit-browser",
    f"All {len(browsed):,} units; certified ones first, by their score. z marks a z-score of the similarity, which this run has in place of a held-out score. A unit's number opens its card. "
    "Photographs that this run did not have are given by name.",
    {"certificate": "certificate", "concept": "best concept", "composition": "best composition of two", "composition_score": "its held-out score", "again": "other half's concept", "score": "score", "interval": "95 % interval", "correlation": "correlation", "cosine": "cosine", "auprc": "AUPRC", "f1": "F1", "iou": "IoU", "zscore": "z-score", "p": "adjusted p", "similarity": "similarity", "runner_up": "runner-up"},
    {f"{label}, this run": "z"},
)

# %% [markdown]
# (this-machine)=
# ## This run
#
# CLIP-Dissect shows probe images $x_i$ to the network and records the activation $q_i$ of each unit. An image-text encoder measures
# how well each image fits each concept $t_m$, and each unit gets the concept whose similarities follow its activations best: by
# soft-WPMI with CLIP, by their cubed cosine without it.
#
# Without CLIP weights we use a **ConSE surrogate** {cite}`norouzi2014`: it embeds an image as the mean of the sentence
# embeddings of a classifier's ten most probable class names, weighted by probability. It is not CLIP: it can only
# recognise what its classifier recognises.

# %% tags=["remove-input"]
metrics |= {"units": len(labels), "layers": ", ".join(chosen), "concepts_used": int(labels["concept"].nunique()), "encoder": source}
quality = pd.DataFrame()
if descriptions:
    display(Markdown(f"{source.capitalize()}: nothing is computed here, so there is no control and no certificate."))
else:
    metrics |= {"probe_images": len(probe_set), "photographs": len(set(places)), "concepts": len(words)}
    rows = []
    for kind, (one, two) in halved.items():
        for layer, part in one.groupby("layer", sort=False):
            other = two.loc[part.index, "concept"]
            shares = [names.value_counts(normalize=True) for names in (part["concept"], other)]
            rows.append({"network": kind, "layer": layer, "units": len(part), "same": (part["concept"] == other).mean(), "chance": shares[0].mul(shares[1], fill_value=0).sum()})
    stability = pd.DataFrame(rows)
    figures.publish_table(
        run,
        stability,
        "halves",
        f"Units that get the same concept from two disjoint halves of the {metrics['photographs']} photographs of this run, each with its crops. Image-text similarity comes from: {source}.",
        {"network": "network", "layer": "layer", "units": "units", "same": "halves agree", "chance": "chance level"},
        {"same": "{:.1%}", "chance": "{:.1%}"},
    )
    metrics["halves_percent"] = 100 * float((stability["same"] * stability["units"])[stability["network"] == model].sum() / len(labels))
    few = int(labels["certified"].sum())
    text = f"Both halves agree on the label of {few} of {len(labels)} units. The others are shown as *{unit_figures.NO_LABEL}*: so few photographs cannot support a label."
    if measure in ("soft_wpmi", "wpmi"):
        bound = int(saturated(labels).sum())
        text += f" {bound} units are at the bound of the measure, the logarithm of their layer's number of units: their values cannot be compared."
    display(Markdown(text))
    known = sorted(probe_set.class_indices)
    is_output = len(labels[labels["layer"] == chosen[-1]]) == len(classifier.class_names)
    if len(known) >= 2 and classifier.class_names == imagenet_classes() and is_output:
        names = load_concepts("categories:imagenet")
        name_rows = reader.encode_texts(names.names)
        rows = []
        for kind, recorded in recordings.items():
            if kind == compare:
                continue
            judged = label_units({chosen[-1]: recorded[chosen[-1]]}, images, name_rows, names, ids=probe_set.ids, measure=measure, device=classifier.device, **options)
            for said, only in ((f"all {len(names):,}", None), (f"{len(known)} in the probe set", known)):
                found = evaluate_output_units(judged, chosen[-1], classifier.class_names, names, reader, only=only)
                rows.append({"network": kind, "classes": said, **vars(found)})
        quality = pd.DataFrame(rows)
        every, some = quality.iloc[0], quality.iloc[1]
        metrics |= {
            "own_class_units": round(every["units"] * every["accuracy"]),
            "judged_units": int(some["units"]),
            "accuracy_percent": 100 * some["accuracy"],
            "cosine": every["cosine"],
            "random_cosine": every["random_cosine"],
        }
        display(
            Markdown(
                f"The method can be checked on output units, whose classes are known: **{metrics['own_class_units']} of {int(every['units']):,}** get their own class name, out of "
                f"{len(names):,} names; of the {metrics['judged_units']} whose class is in the probe set, {metrics['accuracy_percent']:.0f} %."
            )
        )
        figures.publish_table(
            run,
            quality,
            "output-units",
            "Labels of the output units: share labelled with their own class name, with its 95 % interval (Wilson), and mean cosine similarity of label and class name.",
            {"network": "network", "classes": "classes", "units": "units", "accuracy": "accuracy", "accuracy_low": "from", "accuracy_high": "to", "random_accuracy": "chance accuracy", "cosine": "cosine", "random_cosine": "chance cosine"},
            {"accuracy": "{:.0%}", "accuracy_low": "{:.0%}", "accuracy_high": "{:.0%}", "random_accuracy": "{:.2%}", "cosine": "{:.2f}", "random_cosine": "{:.2f}"},
        )

# %% tags=["remove-input"]
drawn = {"published": labels.assign(certified=True)} if descriptions else {name: unit_figures.reliable(tables[name]) for name in ([model, compare] if compare else [model])}
called = {"published": "the published run", model: label, compare: compare.rpartition("/")[2]}
for network, table in drawn.items():
    if table["concept"].notna().sum() < 20:
        continue
    suffix = "" if network != compare else "-compare"
    frequent = table.groupby("layer", sort=False)["concept"].agg(lambda names: next(iter(names.value_counts().index), "none"))
    figures.publish(
        run,
        unit_figures.concept_bars(table),
        f"run-bars{suffix}",
        f"The twenty most frequent concepts of each layer of {called[network]}, of units on whose label both halves agree.",
        "Bars of concept counts. " + " ".join(f"{layer}: most often {name}." for layer, name in frequent.items()),
        table.groupby(["layer", "concept"], sort=False).size().rename("units").reset_index(),
        raster=False,
    )
    figures.publish(
        run,
        unit_figures.similarity_scatter(table),
        f"run-scatter{suffix}",
        f"Similarity of each unit of {called[network]} to its concept; the twenty most frequent concepts are coloured, units without a reliable label are gray.",
        f"Scatter plots of similarity by unit for the layers {', '.join(table['layer'].unique())}.",
        table[["layer", "unit", "concept", "similarity"]],
    )

# %% tags=["remove-input"]
if not descriptions:
    best = pd.concat([labels[(labels["layer"] == layer) & ~labels["dead"]].nlargest(2, "zscore") for layer in chosen])
    best = best.assign(concept=best["concept"].where(best["certified"], unit_figures.NO_LABEL))
    rows, names = unit_figures.unit_rows(best, pictures)
    figures.publish(
        run,
        figures.gallery(rows, ["1st", "2nd", "3rd", "4th", "5th"][: len(rows[0])], names),
        "unit-gallery",
        "The two units of each layer with the highest z-score of the label's similarity, with the five photographs that activate them most, each by its most activating part.",
        f"Grid of probe images for {len(best)} units: " + "; ".join(names),
        best.assign(top_images=[" ".join(ids) for ids in best["top_images"]]),
    )
if run.failures:
    display(Markdown(figures.not_used(run.failures, "Probe images excluded")))

# %% [markdown]
# ## Limits
#
# - Membership follows the class of the photograph: a kitchen in the background of a stove does not count.
# - Each unit gets one concept, even if it responds to several; its card shows the best composition of two.
# - A certified label follows its unit better than chance and untrained units do. The unit may respond to other things, too.
# - ResNet-18 on Places365 was unavailable for our stored results. SqueezeNet has another architecture, so the comparison mixes data and
#   architecture. The published labels compare one architecture.
# - The packaged photographs are enough to check the implementation on output units, but too few to certify any label.
# - A ConSE surrogate represents images by its classifier's classes: it separates objects better than textures or colours.

# %% tags=["remove-cell"]
run.save_table("labels", labels.assign(top_images=labels["top_images"].map(list)) if not descriptions else labels)
run.save_table("kinds", kinds.counted(tables, lexicon()))
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
