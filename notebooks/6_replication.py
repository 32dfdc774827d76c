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
# (task-replication)=
# # Replication: what does the published table measure?

# %% tags=["parameters"]
published: str = ""  # local folder with the report's files, in its own layout; empty: fetched from its repository
store: bool = False  # store the tables in the project, for readers without a network
out_dir: str = "results/scratch/6_replication"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("6_replication", globals())

# %% tags=["remove-input"]
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from xailib.compare.intervals import decided
from xailib.dissect.kinds import UNKNOWN
from xailib.errors import UnavailableError
from xailib.images.load import ImageSet, load_images
from xailib.report.figures import replication as audit_figures
from xailib.report.figures import style as figures
from xailib.report.figures import units as unit_figures
from xailib.report.replication import audit
from xailib.report.replication import tables as stored
from xailib.report.replication.published import (
    CAMS,
    COMMIT,
    REPOSITORY,
    load_labels,
    load_published,
    locate,
    table1,
)
from xailib.report.run.results import project_root, start_run

note = ""
try:
    found = locate(project_root() / Path(published).expanduser() if published else "")
    cases = load_published(found)
    source, files = ("folder" if published else "repository"), list(found.values())
    tables = stored.compute(cases, load_labels(found))
except UnavailableError as error:
    cases, source, files = [], "kept", stored.files()
    tables, kept = stored.load()
    note = (
        f"**The report's files are unavailable here.** The tables and charts below are stored results, computed "
        f"from these files on {kept['computed']} (commit {kept['commit'][:7]} of {kept['repository']}), "
        "without images of the masks. With internet access, or with `published` set to a copy of the files, everything "
        f"is recomputed.\n\n<details><summary>The error message</summary>\n\n{figures.verbatim(str(error))}.\n\n</details>"
    )
if store and cases:
    stored.store(tables)
run = start_run(
    out_dir,
    "6_replication",
    {"published": published},
    ImageSet(()),  # the photographs are among the files
    files,
    published={"repository": REPOSITORY, "commit": COMMIT, "source": source, "at_hand": bool(cases)},
)

# %% tags=["remove-input"]
steps, corrected, summary = tables["steps"], tables["corrected"], tables["summary"]
first = steps[(steps["step"] == audit.PUBLISHED) & (steps["cam"] == CAMS[0])]
ious = first.pivot(index="image", columns="lime", values="iou")
check = table1().set_index("image")
for number, lime in enumerate(audit.LIMES, start=1):
    check[f"recomputed{number}"] = ious[lime].round(4)
    check[f"difference{number}"] = (check[f"recomputed{number}"] - check[f"iou{number}"]).round(4) + 0.0
