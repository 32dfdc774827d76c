"""The API pages list each module once, a page a room."""

import ast
import re
import sys
from collections import Counter

from conftest import ROOT

sys.path.insert(0, str(ROOT / "book/_ext"))
from rooms import entries


def test_each_module_stands_on_one_page():
    pages = sorted((ROOT / "book" / "api").glob("*.md"))
    listed = [
        name for page in pages for name in re.findall(r"automodule:: (\S+)", entries(page.stem))
    ]
    package = ROOT / "xailib"
    modules = [file.relative_to(ROOT).with_suffix("") for file in package.rglob("*.py")]
    public = {
        ".".join(module.parts)
        for module in modules
        # A room's own page says what it is; the command is called from a shell.
        if not module.stem.startswith("_") and "cli" not in module.parts
    }
    assert Counter(listed) == Counter(public)


def test_nothing_said_of_an_attribute_is_taken_for_its_type():
    """As Sphinx's napoleon takes what stands before a colon there."""
    found = []
    for file in sorted((ROOT / "xailib").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        said = re.findall(r"#: (.*)", text)
        for node in ast.walk(ast.parse(text)):
            made = isinstance(node, ast.FunctionDef) and map(ast.unparse, node.decorator_list)
            if made and "property" in made:
                said.append((ast.get_docstring(node) or "").partition("\n")[0])
        found += [f"{file.stem}: {one}" for one in said if ": " in re.sub("`+.*?`+", "", one)]
    assert found == []
