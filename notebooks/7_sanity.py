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
# (task-sanity)=
# # Sanity: do the maps depend on what the network has learnt?

# %% tags=["parameters"]
model: str = "tf_efficientnet_lite0"  # a name that load_classifier knows, or path/to/file.py:function
weights: str = ""  # file with a state dict, name of torchvision weights, or random; empty: the published ones
outputs: str = "auto"  # what the network's output means; auto notices softmax, sigmoids and a single output, but not that logits are of independent labels (auto, logits, probabilities, multilabel or binary)
preprocessing: str = ""  # name of the torchvision weights whose transform is used; empty: the transform of the weights, or of the own file
label: str = ""  # short name of the network in captions; empty: model, without folders
images: list = ["bull-mastiff", "dalmatian", "goose", "bald-eagle", "leafhopper", "dung-beetle", "strawberry", "cannon", "jeep-blue", "drum"]  # packaged names, files or folders
first: int = 6  # how many of these photographs are checked, the first ones (at least 2)
methods: list = ["gradcam", "ablationcam", "scorecam"]  # heatmaps that are checked (any of gradcam, gradcam++, xgradcam, hirescam, layercam, ablationcam or scorecam)
others: list = ["lime", "guided", "edges"]  # beside them: guided is backpropagation, edges a control that must fail (any of lime, gradcam, gradcam++, xgradcam, hirescam, layercam, ablationcam, scorecam, guided or edges)
sparse: list = ["lime", "scorecam"]  # methods with hundreds of passes a map: made only for the last stage, to save time (any of lime, gradcam, gradcam++, xgradcam, hirescam, layercam, ablationcam, scorecam, guided or edges)
sparse_first: int = 3  # photographs for these, the first ones (at least 2)
redraws: int = 5  # how often random weights are drawn; not for sparse methods (at least 1)
middle: bool = False  # make these for the middle stage too, about a minute more
stages: int = 5  # steps in which the network is randomised, from the output layer down; at most one a layer (at least 2)
lime_samples: int = 200  # LIME's perturbed images, of trained and random networks alike (at least 10)
layer: str = ""  # layer whose maps are weighted, as in named_modules; empty: the last with feature maps
seed: int = 0  # of random weights and LIME's samples (from 0 to 4294967295)
precision: str = "exact"  # how the network computes: exact is float32 (exact, tf32 or half)
device: str = "auto"  # auto, cpu, cuda or mps
out_dir: str = "results/scratch/7_sanity"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("7_sanity", globals())

# %% tags=["remove-input"]
from functools import cache

import numpy as np
from IPython.display import Markdown, display

from xailib.errors import InputError
from xailib.evaluate.randomisation import cascade, explain_targets, stages_of
from xailib.evaluate.sanity import ALIKE, AREA, CHANGED, ENOUGH, compare, null_baseline, verdict
from xailib.explain.cam.methods import cam_layer_of
from xailib.explain.preflight import workable
from xailib.images.load import load_images
from xailib.networks.classifier import load_classifier
from xailib.report.evidence import charts as kept_figures
from xailib.report.evidence import kept as kept_tables
from xailib.report.evidence.verdicts import FEW, sanity
from xailib.report.figures import style as figures
from xailib.report.figures.sanity import overlay, stage_chart
from xailib.report.run.results import start_run

photographs = load_images(images)
if first < 2 or len(photographs) < 2:
    raise InputError("first: needs at least two photographs, for the null baseline")
checked = photographs[:first]
classifier = load_classifier(model, weights, device, seed, precision, outputs=outputs, preprocessing=preprocessing)
asked = list(dict.fromkeys([*methods, *others]))
used, left_out = workable(classifier, asked, layer or None)
methods = [method for method in methods if method in used]
few = [method for method in used if method in sparse]
checked_by = {method: checked[:sparse_first] if method in few else checked for method in used}
for line in left_out:
    display(Markdown(f"{line}."))
