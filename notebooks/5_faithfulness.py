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
# (task-faithfulness)=
# # Faithfulness: does the prediction depend on the pixels that an explanation ranks high?

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # the network of the two runs, by the same name
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
outputs: str = "auto"  # what the network's output means; auto notices softmax, sigmoids and a single output, but not that logits are of independent labels (auto, logits, probabilities, multilabel or binary)
preprocessing: str = ""  # name of the torchvision weights whose transform is used; empty: the transform of the weights, or of the own file
label: str = ""  # short name of the network in captions; empty: model, without folders
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # the photographs of the two runs
lime_run: str = "results/scratch/2_lime"  # a finished run of 2_lime
cam_run: str = "results/scratch/3_cam"  # a finished run of 3_cam, same network and targets
steps: int = 32  # of each curve from the whole image to none of it (at least 1)
road_percentiles: list = [70, 90]  # ROAD imputes the pixels above; empty: no ROAD, the slowest part (between 0 and 100)
draws: int = 3  # of the random baseline for each photograph, averaged (at least 1)
sensitivity: int = 3  # photographs that are scored again with other settings, the first ones (at least 1)
seed: int = 0  # of the random baseline and the noise (from 0 to 4294967295)
precision: str = "exact"  # how the network computes: exact is float32 (exact, tf32 or half)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/5_faithfulness"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("5_faithfulness", globals())

# %% tags=["remove-input"]
import re

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from xailib.errors import InputError
from xailib.evaluate.faithfulness import explanation_curves, maps_of, neutral_colour
from xailib.evaluate.metrics import score
from xailib.evaluate.perturbation import centred_blob, deleted
from xailib.evaluate.scores import PAGE, compare_with_baselines, curve_scores
from xailib.images.load import load_images
from xailib.networks.classifier import load_classifier
from xailib.report.evidence import charts as kept_figures
from xailib.report.evidence import kept as kept_tables
from xailib.report.evidence.verdicts import verdicts
from xailib.report.figures import faithfulness as faithfulness_figures
from xailib.report.figures import style as figures
from xailib.report.run.results import load_explanations, project_root, run_digest, start_run

photographs = load_images(images)
found = [*load_explanations(lime_run), *load_explanations(cam_run)]
methods = list(dict.fromkeys(explanation.method for explanation in found))
explanations = {
    p.id: [e for e in found if (e.image, e.image_sha256) == (p.id, p.sha256)] for p in photographs
}
# Only photographs that every method explains are compared.
chosen = [p for p in photographs if {e.method for e in explanations[p.id]} == set(methods)]
if not chosen:
    raise InputError("images: none of these photographs is in the two runs; give the same images")
classifier = load_classifier(model, weights, device, seed, precision, outputs=outputs, preprocessing=preprocessing)
for photograph in chosen:  # before the long work
    maps_of(classifier, photograph, explanations[photograph.id])
silent = [e.no_signal for p in chosen for e in explanations[p.id]]
if all(silent):
    raise InputError(f"explanations: none says anything about its class: {silent[0]}")
run = start_run(
    out_dir,
    "5_faithfulness",
    {
        "model": model,
        "images": images,
        "steps": steps,
        "road_percentiles": road_percentiles,
        "draws": draws,
        "sensitivity": sensitivity,
        "seed": seed,
    },
    photographs,
    [*classifier.files, *kept_tables.files()],
    weights=classifier.identity,
    runs={folder: run_digest(project_root() / folder) for folder in (lime_run, cam_run)},
)
options = {"steps": steps, "percentiles": road_percentiles, "draws": draws, "seed": seed}
curves = pd.concat(
    explanation_curves(classifier, photograph, explanations[photograph.id], **options)
    for photograph in run.told(chosen, "scores")
)
scores = curve_scores(curves)
compared = compare_with_baselines(scores)
methods = [method for method in methods if method in set(scores["method"])]  # that say anything
run.save_table("curves", curves)
run.save_table("scores", scores)

