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
# (task-lime)=
# # LIME: which superpixels support the prediction?

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # a name that load_classifier knows, or path/to/file.py:function
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
outputs: str = "auto"  # what the network's output means; auto notices softmax, sigmoids and a single output, but not that logits are of independent labels (auto, logits, probabilities, multilabel or binary)
preprocessing: str = ""  # name of the torchvision weights whose transform is used; empty: the transform of the weights, or of the own file
label: str = ""  # short name of the network in captions; empty: model, without folders
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # packaged names, files or folders
target: str = ""  # class to explain, by name or index, a name that is a number in quotes; empty: each photograph's predicted one
num_samples: int = 640  # perturbed images for each photograph (at least 10)
until_stable: bool = False  # draw until the mask is stable instead, at most max_samples
max_samples: int = 4000  # the most that until_stable draws (at least 10)
design: str = "orthogonal"  # how samples are drawn, lime's way is independent (independent, antithetic or orthogonal)
num_features: int = 10  # superpixels in a mask (at least 1)
segmentation: str = "quickshift"  # how photographs are segmented into superpixels (quickshift, slic or felzenszwalb)
hide_color: int = 0  # gray level of a hidden superpixel (from 0 to 255)
seed: int = 0  # of the samples (from 0 to 4294967295)
precision: str = "exact"  # how the network computes: exact is float32 (exact, tf32 or half)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/2_lime"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("2_lime", globals())

# %% tags=["remove-input"]
import pandas as pd
from IPython.display import Markdown, display

from xailib.compare.masks import lime_mask
from xailib.errors import InputError
from xailib.evaluate.stability import photographs_table
from xailib.explain.preflight import workable
from xailib.explain.requests import requests_of
from xailib.images.load import load_images
from xailib.networks.classifier import load_classifier
from xailib.report.figures import style as figures
from xailib.report.run.results import start_run

photographs = load_images(images)
classifier = load_classifier(model, weights, device, seed, precision, outputs=outputs, preprocessing=preprocessing)
workable(classifier, ["lime"])  # raises, with the reason, where LIME cannot work
(work,) = requests_of("2_lime", classifier, globals())
run = start_run(
    out_dir,
    "2_lime",
    {"model": model, "images": images, **work.key, "num_features": num_features},
    photographs,
    classifier.files,
    weights=classifier.identity,
)
explanations = list(run.streamed(photographs, work.method, work.key, work.explain))
said = [explanation for explanation in explanations if not explanation.no_signal]
if not said:
    raise InputError(f"explanations: none says anything about its class: {explanations[0].no_signal}")

# %% tags=["remove-input"]
certain, _ = photographs_table(said, num_features, classifier.device)
rows = []
for explanation, sure in zip(said, certain.itertuples(), strict=True):
    lime1 = lime_mask(explanation, num_features, "positive")
    lime2 = lime_mask(explanation, num_features, "both")
    rows.append(
        {
            "image": explanation.image,
            "target": explanation.target_name,
            "probability": explanation.probability,
            "superpixels": len(explanation.superpixels.weights),
            "lime1_area": (lime1 != 0).mean(),
            "lime2_area": (lime2 != 0).mean(),
            "opposing": sum(
                explanation.superpixels.weights[i] < 0
                for i in explanation.superpixels.ranked(num_features)
            ),
            "fit": explanation.superpixels.fit,
            "samples": sure.samples,
            "in_common": sure.shared,
            "mask": "stable" if sure.stable else "unstable",
        }
    )
table = pd.DataFrame(rows)
few = table.loc[table["superpixels"] <= num_features, "image"].tolist()
asked = min(num_features, int(table["superpixels"].max()))
said = f"The {figures.many(asked, 'superpixel')} that support{'s' * (asked == 1)}"
strongest = f"at least one of the {asked} strongest superpixels" if asked > 1 else "the strongest superpixel"
drawn = " to ".join(str(n) for n in sorted({table["samples"].min(), table["samples"].max()}))
metrics = {
    "images": len(table),
    "samples": int(table["samples"].median()),
    "stable": int((table["mask"] == "stable").sum()),
    "features": num_features,
    "area_percent": 100 * table["lime1_area"].median(),
    "area_least_percent": 100 * table["lime1_area"].min(),
    "area_most_percent": 100 * table["lime1_area"].max(),
    "with_opposing": int((table["opposing"] > 0).sum()),
    "fit_median": table["fit"].median(),
    "fit_least": table["fit"].min(),
    "finding": f"{said} a prediction most cover{'s' * (asked == 1)} "
    f"**{100 * table['lime1_area'].median():.0f} %** of the view in the median photograph.",
    "fit_least_image": table.loc[table["fit"].idxmin(), "image"],
}
display(
    Markdown(
        f"**Answer.** {said} the explained class most cover{'s' * (asked == 1)} "
        f"{metrics['area_percent']:.0f} % of the view in the median photograph "
        f"({metrics['area_least_percent']:.0f} to {metrics['area_most_percent']:.0f} % over {figures.many(len(table), 'photograph')}). "
        f"In {metrics['with_opposing']} of {figures.many(len(table), 'photograph')} {strongest} "
        "*opposes* the class: positive and negative weights must be separated."
    )
)
if few:
    display(
        Markdown(
            f"**No more than {num_features} superpixels** in {', '.join(map(figures.verbatim, few))}: there a mask "
            "holds all superpixels of its signs, and selects nothing."
        )
    )
