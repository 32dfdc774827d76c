"""Labels that others have published, in CLIP-Dissect's own format."""

from pathlib import Path

import pandas as pd

from xailib.errors import InputError

_PUBLISHED = ["layer", "unit", "description", "similarity"]


def read_descriptions(path: str | Path) -> pd.DataFrame:
    """Read labels as CLIP-Dissect publishes them: a CSV with layer, unit, description, similarity.

    Returns
    -------
    DataFrame
        layer, unit, concept and similarity, as `xailib.dissect.label.label_units` names them; what
        is not in the file is not in the table.

    Raises
    ------
    InputError
        If there is no such file, a column is missing, a value is not a number, or a unit
        comes twice.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"descriptions: no file {str(path)!r}")
    try:  # "nan", "null" and "none" are words here
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        missing = [name for name in _PUBLISHED if name not in table.columns]
        if missing:
            raise InputError(f"descriptions: {path.name!r} has no column {', '.join(missing)}")
        table = table[_PUBLISHED].astype({"unit": "int64", "similarity": "float64"})
    except InputError:
        raise
    except ValueError as error:  # pandas' own errors of parsing are among these
        raise InputError(f"descriptions: {path.name!r} cannot be read: {error}") from error
    if table.empty or table.duplicated(["layer", "unit"]).any():
        raise InputError(f"descriptions: {path.name!r} is empty or names a unit twice")
    return table.rename(columns={"description": "concept"})