# %% tags=["remove-input"]
of_methods = compared[compared["method"].isin(methods)]
counts = of_methods.groupby(["baseline", "verdict"]).size().unstack(fill_value=0)
rivals = faithfulness_figures.BASELINE_NAMES
counts = counts.reindex(index=list(rivals), columns=["better", "worse", "undecided"], fill_value=0)
metrics = {"images": len(chosen), "comparisons": int(counts.loc["random"].sum())}
for baseline in rivals:
    metrics |= {f"{baseline}_{v}": int(counts.loc[baseline, v]) for v in counts.columns}
metrics["finding"] = (
    f"On {figures.many(metrics['images'], 'photograph')}, {len(methods)} methods by {compared['measure'].nunique()} measures are significantly better than a "
    f"centred blob in **{metrics['centre_better']} of {metrics['comparisons']}** comparisons."
    + (" So few photographs cannot decide." if metrics["images"] < 6 else "")
)
answer = f"{len(methods)} methods, {compared['measure'].nunique()} measures, {figures.many(metrics['images'], 'photograph')}. "
for baseline, name in rivals.items():
    won, lost = metrics[f"{baseline}_better"], metrics[f"{baseline}_worse"]
    missing = faithfulness_figures.not_beaten(of_methods, baseline)
    answer += f"Compared with the {name}, **{won} of {metrics['comparisons']}** results are significantly better, {lost} worse, the others undecided"
    answer += f"; not better: {missing}. " if missing and won else ". "
kept, manifest = kept_tables.load(), kept_tables.load_manifest()
lead = "**Answer.** "
if kept:
    decided = verdicts(kept["values"])
    undecided = kept_figures.undecided_methods(decided)
    lines = kept_figures.decided_lines(decided)
    lead += (
        f"The evidence run ({kept_figures.sample(manifest)}) compares each method by each measure with the centred blob:\n\n"
        + "\n".join(f"- {line}." for line in lines)
        + (f"\n\nUndecided on every network and measure: {', '.join(undecided)}." if undecided else "")
        + "\n\n**This run.** "
    )
    ours = [kept_figures.network_name(name) for name, known in manifest["networks"].items() if known == classifier.id]
    own = [re.sub(r"\d+ of \d+", r"**\g<0>**", line, count=1) for line in lines if line.startswith(tuple(ours))]
    if own:
        metrics["finding"] = (
            "Each method is compared with a centred blob by each measure. " + " ".join(f"On {line}." for line in own)
            + f" This run's {figures.many(metrics['images'], 'photograph')} decide{'s' * (metrics['images'] == 1)} {metrics['comparisons'] - metrics['centre_undecided']} of {metrics['comparisons']} such comparisons."
        )
display(Markdown(lead + answer))
if nothing := figures.left_out(found):
    display(Markdown(nothing))
if metrics["images"] < 6:
    display(
        Markdown("With fewer than six photographs no comparison can be significant: the signed-rank test has too few pairs.")
    )

# %% [markdown]
# ## Method
#
# A faithful explanation ranks high the pixels on which the prediction depends, so replacing pixels in its order must
# change the probability $p$ of the explained class. **Deletion** and **insertion** {cite}`petsiuk2018` are scored
# by the area under the curve over the share $q$ of pixels (lower and higher is better, respectively), and **region
# flipping** {cite}`samek2017` by the mean drop over its steps,
#
# $$
# \mathrm{AUC} = \int_0^1 p(q)\,dq,
# $$
#
# $$
# \mathrm{AOPC} = \frac{1}{L+1} \sum_{k=0}^{L} \bigl(p_0 - p_k\bigr).
# $$
#
# We also report **ROAD** {cite}`rong2022`. Every measure is computed for two baselines that do not depend on the network:
# a smooth **random field** and a **centred blob**.

