"""Figures of what units respond to: concepts by layer, similarities by unit, probe images.

Tables of `xailib.dissect.label.label_units` (or of `read_descriptions`) in, figures out.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib import colormaps
from matplotlib.figure import Figure
from pandas.api.types import is_string_dtype
from PIL import Image

from xailib.dissect.kinds import UNKNOWN, alive
from xailib.errors import InputError
from xailib.project import project_root
from xailib.report.figures.publish import AnyPixels, save_data, save_image
from xailib.report.figures.style import drawing, legend
from xailib.report.run.results import Run

NO_LABEL = "no reliable label"
TOP = 20  # concepts of a chart
THUMB = 56  # pixels a side in the unit browser
SHADES = ("#0072B2", "#999999", "#D55E00", "#009E73")  # of networks
COLUMNS = 40  # thumbnails in a row of its image
# Without the two grays, which mark the others.
COLOURS = [colormaps["tab20"](i) for i in range(20) if i not in (14, 15)]


def kept_files() -> list[Path]:
    """Return the files that ``benchmarks/units.py`` made: tables on units, and their manifest."""
    return sorted((project_root() / "book" / "_data" / "dissect").iterdir())


def kept() -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the kept tables on units by name, and their manifest."""
    files = {file.stem: file for file in kept_files()}
    manifest = json.loads(files.pop("manifest").read_text(encoding="utf-8"))
    return {name: pd.read_csv(file) for name, file in files.items()}, manifest


def reliable(units: pd.DataFrame) -> pd.DataFrame:
    """Return a table of units with no concept where its label is not certified."""
    return units.assign(concept=units["concept"].where(units["certified"]))


def published(tables: Mapping[str, pd.DataFrame], network: str) -> pd.DataFrame:
    """Return a network's published units of the kept tables, with the most frequent concepts."""
    names = tables["published"].assign(
        rank=tables["published"].groupby(["network", "layer"]).cumcount()
    )
    columns = ["network", "layer", "rank", "concept"]
    found = tables["points"].merge(names[columns], "left", on=columns[:3])
    return found[found["network"] == network]


def concept_bars(labels: pd.DataFrame) -> Figure:
    """Draw the `TOP` most frequent concepts of each layer, one panel a layer.

    Dead units do not count, here and in the charts below.
    """
    layers = _layers(labels)
    with drawing(3.0 * len(layers), 0.8 + 0.2 * TOP, 1, len(layers)) as (figure, panels):
        for axis, layer in zip(panels, layers, strict=True):
            every = labels[labels["layer"] == layer]
            part = alive(every)
            counts = part["concept"].value_counts().head(TOP)
            axis.barh(range(len(counts)), counts, color="#0072B2")
            axis.set_yticks(range(len(counts)), [_short(name) for name in counts.index])
            axis.invert_yaxis()
            axis.grid(visible=False, axis="y")
            named = int(part["concept"].notna().sum())
            dead = f", {len(every) - len(part)} dead" if len(part) < len(every) else ""
            axis.set(title=f"{layer}: {named} of {len(part)} units{dead}", xlabel="units")
            axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def similarity_scatter(labels: pd.DataFrame, column: str = "similarity") -> Figure:
    """Draw a column of each unit by its number, the `TOP` concepts coloured (Figures 2, 4)."""
    layers = _layers(labels)
    height = (2.2 + 0.07 * TOP) * len(layers)
    with drawing(5.2, height, len(layers)) as (figure, panels):  # whole on a phone
        for axis, layer in zip(panels, layers, strict=True):
            part = alive(labels[labels["layer"] == layer])
            names = part["concept"].value_counts().head(TOP).index
            rest = part[~part["concept"].isin(names)]
            axis.scatter(rest["unit"], rest[column], s=4, color="0.6", label="others")
            for index, name in enumerate(names):
                chosen = part[part["concept"] == name]
                axis.scatter(
                    chosen["unit"], chosen[column], s=14, marker="os^Dv"[index % 5],
                    color=COLOURS[index % len(COLOURS)], label=_short(name),
                )  # fmt: skip
            axis.set(title=layer, xlabel="unit", ylabel=column)
            axis.legend(
                loc="upper center", bbox_to_anchor=(0.45, -0.26), ncols=3, fontsize=9.5,
                markerscale=1.3, columnspacing=0.8, handletextpad=0.1, borderpad=0.2,
            )  # fmt: skip
    return figure


