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
# (task-agreement)=
# # Agreement: do LIME and the heatmaps select the same pixels?

# %% tags=["parameters"]
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # the photographs of the two runs, for drawing
lime_run: str = "results/scratch/2_lime"  # a finished run of 2_lime
cam_run: str = "results/scratch/3_cam"  # a finished run of 3_cam, same network and targets
num_features: int = 10  # superpixels in a mask (at least 1)
mask_rule: str = "area"  # as many pixels as the LIME mask has, or all above threshold (area or value)
threshold: float = 0.5  # only for mask_rule value: of the map scaled to [0, 1]; 0 is what the seed did (at least 0 and below 1)
allow: list = []  # what may differ between LIME and the heatmaps; the page then says so (any of classifier or target)
boxes: str = "packaged"  # boxes around the object: packaged, a CSV file (image, left, top, right, bottom in 0 to 1), or empty for none
seed: int = 0  # of shuffled superpixels (from 0 to 4294967295)
out_dir: str = "results/scratch/4_agreement"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("4_agreement", globals())

# %% tags=["remove-input"]
import pandas as pd
from IPython.display import Markdown, display

from xailib.compare.intervals import decided
from xailib.compare.iou import in_frame_of, lime_cam_agreement
from xailib.compare.localisation import load_boxes, localisation
from xailib.compare.masks import lime_mask
from xailib.compare.pairs import SUPPORTS, maps_of, pair_table, summary, sweep_table
from xailib.errors import InputError
from xailib.images.load import load_images
from xailib.images.packaged import packaged
from xailib.report.evidence import charts as kept_figures
from xailib.report.evidence import kept as kept_tables
from xailib.report.evidence.verdicts import agreement_table, verdicts
from xailib.report.figures import agreement as pair_figures
from xailib.report.figures import style as figures
from xailib.report.run.results import load_explanations, project_root, run_digest, start_run

around = load_boxes(boxes)
limes, cams = load_explanations(lime_run), load_explanations(cam_run)
photographs = load_images(images)
pictures_of = {photograph.sha256: photograph.pixels for photograph in photographs}
limes = limes_found = [lime for lime in limes if lime.image_sha256 in pictures_of]
if not limes:
    raise InputError("images: none of these photographs is in the two runs; give the same images")
table = lime_cam_agreement(limes, cams, num_features=num_features, rule=mask_rule, threshold=threshold, allow=allow)
if table["iou"].isna().any():
    empty = set(table[table["iou"].isna()]["image"])
    table = table[~table["image"].isin(empty)]
    if table.empty:
        raise InputError("images: in every photograph both masks are empty: no superpixel supports the target")
    display(Markdown(f"Excluded because both masks are empty: {', '.join(map(figures.verbatim, sorted(empty)))}."))
limes = [lime for lime in limes if lime.image in set(table["image"])]
nothing = figures.left_out(e for e in [*limes_found, *cams] if e.image_sha256 in pictures_of)
if nothing:
    display(Markdown(nothing))
run = start_run(
    out_dir,
    "4_agreement",
    {
        "images": images,
        "num_features": num_features,
        "mask_rule": mask_rule,
        "threshold": threshold,
        "allow": allow,
        "boxes": boxes,
        "seed": seed,
    },
    photographs,
    [*([boxes] if boxes not in ("", "packaged") else []), *kept_tables.files()],
    runs={folder: run_digest(project_root() / folder) for folder in (lime_run, cam_run)},
)

# %% tags=["remove-input"]
maps = [
    one
    for lime in limes
    for one in maps_of(
        [lime, *(cam for cam in cams if (cam.image, cam.image_sha256) == (lime.image, lime.image_sha256))],
        num_features,
        allow,
    )
]
pairs = pair_table(maps, seed=seed)
pair_means = summary(pairs)
sweep = sweep_table(maps)
localised = localisation(maps, around)

