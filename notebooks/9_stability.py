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
# (task-stability)=
# # LIME's stability: would another run select the same superpixels?

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # the network of the LIME run, by the same name
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
outputs: str = "auto"  # what the network's output means; auto notices softmax, sigmoids and a single output, but not that logits are of independent labels (auto, logits, probabilities, multilabel or binary)
preprocessing: str = ""  # name of the torchvision weights whose transform is used; empty: the transform of the weights, or of the own file
label: str = ""  # short name of the network in captions; empty: model, without folders
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # the photographs of the LIME run
lime_run: str = "results/scratch/2_lime"  # a finished run of 2_lime
long_runs: int = 2  # photographs that get the long runs below, the first ones (at least 1)
pool: int = 8000  # samples of the first long run, split into shorter ones, the others are half as long; at least twice the largest of sizes that shall appear, and four times the smallest if long_runs is above 1 (at least 20)
sizes: list = [100, 200, 500, 1000, 2000, 4000]  # samples of the runs that are compared with each other (at least 10)
designs: list = ["antithetic", "orthogonal"]  # other ways to draw samples, measured against independent ones; may be empty (any of independent, antithetic or orthogonal)
design_pool: int = 1024  # samples for each of these; at least twice design_size (at least 20)
design_size: int = 256  # samples of the runs that they are split into, even (at least 10)
cut_samples: int = 250  # samples of a run on another segmentation; at most a quarter of pool (at least 10)
num_features: int = 10  # superpixels in a mask (at least 1)
segmentation: str = "quickshift"  # how photographs are segmented into superpixels (quickshift, slic or felzenszwalb)
hide_color: int = 0  # gray level of a hidden superpixel (from 0 to 255)
seed: int = 0  # of the samples (from 0 to 4294967295)
precision: str = "exact"  # how the network computes: exact is float32 (exact, tf32 or half)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/9_stability"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("9_stability", globals())

# %% tags=["remove-input"]
from contextlib import suppress

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from xailib.errors import InputError
from xailib.evaluate.stability import (
    MIN_FREQUENCY,
    compared_sizes,
    cuts_table,
    designs_table,
    needed,
    photographs_table,
    runs_table,
    weights_table,
)
from xailib.evaluate.truth import (
    LISTED,
    design_errors,
    exact_lime,
    exact_shapley,
    passes_for,
    stable_errors,
)
from xailib.explain.lime import SEGMENT_SEED, explain_lime
from xailib.explain.sampling import DESIGNS
from xailib.explain.stability import AGREEMENT, CONFIDENCE
from xailib.images.load import load_images
from xailib.networks.classifier import load_classifier
from xailib.report.figures import stability as stability_figures
from xailib.report.figures import style as figures
from xailib.report.run.results import load_explanations, project_root, run_digest, start_run

photographs = load_images(images)
own = [e for e in load_explanations(lime_run) if e.method == "lime" and not e.no_signal]
if not any((p.id, p.sha256) == (e.image, e.image_sha256) for p in photographs for e in own):
    raise InputError("images: none of these photographs is in the LIME run; give the same images")
classifier = load_classifier(model, weights, device, seed, precision, outputs=outputs, preprocessing=preprocessing)
long = photographs[:long_runs]
options = {"segments": segmentation, "hide_color": hide_color, "seed": seed}
kept = project_root() / "book" / "_data" / "lime"  # from benchmarks/lime_truth.py
run = start_run(
    out_dir,
    "9_stability",
    {"model": model, "images": images, "long_runs": long_runs, "pool": pool, "sizes": sizes, "designs": designs, "design_pool": design_pool, "design_size": design_size, "cut_samples": cut_samples, "num_features": num_features, **options},
    photographs,
    [*classifier.files, kept / "masks.npz", kept / "seeds.csv"],
    weights=classifier.identity,
    runs={lime_run: run_digest(project_root() / lime_run)},
)


def sampled(name, samples, some, **changes):
    chosen = {"num_samples": samples, **options, **changes}
    return run.explanations(
        some, f"lime.{name}", chosen, lambda p: explain_lime(classifier, p, **chosen)
    )