best = summary.set_index("cam").loc[CAMS[0]]
grad = corrected[corrected["cam"] == CAMS[0]]
below = grad[grad["iou"] <= grad["chance"]]["image"].tolist()
below_any = corrected[corrected["iou"] <= corrected["chance"]]["image"].unique().tolist()
one = first[first["lime"] == "LIME 1"]
metrics = {
    "source": source,
    "images": len(check),
    "numbers": 2 * len(check),
    "equal": int((check[["difference1", "difference2"]] == 0).sum().sum()),
    "published_mean": check["iou1"].mean(),
    "published_chance": one["chance"].mean(),
    "cam_area_least": 100 * first["cam_area"].min(),
    "cam_area_most": 100 * first["cam_area"].max(),
    "correlation": float(np.corrcoef(first["iou"], first["lime_area"])[0, 1]),
    "all_ones_difference": float((first["iou"] - first["lime_area"]).abs().mean()),
    "below": len(below),
    **{f"{name}_{cam}": float(summary.set_index("cam").loc[cam, name]) for cam in CAMS for name in ("iou", "low", "high")},
    **{name: float(best[name]) for name in ("chance", "over_chance", "chance_low", "chance_high", "chance_adjusted")},
    **{name: float(best[name]) for name in ("others", "over_others", "others_low", "others_high", "others_adjusted", "centre")},
}
agree = decided(metrics["others_low"], metrics["others_high"], metrics["others_adjusted"]) > 0
metrics["finding"] = (
    f"The published table's mean IoU, {metrics['published_mean']:.2f}, is close to the chance level of its masks, "
    f"{metrics['published_chance']:.2f}; after correction it is **{metrics['iou_gradcam']:.2f}**, with chance level "
    f"{metrics['chance']:.2f}."
)
display(
    Markdown(
        f"**Answer.** {metrics['equal']} of the {metrics['numbers']} published numbers are reproduced to four "
        f"decimals. But they measure the area of LIME's mask: the Grad-CAM \"mask\" covers "
        f"{metrics['cam_area_least']:.0f} to {metrics['cam_area_most']:.0f} % of the photograph, and the mean IoU of "
        f"{metrics['published_mean']:.3f} is close to the chance level of such masks, {metrics['published_chance']:.3f}. In the same "
        f"frame and at equal area the mean IoU is **{metrics['iou_gradcam']:.3f}** for Grad-CAM, "
        f"{metrics['iou_ablationcam']:.3f} for AblationCAM and {metrics['iou_scorecam']:.3f} for ScoreCAM; the chance level is "
        f"{metrics['chance']:.3f}. The mean exceeds that for maps of *other* photographs ({metrics['others']:.3f}) by "
        f"{metrics['over_others']:.3f}, 95 % interval {metrics['others_low']:.3f} to {metrics['others_high']:.3f}: "
        + ("the two methods agree on the same photograph." if agree else "this is no evidence that the two methods agree on the same photograph.")
    )
)
if note:
    display(Markdown(note))

# %% [markdown]
# ## Method
#
# The report of {cite:t}`balwani2024` publishes its LIME masks and heatmaps. We use the files of one commit of its
# repository and check their hashes. To compute overlaps, the report resizes the smaller mask to the larger one by
# bilinear interpolation and counts every non-zero pixel,
#
# $$ \mathrm{IoU} = \frac{|\{M \ne 0\} \cap \{H \ne 0\}|}{|\{M \ne 0\} \cup \{H \ne 0\}|}. $$
#
# We apply each correction alone and then cumulatively. The chance level is the exact mean IoU of two random masks of the
# same areas. Random masks are scattered but maps are smooth, so we add two stricter baselines: the same method's maps of
# the other photographs, and a centred disc. Intervals are Student's over photographs {cite}`student1908`, not adjusted;
# p is from Wilcoxon's signed-rank test, adjusted for all tests of this page {cite}`holm1979`.

# %% [markdown]
# ## The published table, recomputed

# %% tags=["remove-input"]
headings = {"image": "photograph"}
for number in (1, 2):
    headings |= {f"iou{number}": f"IoU{number}, published", f"recomputed{number}": f"IoU{number}, recomputed", f"difference{number}": f"IoU{number}, difference"}
figures.publish_table(
    run,
    check.reset_index()[list(headings)],
    "table-1",
    "Table I of the report, IoU of LIME 1 (IoU1) and LIME 2 (IoU2) with Grad-CAM, as published and recomputed "
    "from its own masks.",
    headings,
    {name: "{:+.4f}" if "difference" in name else "{:.4f}" for name in list(headings)[1:]},
)

# %% [markdown]
# ## The published IoU measures the area of LIME's mask

# %% tags=["remove-input"]
figures.publish(
    run,
    audit_figures.area_chart(steps),
    "all-ones",
    "Each published number against the IoU when the heatmap is replaced by an all-ones mask, "
    "which equals LIME's area. On the diagonal, Grad-CAM adds nothing.",
    f"Scatter of {metrics['numbers']} IoU values close to the diagonal; correlation {metrics['correlation']:.3f}.",
    first,
    raster=False,
)
display(
    Markdown(
        "Grad-CAM's map is above zero almost everywhere. Replacing it by a constant changes the published numbers by "
        f"{metrics['all_ones_difference']:.3f} on average (absolute value); the correlation between the two is {metrics['correlation']:.3f}."
    )
)