# %% tags=["remove-input"]
first = table["cam"].iloc[0]
main_pair = pair_means[(pair_means["a"] == SUPPORTS) & (pair_means["b"] == first)].iloc[0]
means = table.groupby(["lime", "cam"], sort=False)[["iou", "chance"]].mean()
seed_view = table[table["cam"] == first]
one, two = (seed_view[seed_view["lime"] == name] for name in ("LIME 1", "LIME 2"))
below = one[one["iou"] <= one["chance"]]["image"].tolist()
metrics = {
    "images": table["image"].nunique(),
    "iou1": one["iou"].mean(),
    "iou1_least": one["iou"].min(),
    "iou1_most": one["iou"].max(),
    "iou2": two["iou"].mean(),
    "chance1": one["chance"].mean(),
    "below_chance": len(below),
    "signs_differ": int((two["opposing"] > 0).sum()),
    "pair_iou": main_pair["iou"],
    "pair_null": main_pair["null_mean"],
    "pair_null_over": main_pair["null_mean_over"],
    "pair_null_low": main_pair["null_mean_low"],
    "pair_null_high": main_pair["null_mean_high"],
    "pair_others": main_pair["others"],
    "pair_others_over": main_pair["others_over"],
    "pair_others_low": main_pair["others_low"],
    "pair_others_high": main_pair["others_high"],
    "pair_surpassed": int(main_pair["surpassed"]),
}
rule_text = (
    "thresholded to the area of LIME's mask"
    if mask_rule == "area"
    else f"thresholded at {threshold:g} of its maximum"
)
overlap = (
    f"On {figures.many(metrics['images'], 'photograph')}, LIME and {figures.NAMES[first]} select pixels that overlap with a mean IoU of "
    f"**{metrics['iou1']:.2f}**. Random masks of the same areas reach {metrics['chance1']:.2f}"
)
kept = kept_tables.load()
agreement = agreement_table(kept["values"], verdicts(kept["values"])) if kept else pd.DataFrame(columns=["network", "more"])
known = agreement["network"].map(kept_tables.load_manifest().get("networks", {})) == limes[0].classifier
decisive = agreement[known & (agreement["more"] == "yes") & (first == "gradcam")]
if metrics["images"] > 1:
    side = int(decided(*(main_pair[f"others_{name}"] for name in ("low", "high", "adjusted"))))
    verdict = "They agree less than that" if side < 0 else "They agree, but on a part of the pixels only"
    overlap += f", heatmaps of *other* photographs {metrics['pair_others']:.2f}. " + (
        verdict if side else "These are too few photographs to decide whether they agree more than that"
    )
    for row in decisive.itertuples():
        overlap += f"; on {row.photographs} photographs [they do](task-agreement) ({row.iou:.2f} against {row.others:.2f})"
metrics["answer"] = f"{overlap}."
metrics["finding"] = (
    f"LIME and {figures.NAMES[first]}, {rule_text}: mean overlap (IoU) **{metrics['iou1']:.2f}**; "
    f"chance level {metrics['chance1']:.2f}."
)
display(
    Markdown(
        f"**Answer.** LIME 1 and {figures.NAMES[first]}, {rule_text}, overlap with a mean IoU of "
        f"**{metrics['iou1']:.2f}** over {figures.many(metrics['images'], 'photograph')} "
        f"({metrics['iou1_least']:.2f} to {metrics['iou1_most']:.2f}); random masks of the same areas reach "
        f"{metrics['chance1']:.2f}. "
        + (
            f"At or below chance: {', '.join(map(figures.verbatim, below))}."
            if below
            else "In every photograph the agreement exceeds that of random masks."
        )
        + (
            f" Thresholded to equal area they reach {metrics['pair_iou']:.2f}, superpixels selected in random order {metrics['pair_null']:.2f}"
            if mask_rule == "value"
            else f" Superpixels selected in random order reach {metrics['pair_null']:.2f}"
        )
        + (
            f", and heatmaps of *other* photographs, thresholded to the same area, {metrics['pair_others']:.2f}: the difference from the "
            f"latter is {metrics['pair_others_over']:+.2f} (95 % interval {metrics['pair_others_low']:+.2f} to "
            f"{metrics['pair_others_high']:+.2f})."
            if metrics["images"] > 1
            else ". One photograph allows no interval."
        )
    )
)

# %% tags=["remove-input"]
networks = {one.classifier for one in [*limes, *cams]}
targets = [lime.image for lime in limes if any(c.image == lime.image and c.target != lime.target for c in cams)]
if len(networks) > 1:
    display(Markdown(f"**This run compares two networks**, as `allow` permits: {', '.join(sorted(networks))}."))
if targets:
    display(Markdown(f"**LIME and the heatmaps explain different classes** in {', '.join(map(figures.verbatim, targets))}."))

