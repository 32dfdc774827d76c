"""Kinds of concept that units carry, and whether one network carries more of a kind."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact
from scipy.stats.contingency import odds_ratio

from xailib.compare.intervals import share_interval
from xailib.errors import InputError, unknown_name

UNKNOWN = "not in the lexicon"
_EXAMPLES = 5  # concepts named


def kinds_of(labels: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Count the kinds of concept in each layer: layer, kind, units, share of the layer.

    A concept whose kind is not in the lexicon counts as `UNKNOWN`. Dead units, which answer
    to nothing, are left out where the table marks them.
    """
    labels = alive(labels)
    counts = labels.assign(kind=_kinds(labels, kinds)).groupby(["layer", "kind"], sort=False).size()
    table = counts.rename("units").reset_index()
    return table.assign(share=table["units"] / table.groupby("layer")["units"].transform("sum"))


def counted(tables: Mapping[str, pd.DataFrame], kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return `kinds_of` for the labels of several networks, in one table: network and the rest."""
    parts = [kinds_of(labels, kinds).assign(network=name) for name, labels in tables.items()]
    return pd.concat(parts, ignore_index=True)[["network", "layer", "kind", "units", "share"]]


@dataclass(frozen=True)
class KindTest:
    """Whether the units of a second network carry a kind of concept more often than a first's."""

    kind: str
    first: int  #: units that carry it
    first_units: int  #: of so many in the layers compared, without dead ones
    second: int
    second_units: int
    #: of the second over those of the first, the conditional maximum likelihood estimate;
    #: infinite where the first has none
    odds: float
    odds_low: float  #: its exact 95 % interval, to `odds_high`
    odds_high: float
    p: float  #: of Fisher's exact test, two-sided, which takes units for independent of each other


def compare_kind(
    first: pd.DataFrame,
    second: pd.DataFrame,
    kinds: Mapping[str, str],
    kind: str = "scene",
    *,
    last: int = 2,
) -> KindTest:
    """Compare how often two networks' last layers carry a kind of concept, dead units left out.

    A kind that no concept has, or a network without units to compare, raises `InputError`.

    Parameters
    ----------
    first, second : DataFrame
        From `xailib.dissect.label.label_units`, layers in order.
    kinds : mapping
        From a concept, in lower case, to its kind: `xailib.dissect.concepts.Concepts.kinds`.
    kind : str
        Which one.
    last : int
        How many of each network's layers, from the end.
    """
    if kind not in kinds.values():
        raise unknown_name("kind", kind, sorted(set(kinds.values())))
    if last < 1:
        raise InputError(f"last: {last} layers are none")
    carried = []
    for name, labels in (("first", first), ("second", second)):
        layers = list(dict.fromkeys(labels["layer"]))[-last:]
        chosen = alive(labels[labels["layer"].isin(layers)])
        if chosen.empty:
            raise InputError(f"{name}: the table has no unit in its last layers that is not dead")
        carried.append((_kinds(chosen, kinds) == kind).to_numpy())
    one, two = carried
    table = np.array([[two.sum(), (~two).sum()], [one.sum(), (~one).sum()]])
    ratio = odds_ratio(table)
    interval = ratio.confidence_interval(0.95)
    return KindTest(
        kind=kind,
        first=int(one.sum()),
        first_units=len(one),
        second=int(two.sum()),
        second_units=len(two),
        odds=float(ratio.statistic),
        odds_low=float(interval.low),
        odds_high=float(interval.high),
        p=float(fisher_exact(table).pvalue),
    )


def compare_concepts(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare the concepts of two networks' labels, layer by layer in their order.

    Parameters
    ----------
    first, second : DataFrame
        layer and concept of each unit; a missing concept is no label.

    Returns
    -------
    DataFrame
        One row for each pair of layers: layer (both names), shared (distinct concepts of both), and
        for each network (``_first``, ``_second``) its concepts, the share of its labelled units
        whose concept the other has too, with Wilson's interval (low, high), and only: the most
        frequent concepts that the other has not.
    """
    layers = zip(*(dict.fromkeys(table["layer"]) for table in (first, second)), strict=False)
    rows = []
    for pair in layers:
        named = [
            table.loc[table["layer"] == layer, "concept"].dropna()
            for table, layer in zip((first, second), pair, strict=True)
        ]
        sets = [set(names) for names in named]
        row: dict[str, float | str] = {"layer": " and ".join(dict.fromkeys(pair))}
        row["shared"] = len(sets[0] & sets[1])
        for which, names, other in zip(("first", "second"), named, reversed(sets), strict=True):
            inside = int(names.isin(other).sum())
            low, high = share_interval(inside, len(names)) if len(names) else (np.nan, np.nan)
            row |= {
                f"concepts_{which}": names.nunique(),
                f"share_{which}": inside / max(len(names), 1),
                f"low_{which}": low,
                f"high_{which}": high,
                f"only_{which}": ", ".join(
                    names[~names.isin(other)].value_counts().head(_EXAMPLES).index
                ),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def alive(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the units that answer to something, where the table marks which."""
    return labels[~labels["dead"]] if "dead" in labels else labels


def _kinds(labels: pd.DataFrame, kinds: Mapping[str, str]) -> pd.Series:
    return labels["concept"].str.casefold().map(dict(kinds)).fillna(UNKNOWN)
