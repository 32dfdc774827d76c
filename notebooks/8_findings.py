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
# (task-findings)=
# # Findings: which of the report's claims hold?

# %% tags=["parameters"]
dissect_run: str = "results/scratch/1_clip_dissect"  # a finished run of 1_clip_dissect
cam_run: str = "results/scratch/3_cam"  # a finished run of 3_cam
agreement_run: str = "results/scratch/4_agreement"  # a finished run of 4_agreement
faithfulness_run: str = "results/scratch/5_faithfulness"  # a finished run of 5_faithfulness
replication_run: str = "results/scratch/6_replication"  # a finished run of 6_replication
heatmap: str = "gradcam"  # the heatmap that is set against LIME: one of the methods of the runs (gradcam, gradcam++, xgradcam, hirescam, layercam, ablationcam or scorecam)
out_dir: str = "results/scratch/8_findings"  # where this run is written; relative to the project

# %% tags=["remove-input"]
from xailib.report.params.schema import check_notebook

check_notebook("8_findings", globals())

# %% tags=["remove-input"]
import pandas as pd
from IPython.display import Markdown, display

from xailib.compare.pooling import POWER
from xailib.errors import unknown_name
from xailib.images.load import ImageSet
from xailib.report.evidence import charts as kept_figures
from xailib.report.evidence import kept as kept_tables
from xailib.report.evidence.verdicts import POOLABLE, needed_by, overview, verdicts
from xailib.report.figures import style as figures
from xailib.report.replication import findings
from xailib.report.run.results import (
    load_explanations,
    load_table,
    project_root,
    read_manifest,
    run_digest,
    start_run,
)

runs = (dissect_run, cam_run, agreement_run, faithfulness_run, replication_run)
cams = {}
for explanation in load_explanations(cam_run):
    cams.setdefault(explanation.method, []).append(explanation)
if heatmap not in cams:
    raise unknown_name("heatmap", heatmap, cams)
kinds, published = load_table(dissect_run, "kinds"), load_table(replication_run, "kinds")
pairs, masks = load_table(agreement_run, "pairs"), load_table(agreement_run, "agreement")
inside, scores = load_table(agreement_run, "localisation"), load_table(faithfulness_run, "scores")
kept, manifest = kept_tables.load(), kept_tables.load_manifest()
# The evidence run decides for its own networks only; another network is judged by its own photographs.
leads = heatmap == "gradcam" and cams[heatmap][0].classifier in manifest.get("networks", {}).values()
run = start_run(
    out_dir,
    "8_findings",
    {"heatmap": heatmap},
    ImageSet(()),
    kept_tables.files(),
    runs={folder: run_digest(project_root() / folder) for folder in runs},
)
of_units = [
    *findings.layer_findings(kinds, "our labels", "task-dissect"),
    *findings.layer_findings(published, "published labels", "task-replication"),
    *findings.scene_findings(kinds, "our labels", "task-dissect"),
    *findings.scene_findings(published, "published labels", "task-replication"),
]
of_photographs = [
    *findings.smoothness_findings(cams),
    *findings.agreement_findings(pairs, masks, inside, heatmap),
    *findings.faithfulness_findings(scores, heatmap),
]
own = findings.findings_table([*of_units, *of_photographs])
rest = of_photographs  # what the evidence run does not test
if leads:
    every = verdicts(kept["values"])
    run.save_table("kept-verdicts", every)
    rest = [one for one in of_photographs if one.claim not in set(every["claim"])]
table = findings.findings_table([*of_units, *rest]).assign(network="", networks="", negligible=False, split=False)
left = table["verdict"] == findings.UNDECIDED
table["needed"] = needed_by(table, left, int(table[["p", "p_none"]].notna().to_numpy().sum()))
if leads:
    table = pd.concat([overview(every[every["kind"] == "claim"]), table], ignore_index=True)
photographs = len(cams[heatmap])

# %% tags=["remove-input"]
if leads:  # say which way a claim fails
    table["measure"] = table["measure"].where(~table["negligible"], table["measure"] + "; effect smaller than the margin")
counts = table["verdict"].value_counts()
WORDS = [*findings.VERDICTS, *sorted(set(counts.index) - set(findings.VERDICTS))]
MANY = {findings.HOLDS: "hold", findings.FAILS: "do not hold"}