# %% tags=["remove-input"]
wide = (
    table.assign(column=table["lime"] + " × " + table["cam"].map(figures.NAMES))
    .pivot(index="image", columns="column", values="iou")
    .reindex(index=list(dict.fromkeys(table["image"])))
)
wide = wide[[f"{lime} × {cam}" for cam in table["cam"].map(figures.NAMES).unique() for lime in ("LIME 1", "LIME 2")]]
wide.loc["mean"] = wide.mean()
figures.publish_table(
    run,
    wide.reset_index(),
    "iou",
    f"IoU of LIME 1 (supporting superpixels) and LIME 2 (largest weights, signs merged) with each heatmap, {rule_text}, in the layout of the replicated report's table.",
    {"image": "photograph"} | {column: column for column in wide},
    dict.fromkeys(wide, "{:.3f}"),
)

# %% [markdown]
# ## Method
#
# LIME's mask $M$ and a heatmap's mask $H$ share one frame, the network's input, and explain the same class of the same
# network. As in the report of {cite:t}`balwani2024`, we measure their overlap by
#
# $$ \mathrm{IoU} = \frac{|M \cap H|}{|M \cup H|}. $$
#
# Larger masks overlap more by area alone, so we threshold the heatmap to the area of LIME's mask (unless `mask_rule`
# says otherwise). We use three increasingly strict null models: scattered pixels, the same blobs or superpixels elsewhere,
# and maps of other photographs.

# %% [markdown]
# ## The overlaps

# %% tags=["remove-input"]
by_image = {lime.image: lime for lime in limes}
drawn = list(dict.fromkeys(table["image"]))
cam_names = list(dict.fromkeys(table["cam"]))
cam_of = {(cam.image, cam.method): cam for cam in cams}
scores = {(row.image, row.lime, row.cam): f"{row.iou:.2f}" for row in table.itertuples()}
pictures, labels = [], []
for image in drawn:
    lime = by_image[image]
    view = lime.frame.show(pictures_of[lime.image_sha256])
    mask = lime_mask(lime, num_features, "positive")
    pictures.append(
        [view, figures.outlined(view, mask)]
        + [
            figures.overlap(view, mask, in_frame_of(cam, lime), cam.method)
            if cam and not cam.no_signal
            else cam and figures.drawn(view, cam)
            for cam in (cam_of.get((image, name)) for name in cam_names)
        ]
    )
    ious = ", ".join(scores.get((image, "LIME 1", cam), "–") for cam in cam_names)
    labels.append(f"{image}: {lime.target_name}; IoU {ious}")
cam_titles = [figures.NAMES[cam] for cam in cam_names]
figures.publish(
    run,
    figures.gallery(pictures, ["view", "LIME 1", *cam_titles], labels, key=figures.overlap_key(cam_names)),
    "overlap-gallery",
    "Pixels selected by LIME 1 and by each heatmap, thresholded to LIME's area. Above each row: photograph, explained class, and IoU by column"
    + ("." if mask_rule == "area" else f", for heatmaps {rule_text}."),
    f"Grid of {figures.many(len(drawn), 'photograph')}: LIME's mask, and its overlap with {', '.join(cam_titles)}. " + "; ".join(labels),
    table,
)

# %% tags=["remove-input"]
figures.publish(
    run,
    figures.agreement_chart(table),
    "agreement-chart",
    "IoU of LIME's masks with each heatmap, by photograph; gray bar: chance level, for random masks of the "
    "same areas.",
    f"Two panels of IoU by photograph for {', '.join(cam_titles)}. "
    f"Mean IoU of LIME 1 with {figures.NAMES[first]} is {metrics['iou1']:.2f}, chance {metrics['chance1']:.2f}.",
    table,
    raster=False,
)

# %% [markdown]
# ## Every pair of methods

# %% tags=["remove-input"]
figures.publish(
    run,
    pair_figures.matrix_chart(pair_means),
    "pair-matrix",
    f"All pairs of explanations over {figures.many(metrics['images'], 'photograph')}, both thresholded to the area of LIME 1: mean IoU "
    "above the diagonal, mean Spearman correlation of all pixels below. LIME's positive and negative weights are separate.",
    f"Matrix of mean overlap and rank correlation; LIME supporting with {figures.NAMES[first]}: IoU "
    f"{main_pair['iou']:.2f}, correlation {main_pair['spearman']:.2f}.",
    pair_means,
    raster=False,
)