if nothing := figures.left_out(explanations):
    display(Markdown(nothing))

# %% [markdown]
# ## Method
#
# LIME {cite}`ribeiro2016` segments the network's input into superpixels and hides each of them
# with probability one half, `num_samples` times. It then fits a ridge regression to the target's
# probability $f$, in which samples with fewer hidden superpixels have larger weights:
#
# $$
# \begin{gathered}
# \hat w = \arg\min_w \sum_z e^{-D(z)^2/\sigma^2}\, r(z)^2 + \lVert w \rVert^2 , \\
# r(z) = f(z) - w_0 - w^\top z ,
# \end{gathered}
# $$
#
# where $z_i = 1$ if superpixel $i$ is shown, $D$ is the cosine distance to the unperturbed input, and
# $\sigma = 0.25$. **LIME 1** is the mask of the superpixels with the largest positive weights,
# **LIME 2** that of the largest absolute weights, whatever their sign. Both masks are defined as in
# the replicated report.

# %% [markdown]
# ## The explanations

# %% tags=["remove-input"]
unstable = set(table.loc[table["mask"] == "unstable", "image"])
views = [
    explanation.frame.show(photographs[explanation.image].pixels) for explanation in explanations
]
figures.publish(
    run,
    figures.gallery(
        [figures.lime_row(v, e, num_features) for v, e in zip(views, explanations, strict=True)],
        ["view", "weights", "LIME 1", "LIME 2"],
        [figures.describe(e) + (" *" if e.image in unstable else "") for e in explanations],
        key={"supports": figures.COLOURS["lime+"], "opposes": figures.COLOURS["lime-"]},
        scales=["signed"],
    ),
    "lime-gallery",
    f"LIME on {label}, {drawn} samples. Each row: the network's input; the weight of every "
    "superpixel (red supports the class, blue opposes it); "
    f"LIME 1, the {asked} largest positive weights; LIME 2, the {asked} largest absolute weights. "
    "Outlines: orange supports, blue opposes; the rest is dimmed. Above each row: photograph, explained class and its probability; a star "
    "marks an unstable mask, for which another run may select other superpixels.",
    f"Grid of {figures.many(len(explanations), 'photograph')} with LIME's weights and its two masks. "
    + "; ".join(
        f"{r.image}: mask covers {100 * r.lime1_area:.0f} percent" for r in table.itertuples()
    ),
    table,
)

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
figures.publish_table(
    run,
    table,
    "lime-masks",
    f"LIME's masks by photograph, with {drawn} samples. Area: share of the network's input. Opposing: number of superpixels in "
    "LIME 2 with a negative weight. R²: weighted fit of the linear model. Shared by halves: share of the superpixels that two halves of the samples both select.",
    {
        "image": "photograph",
        "target": "explained class",
        "probability": "probability",
        "superpixels": "superpixels",
        "lime1_area": "area of LIME 1",
        "lime2_area": "area of LIME 2",
        "opposing": "opposing",
        "fit": "R²",
        **({"samples": "samples"} if table["samples"].nunique() > 1 else {}),
        "in_common": "shared by halves",
        "mask": "mask",
    },
    {"probability": "{:.2f}", "lime1_area": "{:.0%}", "lime2_area": "{:.0%}", "fit": "{:.2f}", "in_common": "{:.0%}"},
)
display(
    Markdown(
        f"The linear model explains {metrics['fit_median']:.0%} of the (weighted) variance of the "
        f"probability in the median photograph, least for *{figures.verbatim(metrics['fit_least_image'])}* "
        f"({metrics['fit_least']:.0%}). Where the fit is poor, the network's response to hidden regions "
        "is not additive over superpixels, and the weights are less informative."
    )
)
display(
    Markdown(
        f"**Repeatability.** {metrics['stable']} of {len(table)} masks are stable with {drawn} samples; for the others "
        "another run may select several different superpixels. The page on [stability](task-stability) defines the term and estimates the samples needed."
    )
)

# %% tags=["remove-input"]
if run.failures:
    display(Markdown(figures.not_used(run.failures)))

# %% tags=["remove-input"]
scarce = table[table["superpixels"] * 5 > table["samples"]]["image"].tolist()
if scarce:
    display(
        Markdown(
            f"**Too few samples** for {', '.join(map(figures.verbatim, scarce))}: with fewer than five samples per superpixel the linear model "
            "overfits, and its R² is too optimistic."
        )
    )

# %% [markdown]
# ## Limits
#
# - The segmentation limits the explanation: an object that shares a superpixel with its
#   background cannot be separated from it.
# - Hidden superpixels get one gray level, to which the network may itself respond.
# - The samples are random. Another `seed` gives other weights, and often [another mask](task-stability).
# - The number of selected superpixels is fixed, even if fewer would suffice: the mask's area depends
#   on this number as much as on the photograph.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
