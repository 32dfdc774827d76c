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
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # the photographs of the runs
lime_run: str = "results/scratch/2_lime"  # a finished run of 2_lime
cam_run: str = "results/scratch/3_cam"  # a finished run of 3_cam
agreement_run: str = "results/scratch/4_agreement"  # a finished run of 4_agreement
faithfulness_run: str = "results/scratch/5_faithfulness"  # a finished run of 5_faithfulness
num_features: int = 10  # superpixels in a mask (at least 1)
out_dir: str = "results/scratch/10_explore"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("10_explore", globals())

# %% tags=["remove-input"]
from IPython.display import Markdown, display

from xailib.errors import InputError
from xailib.images.load import load_images
from xailib.report.figures import explorer
from xailib.report.figures import style as figures
from xailib.report.run.results import (
    load_explanations,
    load_table,
    project_root,
    run_digest,
    start_run,
)

photographs = load_images(images)
limes = {(one.image, one.image_sha256): one for one in load_explanations(lime_run)}
cams = {}
for one in load_explanations(cam_run):
    cams.setdefault((one.image, one.image_sha256), []).append(one)
keys = [(p.id, p.sha256) for p in photographs]
shown = [key for key in keys if key in limes and key in cams]
if not shown:
    raise InputError("images: none of these photographs is in the two runs; give the same images")
agreement, localised = load_table(agreement_run, "agreement"), load_table(agreement_run, "localisation")
scores = load_table(faithfulness_run, "scores")
run = start_run(
    out_dir,
    "10_explore",
    {"images": images, "num_features": num_features},
    photographs,
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
        f"**Answer.** Over {len(shown)} photographs, LIME 1 and {figures.NAMES[first]} agree "
        f"best on [{figures.verbatim(metrics['most'])}]({explorer.anchor(metrics['most'])}) (IoU {metrics['most_iou']:.2f}) and least on "
        f"[{figures.verbatim(metrics['least'])}]({explorer.anchor(metrics['least'])}) (IoU {metrics['least_iou']:.2f}). Choose a photograph, "
        "then a method; drag the handle on the image to compare the photograph with the map."
    )
)

# %% [markdown]
# ## Method
#
# This page computes nothing new. The images show the stored explanations of [LIME](task-lime)
# {cite}`ribeiro2016` and the [heatmaps](task-cam) {cite}`selvaraju2017`; the scores come from
# [agreement](task-agreement) and [faithfulness](task-faithfulness). All maps cover the same frame, the network's input.
# A heatmap $H$ is compared with LIME's mask $M$ at the same number of pixels,
#
# $$ \mathrm{IoU} = \frac{|M \cap H|}{|M \cup H|}, \qquad |H| = |M|. $$
#
# Arrows show whether lower or higher is better. *Mask inside box* is the share of the mask inside the object's bounding
# boxes.

# %% tags=["remove-input"]
for photograph in photographs:
    key = photograph.id, photograph.sha256
    if key in shown:
        views = explorer.views_of(photograph.pixels, limes[key], cams[key], num_features)
        own = explorer.scores_of(photograph.id, agreement, scores, localised)
        explorer.publish_photograph(run, limes[key], views, own)

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
own = scores[(scores["measure"] == "deletion") & scores["image"].isin([image for image, _ in shown])]
best = own.loc[own.groupby("image", sort=False)["value"].idxmin(), "method"].map(explorer.name_of)
said = "; ".join(f"{name} on {count}" for name, count in best.value_counts().items())
display(
    Markdown(
        f"Best deletion score, out of {len(best)} photographs: {said}."
        + (" No method is best on all of them." if best.nunique() > 1 else "")
    )
)

# %% tags=["remove-input"]
if run.failures:
    lines = "\n".join(f"- `{failure['source']}`: {failure['reason']}" for failure in run.failures)
    display(Markdown(f"**Not shown:**\n\n{lines}"))

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