# %% tags=["remove-input"]
figures.publish(
    run,
    pair_figures.baseline_chart(pair_means),
    "pair-baselines",
    "Mean IoU of every pair, thresholded to equal area, and its level under three null models.",
    "Bars of mean IoU by pair, each with three markers: scattered pixels, the same shapes elsewhere, and "
    "maps of other photographs.",
    pairs,
    raster=False,
)
beaten = pair_means[decided(*(pair_means[f"others_{name}"].to_numpy() for name in ("low", "high", "adjusted"))) > 0]
lime_pairs = pair_means[pair_means["a"] == SUPPORTS]
display(
    Markdown(
        f"With {metrics['images']} photograph no interval can be computed."
        if metrics["images"] < 2
        else f"The overlap of LIME's supporting superpixels with {figures.NAMES[first]} exceeds the central 95 % of randomly ordered "
        f"superpixels in {metrics['pair_surpassed']} of {figures.many(metrics['images'], 'photograph')}; on average the difference is "
        f"{metrics['pair_null_over']:+.2f} ({metrics['pair_null_low']:+.2f} to {metrics['pair_null_high']:+.2f}, "
        f"p = {main_pair['null_mean_adjusted']:.3f}). Compared with maps of other photographs, "
        f"{len(beaten)} of {len(pair_means)} pairs agree significantly more, {int((beaten['a'] == SUPPORTS).sum())} of {len(lime_pairs)} "
        "with LIME (interval above zero, adjusted p below 0.05)."
    )
)

# %% tags=["remove-input"]
figures.publish(
    run,
    pair_figures.sweep_chart(sweep),
    "area-sweep",
    "The overlap depends on the selected area: mean IoU of both maps thresholded to the same area, from "
    f"{sweep['area'].min():.0%} to {sweep['area'].max():.0%}; dashed: scattered pixels.",
    "Two panels of rising curves of IoU by area, above a dashed rising line for scattered pixels.",
    sweep,
    raster=False,
)

# %% tags=["remove-input"]
if len(localised):
    by_map = localised.groupby("map", sort=False)[["pointing", "energy", "precision", "box"]].mean()
    by_map = by_map.reset_index()
    figures.publish_table(
        run,
        by_map.assign(name=by_map["map"].map(figures.NAMES)),
        "boxes",
        f"Localisation: means over {figures.many(localised['image'].nunique(), 'photograph')} with boxes: the "
        "pointing game (is the highest pixel in a box), the share of positive saliency in the boxes, the share of the "
        "mask in them, and the boxes' share of the view, which an uninformative map reaches.",
        {"name": "map", "pointing": "pointing game", "energy": "energy inside", "precision": "mask inside", "box": "boxes' share"},
        dict.fromkeys(("pointing", "energy", "precision", "box"), "{:.2f}"),
    )
    run.save_table("localisation", localised)
    metrics |= {
        f"inside_{row.map.replace('lime+', 'lime').replace('lime-', 'lime_opposing')}": row.precision
        for row in by_map.itertuples()
    }
    metrics["box_share"] = localised["box"].mean()
    display(
        Markdown(
            "We drew the packaged boxes by eye around every instance of the labelled class "
            "(pointing game: {cite:t}`zhang2018`)."
        )
    )
else:
    display(Markdown("None of these photographs has a bounding box: give a CSV file as `boxes`."))

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
run.save_table("agreement", table)
run.save_table("pairs", pairs)
difference = metrics["iou2"] - metrics["iou1"]
display(
    Markdown(
        f"The LIME 2 mask includes opposing superpixels in {metrics['signs_differ']} of "
        f"{figures.many(metrics['images'], 'photograph')}; its mean IoU with {figures.NAMES[first]} differs from that of LIME 1 by "
        f"{difference:+.3f}."
    )
)