# %% [markdown]
# ## Corrections step by step

# %% tags=["remove-input"]
figures.publish(
    run,
    audit_figures.step_chart(steps),
    "steps",
    "Mean IoU over the photographs under cumulative corrections. Bars: chance level of Grad-CAM's masks; numbers on top: "
    "its IoU. The IoU hardly changes; its chance level falls.",
    "Two panels, LIME 1 and LIME 2: mean IoU of three CAMs by correction, and bars of the chance level. For LIME 1 and "
    f"Grad-CAM from {metrics['published_mean']:.3f} (chance {metrics['published_chance']:.3f}) to "
    f"{metrics['iou_gradcam']:.3f} (chance {metrics['chance']:.3f}).",
    steps,
    raster=False,
)
published_means = first.groupby("lime")[["iou", "chance"]].mean().assign(step=audit.PUBLISHED).reset_index()
alone = steps[steps["mode"] == "alone"].groupby(["step", "lime"], sort=False)[["iou", "chance"]].mean().reset_index()
effects = alone.merge(published_means, on="lime", suffixes=("", "_published"))
effects["repair"] = effects["step"].map(audit.REPAIRS)
effects["change"] = effects["iou"] - effects["iou_published"]
effects["above"] = effects["iou"] - effects["chance"]
figures.publish_table(
    run,
    effects.sort_values("lime", kind="stable"),
    "repairs-alone",
    "Each correction alone, Grad-CAM: mean IoU, its change from the published table, and its difference from the chance level.",
    {"lime": "LIME mask", "repair": "correction", "iou": "IoU", "change": "change", "chance": "chance level", "above": "above chance"},
    {"iou": "{:.3f}", "change": "{:+.3f}", "chance": "{:.3f}", "above": "{:+.3f}"},
)

# %% tags=["remove-input"]
opposing = tables["opposing"].sort_values("share", ascending=False)
most = opposing.iloc[0]
in_table = first.set_index(["image", "lime"])["iou"]
apart = steps[(steps["mode"] == "alone") & (steps["step"] == "signs")].set_index(["image", "lime"])["iou"]
display(
    Markdown(
        "- **Nearest-neighbour resizing.** Bilinear upsampling, with every non-zero pixel counted, adds a rim to each superpixel.\n"
        "- **Same frame.** LIME's mask covers a centre crop of the resized photograph, the heatmap the whole photograph.\n"
        "- **Equal area.** The heatmap is thresholded to the area of LIME's mask.\n"
        f"- **Positive weights only.** In {len(opposing)} of {figures.many(metrics['images'], 'photograph')} LIME 2 has superpixels that oppose the class, "
        f"and the table counts them as part of the mask: {most['pixels']:,.0f} pixels for the {most['image']}, "
        f"{100 * most['share']:.0f} % of its mask. Without them its IoU of {in_table[most['image'], 'LIME 2']:.3f} becomes "
        f"{apart[most['image'], 'LIME 2']:.3f}.\n"
        "- **Two networks.** LIME explained ResNet-50 with torchvision's second set of weights (IMAGENET1K_V2), the heatmaps the "
        "same architecture with the first (IMAGENET1K_V1), and each the class that its own network predicts. The files do not allow "
        "a correction: even a perfect comparison would compare two networks."
    )
)
figures.publish_table(
    run,
    opposing,
    "opposing",
    "The opposing superpixels of LIME 2, and their IoU with Grad-CAM thresholded to the same area: a heatmap that "
    "avoids opposing superpixels stays below chance.",
    {"image": "photograph", "pixels": "pixels", "share": "share of LIME 2", "iou": "IoU with Grad-CAM", "chance": "chance level"},
    {"share": "{:.2f}", "iou": "{:.3f}", "chance": "{:.3f}"},
)