# %% [markdown]
# ## The curves

# %% tags=["remove-input"]
names = [faithfulness_figures.name_of(method) for method in methods]
figures.publish(
    run,
    faithfulness_figures.curves_chart(curves),
    "faithfulness-curves",
    f"Mean probability of the explained class by {label} over {figures.many(metrics['images'], 'photograph')} while pixels are deleted (faithful: "
    "falls early), inserted into a blurred image (faithful: rises early), or squares are replaced by noise (faithful: falls "
    "early). Bands: 95 % intervals of each mean after removing between-image variance.",
    f"Three panels of curves for {', '.join(names)}, a random field and a centred blob.",
    curves,
    raster=False,
)

# %% tags=["remove-input"]
blurred = curves[curves["measure"] == "insertion"].groupby(["image", "fraction"])["score"].first().unstack()
left = blurred[0.0] / blurred[1.0]  # the same for all methods
metrics |= {"insertion_start": left.mean(), "insertion_start_most": left.max()}
display(
    Markdown(
        f"Insertion does not start at zero: the blurred image alone has {left.mean():.0%} of the full probability on average, and "
        f"{left.max():.0%} for *{left.idxmax()}*. Where that share is high, insertion measures little."
    )
)

# %% tags=["remove-input"]
figures.publish(
    run,
    faithfulness_figures.differences_chart(compared),
    "faithfulness-differences",
    f"Gain over each baseline on {label}: mean difference, paired by photograph, with its 95 % "
    "interval. Right of the line is better; the sign is reversed for deletion, where lower is better. Filled marks are "
    "significant (interval excludes zero, adjusted p below 0.05), hollow marks are undecided.",
    "Dots with intervals by method, one panel a measure. Not better than the random field: "
    f"{faithfulness_figures.not_beaten(compared, 'random') or 'none'}.",
    compared,
    raster=False,
)

# %% [markdown]
# ## Deletion on one photograph

# %% tags=["remove-input"]
deletion = curves[curves["measure"] == "deletion"].pivot_table(
    index=["image", "method"], columns="fraction", values="score", sort=False
)
means = deletion.groupby(level="image", sort=False).mean().mean(axis=1)
shown = photographs[(means - means.median()).abs().idxmin()]
of_shown = deletion.loc[shown.id]
view = classifier.view(shown).pixels
maps = maps_of(classifier, shown, explanations[shown.id]) | {"centre": centred_blob(view.shape[:2])}
rows = [method for method in dict.fromkeys([*methods[:1], "gradcam", *methods[-1:], "centre"]) if method in maps]
known = of_shown.columns.to_numpy()
fractions = [known[np.abs(known - wanted).argmin()] for wanted in (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)]
fractions = list(dict.fromkeys(fractions))
colour = neutral_colour(classifier)
figures.publish(
    run,
    faithfulness_figures.film_strip(
        [[deleted(view, maps[method], f, colour) for f in fractions] for method in rows],
        [[of_shown.loc[method, f] for f in fractions] for method in rows],
        [f"{100 * fraction:.3g} % deleted" for fraction in fractions],
        [faithfulness_figures.name_of(method) for method in rows],
    ),
    "deletion-strip",
    f"The photograph *{figures.verbatim(shown.id)}* while the pixels that each map ranks highest are deleted; below each image, the probability of "
    f"“{explanations[shown.id][0].target_name}”. It is the photograph with the median of the mean deletion scores.",
    f"Rows of images of {shown.id}, increasingly gray. Probability at the end of each row: "
    + "; ".join(f"{faithfulness_figures.name_of(m)} {of_shown.loc[m, fractions[-1]]:.2f}" for m in rows),
    of_shown.loc[rows, fractions].reset_index(),
)

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
arrows = {"lower": "↓", "higher": "↑"}
better = scores.drop_duplicates("measure").set_index("measure")["better"]
wide = scores.pivot_table(index="method", columns="measure", values="value", sort=False)
figures.publish_table(
    run,
    wide.assign(method=[faithfulness_figures.name_of(method) for method in wide.index]).reset_index(drop=True),
    "faithfulness-scores",
    f"Mean scores over {figures.many(metrics['images'], 'photograph')}. Arrows show whether lower or higher is better.",
    {"method": "map"} | {m: f"{faithfulness_figures.MEASURES[m]} {arrows[better[m]]}" for m in wide},
    dict.fromkeys(wide, "{:.3f}"),
)
metrics |= {f"{method.replace('+', 'p')}_{m}": float(wide.loc[method, m]) for m in wide for method in wide.index}
of_centre = compared[(compared["method"] == "centre") & (compared["verdict"] == "better")]["measure"]
centre_wins = ", ".join(faithfulness_figures.MEASURES[m] for m in of_centre)
display(
    Markdown(
        f"The centred blob, which depends on neither network nor photograph, outperforms the random field on {centre_wins}: "
        "the effect of a centre bias alone."
        if centre_wins
        else "The centred blob is not shown to outperform the random field on any measure."
    )
)