def tally(found: pd.Series) -> str:
    return ", ".join(f"{found[word]} {word if found[word] == 1 else MANY.get(word, word)}" for word in WORDS if word in found)


metrics = {
    "claims": table["claim"].nunique(),
    "tests": len(table),
    "holds": int(counts.get(findings.HOLDS, 0)),
    "fails": int(counts.get(findings.FAILS, 0)),
    "undecided": int(counts.get(findings.UNDECIDED, 0)),
    "finding": f"**{table['claim'].nunique()} claims** of the replicated report in {len(table)} tests: {tally(counts)}.",
}
embedded = f"the {figures.many(photographs, 'embedded photograph')}, or " if rest else ""
where = (
    "Tests on photographs use the **evidence run**, made once and stored with the project (photographs explained by LIME: "
    f"{kept_figures.sample(manifest)}); the others use {embedded}labels of units."
    if leads
    else f"Tests on photographs use this run's network and {figures.many(photographs, 'photograph')}"
    f"{' (fewer than six cannot decide: the signed-rank test has too few pairs)' if photographs < 6 else ''}; "
    "tests on units use labels: ours, and the published ones of the report's own networks."
)
if not leads:
    here = table[~table["page"].isin(kept_figures.UNITS)]["verdict"].value_counts()
    metrics["finding"] += f" On this run's {figures.many(photographs, 'photograph')}: {tally(here)}."
answers = []
for claim, part in table.groupby("claim", sort=False):
    words = ", ".join(f"{word} in {n} of {len(part)} tests" for word, n in part["verdict"].value_counts().items())
    verdict_of = part["verdict"].iloc[0] if len(part) == 1 else words
    answers.append(f"- {claim} **{verdict_of.capitalize()}.** [Evidence]({part['page'].iloc[0]})")
display(
    Markdown(
        f"**Answer.** {metrics['finding'].replace('**', '')} {where}\n\n"
        + "\n".join(answers)
    )
)

# %% tags=["remove-input"]
lines = kept_figures.power_lines(table)
if lines:
    lines = "\n".join(f"- {line}." for line in lines)
    display(Markdown(f"<details><summary>What would decide the rest</summary>\n\n{lines}\n\n</details>"))
if leads:
    split = [
        f"- {row.claim.rstrip('.')} ({row.measure}): {kept_figures.by_network(row.networks)}."
        for row in table.itertuples()
        if row.split
    ]
    if split:
        lines = "\n".join(split)
        display(Markdown(f"<details><summary>Decided on one network, undecided on another</summary>\n\n{lines}\n\n</details>"))

# %% [markdown]
# ## Method
#
# Each claim by {cite:t}`balwani2024` is expressed as a statistic that is positive if the claim is true, with a 95 %
# interval $[l, u]$: Student's over photographs {cite}`student1908`, or Newcombe's for the difference of two proportions of
# units {cite}`newcombe1998`. The verdict depends on the interval and on the p of a test (Wilcoxon's signed-rank test, or
# Fisher's exact test for units), adjusted by Holm's method {cite}`holm1979` for all $m$ tests of one table: those of the
# evidence run, or those of units:
#
# $$
# \text{holds: } l > 0,\ \tilde p < 0.05;
# $$
#
# $$
# \text{does not hold: } u < 0,\ \tilde p < 0.05,
# $$
#
# $$
# \tilde p_{(i)} = \max_{j \le i}\, \min\bigl(1, (m - j + 1)\, p_{(j)}\bigr).
# $$
#
# Everything else is *undecided*. A claim of no difference counts as two tests. It holds if the interval lies within a
# given margin and an equivalence test rejects a larger difference; the table shows the p of this test, unless the claim
# does not hold.

# %% tags=["remove-input"]
display(
    Markdown(
        f"**The evidence run**{'' if manifest else ' (this project has none)'} was made once; `make evidence` repeats it. "
        "Its $m$ tests are those of the claims and those of each method against the baselines of "
        f"the [faithfulness page](task-faithfulness), on each network and pooled. Networks with at least {POOLABLE} photographs are "
        "pooled as random effects {cite}`dersimonian1986`. Where that leaves a claim undecided but every network has the same "
        "verdict, this verdict stands, with the largest of their p (an intersection-union test {cite}`berger1982`). In the evidence run, a claim of a difference does not hold either if the effect "
        f"is shown to be smaller than the smallest one that matters: {findings.MARGIN} (of a probability, a share of the view, a relative "
        f"reduction), {findings.MARGIN / 2} for ROAD, which is half a difference. For an undecided test we give the number of photographs "
        f"that would decide it on one network with probability {POWER} if the true effect is the one found."
    )
)

