"""Kinds of values that a parameter may take, each told in the words of its error.

Nothing here imports a network or a table: a wrong value is answered in a moment.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xailib.errors import InputError, near_matches, unknown_name

Each = Callable[[str, str], None]  # from a parameter's name and one of its words; raises


def _anything(name: str, word: str) -> None:
    """Take any word."""


@dataclass(frozen=True)
class Rule:
    """What one parameter may be.

    Attributes
    ----------
    kind : type
        As in the notebooks' parameters cells.
    allowed : str
        For people: ends "seed: 'x' is not ...".
    fits : callable
        Tells whether a value is of that kind and in its range.
    each : callable
        Looks at a text, or at each text of a list, and raises with what is near.
    """

    kind: type
    allowed: str
    fits: Callable[[Any], bool]
    each: Each = _anything

    def meant(self, value: Any) -> Any:
        """Return a value as it is meant: one text or number for a list is a list of it.

        A text in brackets is a list that reached us as text, so it is left to be refused.
        """
        alone = self.kind is list and not isinstance(value, list) and not _bracketed(value)
        return [value] if alone and self.fits([value]) else value

    def check(self, name: str, value: Any) -> None:
        """Raise unless a value is allowed.

        Raises
        ------
        InputError
            Naming the parameter, what was given and what is allowed.
        """
        if value is None:
            none = ", or '' for none" if self.fits("") else ""
            raise InputError(f"{name}: no value was given; allowed: {self.allowed}{none}")
        if not self.fits(value):
            hint = _hint(self, name, value)
            raise InputError(f"{name}: {_shown(value)} is not {self.allowed}{hint}")
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str):
                self.each(name, word)


def whole(least: int, most: int | None = None) -> Rule:
    """Return the rule for whole numbers from `least` to `most`."""
    span = f"of at least {least}" if most is None else f"from {least} to {most}"
    top = math.inf if most is None else most
    return Rule(int, f"a whole number {span}", lambda v: type(v) is int and least <= v <= top)


def share() -> Rule:
    """Return the rule for a number of at least 0 and below 1."""
    return Rule(float, "a number of at least 0 and below 1", lambda v: _number(v) and 0 <= v < 1)


def percentiles() -> Rule:
    """Return the rule for a list of percentiles."""
    return Rule(
        list,
        "a list of numbers between 0 and 100, such as [70, 90]",
        lambda v: isinstance(v, list) and all(_number(one) and 0 < one < 100 for one in v),
    )


def wholes(least: int) -> Rule:
    """Return the rule for a list of whole numbers of at least `least`."""
    each = whole(least)
    return Rule(
        list,
        f"a list of whole numbers of at least {least}, at least 1",
        lambda v: isinstance(v, list) and bool(v) and all(each.fits(one) for one in v),
    )


def flag() -> Rule:
    """Return the rule for yes or no."""
    return Rule(bool, "true or false", lambda v: isinstance(v, bool))


def text(allowed: str, each: Each = _anything, *, empty: bool = True) -> Rule:
    """Return the rule for one text; an empty one is never looked at."""
    return Rule(
        str,
        allowed,
        lambda v: isinstance(v, str) and (empty or bool(v.strip())),
        lambda name, word: each(name, word) if word else None,
    )


def category() -> Rule:
    """Return the rule for a category: its name, or its index."""
    index = whole(0)
    return Rule(
        str, "the name or the index of a category", lambda v: isinstance(v, str) or index.fits(v)
    )


def words(allowed: str, each: Each = _anything, least: int = 0) -> Rule:
    """Return the rule for a list of texts."""
    return Rule(
        list,
        f"a list of {allowed}" + (f", at least {least}" if least else ""),
        lambda v: (
            isinstance(v, list) and len(v) >= least and all(isinstance(o, str) and o for o in v)
        ),
        each,
    )


def one_of(names: Iterable[str]) -> Each:
    """Return what raises, with the nearest, unless a word is one of the names."""
    known = tuple(names)

    def look(name: str, word: str) -> None:
        if word not in known:
            raise unknown_name(name, word, known)

    return look


def a_file(what: str) -> Each:
    """Return what raises unless a word names a file."""

    def look(name: str, word: str) -> None:
        if not is_file(word):
            raise InputError(f"{name}: no file {word!r}{near_paths(word)}; give {what}")

    return look


def a_folder(what: str) -> Each:
    """Return what raises unless a word names a folder."""

    def look(name: str, word: str) -> None:
        if not exists(word) or is_file(word):
            raise InputError(f"{name}: no folder {word!r}{near_paths(word)}; {what}")

    return look


def exists(word: str) -> bool:
    """Tell whether a word names a file or folder; what cannot be a path does not."""
    try:
        return Path(word).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, an unknown home
        return False


def is_file(word: str) -> bool:
    """Tell whether a word names a file."""
    return exists(word) and Path(word).expanduser().is_file()


def looks_like_path(word: str) -> bool:
    """Tell whether a word that names nothing was meant as a path."""
    return any(sign in word for sign in "/\\.~")


def near_paths(word: str) -> str:
    """Return "; did you mean ...?" with files beside the one named, or nothing."""
    try:
        path = Path(word).expanduser()
        close = near_matches(word, [str(path.with_name(f.name)) for f in path.parent.glob("*")])
    except (OSError, ValueError, RuntimeError):
        return ""
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bracketed(value: Any) -> bool:
    return isinstance(value, str) and value.strip()[:1] == "[" and value.strip()[-1:] == "]"


def _hint(rule: Rule, name: str, value: Any) -> str:
    """Return how papermill is told a list or a text, for who gave the other."""
    if rule.kind is list and _bracketed(value):
        return f"; for papermill -y '{name}: {value}'"
    if rule.kind is str and not isinstance(value, Collection):
        return f"; quote it, for papermill -r {name} {value}"
    return ""


def _shown(value: Any) -> str:
    found = repr(value)
    return found if len(found) <= 80 else f"{found[:77]}..."