layer_name = cam_layer_of(classifier, layer or None) if methods else None
stages = len(stages_of(classifier, stages))  # a small network has fewer
cascades = [cascade(classifier, checked, stages, seed + draw) for draw in range(redraws)]
options = {"num_samples": lime_samples, "seed": seed, "layer": layer_name}
run = start_run(
    out_dir,
    "7_sanity",
    {"model": model, "images": images, "first": first, "methods": used, "sparse": sparse, "sparse_first": sparse_first, "redraws": redraws, "middle": middle, "stages": stages, **options},
    photographs,
    [*classifier.files, *kept_tables.files()],
    weights=classifier.identity,
)

# %% tags=["remove-input"]
ranked = {p.id: classifier.predict(p, len(classifier.class_names)) for p in checked}
kinds = {"predicted": 0, "second": 1, "least probable": -1}


@cache  # what several categories share is computed once
def explained(image, method):
    targets = [ranked[image][place].index for place in kinds.values()]
    return dict(zip(kinds, explain_targets(classifier, photographs[image], method, targets, **options), strict=True))


by_kind = {
    (method, kind): run.explanations(
        checked_by[method],
        f"{method}.{kind.split()[0]}",
        {"kind": kind, **options},
        lambda p, method=method, kind=kind: explained(p.id, method)[kind],
        code="xailib.evaluate",
    )
    for method in used
    for kind in kinds
}