# %% [markdown]
# ## Does the order of the methods depend on the settings?
#
# Each measure has settings that have nothing to do with the explanations. We change one at a time, and see which method
# has the best mean.

# %% tags=["remove-input"]
again = [p for p in chosen if maps_of(classifier, p, explanations[p.id])][:sensitivity]
parts = [m for m in PAGE if m in wide]
own = scores[scores["image"].isin([p.id for p in again]) & scores["method"].isin(methods)]
thin = curves.groupby(["image", "method", "measure"], sort=False).cumcount() % 2 == 0
settings = {
    "ties from the centre of their pixels": ({"ties": "centre"}, parts),
    "blur of 10 instead of 5 pixels": ({"blur": 10.0}, ["insertion"]),
    "ROAD at 20, 40, 60, 80": ({"percentiles": [20, 40, 60, 80]}, ["road"]),
}
tables = {"as on this page": own}
if steps > 1 and steps % 2 == 0:
    halved = curve_scores(curves[thin & curves["image"].isin(own["image"]) & curves["method"].isin(methods)])
    tables["half the steps"] = halved[halved["measure"] != "road"]
for setting, (changes, measured) in settings.items():
    measured = [m for m in measured if m in parts]
    if measured and again:
        tables[setting] = pd.concat(
            score(classifier, p, maps_of(classifier, p, explanations[p.id]), explanations[p.id][0].target, measures=measured,
                  **{"steps": steps, "percentiles": road_percentiles, "seed": seed} | changes).assign(image=p.id)
            for p in again
        )
values = pd.concat(
    table.groupby(["measure", "method"], sort=False)["value"].mean().rename("mean").reset_index().assign(setting=setting)
    for setting, table in tables.items()
)
leaders = {
    (setting, m): part.set_index("method")["mean"].agg("idxmin" if better[m] == "lower" else "idxmax")
    for (setting, m), part in values.groupby(["setting", "measure"], sort=False)
}
run.save_table("sensitivity", values)
figures.publish_table(
    run,
    pd.DataFrame(
        [
            {"setting": setting} | {m: faithfulness_figures.name_of(leaders[setting, m]) if (setting, m) in leaders else "" for m in parts}
            for setting in tables
        ]
    ),
    "faithfulness-sensitivity",
    f"The method with the best mean over {figures.many(len(again), 'photograph')}, by setting; empty where the setting does not matter.",
    {"setting": "setting"} | {m: faithfulness_figures.MEASURES[m] for m in parts},
)
firm = [m for m in parts if len({leader for (_, measure), leader in leaders.items() if measure == m}) == 1]
metrics["firm_leaders"] = len(firm)
display(
    Markdown(
        f"The leading method is the same under all settings for {len(firm)} of {len(parts)} measures. A leading mean is not "
        "a significant difference, and the measures answer different questions: **we call no method best.**"
    )
)

