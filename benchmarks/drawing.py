"""Figures of the benchmarks as the site shows them: on white, and with a twin for the dark."""

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from xailib.files import write_atomic
from xailib.report.figures.publish import darkened


def keep(folder: Path, name: str, figure: Figure) -> None:
    """Write ``name.svg`` and ``name-dark.svg``: the same bytes for the same figure."""
    _write(folder / f"{name}.svg", figure)
    with darkened(figure):
        _write(folder / f"{name}-dark.svg", figure)


def _write(path: Path, figure: Figure) -> None:
    stream = BytesIO()
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    write_atomic(path, stream.getvalue())
