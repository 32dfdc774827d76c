"""The evidence run on the report's pages: which of its numbers stand there, in words and tables."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from xailib.evaluate.scores import BETTER as DIRECTION
from xailib.evaluate.scores import PAGE
from xailib.report.evidence.verdicts import HIGHER, POOLED
from xailib.report.figures.faithfulness import MEASURES, name_of
from xailib.report.figures.style import PALETTE, legend, style
from xailib.report.replication.findings import FAILS, HOLDS, UNDECIDED

NETWORKS = {
    "tf_efficientnet_lite0": "EfficientNet-Lite0",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
}
# Of two pages that seem to contradict each other.
RECONCILED = (
    "**Two questions about agreement.** The published table does not show agreement: it compares "
    "LIME with all pixels above zero, which measures the area of LIME's mask ([replication]"
    "(task-replication)). Thresholded to equal area, maps of one photograph do agree more than "
    "maps of different photographs, if only moderately ([agreement](task-agreement))."
)
_COLOURS = dict(zip(NETWORKS, PALETTE, strict=False))
UNITS = ("task-dissect", "task-replication")  # pages whose tests count units
_TOO_MANY = 1_000_000
_GAINS = {HOLDS: "better", FAILS: "worse"}


def network_name(network: str) -> str:
    """Return a network's name for readers."""
    return NETWORKS.get(network, network)


def sample(manifest: Mapping[str, Any], method: str = "lime") -> str:
    """Return in words how many photographs of the evidence run a method explains, by network."""
    counts = {name: manifest["counts"][name].get(method, 0) for name in manifest["networks"]}
    return ", ".join(f"{n} on {network_name(name)}" for name, n in counts.items() if n)


def by_network(words: str) -> str:
    """Return the words of `xailib.report.evidence.verdicts.overview` with networks' names."""
    for network, name in NETWORKS.items():
        words = words.replace(f"{network}:", f"{name}:")
    return words


