"""The API pages list each module once."""

import re

from conftest import ROOT


def test_each_public_module_stands_on_one_page():
    listed = []
    for page in sorted((ROOT / "book" / "api").glob("*.md")):
        listed += re.findall(r"automodule:: xailib\.([\w.]+)", page.read_text(encoding="utf-8"))
    package = ROOT / "xailib"
    modules = {
        # The commands are one entry: they are called from a shell.
        "report.cli"
        if file.parent.name == "cli"
        else ".".join(file.relative_to(package).with_suffix("").parts)
        for file in package.rglob("*.py")
        if not file.stem.startswith("_")
    }
    assert sorted(listed) == sorted(modules)