# %% tags=["remove-input"]
# The median photograph of those that the network gets right, as far as that is known: neither the best nor the worst.
labelled = {name: place.class_index for name, place in packaged().items()}
right = one[[labelled.get(image) == by_image[image].target for image in one["image"]]]
ranked = (right if len(right) else one).sort_values(["iou", "image"])
typical = ranked.iloc[(len(ranked) - 1) // 2]
image = typical["image"]
lime = by_image[image]
said = f"{lime.target_name}, probability {lime.probability:.2f}" + (", correct" if len(right) else "")
metrics["shown_target"] = lime.target_name
view = lime.frame.show(pictures_of[lime.image_sha256])
mask = lime_mask(lime, num_features, "positive")
shown_cams = [cam for cam in cam_names if not cam_of[image, cam].no_signal]
heats = [figures.heat(view, in_frame_of(cam_of[image, cam], lime)) for cam in shown_cams]
agreed = figures.overlap(view, mask, in_frame_of(cam_of[image, first], lime), first)
figures.publish(
    run,
    figures.panels(
        [view, figures.outlined(view, mask), *heats, agreed],
        [
            f"{lime.target_name} {lime.probability:.2f}",
            "LIME 1",
            *(figures.NAMES[cam] for cam in shown_cams),
            f"IoU {typical['iou']:.2f}, chance {typical['chance']:.2f}",
        ],
        key=figures.overlap_key([first]),
        scales=["heat"],
    ),
    "side-by-side",
    f"One photograph, one prediction ({figures.verbatim(said)}), {1 + len(shown_cams)} explanations. Last: the overlap of LIME 1 and "
    f"{figures.NAMES[first]}, {rule_text}. Of {figures.many(len(ranked), 'photograph')}{' that the network gets right' * bool(len(right))} "
    "this is the one with the median IoU.",
    f"Images of {image}: the view, LIME's mask, heatmaps by {', '.join(cam_titles)}, and the overlap.",
    table[table["image"] == image],
)

# %% tags=["remove-input"]
if run.failures:
    display(Markdown(figures.not_used(run.failures, "Not compared")))

# %% [markdown]
# ## Details
#
# **Comparability.** Comparing maps of different networks or classes is an error unless `allow` permits it. The IoU of two
# empty masks is undefined. We also report Spearman's rank correlation of all pixels, which needs no threshold.
#
# **Null models.**
#
# 1. *Scattered pixels:* the exact mean IoU of two random masks of these areas, from the hypergeometric
#    distribution of their intersection.
# 2. *The same blobs or superpixels elsewhere:* LIME's superpixels selected in random order or, for two
#    heatmaps, one of them shifted to every position and mirrored. Smooth masks overlap more than
#    scattered pixels, whatever they show.
# 3. *Maps of other photographs:* the agreement of a method that merely marks where objects usually are.
#
# **Intervals and tests.** Differences are paired by photograph. Intervals of the mean are Student's
# {cite}`student1908`, not adjusted; p is from Wilcoxon's signed-rank test, adjusted for all pairs and null models of
# this page {cite}`holm1979`. A pair agrees significantly more if both interval and test say so.

# %% [markdown]
# ## The evidence run
#
# Everything above uses this run's photographs. The evidence run, made once and stored with the project, repeats the first
# comparison with more photographs, on three networks.

# %% tags=["remove-input"]
if kept:
    figures.publish_table(
        run,
        agreement.assign(network=agreement["network"].map(kept_figures.network_name)),
        "agreement-kept",
        "The evidence run: mean IoU of LIME 1 with Grad-CAM at equal area, with random masks of the same areas, and with Grad-CAM's maps "
        "of other photographs; the IoU of LIME 2; and whether maps of one photograph agree more than those of different ones.",
        {
            "network": "network",
            "photographs": "n",
            "iou": "IoU",
            "chance": "chance",
            "others": "other photographs",
            "iou2": "IoU of LIME 2",
            "more": "agree more",
        },
        dict.fromkeys(("iou", "chance", "others", "iou2"), "{:.3f}"),
    )
    if (agreement["more"] == "yes").any():
        display(Markdown(kept_figures.RECONCILED))
else:
    display(Markdown("This project has no evidence run."))

# %% [markdown]
# ## Limits
#
# - IoU compares sets of pixels and ignores saliency values.
# - Shifted maps wrap at the border, and the shift ignores that objects tend to be centred. The comparison with other
#   photographs has neither problem, but their objects may lie elsewhere.
# - Boxes contain background, and a network may legitimately use context outside them.
# - Agreement is not correctness: two methods can agree on pixels that the network does not use.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
