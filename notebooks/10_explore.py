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
# (task-explore)=
# # Explore: every method, photograph by photograph

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # the network of the two runs, by the same name
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
outputs: str = "auto"  # what the network's output means; auto notices softmax, sigmoids and a single output, but not that logits are of independent labels (auto, logits, probabilities, multilabel or binary)
preprocessing: str = ""  # name of the torchvision weights whose transform is used; empty: the transform of the weights, or of the own file
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # the photographs of the runs
lime_run: str = "results/scratch/2_lime"  # a finished run of 2_lime
cam_run: str = "results/scratch/3_cam"  # a finished run of 3_cam
agreement_run: str = "results/scratch/4_agreement"  # a finished run of 4_agreement
faithfulness_run: str = "results/scratch/5_faithfulness"  # a finished run of 5_faithfulness
num_features: int = 10  # superpixels in a mask (at least 1)
seed: int = 0  # only for random weights (from 0 to 4294967295)
precision: str = "exact"  # how the network computes: exact is float32 (exact, tf32 or half)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/10_explore"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("10_explore", globals())

# %% tags=["remove-input"]
from dataclasses import asdict

from IPython.display import Markdown, display

from xailib.errors import InputError
from xailib.images.load import load_images
from xailib.networks.classifier import load_classifier
from xailib.report.figures import explorer
from xailib.report.figures import style as figures
from xailib.report.figures.live import explorable
from xailib.report.run.results import (
    load_explanations,
    load_table,
    project_root,
    run_digest,
    start_run,
)

photographs = load_images(images)
classifier = load_classifier(model, weights, device, seed, precision, outputs=outputs, preprocessing=preprocessing)
limes = {(one.image, one.image_sha256): one for one in load_explanations(lime_run)}
cams = {}
for one in load_explanations(cam_run):
    cams.setdefault((one.image, one.image_sha256), []).append(one)
pairs = {(p.id, p.sha256): p for p in photographs}
shown = [key for key in pairs if key in limes and key in cams]
if not shown:
    raise InputError("images: none of these photographs is in the two runs; give the same images")
agreement, localised = load_table(agreement_run, "agreement"), load_table(agreement_run, "localisation")
scores = load_table(faithfulness_run, "scores")
run = start_run(
    out_dir,
    "10_explore",
    {"model": model, "images": images, "num_features": num_features},
    photographs,
    classifier.files,
    weights=classifier.identity,
    runs={
        folder: run_digest(project_root() / folder)
        for folder in (lime_run, cam_run, agreement_run, faithfulness_run)
    },
)
first = agreement["cam"].iloc[0]
overlaps = agreement[(agreement["lime"] == "LIME 1") & (agreement["cam"] == first)].set_index("image")["iou"]
metrics = {
    "images": len(shown),
    "most": overlaps.idxmax(),
    "most_iou": overlaps.max(),
    "least": overlaps.idxmin(),
    "least_iou": overlaps.min(),
}
display(
    Markdown(
        f"**Answer.** Over {figures.many(len(shown), 'photograph')}, LIME 1 and {figures.NAMES[first]} agree "
        f"best on [{figures.verbatim(metrics['most'])}]({explorer.anchor(metrics['most'])}) (IoU {metrics['most_iou']:.2f}) and least on "
        f"[{figures.verbatim(metrics['least'])}]({explorer.anchor(metrics['least'])}) (IoU {metrics['least_iou']:.2f}). Choose a photograph, "
        "then a method; drag the handle on the image to compare the photograph with the map."
    )
)

# %% tags=["remove-input"]
networks = {one.classifier for key in shown for one in (limes[key], *cams[key])}
if len(networks) == 1:
    layer = cams[shown[0]][0].parameters["layer"]
    chosen = [pairs[key] for key in shown], [limes[key] for key in shown]
    files = [asdict(live) for live in explorable(run, classifier, *chosen, layer=layer, num_features=num_features)]
else:
    files = [None for _ in shown]
    display(Markdown(f"No other class can be chosen: LIME and the heatmaps explain two networks, {', '.join(sorted(networks))}."))
for key, live in zip(shown, files, strict=True):
    views = explorer.views_of(pairs[key].pixels, limes[key], cams[key], num_features)
    own = explorer.scores_of(key[0], agreement, scores, localised)
    explorer.publish_photograph(run, limes[key], views, own, live)

# %% [markdown]
# ## Method
#
# The images show the stored explanations of [LIME](task-lime) {cite}`ribeiro2016` and the [heatmaps](task-cam)
# {cite}`selvaraju2017`; the scores come from [agreement](task-agreement) and [faithfulness](task-faithfulness). All maps
# cover the same frame, the network's input.
# A heatmap $H$ is compared with LIME's mask $M$ at the same number of pixels,
#
# $$ \mathrm{IoU} = \frac{|M \cap H|}{|M \cup H|}, \qquad |H| = |M|. $$
#
# **Any class** computes explanations in your browser, without a connection. Behind an average pool, the gradient of the
# score of class $c$ is its weight $w^c_k$ over the number $n$ of cells, so that Grad-CAM equals CAM {cite}`zhou2016`; and
# without channel $k$, whose mean is $\bar A^k$, the centred score loses $\bar A^k (w^c_k - \bar w_k)$, which gives
# AblationCAM in closed form:
#
# $$ L_{\text{Grad-CAM}} = \sum_k \frac{w^c_k}{n} A^k, $$
#
# $$ L_{\text{AblationCAM}} \propto \sum_k \bar A^k (w^c_k - \bar w_k) A^k. $$
#
# LIME's ridge regression is fitted again to the stored samples, for the classes that the network finds most probable.
# *Bootstrap* draws these samples with replacement. The difference of two classes' Grad-CAMs shows, up to a constant,
# where the difference of their scores comes from.
#
# Arrows show whether lower or higher is better. *Mask inside box* is the share of the mask inside the object's bounding
# boxes.

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
own = scores[(scores["measure"] == "deletion") & scores["image"].isin([image for image, _ in shown])]
best = own.loc[own.groupby("image", sort=False)["value"].idxmin(), "method"].map(explorer.name_of)
said = "; ".join(f"{name} on {count}" for name, count in best.value_counts().items())
display(
    Markdown(
        f"Best deletion score, out of {figures.many(len(best), 'photograph')}: {said}."
        + (" No method is best on all of them." if best.nunique() > 1 else "")
    )
)

# %% tags=["remove-input"]
if run.failures:
    display(Markdown(figures.not_used(run.failures, "Not shown")))

# %% [markdown]
# ## Limits
#
# - Scores of one photograph are anecdotal. The pages on [agreement](task-agreement) and
#   [faithfulness](task-faithfulness) give intervals over all photographs.
# - Each map is scaled to its own range: brightness is comparable within a map, not between maps.
# - Maps have the resolution of their layer or superpixels. Upsampled, they look finer than they are.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
