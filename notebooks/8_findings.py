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
from IPython.display import Markdown, display

from xailib.errors import unknown_name
from xailib.images.load import ImageSet
from xailib.report.figures import style as figures
from xailib.report.replication import findings
from xailib.report.run.results import (
    load_explanations,
    load_table,
    project_root,
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
run = start_run(
    out_dir,
    "8_findings",
    {"heatmap": heatmap},
    ImageSet(()),
    runs={folder: run_digest(project_root() / folder) for folder in runs},
)
table = findings.findings_table(
    [
        *findings.layer_findings(kinds, "our labels", "task-dissect"),
        *findings.layer_findings(published, "published labels", "task-replication"),
        *findings.scene_findings(kinds, "our labels", "task-dissect"),
        *findings.scene_findings(published, "published labels", "task-replication"),
        *findings.smoothness_findings(cams),
        *findings.agreement_findings(pairs, masks, inside, heatmap),
        *findings.faithfulness_findings(scores, heatmap),
    ]
)

# %% tags=["remove-input"]
counts = table["verdict"].value_counts()
said = ", ".join(f"{word}: {counts[word]}" for word in findings.VERDICTS if word in counts)
photographs = len(cams[heatmap])
metrics = {
    "claims": table["claim"].nunique(),
    "tests": len(table),
    "holds": int(counts.get(findings.HOLDS, 0)),
    "fails": int(counts.get(findings.FAILS, 0)),
    "undecided": int(counts.get(findings.UNDECIDED, 0)),
    "finding": f"**{table['claim'].nunique()} claims** of the replicated report, {len(table)} tests ({said}).",
}
display(
    Markdown(
        f"**Answer.** {metrics['claims']} claims of the replicated report, {metrics['tests']} tests ({said}). The tests use "
        f"our own network and {photographs} photographs, and the report's published unit labels. The [replication page](task-replication) "
        "audits the report's own numbers."
    )
)

# %% [markdown]
# ## Method
#
# Each claim by {cite:t}`balwani2024` is expressed as a statistic that is positive if the claim is true, with a 95 %
# interval $[l, u]$: Student's over photographs {cite}`student1908`, or Newcombe's for the difference of two proportions of
# units {cite}`newcombe1998`. The verdict depends on the interval and on the p of a test (Wilcoxon's signed-rank test, or
# Fisher's exact test for units), adjusted for all $m$ tests of this page by Holm's method {cite}`holm1979`:
#
# $$
# \text{holds: } l > 0,\ \tilde p < 0.05; \qquad \text{does not hold: } u < 0,\ \tilde p < 0.05,
# $$
#
# $$
# \tilde p_{(i)} = \max_{j \le i}\, \min\bigl(1, (m - j + 1)\, p_{(j)}\bigr).
# $$
#
# Everything else is *undecided*. A claim of no difference counts as two tests. It holds if the interval lies within a
# given margin and an equivalence test rejects a larger difference; the table shows the p of this test, unless the claim
# does not hold.

# %% [markdown]
# ## The claims

# %% tags=["remove-input"]
shown = table.assign(
    interval=[f"{row.low:+.3f} to {row.high:+.3f}" for row in table.itertuples()],
    p=["–" if p != p else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}" for p in table["p_adjusted"]],
)
figures.publish_table(
    run,
    shown,
    "findings",
    f"Claims and tests. Positive values support the claim. Intervals are over {photographs} photographs or over "
    "units; p is adjusted for all tests of this page.",
    {
        "claim": "claim",
        "verdict": "verdict",
        "measure": "measure",
        "value": "value",
        "interval": "95 % interval",
        "p": "adjusted p",
        "count": "n",
    },
    {"value": "{:+.3f}"},
)

# %% [markdown]
# ## What we see

# %% tags=["remove-input"]
for word in findings.VERDICTS:
    part = table[table["verdict"] == word]
    if len(part):
        lines = "\n".join(
            f"- {row.claim} ({row.measure}: {row.value:+.3f}; [evidence]({row.page}))" for row in part.itertuples()
        )
        display(Markdown(f"**{word.capitalize()}**\n\n{lines}"))
left_out = "\n".join(f"- {claim} Needs {need}." for claim, need in findings.untested(table).items())
if left_out:
    display(Markdown(f"**Not tested**\n\n{left_out}"))

# %% [markdown]
# ## Limits
#
# - The verdicts apply to this network and these photographs. The report used others, for which its claims may hold; the
#   [replication](task-replication) tests its own numbers.
# - With few photographs only large differences are significant: *undecided* is not evidence of no difference.
# - Holm's correction limits false positives but is conservative: each additional test reduces power. All tests over
#   photographs use the same photographs.
# - Units are treated as independent, and only units whose label is in our lexicon count. We take the published labels as
#   they are.
# - We did not test the report's comments on individual images.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