def _against(verdicts: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the tests of methods against a baseline, network by network."""
    of = verdicts["claim"].str.endswith(f" over {baseline}")
    return verdicts[of & (verdicts["kind"] == "baseline") & (verdicts["network"] != POOLED)]


def gains(verdicts: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return tests against a baseline as rows of method and network, a column a measure.

    A cell says the gain, its number of photographs where they differ by measure, and a mark: +
    better, − worse, nothing where undecided.
    """
    rows = []
    groups = _against(verdicts, baseline).groupby(["claim", "network"], sort=False)
    for (claim, network), own in groups:
        row: dict[str, Any] = {
            "map": name_of(str(claim).partition(" ")[0]),
            "network": network_name(str(network)),
        }
        row["n"] = int(own["count"].max())
        for one in own.to_dict("records"):
            mark = {HOLDS: " +", FAILS: " −"}.get(one["verdict"], "")
            row[MEASURES[one["measure"]]] = f"{one['value']:+.3f}{mark}".replace("-", "−")
        rows.append(row)
    return pd.DataFrame(rows)


def decided_lines(verdicts: pd.DataFrame, baseline: str = "centre") -> list[str]:
    """Return for each network in how many comparisons methods are better and worse."""
    lines = []
    for network, own in _against(verdicts, baseline).groupby("network", sort=False):
        words = own["verdict"].value_counts()
        lines.append(
            f"{network_name(str(network))} ({own['count'].max()} photographs): "
            f"{words.get(HOLDS, 0)} of {len(own)} better, {words.get(FAILS, 0)} worse, "
            f"{words.get(UNDECIDED, 0)} undecided"
        )
    return lines


def undecided_methods(verdicts: pd.DataFrame, baseline: str = "centre") -> list[str]:
    """Return the methods that are decided against a baseline on no network by no measure."""
    part = _against(verdicts, baseline)
    left = set(part["claim"]) - set(part[part["verdict"] != UNDECIDED]["claim"])
    return sorted(name_of(claim.partition(" ")[0]) for claim in left)


def forest_chart(verdicts: pd.DataFrame) -> Figure:
    """Draw the claims' effects with their intervals, by network and over all networks.

    Filled marks are decided, hollow ones undecided. Each row is scaled by its own largest limit,
    since measures have different units.
    """
    part = verdicts[(verdicts["kind"] == "claim") & (verdicts["network"] != "")]
    tests = list(dict.fromkeys(zip(part["claim"], part["measure"], strict=True)))
    networks = [*dict.fromkeys(part[part["network"] != POOLED]["network"]), POOLED]
    with style():
        figure = Figure(figsize=(4.9, 0.62 * len(tests) + 1))  # a phone shows all of it
        axis = figure.subplots()
        for row, (claim, measure) in enumerate(tests):
            axis.text(-1.05, 0.37 - row, short(claim, measure), fontsize=7.5)
            own = part[(part["claim"] == claim) & (part["measure"] == measure)]
            top = own[["low", "high"]].abs().to_numpy().max() or 1
            for place, network in enumerate(networks):
                for one in own[own["network"] == network].to_dict("records"):
                    y = -row - (place - (len(networks) - 1) / 2) * 0.18
                    colour = _COLOURS.get(network, "black")
                    axis.plot([one["low"] / top, one["high"] / top], [y, y], color=colour, lw=1.2)
                    face = "white" if one["verdict"] == UNDECIDED else colour
                    mark = "D" if network == POOLED else "o"
                    axis.plot(one["value"] / top, y, mark, color=colour, mfc=face, ms=5)
        for network in networks:
            mark = "D" if network == POOLED else "o"
            axis.plot([], [], mark, c=_COLOURS.get(network, "black"), label=network_name(network))
        axis.axvline(0, color="0.4", lw=0.8)
        axis.spines.left.set_visible(False)
        axis.set(yticks=[], xlim=(-1.05, 1.05), ylim=(0.45 - len(tests), 0.75), xticks=[0])
        axis.set_xlabel("against the claim  ←  effect  →  for the claim")
        legend(figure, *axis.get_legend_handles_labels())
    return figure


def short(claim: str, measure: str) -> str:
    """Return a test in one line, for a chart."""
    if ": gain" in measure:
        return f"Grad-CAM explains better than LIME: {measure.partition(':')[0]}"
    return claim.rstrip(".").replace("Counting opposing superpixels (LIME 2)", "LIME 2")


def power_lines(overview: pd.DataFrame) -> list[str]:
    """Return for each undecided test how many photographs would decide it."""
    lines = []
    for row in overview[overview["verdict"] == UNDECIDED].to_dict("records"):
        needed, unit = row["needed"], "units" if row["page"] in UNITS else "photographs"
        if not needed < _TOO_MANY:
            said = f"no attainable number of {unit} would decide an effect this small"
        else:
            pooled = row.get("network") == POOLED
            where = " on each network that is undecided" if pooled else ""
            so_far = f"{row['count']} so far{', on the network with most' if pooled else ''}"
            said = f"about {needed:,.0f} {unit}{where} would decide it ({so_far})"
        lines.append(f"{row['claim'].rstrip('.')} ({row['measure']}): {said}")
    return lines


def comparison(verdicts: pd.DataFrame, network: str) -> pd.DataFrame:
    """Return one network's tests against baselines as `differences_chart` draws them."""
    part = verdicts[(verdicts["kind"] == "baseline") & (verdicts["network"] == network)]
    names = part["claim"].str.split(" over ", expand=True)
    sign = part["measure"].map(HIGHER)
    return pd.DataFrame(
        {
            "measure": part["measure"],
            "better": part["measure"].map(DIRECTION),
            "method": names[0],
            "baseline": names[1],
            "difference": part["value"] * sign,
            "low": part["low"].where(sign > 0, -part["high"]),
            "high": part["high"].where(sign > 0, -part["low"]),
            "verdict": part["verdict"].map(_GAINS).fillna(UNDECIDED),
        }
    ).sort_values("measure", key=lambda column: column.map(PAGE.index), kind="stable")
