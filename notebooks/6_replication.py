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
        f"**The report's own files could not be fetched here.** The tables and charts below are those that this project "
        f"computed from them on {kept['computed']} (commit {kept['commit'][:7]} of {kept['repository']}) and keeps; "
        "pictures of the masks are left out. With a network, or with `published` naming a copy of the files, all "
        f"is computed anew. Reason: {error}."
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
    f"{metrics['published_chance']:.2f}; with its flaws repaired it is **{metrics['iou_gradcam']:.2f}**, and chance "
    f"{metrics['chance']:.2f}."
)
display(
    Markdown(
        f"**Answer.** {metrics['equal']} of the {metrics['numbers']} published numbers are reproduced to four "
        f"decimals. But they measure how large LIME's mask is: the Grad-CAM \"mask\" is "
        f"{metrics['cam_area_least']:.0f} to {metrics['cam_area_most']:.0f} % of the photograph, and the mean IoU of "
        f"{metrics['published_mean']:.3f} is close to the chance level of such masks, {metrics['published_chance']:.3f}. In one "
        f"frame and at equal area the mean IoU is **{metrics['iou_gradcam']:.3f}** for Grad-CAM, "
        f"{metrics['iou_ablationcam']:.3f} for AblationCAM and {metrics['iou_scorecam']:.3f} for ScoreCAM, and chance "
        f"{metrics['chance']:.3f}. Above the maps of *other* photographs ({metrics['others']:.3f}) the mean is higher by "
        f"{metrics['over_others']:.3f}, 95 % interval {metrics['others_low']:.3f} to {metrics['others_high']:.3f}: "
        + ("the two methods agree about the photographs." if agree else "this does not show that the two methods agree about a photograph.")
    )
)
if note:
    display(Markdown(note))

# %% [markdown]
# ## Method
#
# The report of {cite:t}`balwani2024` publishes its LIME masks and its heatmaps. They are taken from one commit
# of its repository and each is checked by hash. Its overlap resizes the smaller mask to the larger bilinearly
# and counts every pixel that is not zero,
#
# $$ \mathrm{IoU} = \frac{|\{M \ne 0\} \cap \{H \ne 0\}|}{|\{M \ne 0\} \cup \{H \ne 0\}|}. $$
#
# Each repair is made on its own and then added to the ones before it. Chance is the exact mean IoU of two
# random masks of the same areas. Random masks are scattered and maps are smooth, so two harder baselines
# stand beside it: the same method's maps of the other photographs, and a disc in the middle. Intervals are
# Student's over photographs {cite}`student1908`, each of one mean alone; p is of Wilcoxon's signed-rank test, adjusted for
# all tests of this page {cite}`holm1979`.

# %% [markdown]
# ## The published table, computed again

# %% tags=["remove-input"]
headings = {"image": "photograph"}
for number in (1, 2):
    headings |= {f"iou{number}": f"IoU{number}, published", f"recomputed{number}": f"IoU{number}, recomputed", f"difference{number}": f"IoU{number}, difference"}
figures.publish_table(
    run,
    check.reset_index()[list(headings)],
    "table-1",
    "Table I of the report, IoU of LIME 1 (IoU1) and LIME 2 (IoU2) with Grad-CAM, as printed and computed again "
    "from its own masks.",
    headings,
    {name: "{:+.4f}" if "difference" in name else "{:.4f}" for name in list(headings)[1:]},
)

# %% [markdown]
# ## It measures the area of LIME's mask

# %% tags=["remove-input"]
figures.publish(
    run,
    audit_figures.area_chart(steps),
    "all-ones",
    "Each published number against the one that results when the heatmap is replaced by a picture that is one "
    "everywhere, which is LIME's area. On the line Grad-CAM adds nothing.",
    f"Scatter of {metrics['numbers']} IoU values close to the diagonal; correlation {metrics['correlation']:.3f}.",
    first,
    raster=False,
)
display(
    Markdown(
        "Grad-CAM's map is above zero almost everywhere. Replaced by a constant, it gives a mean absolute difference of "
        f"{metrics['all_ones_difference']:.3f} and a correlation of {metrics['correlation']:.3f} with the published numbers."
    )
)

# %% [markdown]
# ## One repair after the other

