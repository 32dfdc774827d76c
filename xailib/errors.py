"""The errors that xailib raises for bad input, each one line that says what is allowed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class XailibError(Exception):
    """An error that the user can fix; the message says how, in one line."""

    def __str__(self) -> str:
        # Also where it quotes a library's error of many lines.
        return " ".join(super().__str__().split("\n")).strip()

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: a notebook shows the one line that helps, not our stack.
        return [f"{type(self).__name__}: {self}"]


class InputError(XailibError, ValueError):
    """An argument, a name or a file that cannot be used."""


class UnavailableError(XailibError, OSError):
    """Something that had to be downloaded and could not be."""


class StorageError(UnavailableError):
    """A result that could not be written: a full disk, a read-only folder."""


def first_line(error: BaseException) -> str:
    """Return an error of other code as one line: its type, and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def others_code(message: str) -> Iterator[None]:
    """Turn whatever other people's code raises in this block into one line behind a message."""
    try:
        yield
    except XailibError:
        raise
    except (Exception, SystemExit) as error:  # such as a file that reads its own command line
        raise InputError(f"{message}: {first_line(error)}") from error


def near_matches(given: str, allowed: Iterable[str]) -> list[str]:
    """Return the up to four names in `allowed` closest to `given`, best first; case is ignored.

    A name that contains `given` counts as close, so that ``layer4`` finds ``backbone.layer4``.
    """
    names = {name.lower(): name for name in allowed}
    key = given.lower()
    close = get_close_matches(key, names, n=4, cutoff=0.6)
    close += [low for low in names if key and key in low and low not in close]
    return [names[low] for low in close[:4]]


def unknown_name(argument: str, given: object, allowed: Iterable[str]) -> InputError:
    """Return the error for a name that is not among `allowed`, with the nearest that are."""
    allowed = list(allowed)
    close = near_matches(str(given), allowed)
    if close:
        hint = "did you mean " + " or ".join(close) + "?"
    elif len(allowed) <= 12:
        hint = "allowed: " + ", ".join(allowed)
    else:
        hint = f"allowed: one of {len(allowed)} names, such as {', '.join(allowed[:4])}"
    return InputError(f"{argument}: unknown name {given!r}; {hint}")


def check_name(argument: str, given: object, allowed: Iterable[str]) -> None:
    """Raise `unknown_name` unless a name is among `allowed`."""
    if given not in (allowed := list(allowed)):
        raise unknown_name(argument, given, allowed)


def check_least(argument: str, given: int | None) -> None:
    """Raise for a number below 1; None is none."""
    if given is not None and given < 1:
        raise InputError(f"{argument}: {given} is not at least 1")


def alone(error: XailibError) -> XailibError:
    """Return an error to be stored: without the frames that it went through, which hold tensors."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