# %% [markdown]
# ## Effect of the threshold

# %% tags=["remove-input"]
sweep = tables["sweep"]
at_zero = sweep[(sweep["cam"] == CAMS[0]) & (sweep["threshold"] == 0)].iloc[0]
at_half = sweep[(sweep["cam"] == CAMS[0]) & (sweep["threshold"] == 0.5)].iloc[0]
figures.publish(
    run,
    audit_figures.sweep_chart(sweep),
    "sweep",
    "Left: mean IoU with LIME 1 in the same frame by the threshold on the heatmap (lines), and the chance level for masks "
    "of those areas (dotted). Right: the share of the image above the threshold. The report's threshold is zero.",
    "Two line charts by threshold. IoU of Grad-CAM falls from "
    f"{at_zero['iou']:.2f} at zero to {at_half['iou']:.2f} at one half, and the area above it from "
    f"{100 * at_zero['cam_area']:.0f} to {100 * at_half['cam_area']:.0f} %.",
    sweep,
    raster=False,
)

# %% [markdown]
# ## Agreement after correction

# %% tags=["remove-input"]
figures.publish(
    run,
    audit_figures.corrected_chart(corrected),
    "corrected-chart",
    "IoU of LIME 1 with each CAM in the same frame at equal area (markers), by photograph; gray bars: random masks; "
    "strokes: the same method's maps of the other photographs, and a centred disc.",
    f"Chart of corrected IoU by photograph. At or below chance with some CAM: {', '.join(below_any) or 'none'}.",
    corrected,
    raster=False,
)
baselines = {"chance": "random masks", "others": "maps of other photographs", "centre": "centred disc"}
lines = [
    {
        "method": figures.NAMES[row["cam"]],
        "iou": row["iou"],
        "baseline": label,
        "level": row[name],
        "difference": row[f"over_{name}"],
        "interval": f"{row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f}",
        "p": row[f"{name}_adjusted"],
        "above": row[f"above_{name}"],
    }
    for row in summary.to_dict("records")
    for name, label in baselines.items()
]
figures.publish_table(
    run,
    pd.DataFrame(lines),
    "corrected",
    f"Corrected mean IoU of LIME 1 with each CAM over {figures.many(metrics['images'], 'photograph')}, against three baselines: mean difference "
    "with its 95 % interval, adjusted p, and above: the number of photographs in which the CAM exceeds the baseline.",
    {"method": "method", "iou": "IoU", "baseline": "baseline", "level": "baseline IoU", "difference": "difference", "interval": "95 % interval", "p": "adjusted p", "above": "above"},
    {"iou": "{:.3f}", "level": "{:.3f}", "difference": "{:+.3f}", "p": "{:.3f}"},
)

# %% tags=["remove-input"]
if cases:
    order = grad.sort_values("iou")["image"].tolist()
    by_image = {case.image: case for case in cases}
    shown = [by_image[image] for image in (*order[:2], *order[-2:])]
    pixels = {case.image: load_images(case.photograph)[0].pixels for case in shown}
    scores = corrected.set_index(["image", "cam"])["iou"]
    labels = [f"{case.image}: {case.iou1:.2f}, corrected {scores[case.image, CAMS[0]]:.2f}" for case in shown]
    figures.publish(
        run,
        figures.gallery([audit_figures.row(case, pixels[case.image]) for case in shown], audit_figures.TITLES, labels, key=figures.overlap_key(CAMS)),
        "replication-gallery",
        "The two photographs with the lowest and the two with the highest agreement, with the published IoU1 and the corrected IoU with "
        "Grad-CAM. Columns: LIME 1 and LIME 2 (orange supports, blue opposes); LIME 1 and Grad-CAM as the report compares them; LIME 1 and "
        "each CAM in the same frame at equal area.",
        f"Four photographs ({', '.join(case.image for case in shown)}) with LIME's masks, the published comparison, and three corrected ones.",
        corrected[corrected["image"].isin([case.image for case in shown])],
    )
