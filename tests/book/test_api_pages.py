"""The API pages list each module once, a page a room."""

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