# %% tags=["remove-input"]
figures.publish(
    run,
    audit_figures.step_chart(steps),
    "steps",
    "Mean IoU over the photographs as one repair is added to another; bars show the chance level of Grad-CAM's "
    "masks, and the numbers on top are its IoU, which hardly moves; what changes is how much of it chance explains.",
    "Two panels, LIME 1 and LIME 2: mean IoU of three CAMs by repair, and bars of the chance level. For LIME 1 and "
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
    "Each repair on its own, Grad-CAM: mean IoU, its change against the published table, and what is above chance.",
    {"lime": "LIME mask", "repair": "only this repaired", "iou": "IoU", "change": "change", "chance": "chance", "above": "above chance"},
    {"iou": "{:.3f}", "change": "{:+.3f}", "chance": "{:.3f}", "above": "{:+.3f}"},
)

# %% tags=["remove-input"]
opposing = tables["opposing"].sort_values("share", ascending=False)
most = opposing.iloc[0]
in_table = first.set_index(["image", "lime"])["iou"]
apart = steps[(steps["mode"] == "alone") & (steps["step"] == "signs")].set_index(["image", "lime"])["iou"]
display(
    Markdown(
        "- **Mask not grown.** Enlarging a mask bilinearly and keeping all that is not zero adds a rim to every superpixel.\n"
        "- **One frame.** LIME's mask covers the middle of a squashed photograph, the heatmap all of it.\n"
        "- **Equal area.** The heatmap is cut to as many pixels as LIME's mask has.\n"
        f"- **Signs apart.** In {len(opposing)} of {metrics['images']} photographs LIME 2 has superpixels that oppose the category, "
        f"and the table counts them as part of the mask: {most['pixels']:,.0f} pixels for the {most['image']}, "
        f"{100 * most['share']:.0f} % of its mask, which is where its {in_table[most['image'], 'LIME 2']:.3f} comes from "
        f"({apart[most['image'], 'LIME 2']:.3f} without them).\n"
        "- **Two networks.** LIME explained ResNet-50 with torchvision's second set of weights (IMAGENET1K_V2), the heatmaps the "
        "same architecture with the first (IMAGENET1K_V1), and each the category that its own network predicts. That cannot be repaired "
        "from the files: even a perfect comparison of them would compare two networks."
    )
)
figures.publish_table(
    run,
    opposing,
    "opposing",
    "The opposing superpixels of LIME 2, and their IoU with Grad-CAM cut at the same area: a heatmap that "
    "avoids what opposes the category stays below chance.",
    {"image": "photograph", "pixels": "pixels", "share": "share of LIME 2", "iou": "IoU with Grad-CAM", "chance": "chance"},
    {"share": "{:.2f}", "iou": "{:.3f}", "chance": "{:.3f}"},
)

# %% [markdown]
# ## The threshold decides the number

# %% tags=["remove-input"]
sweep = tables["sweep"]
at_zero = sweep[(sweep["cam"] == CAMS[0]) & (sweep["threshold"] == 0)].iloc[0]
at_half = sweep[(sweep["cam"] == CAMS[0]) & (sweep["threshold"] == 0.5)].iloc[0]
figures.publish(
    run,
    audit_figures.sweep_chart(sweep),
    "sweep",
    "Left: mean IoU with LIME 1 in one frame by the threshold on the heatmap (lines) and the chance level of masks "
    "of those areas (dotted). Right: how much of the picture is above the threshold. The report's threshold is zero.",
    "Two line charts by threshold. IoU of Grad-CAM falls from "
    f"{at_zero['iou']:.2f} at zero to {at_half['iou']:.2f} at one half, and the area above it from "
    f"{100 * at_zero['cam_area']:.0f} to {100 * at_half['cam_area']:.0f} %.",
    sweep,
    raster=False,
)

# %% [markdown]
# ## What is left

