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
        f"**Answer.** {metrics['claims']} claims of the report that we replicate were put to {metrics['tests']} tests on "
        f"this report's own network and {photographs} photographs, and on the published labels of units ({said}). What the report says of its own numbers is "
        "audited on [the page on the replication](task-replication)."
    )
)

# %% [markdown]
# ## Method
#
# Each claim of the text by {cite:t}`balwani2024` is put as one number that would be positive if it were true, with a 95 %
# interval $[l, u]$: Student's over photographs {cite}`student1908`, or Newcombe's for the difference of two shares of units
# {cite}`newcombe1998`. The verdict follows from the interval and from the p of a test (Wilcoxon's signed-rank test, or
# Fisher's for units), adjusted for all $m$ tests of this page by Holm's rule {cite}`holm1979`:
#
# $$
# \text{holds: } l > 0,\ \tilde p < 0.05; \qquad \text{does not hold: } u < 0,\ \tilde p < 0.05,
# $$
#
# $$
# \tilde p_{(i)} = \max_{j \le i}\, \min\bigl(1, (m - j + 1)\, p_{(j)}\bigr).
# $$
#
# Anything else is *undecided*. A claim of no difference, which makes two of the tests, holds if the interval lies inside a
# stated margin and a test rules out a difference as large as that; of the two, the p in the table is of this one, unless
# the claim does not hold.

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
    f"Claims and tests. Positive numbers support the claim; intervals are over {photographs} photographs, or over "
    "the units; p is adjusted for all tests of this page.",
    {
        "claim": "claim",
        "verdict": "verdict",
        "measure": "what is measured",
        "value": "number",
        "interval": "95 % interval",
        "p": "adjusted p",
        "count": "count",
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
left_out = "\n".join(f"- {claim} It needs {need}." for claim, need in findings.untested(table).items())
if left_out:
    display(Markdown(f"**Left out**\n\n{left_out}"))

# %% [markdown]
# ## Limits
#
# - These verdicts are about this network and these photographs. The report looked at other ones, and its claims may
#   hold there; the [replication](task-replication) tests its own numbers.
# - With few photographs only large differences are decided: *undecided* is no evidence that there is none.
# - The correction for the number of tests makes chance decisions rare, not impossible, and it is strict: with more
#   claims on the page, each needs clearer numbers. The same photographs serve all tests over photographs.
# - Units of a network are counted as if they were independent of each other, and only those whose label is in our
#   lexicon. What the page says of the published labels rests on them as they are.
# - Nothing is claimed of what the report's authors saw in single pictures.

# %% tags=["remove-cell"]
run.save_metrics(metrics)
manifest = run.finish()
print(f"Results: {run.folder}")
