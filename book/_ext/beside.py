"""The page that sets numbers of others beside ours: `book/published.md`, from the kept run."""

from pathlib import Path

import pandas as pd
from performance import html, number
from scipy.stats import kendalltau
from sphinx.application import Sphinx
from sphinx.config import Config

from xailib.compare.intervals import mean_interval
from xailib.report.evidence.charts import network_name
from xailib.report.evidence.kept import load
from xailib.report.figures.faithfulness import MEASURES, name_of

FOLDER = Path(__file__).parents[1] / "_data/evidence"
NAMES = MEASURES | {
    "average_drop": "average drop ↓",
    "confidence_increase": "increase in confidence ↑",
    "single_deletion": "single deletion ↑",
    "deletion": "deletion ↓",
    "insertion": "insertion ↑",
}
_LEAST = 3  # methods that a ranking needs


def texts(folder: Path = FOLDER) -> dict[str, str]:
    """Return the page's parts, by the names of their substitutions."""
    published, kept = pd.read_csv(folder / "published.csv"), load(folder)
    if not kept:
        return dict.fromkeys(("published_table", "published_ranks", "published_single"), "–")
    table = beside(published, kept["values"])
    return {
        "published_table": html(shown(table), "published-numbers"),
        "published_ranks": "\n".join(f"- {line}." for line in rankings(table)),
        "published_single": html(single_deletion(kept["values"]), "published-single-deletion"),
    }


def beside(published: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Return the published numbers with ours: mean, low, high and n; NaN where we have none."""
    own = [
        _own(values, one.network, one.method, one.measure)  # type: ignore[arg-type]
        for one in published.itertuples()
    ]
    return published.join(pd.DataFrame(own, index=published.index))


def _own(values: pd.DataFrame, network: str, method: str, measure: str) -> dict[str, float]:
    same = (values["network"] == network) & (values["method"] == method)
    found = values[same & (values["measure"] == measure)]["value"].to_numpy(float)
    low, high = mean_interval(found)
    mean = found.mean() if len(found) else float("nan")
    return {"ours": mean, "low": float(low), "high": float(high), "n": len(found)}


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as the page has it."""
    return pd.DataFrame(
        {
            "measure": table["measure"].map(NAMES),
            "method": ["RISE" if m == "rise" else name_of(m) for m in table["method"]],
            "network": table["network"].map(network_name),
            "published": [f"{value:.4f}" for value in table["value"]],
            "source": table["source"]
            + table["read"].map({"repository": "", "from memory": ", from memory"}),
            "ours": [
                f"{row.ours:.3f} ({row.low:.3f} to {row.high:.3f})" if row.n else "–"
                for row in table.itertuples()
            ],
            "n": table["n"],
        }
    )


def rankings(table: pd.DataFrame) -> list[str]:
    """Return for each measure of a source Kendall's tau of its ranking of methods with ours."""
    lines = []
    for (source, measure), part in table.dropna(subset=["ours"]).groupby(
        ["source", "measure"], sort=False
    ):
        said = f"{source}, {NAMES[str(measure)][:-2]}"
        if len(part) < _LEAST:
            lines.append(f"{said}: only {len(part)} methods in common, which is no ranking")
            continue
        tau = float(kendalltau(part["value"], part["ours"]).statistic)
        rank = f"τ {number(tau)}" if tau == tau else "τ is undefined, since all of ours are equal,"
        names = [
            ", ".join(name_of(m) for m in part.sort_values(column)["method"])
            for column in ("value", "ours")
        ]
        lines.append(
            f"{said}: Kendall's {rank} over {len(part)} methods. Published, from low to high: "
            f"{names[0]}" + (f"; ours: {names[1]}" if tau == tau else "")
        )
    return lines


def single_deletion(values: pd.DataFrame) -> pd.DataFrame:
    """Return our scores by the single-deletion protocol, a row a map, a column a network."""
    part = values[values["measure"] == "single_deletion"]
    rows = []
    for method in dict.fromkeys(part["method"]):
        row = {"map": name_of(str(method))}
        for network in dict.fromkeys(part["network"]):
            own = _own(values, str(network), str(method), "single_deletion")
            row[network_name(str(network))] = (
                f"{own['ours']:.2f} ({own['low']:.2f} to {own['high']:.2f}), n = {own['n']}"
                if own["n"] > 1
                else "–"
            )
        rows.append(row)
    return pd.DataFrame(rows)


def offer(_app: Sphinx, config: Config) -> None:
    """Offer the parts to the page."""
    config.myst_substitutions = {**(config.myst_substitutions or {}), **texts()}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", offer, priority=101)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