# %% [markdown]
# ## The claims

# %% tags=["remove-input"]
if leads:
    figures.publish(
        run,
        kept_figures.forest_chart(every),
        "findings-networks",
        "Effects in the evidence run with 95 % intervals, by network and pooled. Each row has its own scale. Filled marks are "
        "decided (adjusted p below 0.05), hollow marks are undecided.",
        "Dots with intervals, a row a test, a colour a network. " + "; ".join(f"{row.measure}: {row.verdict}" for row in table.itertuples()),
        every[every["kind"] == "claim"],
        raster=False,
    )


# %% tags=["remove-input"]
def as_text(table):
    return table.assign(
        interval=[f"{row.low:+.3f} to {row.high:+.3f}" for row in table.itertuples()],
        shown_p=["–" if p != p else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}" for p in table["p_adjusted"]],
    )


columns = {"claim": "claim", "verdict": "verdict", "measure": "measure", "value": "value", "interval": "95 % interval", "shown_p": "adjusted p", "count": "n"}
figures.publish_table(
    run,
    as_text(table.assign(networks=[kept_figures.by_network(words) for words in table["networks"]])),
    "findings",
    "Claims and tests. Positive values support the claim. "
    + ("n: photographs on the network with most, or units. " if leads else f"Intervals are over {figures.many(photographs, 'photograph')} or over units. ")
    + "p is adjusted for all tests on the same material.",
    columns | ({"networks": "by network"} if leads else {}),
    {"value": "{:+.3f}"},
)
if leads:
    figures.publish_table(
        run,
        as_text(own[~own["page"].isin(kept_figures.UNITS)]),
        "findings-embedded",
        f"The same tests on the {photographs} embedded photographs, for comparison: effects and intervals. The verdicts above come from "
        "the evidence run.",
        {name: columns[name] for name in ("claim", "measure", "value", "interval", "count")},
        {"value": "{:+.3f}"},
    )

# %% [markdown]
# ## What the report says, and what we test

# %% tags=["remove-input"]
said_table = pd.DataFrame(
    [
        {"claim": claim, "words": f"“{words}”", "ours": ours or "none"}
        for claim, (words, ours) in findings.WORDS.items()
        if claim in set(table["claim"])
    ]
)
figures.publish_table(
    run,
    said_table,
    "findings-words",
    "Each claim, the report's own words (verbatim), and where we interpret them.",
    {"claim": "our claim", "words": "the report's words", "ours": "our interpretation"},
)
unused = [one for folder in runs for one in read_manifest(project_root() / folder)["failures"]]
if unused:
    display(Markdown(figures.not_used(unused, "Photographs not used")))
left_out = "\n".join(f"- {claim} Needs {need}." for claim, need in findings.untested(table).items())
if left_out:
    display(Markdown(f"**Not tested**\n\n{left_out}"))
if (table[table["claim"] == findings.AGREE]["verdict"] == findings.FAILS).all():
    display(Markdown(kept_figures.RECONCILED))

# %% [markdown]
# ## Limits
#
# - The verdicts apply to these networks and photographs. The report used others, for which its claims may hold; the
#   [replication](task-replication) tests its own numbers.
# - The networks of the evidence run share photographs, which pooling takes for independent. ScoreCAM explains fewer
#   photographs than the other methods, since it needs a pass for each channel.
# - We set the smallest effects that matter, and the rule for networks with the same verdict, after seeing a part of the
#   evidence run. The former can only show that an effect is too small, never that a claim holds.
# - The boxes around objects are ours, drawn by eye before we saw any map. An object that fills the view tells little.
# - *Undecided* is not evidence of no difference. The number of photographs that would decide is itself estimated from the
#   effect found.
# - Holm's correction limits false positives but is conservative: each additional test reduces power. All tests over
#   photographs use the same photographs.
# - Units are treated as independent, and only units whose label is in our lexicon count. We take the published labels as
#   they are.
# - We did not test the report's comments on individual images.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
