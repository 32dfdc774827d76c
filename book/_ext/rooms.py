"""The API pages: a page a room of the package, which lists the files that are there."""

from collections.abc import Iterable
from pathlib import Path

from sphinx.application import Sphinx

PACKAGE = Path(__file__).parents[2] / "xailib"
BASE = "base"  # the page of what lies in no room
_LEFT_OUT = ("cli",)  # called from a shell; `xailib --help` describes it


def entries(room: str) -> str:
    """Return a heading and an automodule directive for each file of a room, as MyST."""
    found = PACKAGE.glob("*.py") if room == BASE else (PACKAGE / room).rglob("*.py")
    return "\n".join(map(_entry, _names(found)))


def _names(files: Iterable[Path]) -> list[str]:
    public = [
        file.relative_to(PACKAGE.parent).with_suffix("")
        for file in files
        if not file.stem.startswith("_") and not set(_LEFT_OUT) & set(file.parts)
    ]
    # The files of a room before those of the rooms in it.
    return [".".join(p.parts) for p in sorted(public, key=lambda p: (p.parent.parts, p.name))]


def _entry(name: str) -> str:
    return f"## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n"


def show_room(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the entries of a room to its page."""
    if docname.startswith("book/api/"):
        source[0] += "\n" + entries(docname.rpartition("/")[2])


def setup(app: Sphinx) -> None:
    """Register the pages with Sphinx."""
    app.connect("source-read", show_room)
