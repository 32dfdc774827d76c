"""The book's table of parameters, from the models that the notebooks are checked by."""

import json

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from xailib.report.params.schema import FIELDS, MANAGED, NOTEBOOKS, explained, parameters


def table() -> str:
    """Return a Markdown table: a row for each parameter, or for each default that it has.

    Where a parameter means something else on some pages, they are named before that.
    """
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    tasks = sorted(NOTEBOOKS, key=lambda task: int(task.partition("_")[0]))
    for name in FIELDS.keys() - MANAGED:
        for task in tasks:
            if told := parameters(task).get(name):
                meanings = rows.setdefault((name, json.dumps(told["default"])), {})
                meanings.setdefault(explained(told), []).append(task)
    lines = ["| Parameter | Default | Meaning | Notebooks |", "|---|---|---|---|"]
    for (name, default), meanings in sorted(rows.items()):
        usual = max(meanings, key=lambda meaning: len(meanings[meaning]))
        others = [f"{', '.join(meanings[m])}: {m}" for m in meanings if m != usual]
        pages = [
            f"[{t}](../notebooks/{t})" for t in tasks if any(t in m for m in meanings.values())
        ]
        said = "<br>".join([usual, *others])
        lines.append(f"| `{name}` | `{default}` | {said} | {', '.join(pages)} |")
    return "\n".join(lines)


class Parameters(SphinxDirective):
    """All parameters that a profile may set: ``{parameters}``."""

    text = ""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_dependency(__file__)
        found: list[nodes.Node] = self.parse_text_to_nodes(self.text)
        return found


def setup(app: Sphinx) -> None:
    """Register the directive."""
    # Now: autodoc imports modules as a type checker does, after which pydantic makes no models.
    Parameters.text = table()
    app.add_directive("parameters", Parameters)