# %% tags=["remove-input"]
figures.publish(
    run,
    audit_figures.corrected_chart(corrected),
    "corrected-chart",
    "IoU of LIME 1 with each CAM in one frame at equal area (marks), by photograph; gray bars: random masks; "
    "strokes: the same method's maps of the other photographs, and a disc in the middle.",
    f"Chart of corrected IoU by photograph. At or below chance with some CAM: {', '.join(below_any) or 'none'}.",
    corrected,
    raster=False,
)
baselines = {"chance": "random masks", "others": "maps of other photographs", "centre": "disc in the middle"}
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
    f"Corrected mean IoU of LIME 1 with each CAM over {metrics['images']} photographs, against three baselines: mean difference "
    "with its 95 % interval, adjusted p, and in how many photographs the CAM is above the baseline.",
    {"method": "method", "iou": "IoU", "baseline": "against", "level": "its IoU", "difference": "difference", "interval": "95 % interval", "p": "p", "above": "above in"},
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
        figures.gallery([audit_figures.row(case, pixels[case.image]) for case in shown], audit_figures.TITLES, labels),
        "replication-gallery",
        "The two photographs of least and the two of most agreement, with the published IoU1 and the corrected IoU with "
        "Grad-CAM. LIME 1 and LIME 2 (yellow supports, blue opposes); LIME 1 and Grad-CAM as the report compares them; LIME 1 and "
        "each CAM in one frame at equal area. White both, yellow only LIME, red only the CAM.",
        f"Four photographs ({', '.join(case.image for case in shown)}) with LIME's masks, the published comparison, and three repaired ones.",
        corrected[corrected["image"].isin([case.image for case in shown])],
    )
else:
    display(Markdown("*Pictures of the masks are drawn where the report's files can be had.*"))

# %% [markdown]
# ## What its units were called

# %% tags=["remove-input"]
labels = tables["kinds"]
of_network = dict(iter(labels.groupby("network", sort=False)))
figures.publish(
    run,
    unit_figures.kinds_chart(of_network),
    "published-kinds",
    "Kinds of concept among the published labels of units, by network and layer, where our lexicon tells the kind.",
    f"Stacked bars of kinds of concept for the layers of {' and '.join(of_network)}.",
    labels,
    raster=False,
)
outputs = {name: part[part["layer"] == part["layer"].iloc[-1]] for name, part in of_network.items()}
scenes = {name: part.loc[part["kind"] == "scene", "units"].sum() / part.loc[part["kind"] != UNKNOWN, "units"].sum() for name, part in outputs.items()}
told = labels.loc[labels["kind"] != UNKNOWN, "units"].sum() / labels["units"].sum()
metrics |= {f"scenes_{name}": float(value) for name, value in scenes.items()}
display(
    Markdown(
        "A scene is the label of "
        + ", ".join(f"{value:.0%} of the output units of *{name}*" for name, value in scenes.items())
        + f", among those whose kind our lexicon tells (of all units {told:.0%}). Whether that carries the report's claims is "
        "tested on [the page of findings](task-findings)."
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
        f"- The corrected IoU of LIME 1 with Grad-CAM is above random masks by {metrics['over_chance']:.3f} "
        f"({metrics['chance_low']:.3f} to {metrics['chance_high']:.3f}, p = {metrics['chance_adjusted']:.3f}), in "
        f"{above['gradcam']} of {metrics['images']} photographs; AblationCAM in {above['ablationcam']}, ScoreCAM in "
        f"{above['scorecam']}. At or below chance with at least one CAM: {', '.join(below_any) or 'none'}.\n"
        f"- Much of that is smoothness and position: maps of *other* photographs reach {metrics['others']:.3f}, and a disc in "
        f"the middle {metrics['centre']:.3f}"
        + (", more than Grad-CAM itself.\n" if metrics["centre"] > metrics["iou_gradcam"] else ".\n")
        + f"- The CAMs rank pixels alike among themselves (Spearman's correlation over the photographs: {'; '.join(spans)}), so three "
        "heatmaps are not three independent witnesses.\n"
        "- The report concludes that agreement is low. Its numbers could not tell: a heatmap that ranks pixels exactly as LIME "
        "does, above zero nearly everywhere, would have got nearly the same ones."
    )
)

# %% [markdown]
# ## Limits
#
# - Ten photographs: intervals are wide, and nothing here speaks of photographs in general.
# - LIME and the CAMs explain two networks, which no repair of the comparison undoes.
# - LIME's masks are taken as published: how much they would change with another seed is not in the files.
# - The lexicon is ours and small; words that it lacks, plurals among them, have no kind.
# - The baseline of other photographs is not free of the photographs' likeness: most show one animal near the middle.

# %% tags=["remove-cell"]
run.save_table("corrected_by_image", corrected)
run.save_table("ranks", tables["ranks"])
run.save_table("kinds", labels)
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