# %% tags=["remove-input"]
of_all = {p.id for p in chosen}
run.failures += [
    {"source": p.source, "reason": "not explained by every method"} for p in photographs if p.id not in of_all
]
if run.failures:
    display(Markdown(figures.not_used(run.failures, "Excluded")))

# %% [markdown]
# ## The evidence run
#
# The figures above show this run's photographs. The evidence run has the same measures for more photographs and networks;
# it was made once and is stored with the project (`make evidence` repeats it).

# %% tags=["remove-input"]
if kept:
    largest = max(manifest["counts"], key=lambda name: manifest["counts"][name].get("lime", 0))
    figures.publish(
        run,
        faithfulness_figures.differences_chart(kept_figures.comparison(decided, largest)),
        "faithfulness-kept",
        f"The evidence run on {kept_figures.network_name(largest)}: gain over each baseline with its 95 % interval; filled marks "
        "are significant. " + f"Photographs explained by LIME: {kept_figures.sample(manifest)}; by ScoreCAM: {kept_figures.sample(manifest, 'scorecam')}.",
        f"Dots with intervals by method, one panel a measure, of the evidence run on {kept_figures.network_name(largest)}.",
        decided[decided["kind"] == "baseline"],
        raster=False,
    )
    gains = kept_figures.gains(decided, "centre")
    figures.publish_table(
        run,
        gains,
        "faithfulness-kept-gains",
        "The evidence run: mean gain over the centred blob, by method and network (n photographs). A + (better) or − (worse) after a "
        "number marks a significant gain; the others are undecided. LIME, absolute: superpixels ranked by absolute weight (LIME 2).",
        {name: name for name in gains},
    )
else:
    display(Markdown("This project has no evidence run."))

# %% [markdown]
# ## Details
#
# **Measures.** Deletion replaces pixels by the network's zero input (gray); insertion restores them in an image blurred as
# in RISE: its kernel of 11 × 11 pixels, zero beyond the border.
# Region flipping replaces squares of 8 × 8 pixels by noise, up to 16 % of the image. ROAD imputes the missing pixels from
# their neighbours, so that the shape of the hole reveals less, and takes half the difference between removing the least
# and the most relevant pixels.
#
# **Baselines.** The random field is as coarse as a heatmap; its scores are averaged over several draws. Random single
# pixels would be a misleading baseline: they destroy all edges at once, so their deletion is effective for reasons
# unrelated to location.
#
# **Significance.** Differences are paired by photograph. A difference is significant if Student's interval of its mean
# {cite}`student1908` excludes zero and the p of Wilcoxon's signed-rank test, adjusted for all comparisons of this page by
# Holm's method {cite}`holm1979`, is below 0.05. The intervals shown are not adjusted. The figure's data
# has the raw and the adjusted p.
#
# **Ties.** Pixels of equal value, zero after ReLU or in one superpixel, are ordered at random, with a seed derived from
# the map.

# %% [markdown]
# ## Limits
#
# - Images with gray, blurred or noisy regions are out of distribution. The network's response mixes the loss of the
#   pixels with the effect of their replacement. ROAD's imputation reduces this effect, which may explain where it
#   disagrees with deletion.
# - The objects in these photographs are centred, which makes a centred blob a strong baseline. A method that does not
#   outperform it may still be correct.
# - LIME is fitted to the effect of hiding regions, which is also what deletion measures. These measures favour LIME over
#   the heatmaps.
# - Only the ranking of the pixels matters, not the size of their saliency. Where ties are broken at random, scattered
#   pixels do more damage than patches of the same size; the sensitivity table shows what another order changes.
# - The measures evaluate a map by this network's probability. They do not show whether the network uses the regions that
#   a person would use.
# - With few photographs only large and consistent differences are significant; undecided does not mean equal.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