# %% tags=["remove-input"]
names = {0: "trained"}
by_stage = {(method, 0): by_kind[method, "predicted"] for method in used}
made_sparsely = {stages, (stages + 1) // 2} if middle else {stages}
for draw, networks in enumerate(cascades):
    own = options | {"seed": seed + draw}  # LIME's samples are drawn again with the weights
    for stage, network in networks:
        names[stage.index] = stage.name
        for method in used:
            if method in few and (draw or stage.index not in made_sparsely):
                continue
            if draw and stage.index < stages:  # another draw of all the weights
                continue
            by_stage.setdefault((method, stage.index), []).extend(
                run.explanations(
                    checked_by[method],
                    f"{method}.stage{stage.index}.draw{draw}",
                    {"network": network.identity, **own},
                    lambda p, network=network, method=method, own=own: explain_targets(
                        network, p, method, [ranked[p.id][0].index], **own
                    )[0],
                    code="xailib.evaluate",
                )
            )

# %% tags=["remove-input"]
each = compare(by_stage, 0, "stage_index", {"classifier"})
last = each[each["stage_index"] == stages]
table = each.groupby(["image", "method", "stage_index", "target"], sort=False).mean().drop(columns="draw").reset_index()
table.insert(2, "stage", table["stage_index"].map(names))
unrelated = null_baseline({method: by_kind[method, "predicted"] for method in used})
of_random = [e for (_, stage), found in by_stage.items() if stage for e in found]
of_trained = [e for found in by_kind.values() for e in found]
silent = [figures.left_out(of_trained), figures.left_out(of_random, " in networks with random weights")]
nothing = "\n\n".join(filter(None, silent))
run.save_table("sanity-draws", last)
judged = verdict(last, unrelated)
judged_ssim = verdict(last, unrelated, "ssim").set_index("method")["verdict"]
# What few photographs cannot say is not said: the verdict on a sparse method is the evidence run's, if
# that is of this network and has enough photographs.
kept, manifest = kept_tables.load(), kept_tables.load_manifest()
by_kept = sanity(kept["values"], kept["pairs"]) if kept else None
same = [name for name, known in manifest.get("networks", {}).items() if known == classifier.id]
for method in few:
    if len(checked_by[method]) < FEW:
        rows = by_kept[by_kept["network"].isin(same) & (by_kept["method"] == method)] if kept else ()
        judged.loc[judged["method"] == method, "verdict"] = rows["verdict"].iloc[0] if len(rows) else "undecided"
labels = compare(by_kind, "predicted", "category", {"target"})
of_labels = labels.groupby(["method", "category"], sort=False)["spearman"].mean().unstack()
judged["ssim_verdict"] = judged["method"].map(judged_ssim).mask(judged["method"].isin(few), "–")
judged["first_stage"] = judged["method"].map(
    table[table["stage_index"] == 1].groupby("method")["spearman"].mean()
)
for kind in ("second", "least probable"):
    judged[kind.split()[0]] = judged["method"].map(of_labels.get(kind, {}))
judged["name"] = judged["method"].map(figures.NAMES)
real = judged[judged["method"] != "edges"]
words = {word: real[real["verdict"] == word]["name"].tolist() for word in ("passes", "fails", "undecided")}
deaf = real[real["least"] >= ALIKE]["name"].tolist()
control = judged[judged["method"] == "edges"]
redrawn = last[~last["method"].isin([*few, "edges"])].groupby(["method", "image"])["spearman"].agg(np.ptp)
metrics = {
    "images": len(checked),
    "redraws": redraws,
    "spread": redrawn.mean() if redraws > 1 else float("nan"),
    "stages": stages,
    "methods": len(real),
    **{word: len(found) for word, found in words.items()},
    **{f"{row.method.replace('+', 'p')}_left": row.left for row in judged.itertuples()},
    **{f"{row.method.replace('+', 'p')}_floor": row.floor for row in judged.itertuples()},
    **{f"{row.method.replace('+', 'p')}_least": row.least for row in judged.itertuples()},
}
said = {
    "passes": "**Pass** (with random weights the maps become no more similar than maps of unrelated images)",
    "fails": "**Fail** (the maps remain more similar than that: they show the photograph in part, not the network)",
    "undecided": f"**Undecided** (the residual similarity is not separable from the null baseline, or there are fewer than {ENOUGH} photographs)",
}
exceptions = "".join(f"; {', '.join(words[word])} {word}" for word in ("fails", "undecided") if words[word])
metrics["finding"] = (
    f"With random weights, the maps of **{len(words['passes'])} of {len(real)}** methods become no more similar "
    f"to the original than maps of unrelated images{exceptions}."
)
left = "; ".join(f"{row.name} {row.left:.2f} (null baseline {row.floor:.2f})" for row in real.itertuples(index=False))
verdicts = " ".join(f"{said[word]}: {', '.join(found)}." for word, found in words.items() if found)
display(
    Markdown(
        f"**Answer.** {verdicts} Residual rank correlation with fully random weights, mean over "
        f"{figures.many(len(checked), 'photograph')}"
        + (f" ({len(checked_by[few[0]])} for {' and '.join(figures.NAMES[m] for m in few)})" if few else "")
        + f": {left}."
    )
)
if nothing:
    display(Markdown(nothing))

# %% [markdown]
# ## Method
#
# A plausible map may reflect the photograph rather than the network. We therefore randomise the weights of the trained
# network $f_0$ in stages, from the output layer down {cite}`adebayo2018`. Each map $L$ of a randomised network $f_k$ is
# compared with the trained network's map, for the same photograph $x$ and class $c$, by Spearman's rank correlation of
# the pixels $\rho$:
#
# $$
# s_k = \rho\bigl(L(f_0, x, c),\, L(f_k, x, c)\bigr),
# $$
#
# $$
# s_\text{null} = \rho\bigl(L(f_0, x, c),\, L(f_0, x', c')\bigr) .
# $$
#
# Even unrelated maps of one method are somewhat similar. The null baseline $s_\text{null}$ measures this similarity from
# the maps of two different photographs $x$ and $x'$.

# %% [markdown]
# ## Effect of randomisation

# %% tags=["remove-input"]
figures.publish(
    run,
    stage_chart(table, judged),
    "sanity-stages",
    f"Similarity of the maps to the trained network's, by the lowest randomised block of {label} "
    f"({figures.many(len(checked), 'photograph')}). Gray: interval of the null baseline. IoU: of the highest "
    f"{AREA:.0%} of the pixels. The edge detector does not depend on the network: it is a negative control. "
    f"Not computed at every stage, to save time: {', '.join(figures.NAMES[m] for m in few) or 'no method'}.",
    "Panels of similarity by stage. Rank correlation at the last stage, with the verdict: "
    + "; ".join(f"{row.name} {row.left:.2f}, {row.verdict}" for row in judged.itertuples(index=False)),
    table,
    raster=False,
)

# %% tags=["remove-input"]
photograph = checked[0]
view = classifier.view(photograph).pixels
shown = {(key, e.image): e for key, found in by_stage.items() for e in reversed(found)}  # the first draw
figures.publish(
    run,
    figures.gallery(
        [
            [overlay(view, shown.get(((method, index), photograph.id))) for index in names]
            for method in used
        ],
        list(names.values()),
        [figures.NAMES[method] for method in used],
        scales=["heat"] + ["signed"] * ("lime" in used),
    ),
    "sanity-gallery",
    f"The maps of *{figures.verbatim(photograph.id)}* for {figures.verbatim(ranked[photograph.id][0].name)}, with trained weights and with weights randomised "
    "down to the block that is named. Each map is scaled to its own range and clipped at its 99th percentile. LIME's maps "
    "are signed: red supports, blue opposes.",
    f"Grid of maps of {photograph.id}: {len(used)} methods in rows, trained and {stages} random networks in columns.",
    table[table["image"] == photograph.id],
)

# %% [markdown]
# ## The verdicts

# %% tags=["remove-input"]
residual = {
    "left": "residual similarity",
    "left_low": "from",
    "left_high": "to",
    "floor": "null baseline",
    "floor_low": "null from",
    "floor_high": "null to",
}
figures.publish_table(
    run,
    judged,
    "sanity-verdicts",
    "Rank correlation with the trained network's map: with a random output layer, with all weights "
    "random (residual similarity), and the null baseline, with 95 % intervals (clipped to [−1, 1]); the verdict, and the verdict by SSIM "
    f"(windows of 7 × 7 pixels). n: photographs; fewer than {ENOUGH} give no verdict of their own. A map counts as changed below {CHANGED}, and as unchanged from {ALIKE}.",
    {
        "name": "method",
        "photographs": "n",
        "first_stage": "output layer random",
        **residual,
        "verdict": "verdict",
        "ssim_verdict": "verdict by SSIM",
    },
    dict.fromkeys(("first_stage", *residual), "{:.2f}"),
)

# %% tags=["remove-input"]
if any(len(checked_by[method]) < FEW for method in few):
    display(
        Markdown(
            f"The verdicts on {' and '.join(figures.NAMES[m] for m in few)} come from the evidence run below, not from these few photographs. "
            f"With fewer than {FEW} photographs there, they are undecided."
            if same
            else f"With fewer than {FEW} photographs, the verdicts on {' and '.join(figures.NAMES[m] for m in few)} are undecided. "
            "The evidence run below is of other networks."
        )
    )
if kept:
    figures.publish_table(
        run,
        by_kept.assign(network=by_kept["network"].map(kept_figures.network_name), name=by_kept["method"].map(figures.NAMES)),
        "sanity-kept",
        "The evidence run: the same for more photographs, with one draw of all weights; LIME with fewer samples. "
        f"Below {FEW} photographs every method is undecided.",
        {
            "network": "network",
            "name": "method",
            "photographs": "n",
            **residual,
            "verdict": "verdict",
        },
        dict.fromkeys(residual, "{:.2f}"),
    )

# %% [markdown]
# ## Does a map depend on the class?

# %% tags=["remove-input"]
run.save_table("sanity-floor", unrelated)
run.save_table("sanity-labels-by-photograph", labels)
figures.publish_table(
    run,
    judged[["method", "name", "second", "least", "floor"]],
    "sanity-labels",
    "Trained network: rank correlation of the map for the predicted class with the map for another class, "
    "mean over the photographs; 1 means identical ranks.",
    {"name": "method", "second": "second most probable class", "least": "least probable class", "floor": "null baseline"},
    dict.fromkeys(("second", "least", "floor"), "{:.2f}"),
)

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
random_maps = [e for (_, index), found in by_stage.items() if index for e in found]
dark = sum(bool(e.no_signal) for e in random_maps)
means = table[~table["method"].isin([*few, "edges"])].groupby(["method", "stage_index"], sort=False)["spearman"].mean()
depths = {m: next((names[i] for i, v in means[m].items() if v < CHANGED), "never") for m in means.index.unique(0)}
gone = "; ".join(f"{figures.NAMES[method]} `{depth}`" for method, depth in depths.items())
differ = judged[(judged["verdict"] != judged["ssim_verdict"]) & (judged["ssim_verdict"] != "–")]["name"].tolist()
display(
    Markdown(
        (f"First stage at which the mean rank correlation is below {CHANGED}: {gone}. " if gone else "")
        + (f"With SSIM instead of rank correlation, the verdict differs for {', '.join(differ)}. " if differ else "SSIM instead of rank correlation changes no verdict. ")
        + ("The negative control, an edge detector, fails as expected. " if (control["verdict"] == "fails").any() else "")
        + f"Maps of random networks without a signal: {dark} of {len(random_maps)}. "
        + (f"Between {redraws} random draws of all weights, a photograph's rank correlation differs by {metrics['spread']:.2f} on average." if len(redrawn) and redraws > 1 else "")
    )
)
display(
    Markdown(
        f"The maps for the least probable and the predicted class are nearly identical (rank correlation from {ALIKE}) for {', '.join(deaf)}."
        if deaf
        else f"For no method are the maps for the least probable and the predicted class nearly identical (rank correlation from {ALIKE})."
    )
)

# %% tags=["remove-input"]
if run.failures:
    display(Markdown(figures.not_used(run.failures)))

# %% [markdown]
# ## Details
#
# **Random weights.** We draw every parameter from a normal distribution with the parameter's own mean and standard
# deviation, and re-estimate the running statistics of batch norms on the photographs. With PyTorch's initialisation and
# unsuitable statistics, activations vanish in a deep network, and a map would change for that reason alone. With several
# random draws, a photograph's similarity is their mean.
#
# **Verdict.** Photographs and draws of the weights are both samples, and the photographs share the draws: the interval of
# the residual similarity is that of a two-way table with random rows and columns, by Student's distribution
# {cite}`student1908` with Satterthwaite's degrees of freedom. With a single draw it covers the photographs only. The null baseline is a mean over pairs that
# share photographs; its interval uses jackknife pseudo-values {cite}`arvesen1969`. A method passes if its mean similarity
# at the last stage does not exceed the interval of the null baseline, and its own interval lies below the threshold for a
# changed map. It fails if its interval lies above that of the null baseline, or above the threshold for an unchanged map
# (the table's caption gives both thresholds). Everything else is undecided. In particular, a method whose maps are similar for
# all photographs has a high null baseline, which is not enough to pass. A map without a signal (such as one without a
# positive value) has no ranking and is left out.

# %% [markdown]
# ## Limits
#
# - Passing is necessary, not sufficient: pure noise would pass.
# - Convolutions with random weights preserve edges and brightness, so some similarity remains even for a correct method.
# - There are few photographs, fewest for methods that need hundreds of passes per map; these are made for a single draw
#   of the weights and too few photographs for a verdict.
# - LIME is itself random. Trained and random networks share superpixels; each draw of the weights has samples of its own,
#   the first draw those of the trained network. With few samples the maps are noisy.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
