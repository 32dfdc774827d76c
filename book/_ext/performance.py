"""The page on performance: what ``benchmarks/run.py`` has kept, as text, tables and a verdict.

All of it becomes substitutions (``{{ performance_table }}``), so that no figure stands in prose.
"""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cards import gpus
from sphinx.application import Sphinx
from sphinx.config import Config

FOLDER = Path(__file__).parents[1] / "_data/performance"
SAME = 1e-4  # results further apart than this are not called the same
BUSY = 0.1  # cores that others may use before the page warns
CHANNELS_LAST = "lime, eager, channels last"
REPORTED = ("LIME", "AblationCAM", "ScoreCAM")  # what the default report does by passes
MEMORY = "peak memory, MB (reference)"
LATER = ("weights", "× typical pass", MEMORY, "largest difference", "s (reference)", "engine", "n")
SHORT = 12  # letters: a column with longer words may wrap
WORDS = {
    "ratio_to_peer": "speed-up of at least {}",
    "ratio_to_limit": "at most {} × the lower bound",
    "memory_to_peer": "less than {} × the reference's peak memory",
}


def texts(folder: Path = FOLDER) -> dict[str, str]:
    """Return the page's parts, by the names of their substitutions."""
    ratios = pd.read_csv(folder / "ratios.csv").sort_values(
        "network", ignore_index=True, kind="stable"
    )
    growth = pd.read_csv(folder / "growth.csv")
    runs = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["runs"]
    met = demands(ratios, pd.read_csv(folder / "asked.csv"))
    return {
        "performance_verdict": verdict(met),
        "performance_asked": html(met, "performance-asked"),
        "performance_table": ratios_table(comparisons(ratios)),
        "performance_growth": html(exponents(growth), "performance-exponents"),
        "performance_busy": busy(ratios, growth),
        "performance_together": together(ratios),
        "performance_machines": "\n".join(machines(runs)),
        "performance_gpu": "\n\n".join(
            f"{caption}\n\n{html(table, f'performance-gpu-{place}')}"
            for place, (caption, table) in enumerate(gpus(folder / "gpu.json"))
            if len(table)
        )
        or "No GPU has been measured yet.",
    }


