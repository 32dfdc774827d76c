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
# # CLIP-Dissect: what have the neurons learnt?

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # a name that load_classifier knows, or path/to/file.py:function
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
layers: list = []  # layers as in named_modules; empty: the last two stages and the output layer
encoder: str = "conse:tf_efficientnet_lite1"  # clip:ViT-B/16, openclip:ARCH/PRETRAINED, or conse:CLASSIFIER[+mpnet]
encoder_weights: str = ""  # local file for the encoder; empty: fetched, or packaged for conse
probe: list = ["packaged"]  # probe images: packaged, broden, imagenet-sample, files or folders
crops: int = 36  # parts cropped from each probe image besides the whole (at least 0)
concepts: list = ["packaged", "categories:imagenet"]  # packaged, categories:imagenet, or a text file with one concept a line
measure: str = "soft_wpmi"  # how units and concepts are compared (soft_wpmi, wpmi, rank_reorder, cos_similarity or cos_similarity_cubed)
top_k: int = 20  # for soft_wpmi: the most activating probe images that decide a label, at most their number (at least 1)
compare: str = ""  # a second network to set beside the first: names as for model; empty: none
compare_weights: str = ""  # its weights, as for weights
compare_layers: list = []  # its layers, as for layers
control: bool = True  # also label the same network with random weights, which must fail
descriptions: str = ""  # a published descriptions.csv to draw instead of computing; empty: compute
seed: int = 0  # of the crops and the random weights (from 0 to 4294967295)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/1_clip_dissect"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("1_clip_dissect", globals())

# %% tags=["remove-input"]
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from xailib.dissect import kinds
from xailib.dissect.activations import networks_of, record_activations
from xailib.dissect.concepts import lexicon, load_concepts
from xailib.dissect.descriptions import read_descriptions
from xailib.dissect.embeddings import record_embeddings
from xailib.dissect.label import check_measure, evaluate_output_units, label_units
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
options = {"top_k": top_k} if measure == "soft_wpmi" else {}
if descriptions:
    published = read_descriptions(descriptions)
    run = start_run(out_dir, "1_clip_dissect", parameters, ImageSet(()), [Path(descriptions)])
    tables = {"published": published}
    label = f"labels read from {descriptions}"
else:
    networks = networks_of(globals())
    classifier, chosen = networks[model]
    compare = list(networks)[1] if compare else ""
    probe_set = load_probe(probe, crops, seed)
    check_measure(measure, len(probe_set), **options)
    words = load_concepts(concepts)
    reader = load_encoder(encoder, encoder_weights or None, device)
    label = reader.label
    named = [weights, encoder_weights, compare_weights, *concepts]
    files = {*classifier.files, *(Path(name) for name in named if name and Path(name).is_file())}
    run = start_run(
        out_dir,
        "1_clip_dissect",
        parameters,
        ImageSet((), probe_set.failures),
        sorted(files),
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
    )
    images, texts = embedded["embeddings"], reader.encode_texts(words.names)
    recordings = {
        kind: record_activations(
            net,
            names,
            probe_set,
            folder=run.cache("activations", {"net": net.identity, "layers": names}),
        )
        for kind, (net, names) in networks.items()
    }
    tables = {
        kind: label_units(recorded, images, texts, words, measure=measure, device=classifier.device, **options)
        for kind, recorded in recordings.items()
    }
labels = tables[next(iter(tables))]
chosen = list(dict.fromkeys(labels["layer"]))

# %% tags=["remove-input"]
metrics = {
    "units": len(labels),
    "layers": ", ".join(chosen),
    "concepts_used": labels["concept"].nunique(),
    "encoder": label,
}
answer = f"**Answer.** Each of {len(labels)} units in {len(chosen)} layers gets one concept; {metrics['concepts_used']} distinct concepts occur."
quality = pd.DataFrame()
if not descriptions:
    metrics |= {"probe_images": len(probe_set), "concepts": len(words)}
    known = sorted(probe_set.class_indices)
    is_output = len(labels[labels["layer"] == chosen[-1]]) == len(classifier.class_names)
    if len(known) >= 2 and classifier.class_names == imagenet_classes() and is_output:
        names = load_concepts("categories:imagenet")
        name_rows = reader.encode_texts(names.names)
        rows = []
        for kind, recorded in recordings.items():
            if kind == compare:
                continue
            judged = label_units(
                {chosen[-1]: recorded[chosen[-1]]},
                images,
                name_rows,
                names,
                ids=probe_set.ids,
                measure=measure,
                device=classifier.device,
                **options,
            )
            found = evaluate_output_units(
                judged, chosen[-1], classifier.class_names, names, reader, only=known
            )
            rows.append({"network": kind, **found.as_dict()})
        quality = pd.DataFrame(rows)
        metrics |= {
            "judged_units": int(quality["units"].iloc[0]),
            "accuracy_percent": 100 * quality["accuracy"].iloc[0],
            "cosine": quality["cosine"].iloc[0],
            "random_cosine": quality["random_cosine"].iloc[0],
        }
        answer += (
            f" The method can be checked on output units, whose classes are known: of the {metrics['judged_units']} "
            f"output units whose class occurs in the probe set, **{metrics['accuracy_percent']:.0f} %** get "
            f"their own class name, out of {len(names)} names"
        )
        answer += (
            f"; with random weights {100 * quality['accuracy'].iloc[1]:.0f} %."
            if len(quality) > 1
            else "."
        )
