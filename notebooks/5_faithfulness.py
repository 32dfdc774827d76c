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
# # Faithfulness: does the prediction follow the pixels that an explanation ranks high?

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # the network of the two runs, by the same name
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # the photographs of the two runs
lime_run: str = "results/scratch/2_lime"  # a finished run of 2_lime
cam_run: str = "results/scratch/3_cam"  # a finished run of 3_cam, same network and targets
steps: int = 32  # of each curve from the whole image to none of it (at least 1)
road_percentiles: list = [70, 90]  # ROAD imputes the pixels above; empty: no ROAD, the slowest part (between 0 and 100)
draws: int = 3  # of the random baseline for each photograph, averaged (at least 1)
seed: int = 0  # of the random baseline and the noise (from 0 to 4294967295)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/5_faithfulness"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("5_faithfulness", globals())

# %% tags=["remove-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from xailib.errors import InputError
from xailib.evaluate.faithfulness import explanation_curves, maps_of, neutral_colour
from xailib.evaluate.perturbation import centred_blob, deleted
from xailib.evaluate.scores import compare_with_baselines, curve_scores
from xailib.images.load import load_images
from xailib.networks.classifier import load_classifier
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
classifier = load_classifier(model, weights or None, device, seed)
for photograph in chosen:  # before the long work
    maps_of(classifier, photograph, explanations[photograph.id])
run = start_run(
    out_dir,
    "5_faithfulness",
    {
        "model": model,
        "images": images,
        "steps": steps,
        "road_percentiles": road_percentiles,
        "draws": draws,
        "seed": seed,
    },
    photographs,
    classifier.files,
    weights=classifier.identity,
    runs={folder: run_digest(project_root() / folder) for folder in (lime_run, cam_run)},
)
options = {"steps": steps, "percentiles": road_percentiles, "draws": draws, "seed": seed}
curves = pd.concat(
    explanation_curves(classifier, photograph, explanations[photograph.id], **options)
    for photograph in chosen
)
scores = curve_scores(curves)
compared = compare_with_baselines(scores)
run.save_table("curves", curves)
run.save_table("scores", scores)

# %% tags=["remove-input"]
of_methods = compared[compared["method"].isin(methods)]
counts = of_methods.groupby(["baseline", "verdict"]).size().unstack(fill_value=0)
counts = counts.reindex(columns=["better", "worse", "undecided"], fill_value=0)
rivals = faithfulness_figures.BASELINE_NAMES
metrics = {"images": len(chosen), "comparisons": int(counts.loc["random"].sum())}
for baseline in rivals:
    metrics |= {f"{baseline}_{v}": int(counts.loc[baseline, v]) for v in counts.columns}
metrics["finding"] = (
    f"{len(methods)} methods by {compared['measure'].nunique()} measures: better than a random map in "
    f"**{metrics['random_better']} of {metrics['comparisons']}** cases, better than a blob in the picture's centre in "
    f"**{metrics['centre_better']}**."
)
answer = (
    f"**Answer.** {len(methods)} methods, {compared['measure'].nunique()} measures, {metrics['images']} photographs. "
)
for baseline, name in rivals.items():
    won, lost = metrics[f"{baseline}_better"], metrics[f"{baseline}_worse"]
    missing = faithfulness_figures.not_beaten(of_methods, baseline)
    answer += f"Against the {name}, **{won} of {metrics['comparisons']}** comparisons are won and {lost} lost"
    answer += f"; not won: {missing}. " if missing and won else ". "
    answer += "" if missing else "Every method beats it on every measure. "
    answer += "" if won else "No method is shown to beat it on any measure. "
display(Markdown(answer))
if metrics["images"] < 6:
    display(
        Markdown("With fewer than six photographs no comparison can be decided: the test has too few signs to count.")
    )

# %% [markdown]
# ## Method
#
# A faithful explanation ranks high the pixels that the prediction rests on, so replacing pixels in its order must
# change the probability $p$ of the explained category. **Deletion** and **insertion** {cite}`petsiuk2018` are scored
# by the area under their curve over the share $q$ of pixels, low and high respectively, and **region flipping**
# {cite}`samek2017` by the mean loss over its steps,
#
# $$ \mathrm{AUC} = \int_0^1 p(q)\,dq, \qquad \mathrm{AOPC} = \frac{1}{L+1} \sum_{k=0}^{L} \bigl(p_0 - p_k\bigr). $$
#
# The same is done, with **ROAD** {cite}`rong2022` beside them, for two maps that know nothing of the network: a smooth
# **random field** and a **blob in the centre**.

# %% [markdown]
# ## The curves

# %% tags=["remove-input"]
names = [faithfulness_figures.name_of(method) for method in methods]
figures.publish(
    run,
    faithfulness_figures.curves_chart(curves),
    "faithfulness-curves",
    f"Mean probability of the explained category over {metrics['images']} photographs while pixels are deleted (a "
    "faithful map falls early), put back into a blurred picture (rises early), or squares are flipped to noise (falls "
    "early). Bands are 95 % intervals of each mean once what a photograph has in common for all maps is taken out.",
    f"Three panels of curves for {', '.join(names)}, a random field and a centred blob.",
    curves,
    raster=False,
)