def kinds_chart(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the shares of `kinds_of` as stacked bars, one bar a network and layer."""
    both = pd.concat([table.assign(network=name) for name, table in tables.items()])
    bars = both["network"] + ", " + both["layer"]
    wide = both.assign(bar=bars).pivot_table(
        index="bar", columns="kind", values="share", sort=False, fill_value=0
    )
    with drawing(7.2, 1.8 + 0.36 * len(wide)) as (figure, (axis,)):
        start = np.zeros(len(wide))
        grays = {UNKNOWN: "0.7", NO_LABEL: "0.88"}
        order = sorted(map(str, wide.columns), key=lambda kind: (kind in grays, kind))
        for index, kind in enumerate(order):
            colour = grays.get(kind, COLOURS[index % len(COLOURS)])
            axis.barh(wide.index, wide[kind], left=start, color=colour, label=kind)
            start += wide[kind].to_numpy()
        axis.invert_yaxis()
        axis.set(xlabel="share of the layer's units", xlim=(0, 1))
        axis.grid(visible=False, axis="y")
        legend(figure, *axis.get_legend_handles_labels())
    return figure


def publish_browser(
    run: Run,
    units: pd.DataFrame,
    images: Mapping[str, AnyPixels],
    name: str,
    caption: str,
    facts: Mapping[str, str],
    measures: Mapping[str, str],
) -> None:
    """Show all units in one table that can be searched, filtered and sorted, and each as a card.

    Writes ``figures/name.webp``, every thumbnail once, and ``figures/name.csv``. The site's own
    script makes table and cards, each with an address of its own; without it, and in a notebook,
    the first rows are shown.

    Parameters
    ----------
    run : Run
        Where it is saved.
    units : DataFrame
        network, layer, unit, concept, certified, score, histogram (counts, or none) and
        top_images (ids), with the columns that `facts` names.
    images : mapping
        Photographs by id; of others the card says the name.
    name, caption : str
        As for `xailib.report.figures.style.publish`.
    facts : mapping
        From a column to what the card calls it; missing columns and values are left out.
    measures : mapping
        Of networks whose score is another measure than the others' are, its name: the table does
        not mix them.
    """
    shown = list(dict.fromkeys(i for ids in units["top_images"] for i in ids))
    order = {image: index for index, image in enumerate(shown)}
    with_thumb = [image for image in shown if image in images]
    places = {image: index for index, image in enumerate(with_thumb)}
    height = max(1, -(-len(with_thumb) // COLUMNS)) * THUMB
    sheet = Image.new("RGB", (COLUMNS * THUMB, height), "white")
    for image, index in places.items():
        thumb = Image.fromarray(images[image]).resize((THUMB, THUMB))
        sheet.paste(thumb, (index % COLUMNS * THUMB, index // COLUMNS * THUMB))
    save_image(run, f"figures/{name}.webp", np.asarray(sheet))
    lists = {"top_images", "histogram"}
    flat = units.assign(**{c: [" ".join(map(str, one)) for one in units[c]] for c in lists})
    said_otherwise = ["top", "interval", "certificate"]
    save_data(run, name, flat.drop(columns=said_otherwise, errors="ignore"))
    told = {  # of each network's units: the evidence run has more to say than this one
        network: [c for c in facts if c in part and part[c].notna().any()]
        for network, part in units.groupby("network", sort=False)
    }
    networks, words = list(told), dict[str, int]()

    def short(value: Any) -> Any:
        """Return a value as short JSON: a word's place in the list, a number in three digits."""
        if isinstance(value, str):
            return words.setdefault(value, len(words))
        return None if pd.isna(value) else float(f"{value:.3g}")

    rows = [
        [
            networks.index(unit["network"]), short(unit["layer"]), unit["unit"],
            short(unit["concept"]), round(unit["score"], 3), int(unit["certified"]),
            [order[image] for image in unit["top_images"]], unit["histogram"],
            [short(unit[column]) for column in told[unit["network"]]],
        ]
        for unit in units.to_dict("records")
    ]  # fmt: skip
    data = {
        "thumb": THUMB,
        "columns": COLUMNS,
        "networks": [[network, measures.get(str(network), "")] for network in networks],
        "facts": [
            [[facts[column], int(is_string_dtype(units[column]))] for column in columns]
            for columns in told.values()
        ],
        "images": [[image, places.get(image, -1)] for image in shown],
        "none": NO_LABEL,
        "words": list(words),
        "rows": rows,
    }
    site: dict[str, Any] = {"name": name, "caption": caption, "data": f"figures/{name}.csv"}
    site["sheet"] = f"figures/{name}.webp"
    site["browser"] = json.dumps(data, separators=(",", ":")).replace("<", r"\u003c")
    first = reliable(units).head(12)[["network", "layer", "unit", "concept", "score"]]
    html = (
        first.fillna({"concept": NO_LABEL})
        .style.format({"score": "{:.3f}"}, escape="html")
        .hide(axis="index")
        .to_html(table_uuid=name)
    )
    display({"text/html": html, "text/plain": caption}, raw=True, metadata={"xailib": site})


def unit_rows(
    labels: pd.DataFrame, images: Mapping[str, AnyPixels]
) -> tuple[list[list[AnyPixels]], list[str]]:
    """Return a gallery's rows and their labels: each unit's five most activating probe images."""
    rows, names = [], []
    for unit in labels.to_dict("records"):
        chosen = (Image.fromarray(images[image]) for image in list(unit["top_images"])[:5])
        rows.append([np.array(image.resize((160, 160))) for image in chosen])
        names.append(f"{unit['layer']} {unit['unit']}: {unit['concept']}")
    return rows, names


def _layers(labels: pd.DataFrame) -> Sequence[str]:
    layers = list(dict.fromkeys(labels["layer"]))
    if not layers:
        raise InputError("labels: the table has no unit")
    return layers


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"