pools = {"independent": []}
for photograph in long:
    with suppress(InputError):  # is among the run's failures; the other photographs are enough
        pools["independent"] += sampled("independent", pool if photograph is long[0] else pool // 2, [photograph])
pools["independent"] = [e for e in pools["independent"] if not e.no_signal]
if not pools["independent"]:
    nothing = "explanations: none says anything about its class"
    raise InputError(run.failures[-1]["reason"] if run.failures else nothing)
long = [p for p in long if p.sha256 in {e.image_sha256 for e in pools["independent"]}]
pools |= {design: sampled(design, design_pool, long, design=design) for design in designs}
other = "slic" if segmentation != "slic" else "quickshift"
another_seed = seed ^ 1
cuts = {
    f"{segmentation}, another seed": sampled("cut1", cut_samples, long, seed=another_seed, segment_seed=another_seed),
    other: sampled("cut2", cut_samples, long, seed=another_seed, segments=other),
}

# %% tags=["remove-input"]
table, details = photographs_table(own, num_features, classifier.device)
runs = runs_table(pools["independent"], sizes, num_features)
means = runs.groupby("samples")[["shared", "iou", "rank_correlation"]].mean()
enough = {e.image: needed(e, num_features=num_features, device=classifier.device) for e in pools["independent"]}
drawn = {e.image: len(e.superpixels.shown) for e in pools["independent"]}
samples = int(table["samples"].median())
metrics = {
    "images": len(table),
    "samples": samples,
    "stable": int(table["stable"].sum()),
    "shared": table["shared"].mean(),
    "sure": table["sure"].mean(),
    "long_runs": len(pools["independent"]),
    **{f"shared_{size}": row.shared for size, row in means.iterrows()},
    **{f"iou_{size}": row.iou for size, row in means.iterrows()},
}
least, most = compared_sizes(runs)
metrics["finding"] = (
    f"Two halves of LIME's {samples} samples share **{table['shared'].mean():.0%}** of the superpixels "
    f"that they select; **{metrics['stable']} of {len(table)}** masks count as stable."
)
display(
    Markdown(
        f"**Answer.** Two runs of LIME that differ only in their random samples share "
        f"{means.loc[least, 'shared']:.0%} of their {num_features} superpixels with {least} samples each and "
        f"{means.loc[most, 'shared']:.0%} with {most} (mean over {figures.many(len(set(runs['image'])), 'photograph')}). "
        f"Of the {len(table)} masks in this report, with {samples} samples each, {metrics['stable']} "
        f"{'is' if metrics['stable'] == 1 else 'are'} stable by the criterion below; on average {table['sure'].mean():.1f} of "
        f"{num_features} superpixels are selected in at least {MIN_FREQUENCY:.0%} of half-samples."
    )
)

# %% [markdown]
# ## Method
#
# LIME fits its weights to random samples {cite}`ribeiro2016`, so another seed gives other weights: two runs differ. We
# measure this directly, by splitting one long run into disjoint shorter runs and comparing all pairs of them. We also
# estimate it from a single run, by splitting its samples:
#
# $$
# s = \frac{|M_1 \cap M_2|}{\max(|M_1|, |M_2|)} ,
# $$
#
# where $M_1$ and $M_2$ are the masks from two random halves of the samples. The halves are independent runs of half the
# length, so $s$ is a conservative estimate for the whole run.

# %% tags=["remove-input"]
display(
    Markdown(
        f"A mask is **stable** if $s \\geq {AGREEMENT}$ in {CONFIDENCE:.0%} of the random splits. The **selection frequency** of a "
        f"superpixel is the share of half-samples that select it; we count superpixels of the mask with at least {MIN_FREQUENCY:.0%}. "
        '`explain_lime(..., num_samples="auto")` draws samples until the mask is stable or a maximum is reached. '
        "Intervals of the weights are bootstrap intervals {cite}`efron1979`: the linear model is refitted to samples drawn with replacement. "
        "None of this needs further passes through the network."
    )
)

# %% [markdown]
# ## Agreement between runs

# %% tags=["remove-input"]
figures.publish(
    run,
    stability_figures.runs_chart(runs),
    "stability-runs",
    f"Agreement of two LIME runs on {label}, by their number of samples (mean over all pairs of disjoint runs "
    f"from {pool} samples of the first photograph and half as many of the others). Dashed: the split-half estimate from a single run of twice as many samples.",
    "Three line charts that rise with the number of samples. Share of common superpixels: "
    + "; ".join(f"{size} samples {row.shared:.0%}" for size, row in means.iterrows()),
    runs,
    raster=False,
)
said = "; ".join(
    f"*{figures.verbatim(image)}*: {f'{count} samples' if count else f'not after {drawn[image]}'}" for image, count in enough.items()
)
display(Markdown(f"Samples at which `\"auto\"` finds the mask stable: {said}."))

# %% [markdown]
# ## Uncertainty of the weights

# %% tags=["remove-input"]
weights_of_one = weights_table(own[0], details[0], num_features)
figures.publish(
    run,
    stability_figures.weights_chart(weights_of_one),
    "stability-weights",
    f"Every superpixel of *{figures.verbatim(own[0].image)}* ({figures.verbatim(own[0].target_name)}): its weight with the 95 % bootstrap interval from "
    f"{details[0].samples} samples (filled: in the mask); below, its selection frequency in half-samples.",
    f"Weights of {len(details[0].low)} superpixels with intervals, sorted; bars of their selection frequencies.",
    weights_of_one,
    raster=False,
)
views = {p.id: classifier.view(p).pixels for p in photographs}
shown = [(e, found) for e, found in zip(own, details, strict=True) if e.image in views]
figures.publish(
    run,
    figures.gallery(
        [
            [
                views[e.image],
                figures.lime_row(views[e.image], e, num_features)[2],
                figures.heat(views[e.image], stability_figures.selection_map(e, found)),
            ]
            for e, found in shown
        ],
        ["view", "LIME 1", "selection frequency"],
        [f"{e.image}: {'stable' if found.stable else 'unstable'}" for e, found in shown],
        scales=["frequency"],
    ),
    "stability-gallery",
    f"The mask of the {num_features} superpixels that support the prediction most, and the selection frequency of "
    "each superpixel. A sharp mask can hide this uncertainty.",
    "Grid of photographs, LIME's masks and heatmaps of selection frequencies. "
    + "; ".join(f"{row.image}: {row.sure} of {row.chosen} superpixels above the frequency threshold" for row in table.itertuples()),
    table,
)

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
figures.publish_table(
    run,
    table.assign(verdict=table["stable"].map({True: "stable", False: "unstable"})),
    "stability-photographs",
    "Split-half stability of each explanation on the LIME page. Shared superpixels, IoU and rank correlation: between two halves, mean over splits. "
    f"Frequent: superpixels of the mask with a selection frequency of at least {MIN_FREQUENCY:.0%}. Samples needed: the first check at which `\"auto\"` "
    "finds the mask stable (later checks may differ); a dash if none does.",
    {
        "image": "photograph",
        "samples": "samples",
        "superpixels": "superpixels",
        "shared": "shared",
        "iou": "IoU",
        "rank_correlation": "rank correlation",
        "sure": "frequent",
        "chosen": "in the mask",
        "verdict": "mask",
        "needed": "samples needed",
    },
    {"shared": "{:.0%}", "iou": "{:.2f}", "rank_correlation": "{:.2f}", "needed": "{:.0f}"},
)
few = table.loc[table["shared"].idxmin()]
display(
    Markdown(
        f"The least stable explanation is that of *{figures.verbatim(few['image'])}*, with {few['superpixels']} superpixels: its halves share {few['shared']:.0%}. "
        f"On average {metrics['sure']:.1f} of {num_features} superpixels are selected in at least {MIN_FREQUENCY:.0%} of half-samples. The selection varies at the "
        "end of the ranking, where several superpixels have similar weights but the number selected is fixed."
    )
)

# %% [markdown]
# ## Variance reduction at equal cost

# %% tags=["remove-input"]
if designs:
    passes = designs_table(pools, design_size)
    average = passes.groupby("design", sort=False)["passes"].mean()
    metrics |= {f"passes_{design}": value for design, value in average.items()}
    figures.publish(
        run,
        stability_figures.designs_chart(passes),
        "stability-designs",
        f"Passes needed for the same variance of a weight, relative to lime's independent samples (runs of {design_size} samples). "
        "Bars: mean over photographs. Antithetic: every second sample is the complement of the previous one. "
        "Orthogonal: antithetic, and any two superpixels are uncorrelated within a block of samples.",
        "Bars: " + "; ".join(f"{design} {value:.0%}" for design, value in average.items()),
        passes,
        raster=False,
    )
    best = average.idxmin()
    display(
        Markdown(
            "No design is better than independent samples here."
            if best == "independent"
            else f"Fewest passes: {best}, with {average[best]:.0%} of those of independent samples. Pairwise interactions "
            "cancel in the difference between a sample and its complement. "
            f'`explain_lime(..., design="{best}")` uses this design.'
        )
    )

# %% [markdown]
# ## Error against the exact weights
#
# Low variance does not exclude bias. With few superpixels, LIME's weights for infinitely many samples can be computed:
# we scored all $2^d$ masks of photographs with few SLIC superpixels once (stored results, EfficientNet-Lite0), solve the
# weighted regression exactly, and measure the error of LIME's runs. Two published designs need a list of all masks:
# *paired* draws distinct complementary pairs, *leverage* draws masks by their leverage in the regression
# {cite}`musco2025`.

# %% tags=["remove-input"]
masks = dict(np.load(kept / "masks.npz"))
counted = [64, 128, 256, 512, 1000]
repeats, usual = 40, counted[-1]
errors = design_errors(masks, [*DESIGNS, *LISTED], counted, runs=repeats, seed=seed)
stops = stable_errors(masks, ["independent", "orthogonal"], seed=seed)
needs = passes_for(errors)
exact = {image: (exact_lime(scores), exact_shapley(scores)) for image, scores in masks.items()}
like = np.mean([pd.Series(one).corr(pd.Series(other), method="spearman") for one, other in exact.values()])
counts = [len(scores).bit_length() - 1 for scores in masks.values()]
at = errors[errors["samples"] == usual].groupby("design", sort=False)["error"].mean()
stopped = stops.groupby("design", sort=False)[["samples", "error"]].mean()
metrics |= {f"needs_{design}": value for design, value in needs.items()}
metrics |= {f"error_{design}": value for design, value in at.items()} | {"truths": len(masks), "lime_shapley": like}
run.save_table("truth-stops", stops)
figures.publish(
    run,
    stability_figures.truth_chart(errors, stops, usual),
    "stability-truth",
    f"Root mean squared error of LIME's weights against the exact ones, relative to their size, by number of samples (mean over "
    f"{figures.many(len(masks), 'photograph')} of {min(counts)} to {max(counts)} superpixels, {repeats} runs each). Dashed: {usual} independent samples. Large hollow "
    'marks: where `"auto"` stops, for half of the superpixels in the mask.',
    f"Falling lines, one a design. Samples for the error of {usual} independent ones: " + "; ".join(f"{d} {n:.0f}" for d, n in needs.items()),
    errors,
    raster=False,
)
usable = needs[list(DESIGNS)]
display(
    Markdown(
        f"{usual} independent samples have an error of {at['independent']:.1%}. The same error takes "
        + ", ".join(f"{needs[d]:.0f} {d}" for d in needs.index if d != "independent")
        + f" samples. Of the designs for any number of superpixels, *{usable.idxmin()}* needs fewest: {usable.min() / usual:.0%}"
        + (f" ({average[usable.idxmin()]:.0%} on {segmentation}'s superpixels, by the variance above)" if designs and usable.idxmin() in average else "")
        + ". *Paired* gains because few masks are left to draw; with a usual segmentation it equals *antithetic*. "
        "The report draws orthogonal samples by default; `design: independent` is lime's own sampling.\n\n"
        + "; ".join(f'`"auto"` with {d} samples stops after {row.samples:.0f} on average, with an error of {row.error:.1%}' for d, row in stopped.iterrows())
        + f". The exact LIME weights and the exact Shapley values have a mean rank correlation of {like:.2f}: even without sampling error they are two "
        "different quantities."
    )
)

# %% [markdown]
# ## Effect of the segmentation

# %% tags=["remove-input"]
cut = cuts_table(pools["independent"], cuts, num_features)
figures.publish_table(
    run,
    cut,
    "stability-cuts",
    f"Runs of {cut_samples} samples on another segmentation, compared with runs of equal length on the default one ({segmentation}). "
    "Segmentation overlap: mean over pixels of the IoU of a pixel's two superpixels. Mask IoU: between a "
    "run on the other segmentation and runs on the default one, and between two runs on the default one.",
    {
        "image": "photograph",
        "cut": "other segmentation",
        "superpixels": "superpixels",
        "same": "segmentation overlap",
        "iou": "mask IoU, other",
        "usual": "mask IoU, default",
        "runs": "runs",
    },
    {"same": "{:.3f}", "iou": "{:.2f}", "usual": "{:.2f}"},
)
by_cut = cut.groupby("cut", sort=False)[["same", "iou", "usual"]].mean()
reseeded, replaced = by_cut.iloc[0], by_cut.iloc[1]
seeds = pd.read_csv(kept / "seeds.csv")
metrics |= {"cut_same": reseeded["same"], "cut_iou": reseeded["iou"], "cut_usual": reseeded["usual"]}
metrics |= {"other_cut_same": replaced["same"], "other_cut_iou": replaced["iou"]}
display(
    Markdown(
        f"LIME's superpixels do not depend on its seed: lime does not pass its seed to the segmentation, which always has seed {SEGMENT_SEED}. Another seed of "
        f"quickshift changes the superpixels in {(~seeds['same']).sum()} of {len(seeds)} ImageNet photographs (stored results); in the table, the overlap is {reseeded['same']:.1%}, "
        f"and the mask IoU {reseeded['iou']:.2f} against {reseeded['usual']:.2f} with the same segmentation."
        + f" With another algorithm ({other}, overlap {replaced['same']:.1%}), the mask IoU is {replaced['iou']:.2f}."
    )
)

# %% tags=["remove-input"]
if run.failures:
    display(Markdown(figures.not_used(run.failures)))

# %% [markdown]
# ## Limits
#
# - All results except the last table concern sampling alone, with a fixed segmentation.
# - A stable mask is repeatable, but not necessarily [faithful](task-faithfulness) to the network.
# - The long runs cover few photographs; others may behave differently.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