def demands(ratios: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Return what was asked for, what was found, and whether it is met: "yes", "no" or "–"."""
    rows = []
    for demand in asked.to_dict("records"):
        column, bound = demand["column"], demand["asked"]
        same = (ratios["network"] == demand["network"]) & (ratios["key"] == demand["key"])
        # A faster way to another result would be no answer.
        met, equal, value = "–", "–", float("nan")
        if same.any():
            row = ratios[same].iloc[0]
            value = row[column]
            enough = value >= bound if column == "ratio_to_peer" else value <= bound
            equal = "yes" if row["largest_difference"] <= SAME else "no"
            met = "yes" if enough and equal == "yes" else "no"
        rows.append(
            {
                "comparison": f"{demand['comparison']}, {demand['network']}",
                "target": WORDS[column].format(number(bound)),
                "measured": number(value),
                "same result": equal,
                "met": met,
            }
        )
    return pd.DataFrame(rows)


def verdict(met: pd.DataFrame) -> str:
    """Return how many demands are met, and name those that are not."""

    def listed(rows: pd.DataFrame) -> str:
        return "; ".join(
            f"{row['comparison']}: target {row['target']}, measured {row['measured']}"
            for row in rows.to_dict("records")
        )

    missed, open_ = met[met["met"] == "no"], met[met["met"] == "–"]
    text = f"{(met['met'] == 'yes').sum()} of {len(met)} performance targets are met."
    if len(missed):
        text += f" **{len(missed)} not met:** {listed(missed)}."
    if len(open_):
        text += f" **{len(open_)} not measured yet.**"
    return text


def comparisons(ratios: pd.DataFrame) -> pd.DataFrame:
    """Return the table of comparisons as it is shown."""

    def spread(row: pd.Series, name: str) -> str:
        low, high = number(row[f"{name}_min"]), number(row[f"{name}_max"])
        return f"{number(row[name])} [{low}–{high}]"

    return pd.DataFrame(
        {
            "comparison": ratios["comparison"],
            "network": ratios["network"],
            "weights": ratios["weights"],
            "reference": ratios["peer"],
            "speed-up": [spread(r, "ratio_to_peer") for _, r in ratios.iterrows()],
            "maximum speed-up": (ratios["ratio_to_peer"] * ratios["ratio_to_limit"]).map(number),
            "× lower bound": [spread(r, "ratio_to_limit") for _, r in ratios.iterrows()],
            "× typical pass": ratios["ratio_to_usual_pass"].map(number),
            MEMORY: [
                f"{ours:.0f} ({peer:.0f})"
                for ours, peer in zip(ratios["ours_peak_mb"], ratios["peer_peak_mb"], strict=True)
            ],
            "largest difference": ratios["largest_difference"].map("{:.0e}".format),
            "s (reference)": [
                f"{number(ours)} ({number(peer)})"
                for ours, peer in zip(ratios["ours_seconds"], ratios["peer_seconds"], strict=True)
            ],
            "engine": ratios["engine"],
            "n": ratios["repeats"],
        }
    )


def ratios_table(shown: pd.DataFrame) -> str:
    """Return the comparisons: what is asked first, below it the other columns, folded."""
    first = html(shown.drop(columns=list(LATER)), "performance-ratios")
    rest = html(shown[["comparison", "network", "reference", *LATER]], "performance-details")
    words = "Weights, memory, differences and times"
    folded = rest.replace("<table", f"<details><summary>{words}</summary><table", 1)
    return first + folded.replace("</table>", "</table></details>", 1)


def together(ratios: pd.DataFrame, network: str = "tf_efficientnet_lite0") -> str:
    """Return what one photograph of the default report takes by our engines and by the peers."""
    rows = ratios[(ratios["network"] == network) & (ratios["peer"] != CHANNELS_LAST)]
    last = rows["key"].str.endswith("bn2") | (rows["key"] == "lime")
    if last.sum() < len(REPORTED):
        return "The overall speed-up of the default report is not measured yet."
    ours, peers = (rows.loc[last, f"{who}_seconds"].sum() for who in ("ours", "peer"))
    return (
        f"One photograph of the default report, {network} explained by {', '.join(REPORTED)}: "
        f"{number(ours)} s with xailib, {number(peers)} s with the reference packages, "
        f"a speed-up of **{number(peers / ours)}**."
    )


def exponents(growth: pd.DataFrame) -> pd.DataFrame:
    """Return how time grows with each thing: the slope of log time over log size."""
    rows = []
    for (what, method), group in growth.groupby(["grows", "method"], sort=False):
        some = group.sort_values("value")
        slope = np.polyfit(np.log(some["value"]), np.log(some["seconds"]), 1)[0]
        first, last = some.iloc[0], some.iloc[-1]
        rows.append(
            {
                "quantity": what,
                "method": method,
                "range": f"{first['value']} – {last['value']}",
                "seconds": f"{number(first['seconds'])} – {number(last['seconds'])}",
                "exponent of time": f"{slope:.2f}",
                "peak memory, MB": f"{first['peak_mb']:.0f} – {last['peak_mb']:.0f}",
                "n": first["repeats"],
            }
        )
    return pd.DataFrame(rows)


def busy(*tables: pd.DataFrame) -> str:
    """Return a warning where other programs used the machine meanwhile, or nobody has looked."""
    used = pd.concat([table["cores_used_elsewhere"] for table in tables])
    loaded, unknown = used[used > BUSY], used.isna().sum()
    said = []
    if len(loaded):
        said.append(
            f"**Measured on a busy machine:** during {len(loaded)} of {len(used)} measurements "
            f"other programs used up to {number(loaded.max())} cores."
        )
    if unknown:
        said.append(
            f"For {unknown} of {len(used)} measurements the load of other programs is unknown."
        )
    if not said:
        return "No other program used the processor noticeably during the measurements."
    return " ".join([*said, "These figures are provisional."])


def machines(runs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each run that figures come from."""
    for run in runs.values():
        packages = ", ".join(f"{name} {version}" for name, version in run["packages"].items())
        shown = f"photograph {run['image']}; " if "image" in run else ""
        yield (
            f"- {run['date'][:16].replace('T', ' ')} UTC: {run['processor']}, {run['cores']} "
            f"cores, {run['memory_gb']} GB, torch threads: {run['threads']}; load average before "
            f"{run['load']}; {shown}commit `{run['commit']}`; "
            f"Python {run['python']}, {packages}"
        )


def html(table: pd.DataFrame, name: str) -> str:
    """Return a table as the site's other tables look: it scrolls where it is too wide."""
    said = table.map(lambda value: escape(str(value)))
    rows = said.to_html(index=False, border=0, escape=False, justify="unset")
    for column in said:
        words = [value for value in said[column] if value[:1].isalpha()]
        if words and not any(value[:1].isdigit() for value in said[column]):
            kind = "words" if max(map(len, words)) > SHORT else "word"
            for cell in {f"<th>{column}</th>", *(f"<td>{value}</td>" for value in said[column])}:
                rows = rows.replace(cell, cell.replace(">", f' class="{kind}">', 1))
    # One line, because Markdown ends a block of HTML at the first empty one.
    lines = "".join(line.strip() for line in rows.splitlines())
    return f'<div class="xailib-table" id="{name}" tabindex="0">{lines}</div>'


def number(value: float) -> str:
    """Return a number with about three digits, never as a power of ten."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def offer(app: Sphinx, config: Config) -> None:
    """Offer the parts to the page."""
    config.myst_substitutions = {**(config.myst_substitutions or {}), **texts()}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", offer, priority=101)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
