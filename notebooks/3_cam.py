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
# (task-cam)=
# # Class activation maps: which regions support the prediction?

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # a name that load_classifier knows, or path/to/file.py:function
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
outputs: str = "auto"  # what the network's output means; auto notices softmax, sigmoids and a single output, but not that logits are of independent labels (auto, logits, probabilities, multilabel or binary)
preprocessing: str = ""  # name of the torchvision weights whose transform is used; empty: the transform of the weights, or of the own file
label: str = ""  # short name of the network in captions; empty: model, without folders
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # packaged names, files or folders
target: str = ""  # class to explain, by name or index, a name that is a number in quotes; empty: each photograph's predicted one
methods: list = ["gradcam", "ablationcam", "scorecam"]  # heatmaps; the others are compared with the first (any of gradcam, gradcam++, xgradcam, hirescam, layercam, ablationcam or scorecam)
layer: str = ""  # layer whose maps are weighted, as in named_modules; empty: the last with feature maps
seed: int = 0  # only for random weights: the maps themselves have nothing random (from 0 to 4294967295)
precision: str = "exact"  # how the network computes: exact is float32 (exact, tf32 or half)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/3_cam"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("3_cam", globals())

# %% tags=["remove-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from scipy.stats import spearmanr

from xailib.errors import InputError
from xailib.explain.cam.methods import guided_backprops
from xailib.explain.preflight import workable
from xailib.explain.requests import requests_of
from xailib.images.load import load_images
from xailib.networks.classifier import load_classifier
from xailib.report.figures import style as figures
from xailib.report.run.results import start_run

photographs = load_images(images)
classifier = load_classifier(model, weights, device, seed, precision, outputs=outputs, preprocessing=preprocessing)
methods, left_out = workable(classifier, methods, layer or None)
works = requests_of("3_cam", classifier, globals())
layer_name = works[0].key["layer"]
run = start_run(
    out_dir,
    "3_cam",
    {"model": model, "images": images, "target": target, "methods": methods, "layer": layer_name},
    photographs,
    classifier.files,
    weights=classifier.identity,
)
maps = {
    work.method: list(run.streamed(photographs, work.method, work.key, work.explain))
    for work in works
}
# Only photographs that every method could explain stand side by side.
explained = [{e.image: e for e in maps[method]} for method in methods]
common = [image for image in explained[0] if all(image in found for found in explained)]
if not common:
    raise InputError("images: none was explained by every method")
maps = {method: [found[image] for image in common] for method, found in zip(methods, explained, strict=True)}

# %% tags=["remove-input"]
first = methods[0]
rows = []
for explanations in zip(*maps.values(), strict=True):
    for explanation in explanations:
        if explanation.no_signal:
            continue
        rows.append(
            {
                "image": explanation.image,
                "target": explanation.target_name,
                "probability": explanation.probability,
                "method": explanation.method,
                "above_half": (explanation.saliency > 0.5).mean(),
                "above_zero": (explanation.saliency > 0).mean(),
                "rank_correlation": float("nan")
                if explanations[0].no_signal
                else spearmanr(explanation.saliency.ravel(), explanations[0].saliency.ravel()).statistic,
            }
        )
if not rows:
    raise InputError(f"explanations: none says anything about its class: {maps[first][0].no_signal}")
table = pd.DataFrame(rows)
medians = table.groupby("method", sort=False)[
    ["above_half", "above_zero", "rank_correlation"]
].median().reindex(methods)
metrics = {
    "images": table["image"].nunique(),
    "layer": layer_name,
    **{
        f"{method.replace('+', 'p')}_{column}": float(medians.loc[method, column])
        for method in methods
        for column in medians
    },
}
known = medians["rank_correlation"].dropna()
others = "; ".join(f"{figures.NAMES[m]} {known[m]:.2f}" for m in methods[1:] if m in known)
silent = f"No map by {figures.NAMES[first]} says anything about its class."
metrics["finding"] = silent if first not in set(table["method"]) else (
    f"Rank correlation of pixels with {figures.NAMES[first]}: {others}."
    if others
    else f"{figures.NAMES[first]} exceeds half of its maximum on {medians.loc[first, 'above_half']:.0%} of the view."
)
compared = (
    f" Rank correlation with {figures.NAMES[first]}, median over {figures.many(metrics['images'], 'photograph')}: {others}."
    if others
    else ""
)
display(
    Markdown(
        f"**Answer.** {figures.NAMES[first]} exceeds half of its maximum on "
        f"{medians.loc[first, 'above_half']:.0%} of the view, but zero on "
        f"{medians.loc[first, 'above_zero']:.0%}: the reading of a heatmap depends on the "
        f"threshold.{compared}"
        if first in set(table["method"])
        else f"**Answer.** {silent}"
    )
)
nothing = figures.left_out(e for found in maps.values() for e in found)
if nothing:
    display(Markdown(nothing))

