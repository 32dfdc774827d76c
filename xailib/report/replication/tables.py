"""The audit's tables, computed, and as stored in the project for readers without a network.

Only our own numbers are stored, never what was published: a few small tables and a manifest
that says from which files, by which code and when they were computed.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from xailib.dissect.concepts import lexicon
from xailib.dissect.kinds import counted
from xailib.errors import InputError
from xailib.files import atomic, write_atomic
from xailib.project import project_root
from xailib.report.replication import audit
from xailib.report.replication.published import COMMIT, REPOSITORY, Published, registry
from xailib.versions import environment, git_commit

Tables = dict[str, pd.DataFrame]
NAMES = ("steps", "corrected", "summary", "sweep", "ranks", "opposing", "kinds")
DIGITS = 6


def compute(cases: Sequence[Published], labels: Mapping[str, pd.DataFrame]) -> Tables:
    """Return all of the audit's tables, by the names in `NAMES`, of what `published` has read."""
    corrected = audit.corrected(cases)
    return {
        "steps": audit.steps(cases),
        "corrected": corrected,
        "summary": audit.summary(corrected),
        "sweep": audit.sweep(cases),
        "ranks": audit.rank_agreement(cases),
        "opposing": audit.opposing(cases),
        "kinds": counted(labels, lexicon()),
    }


def folder() -> Path:
    """Return where the project stores the tables."""
    return project_root() / "book" / "_data" / "replication"


def files() -> list[Path]:
    """Return the stored files, tables and manifest."""
    return [*(folder() / f"{name}.csv" for name in NAMES), folder() / "manifest.json"]


def store(tables: Tables) -> None:
    """Store tables, rounded to `DIGITS` decimals, with the manifest, which is written last."""
    for name in NAMES:
        with atomic(folder() / f"{name}.csv") as file:
            tables[name].to_csv(file, index=False, float_format=f"%.{DIGITS}f")
    manifest = {
        "repository": REPOSITORY,
        "commit": COMMIT,
        "computed": datetime.now(UTC).date().isoformat(),
        "project": git_commit(),
        "versions": environment(),
        "files": registry(),
    }
    write_atomic(folder() / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def load() -> tuple[Tables, Mapping[str, Any]]:
    """Return the stored tables and their manifest; raise `InputError` for a lost or damaged one."""
    *tables, manifest = files()
    try:
        found = {file.stem: pd.read_csv(file) for file in tables}
        return found, json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"audit: {str(folder())!r} holds no stored tables: {error}") from error