# %% tags=["remove-input"]
figures.publish(
    run,
    faithfulness_figures.differences_chart(compared),
    "faithfulness-differences",
    "How much better than each baseline, photograph by photograph: mean paired difference with its 95 % "
    "interval. Right of the line is better; for deletion, where less is better, the sign is turned. Filled marks are "
    "decided (interval without zero, adjusted p below 0.05), hollow ones are not.",
    "Dots with intervals by method, one panel a measure. Not better than the random field: "
    f"{faithfulness_figures.not_beaten(compared, 'random') or 'none'}.",
    compared,
    raster=False,
)

# %% [markdown]
# ## One photograph being deleted

# %% tags=["remove-input"]
deletion = curves[curves["measure"] == "deletion"].pivot_table(
    index=["image", "method"], columns="fraction", values="score", sort=False
)
means = deletion.groupby(level="image", sort=False).mean().mean(axis=1)
shown = photographs[(means - means.median()).abs().idxmin()]
of_shown = deletion.loc[shown.id]
view = classifier.view(shown).pixels
maps = maps_of(classifier, shown, explanations[shown.id]) | {"centre": centred_blob(view.shape[:2])}
rows = [method for method in dict.fromkeys([methods[0], "gradcam", methods[-1], "centre"]) if method in maps]
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
    f"The photograph {shown.id} while the pixels that each map ranks highest are deleted; below each picture the probability of "
    f"“{explanations[shown.id][0].target_name}”. It is the photograph with the middle mean deletion score of all.",
    f"Rows of pictures of {shown.id} with more and more of it gray. Probability at the end of each row: "
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
    f"Mean scores over {metrics['images']} photographs. The arrow says which way is better.",
    {"method": "map"} | {m: f"{faithfulness_figures.MEASURES[m]} {arrows[better[m]]}" for m in wide},
    dict.fromkeys(wide, "{:.3f}"),
)
best = {m: wide.loc[methods, m].agg("idxmin" if better[m] == "lower" else "idxmax") for m in wide}
metrics |= {f"best_{measure}": method for measure, method in best.items()}
metrics |= {f"{method.replace('+', 'p')}_{m}": float(wide.loc[method, m]) for m in wide for method in wide.index}
of_centre = compared[(compared["method"] == "centre") & (compared["verdict"] == "better")]["measure"]
centre_wins = ", ".join(faithfulness_figures.MEASURES[m] for m in of_centre)
display(
    Markdown(
        "Best mean of all methods: "
        + "; ".join(f"{faithfulness_figures.MEASURES[m]} {faithfulness_figures.name_of(b)}" for m, b in best.items())
        + ". "
        + (
            "All measures put the same method first. "
            if len(set(best.values())) == 1
            else "The measures do not agree on which method is best. "
        )
        + (
            f"The centred blob, which has seen neither network nor photograph, beats the random field on {centre_wins}: "
            "that much is won by knowing that photographers put things in the middle."
            if centre_wins
            else "The centred blob is not shown to beat the random field on any measure."
        )
    )
)

# %% tags=["remove-input"]
kept = {p.id for p in chosen}
run.failures += [
    {"source": p.source, "reason": "not explained by every method"} for p in photographs if p.id not in kept
]
if run.failures:
    lines = "\n".join(f"- `{failure['source']}`: {failure['reason']}" for failure in run.failures)
    display(Markdown(f"**Left out:**\n\n{lines}"))

# %% [markdown]
# ## Details
#
# **Measures.** Deletion replaces pixels by the network's zero (gray), and insertion puts them back into a blurred
# picture. Region flipping replaces squares of 8 × 8 pixels by noise, up to 16 % of the picture. ROAD imputes the missing
# pixels from their neighbours, so that the outline of a hole tells less, and takes half the difference between removing
# the least and the most relevant pixels.
#
# **Baselines.** The random field is as coarse as a heatmap, and averaged over several draws. Random single pixels would
# be a false opponent: they destroy all edges at once, so that their deletion is strong for a reason that has nothing to
# do with places.
#
# **Won or lost.** Differences are paired by photograph. One is decided if Student's interval of its mean
# {cite}`student1908` excludes zero and the p of Wilcoxon's signed-rank test, adjusted for all comparisons of this page
# {cite}`benjamini1995`, is below 0.05. The intervals shown are each of one comparison alone.

# %% [markdown]
# ## Limits
#
# - Pictures with gray, blurred or noisy parts are unlike anything that the network was trained on. Its answer to
#   them mixes the loss of the pixels with the strangeness of what replaces them. ROAD's imputation is there to
#   reduce that, and where it disagrees with deletion, this is a likely reason.
# - Objects of these photographs stand in the middle, so that a centred blob is a strong opponent; a method that does
#   not beat it may still be right.
# - LIME is fitted to what happens when parts are hidden, which is what deletion does: these measures are nearer to its
#   own question than to that of the heatmaps.
# - Only the order of the pixels is judged, not how much more one matters than another. Ties, which ReLU leaves at
#   zero and superpixels leave inside each of them, are broken at random, and scattered pixels do more damage than
#   patches of the same size.
# - The measures judge the map by this network's probability. They do not say whether the network looks at what a
#   person would.
# - The photographs are few, so only large and regular differences can be decided; undecided is not the same as equal.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