# %% [markdown]
# ## Method
#
# Each map is the positive part of a weighted sum of one layer's feature maps $A^k$, scaled to [0, 1]
# and upsampled to the view:
#
# $$ L = \operatorname{ReLU}\Bigl(\sum_k \alpha_k A^k\Bigr). $$
#
# The methods differ in the weights. **Grad-CAM** {cite}`selvaraju2017` uses the mean gradient of the
# target's score over each feature map; **AblationCAM** {cite}`desai2020` the drop in the score (here the target's logit
# minus the mean of all logits) when the feature map is set to zero; **ScoreCAM** {cite}`wang2020` the score of the image
# masked by the feature map, normalised by a softmax over all maps. **Guided backpropagation**
# {cite}`springenberg2015` is the gradient with respect to the input in which every ReLU blocks negative gradients;
# its product with Grad-CAM is Guided Grad-CAM.

# %% [markdown]
# ## The heatmaps

# %% tags=["remove-input"]
names = [figures.NAMES[method] for method in methods]
views = {e.image: e.frame.show(photographs[e.image].pixels) for e in maps[first]}
figures.publish(
    run,
    figures.gallery(
        [
            [views[es[0].image], *(figures.drawn(views[e.image], e) for e in es)]
            for es in zip(*maps.values(), strict=True)
        ],
        ["view", *names],
        [figures.describe(explanation) for explanation in maps[first]],
        scales=["heat"],
    ),
    "cam-gallery",
    f"Class activation maps of {label}, layer `{layer_name}`. Above each row: photograph, explained class and its probability. "
    "Bright is salient. Each map is scaled to its own range: brightness is comparable within a map, "
    "not between maps.",
    f"Grid of {figures.many(len(views), 'photograph')} with heatmaps by {', '.join(names)}. {figures.NAMES[first]} exceeds half of its "
    "maximum on: "
    + "; ".join(f"{r.image} {r.above_half:.0%}" for r in table[table["method"] == first].itertuples()),
    table,
)

# %% tags=["remove-input"]
wanted = None if target == "" else classifier.class_index(target)
try:
    gradients = dict(zip(photographs.ids, guided_backprops(classifier, photographs, wanted), strict=True))
except ValueError as error:  # a network without ReLU has no guided backpropagation
    gradients = {}
    display(Markdown(f"Guided backpropagation is not shown: {error}."))
if gradients:
    with run.open("guided-backprop.npz") as file:
        np.savez_compressed(file, **{f"image {name}": found for name, found in gradients.items()})
    figures.publish(
        run,
        figures.gallery(
            [
                [
                    views[e.image],
                    figures.tint(views[e.image], gradients[e.image]),
                    figures.drawn(views[e.image], e)
                    if e.no_signal
                    else figures.tint(views[e.image], gradients[e.image] * e.saliency[..., None]),
                ]
                for e in maps[first]
            ],
            ["view", "guided backprop", f"× {figures.NAMES[first]}"],
            [figures.describe(explanation) for explanation in maps[first]],
        ),
        "guided-gallery",
        f"Guided backpropagation on {label}, and its product with {figures.NAMES[first]}; gray is zero. "
        "Above each row: photograph, explained class and its probability.",
        f"Grid of {figures.many(len(gradients), 'photograph')} with guided gradients, alone and times the heatmap.",
        pd.DataFrame(
            {
                "image": e.image,
                "gradient_where_map_above_half": np.abs(gradients[e.image])[e.saliency > 0.5].sum()
                / (np.abs(gradients[e.image]).sum() or np.nan),
            }
            for e in maps[first]
            if not e.no_signal
        ),
        folded=True,
    )

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
figures.publish_table(
    run,
    table.assign(name=table["method"].map(figures.NAMES)),
    "cam-maps",
    "The heatmaps by photograph: the share of the view above half of the maximum and above zero, and the "
    f"Spearman rank correlation of all pixels with {figures.NAMES[first]}.",
    {
        "image": "photograph",
        "name": "method",
        "above_half": "above half",
        "above_zero": "above zero",
        "rank_correlation": "rank correlation",
    },
    {"above_half": "{:.0%}", "above_zero": "{:.0%}", "rank_correlation": "{:.2f}"},
)

# %% tags=["remove-input"]
for line in left_out:
    display(Markdown(f"{line}."))
if run.failures:
    display(Markdown(figures.not_used(run.failures)))

# %% [markdown]
# ## Limits
#
# - A map has the resolution of its layer, a few cells across; the smooth outline is interpolation.
# - Scaling each map to its own range hides how strongly the target's score depends on location at all.
# - AblationCAM's weights divide by the score. With the plain logit, as in the grad-cam package, they change if a
#   constant is added to all logits, although the probabilities do not. We therefore subtract the mean logit.
# - Guided backpropagation shows edges of the input almost regardless of the network's weights
#   {cite}`adebayo2018`. We include it because the replicated report does.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