else:
    display(Markdown("*Images of the masks need the report's files, which are unavailable here.*"))

# %% [markdown]
# ## Labels of the report's units

# %% tags=["remove-input"]
labels = tables["kinds"]
of_network = dict(iter(labels.groupby("network", sort=False)))
figures.publish(
    run,
    unit_figures.kinds_chart(of_network),
    "published-kinds",
    "Concept types of the published unit labels, by network and layer, for concepts in our lexicon.",
    f"Stacked bars of concept types for the layers of {' and '.join(of_network)}.",
    labels,
    raster=False,
)
outputs = {name: part[part["layer"] == part["layer"].iloc[-1]] for name, part in of_network.items()}
scenes = {name: part.loc[part["kind"] == "scene", "units"].sum() / part.loc[part["kind"] != UNKNOWN, "units"].sum() for name, part in outputs.items()}
told = labels.loc[labels["kind"] != UNKNOWN, "units"].sum() / labels["units"].sum()
metrics |= {f"scenes_{name}": float(value) for name, value in scenes.items()}
display(
    Markdown(
        "Output units labelled with a scene: "
        + ", ".join(f"{value:.0%} of *{name}*" for name, value in scenes.items())
        + f", among labels in our lexicon (which covers {told:.0%} of all units). The [findings page](task-findings) "
        "tests whether this supports the report's claims."
    )
)

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
ranks = tables["ranks"].groupby(["first", "second"], sort=False)["spearman"].agg(["min", "max"])
spans = [
    f"{figures.NAMES[a]} and {figures.NAMES[b]} {row['min']:.2f} to {row['max']:.2f}" for (a, b), row in ranks.iterrows()
]
metrics |= {f"spearman_{a}_{b}_{end}": float(row[end]) for (a, b), row in ranks.iterrows() for end in ("min", "max")}
above = {cam: int(value) for cam, value in summary.set_index("cam")["above_chance"].items()}
display(
    Markdown(
        f"- The corrected IoU of LIME 1 with Grad-CAM exceeds the chance level by {metrics['over_chance']:.3f} "
        f"({metrics['chance_low']:.3f} to {metrics['chance_high']:.3f}, p = {metrics['chance_adjusted']:.3f}), in "
        f"{above['gradcam']} of {figures.many(metrics['images'], 'photograph')}; AblationCAM in {above['ablationcam']}, ScoreCAM in "
        f"{above['scorecam']}. At or below chance with at least one CAM: {', '.join(below_any) or 'none'}.\n"
        f"- Smoothness and position explain much of this: maps of *other* photographs reach {metrics['others']:.3f}, and a "
        f"centred disc {metrics['centre']:.3f}"
        + (", more than Grad-CAM itself.\n" if metrics["centre"] > metrics["iou_gradcam"] else ".\n")
        + f"- The three CAMs rank pixels similarly (Spearman's correlation over the photographs: {'; '.join(spans)}), so they "
        "are not independent evidence.\n"
        "- The report concludes that agreement is low. Its numbers cannot support that: a heatmap that ranks pixels exactly as LIME "
        "does, but is above zero nearly everywhere, would give nearly the same numbers."
    )
)

# %% [markdown]
# ## Limits
#
# - With ten photographs, intervals are wide and the results do not generalise to other photographs.
# - LIME and the CAMs explain two different networks, which no correction can change.
# - LIME's masks are used as published; the files do not show how much they vary with the seed.
# - Our lexicon is small; concepts that it lacks, including plurals, have no type.
# - The baseline of other photographs is affected by their similarity: most show one animal near the centre.

# %% tags=["remove-cell"]
run.save_table("corrected_by_image", corrected)
run.save_table("ranks", tables["ranks"])
run.save_table("kinds", labels)
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