metrics["finding"] = answer.removeprefix("**Answer.** ")
display(Markdown(answer + f" Image-text similarity comes from: *{label}*."))

# %% [markdown]
# ## Method
#
# CLIP-Dissect {cite}`oikarinen2023` shows a set of probe images $x_i$ to the network and records the activation
# $q_i$ of each unit. An image-text encoder measures how well each image fits each concept $t_m$,
# $P_{im} = \operatorname{softmax}_m(a\,\langle I_i, T_m\rangle)$. Each unit gets the concept that fits its most
# activating images $B_k$ best, relative to images in general (soft-WPMI):
#
# $$ \operatorname{sim}(t_m, q_k) = \log \mathbb{E}\bigl[p(t_m \mid B_k)\bigr] - \lambda \log p(t_m). $$
#
# Without CLIP weights we use a **ConSE surrogate** {cite}`norouzi2014`: it embeds an image as the mean of the sentence
# embeddings of a classifier's ten most probable class names, weighted by probability. It is not CLIP: it can only
# recognise what its classifier recognises.

# %% [markdown]
# ## Concept frequencies

# %% tags=["remove-input"]
shown = {"": model if not descriptions else "the published network"} | ({"-compare": compare} if compare and not descriptions else {})
for suffix, network in shown.items():
    table = tables[network] if not descriptions else labels
    most = table.groupby("layer", sort=False)["concept"].agg(lambda names: names.value_counts().index[0])
    figures.publish(
        run,
        unit_figures.concept_bars(table),
        f"concept-bars{suffix}",
        f"The twenty most frequent concepts among the units of each layer of {network}. Encoder: {label}.",
        "Bars of concept counts. " + " ".join(f"{layer}: most often {name}." for layer, name in most.items()),
        table.groupby(["layer", "concept"], sort=False).size().rename("units").reset_index(),
        raster=False,
    )

# %% tags=["remove-input"]
for suffix, network in shown.items():
    table = tables[network] if not descriptions else labels
    figures.publish(
        run,
        unit_figures.similarity_scatter(table),
        f"similarity-scatter{suffix}",
        f"Similarity of each unit of {network} to its concept, by unit; the twenty most frequent concepts of a layer are "
        f"coloured. Similarities are comparable within a layer, not between layers. Encoder: {label}.",
        f"Scatter plots of similarity by unit for the layers {', '.join(table['layer'].unique())}.",
        table[["layer", "unit", "concept", "similarity"]],
    )

# %% tags=["remove-input"]
if not descriptions:
    counts = {name: kinds.kinds_of(table, words.kinds) for name, table in tables.items()}
    figures.publish(
        run,
        unit_figures.kinds_chart(counts),
        "concept-kinds",
        "Concept types by network and layer, for concepts in our lexicon. "
        f"Encoder: {label}.",
        f"Stacked bars of concept types for {', '.join(counts)}.",
        pd.concat([table.assign(network=name) for name, table in counts.items()]),
        raster=False,
    )
    if compare:
        test = kinds.compare_kind(tables[model], tables[compare], words.kinds)
        shares = [100 * test.first / test.first_units, 100 * test.second / test.second_units]
        shared = set(tables[model]["concept"]) & set(tables[compare]["concept"])
        metrics |= {
            "scene_percent": shares[0],
            "compare_scene_percent": shares[1],
            "scene_odds": test.odds,
            "scene_p": test.p,
        }
        display(
            Markdown(
                f"In the last two layers, {shares[1]:.1f} % of the units of *{compare}* are labelled with a scene, against "
                f"{shares[0]:.1f} % of *{model}* (Fisher's exact test, odds ratio {test.odds:.2f}, 95 % interval "
                f"{test.odds_low:.2f} to {test.odds_high:.2f}, p = {test.p:.2g}; the test assumes independent "
                f"units). The networks share {len(shared)} concepts; {tables[model]['concept'].nunique() - len(shared)} occur "
                f"only in *{model}*, {tables[compare]['concept'].nunique() - len(shared)} only in *{compare}*."
            )
        )
        pair = {name: counts[name] for name in (model, compare)}
        figures.publish(
            run,
            unit_figures.share_chart(pair, test.kind),
            "scene-share",
            f"Share of each layer's units that are labelled with a scene, with exact 95 % intervals, in {model} and in {compare}. "
            f"Encoder: {label}.",
            f"Bars of the share of scenes by layer for {model} and {compare}.",
            pd.concat([table.assign(network=name) for name, table in pair.items()]),
            raster=False,
        )

