"""How cost grows, as the page on cost shows it, and what that would come to with ImageNet.

``benchmarks/scale.py`` measures and prints with the same functions.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from performance import number
from scipy.optimize import nnls

FOLDER = Path(__file__).parents[1] / "_data/scale"
READ, UNITS, CONCEPTS = "photographs, read and cut", "units, labelled", "concepts, labelled"
PROBE, FEW_UNITS, FEW_CONCEPTS = 2000, 300, 1000  # of the benchmark's labelling


def kept(name: str, folder: Path = FOLDER) -> pd.DataFrame | None:
    """Return a table that the benchmark has kept, if it has."""
    file = folder / f"{name}.csv"
    return pd.read_csv(file) if file.is_file() else None


def growth(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return how time and memory grow: the power over all sizes, and over the last step."""
    rows = []
    for what, group in sizes.groupby("growing", sort=False):
        some = group.sort_values("size")
        x, y = np.log(some["size"]), np.log(some["seconds"])
        first, last = some.iloc[0], some.iloc[-1]
        rows.append(
            {
                "what grows": what,
                "from – to": f"{first['size']:,} – {last['size']:,}",
                "seconds of a processor": f"{number(first['seconds'])} – {number(last['seconds'])}",
                "grows as its power": f"{np.polyfit(x, y, 1)[0]:.2f}",
                "in the last step": f"{np.polyfit(x[-2:], y[-2:], 1)[0]:.2f}",
                "peak memory, MB": f"{first['mb']:.0f} – {last['mb']:.0f}",
            }
        )
    return pd.DataFrame(rows)


def efficiency(workers: pd.DataFrame) -> pd.DataFrame:
    """Return how much faster more workers are."""
    return pd.DataFrame(
        {
            "workers": workers["workers"],
            "cores": workers["cores"],
            "seconds": workers["seconds"].map(number),
            "times one worker": workers["speedup"].map("{:.2f}".format),
            "efficiency": workers["efficiency"].map("{:.0%}".format),
            "of what the cores allow": (
                workers["speedup"] / np.minimum(workers["workers"], workers["cores"])
            ).map("{:.0%}".format),
        }
    )


def lasting(long: pd.DataFrame) -> pd.DataFrame:
    """Return what a long run took."""
    row = long.iloc[0]
    return pd.DataFrame(
        {
            "photographs": [f"{row['images']:,}"],
            "rows of the table": [f"{row['rows']:,}"],
            "failures listed": [row["failures"]],
            "seconds": [number(row["seconds"])],
            "workers": [row["workers"]],
            "memory, first quarter, MB": [number(row["first_quarter_mb"])],
            "memory, last quarter, MB": [number(row["last_quarter_mb"])],
            "disk, MB": [number(row["disk_mb"])],
        }
    )


def assumed(folder: Path = FOLDER) -> pd.DataFrame:
    """Return what the extrapolation takes for given."""
    return pd.read_csv(folder / "assumed.csv")


def extrapolated(
    given: pd.DataFrame, sizes: pd.DataFrame, workers: pd.DataFrame | None
) -> pd.DataFrame:
    """Return what labelling with ImageNet as the probe set would take, and from what.

    Parameters
    ----------
    given : DataFrame
        Columns name, value, quantity, origin, see `assumed`.
    sizes : DataFrame
        What the benchmark has measured: growing, size, seconds.
    workers : DataFrame, optional
        Likewise: workers, cores, efficiency.
    """
    value = dict(zip(given["name"], given["value"].astype(float), strict=True))
    rows = [(q, number_of(v), o) for q, v, o in given[["quantity", "value", "origin"]].values]
    share, whence = _share(workers)
    rows.append(("efficiency of many workers", f"{share:.2f}", whence))
    read = sizes[sizes["growing"] == READ]
    a_second = float(read["size"].iloc[-1] / read["seconds"].iloc[-1]) if len(read) else np.nan
    rows.append(("photographs read and cut, a second and core", number(a_second), "measured here"))
    shows = value["images"] * value["networks"]
    hours = shows / (value["passes"] * value["gpus"] * share) / 3600
    reading = shows / (a_second * value["cores"] * value["gpus"] * share) / 3600
    rate = shows / max(hours, reading if reading == reading else 0) / 3600
    needed = min(value["images"], value["units"] * value["top"])
    label = _labelling(sizes, needed, value["units"], value["concepts"])
    computed = {
        "pictures shown to networks": number_of(shows),
        "hours, if the GPUs are what is short": number(hours),
        "hours, if the cores that read photographs are": number(reading),
        "GB a second from the disks at the slower of these": number(rate * value["bytes"] / 1e9),
        "GB of photographs": number(value["images"] * value["bytes"] / 1e9),
        "GB of activations, half precision": number(value["images"] * value["units"] * 2 / 1e9),
        "GB of embeddings, single precision": number(
            value["images"] * value["dimensions"] * 4 / 1e9
        ),
        "images that are among some unit's top ones, at most": number_of(needed),
        "seconds to label all units on one core": number(label),
    }
    rows += [(quantity, said, "computed, all in proportion") for quantity, said in computed.items()]
    return pd.DataFrame(rows, columns=["quantity", "value", "from"])


def _share(workers: pd.DataFrame | None) -> tuple[float, str]:
    """Return the efficiency of as many workers as there are cores."""
    if workers is None:
        return 0.9, "assumed"
    fit = workers[workers["workers"] <= workers["cores"]].iloc[-1]
    return float(fit["efficiency"]), f"measured here, {fit['workers']:.0f} workers on as many cores"


def _labelling(sizes: pd.DataFrame, images: float, units: float, concepts: float) -> float:
    """Return seconds: a multiple of images x concepts, and one of units x concepts.

    How large these are, the two largest cases of the benchmark say.
    """
    largest = [sizes[sizes["growing"] == name].iloc[-1] for name in (UNITS, CONCEPTS)]
    cases = [(PROBE, largest[0]["size"], FEW_CONCEPTS), (PROBE, FEW_UNITS, largest[1]["size"])]
    sides = np.array([(i * c, u * c) for i, u, c in cases], float)
    constants, _ = nnls(sides, np.array([row["seconds"] for row in largest]))
    return float(constants @ np.array([images * concepts, units * concepts]))


def number_of(count: float) -> str:
    """Return a count as people write it."""
    return f"{count:,.0f}"