# %% [markdown]
# ## Control: random weights

# %% tags=["remove-input"]
if len(tables) > 1:
    figures.publish(
        run,
        unit_figures.spread_chart({k: t for k, t in tables.items() if k != compare}),
        "concept-spread",
        "Distinct concepts as a share of a layer's units, for the trained network and for the same network with random "
        f"weights (control). Encoder: {label}.",
        "Bars of the share of distinct concepts by layer, trained against random weights.",
        pd.concat([t.assign(network=k) for k, t in tables.items()])[
            ["network", "layer", "unit", "concept"]
        ],
        raster=False,
    )
if len(quality):
    figures.publish_table(
        run,
        quality,
        "output-units",
        "Labels of the output units whose class is in the probe set: share labelled with their own class name, "
        "with its 95 % interval (Wilson), and mean cosine similarity of label and class name.",
        {
            "network": "network",
            "units": "units",
            "accuracy": "accuracy",
            "accuracy_low": "from",
            "accuracy_high": "to",
            "random_accuracy": "chance accuracy",
            "cosine": "cosine",
            "random_cosine": "chance cosine",
        },
        {
            "accuracy": "{:.0%}",
            "accuracy_low": "{:.0%}",
            "accuracy_high": "{:.0%}",
            "random_accuracy": "{:.2%}",
            "cosine": "{:.2f}",
            "random_cosine": "{:.2f}",
        },
    )
if descriptions:
    display(Markdown("Published labels have no control: nothing is computed here."))

# %% [markdown]
# ## Units and their most activating images

# %% tags=["remove-input"]
if not descriptions:
    wanted = set(labels["top_images"].explode())
    pictures = {p.id: p.pixels for p in probe_set.photographs() if p.id in wanted}
    best = pd.concat(
        [
            labels[(labels["layer"] == layer) & ~labels["dead"]].nlargest(2, "zscore")
            for layer in chosen
        ]
    )
    rows, names = unit_figures.unit_rows(best, pictures)
    figures.publish(
        run,
        figures.gallery(rows, ["1st", "2nd", "3rd", "4th", "5th"][: len(rows[0])], names),
        "unit-gallery",
        "The two units of each layer with the highest z-score of the label's similarity, with their most activating probe images. "
        f"Encoder: {label}.",
        f"Grid of probe images for {len(best)} units: " + "; ".join(names),
        best.assign(top_images=[" ".join(ids) for ids in best["top_images"]]),
    )
    unit_figures.publish_browser(
        run,
        labels.sort_values("zscore", ascending=False),
        pictures,
        "unit-browser",
        f"All {len(labels)} units, sorted by the z-score of the label's similarity. Encoder: {label}.",
    )

# %% tags=["remove-input"]
if run.failures:
    lines = "\n".join(f"- `{failure['source']}`: {failure['reason']}" for failure in run.failures)
    display(Markdown(f"**Probe images excluded:**\n\n{lines}"))

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
often = labels.groupby("layer", sort=False)["concept"].agg(lambda names: names.value_counts().index[0])
shares = labels.groupby("layer", sort=False)["concept"].agg(lambda names: names.nunique() / len(names))
said = "; ".join(f"`{layer}` *{often[layer]}* ({shares[layer]:.0%} distinct)" for layer in chosen)
display(
    Markdown(
        "Most frequent concept of each layer, and its distinct concepts as a share of its units: "
        f"{said}. The more often a layer's labels repeat, the less informative a single label is."
    )
)

# %% [markdown]
# ## Limits
#
# - Each unit gets exactly one concept, even if it responds to several or to none.
# - Concepts that no probe image shows cannot be found, and crops of few photographs cover few concepts.
# - The surrogate's classifier was trained on the classes of the evaluated output units, which makes this check easy: it
#   validates the implementation, not the accuracy of CLIP.
# - The number of distinct concepts in a layer means little by itself: compare it with the random weights above.
# - A ConSE surrogate represents images by its classifier's classes: it separates objects better than textures or
#   colours.

# %% tags=["remove-cell"]
run.save_table(
    "labels",
    labels.assign(top_images=labels["top_images"].map(list)) if not descriptions else labels,
)
run.save_table("kinds", kinds.counted(tables, lexicon()))
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
