"""Concepts: the names that units may be labelled with, read the same way everywhere.

Blank lines, duplicates, case and encoding are dealt with here and nowhere else, so that the
list that is embedded is the list that labels are looked up in.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from xailib import networks  # the room: nothing of it is imported before it is used
from xailib.downloads.registry import artefact
from xailib.errors import InputError, unknown_name

PACKAGED = "packaged"
WORDS = "20k"  # the most common English words, as CLIP-Dissect's authors use them
KINDS = ("object", "animal", "plant", "food", "part", "scene", "material", "texture", "colour")
_CATEGORIES = "categories:"


@dataclass(frozen=True)
class Concepts:
    """A list of concepts without blanks and duplicates, in the order given."""

    names: tuple[str, ...]  #: as first spelt; no two differ only in case or width of spaces
    source: str  #: where they came from, with the licence of the packaged list
    #: from a concept, in lower case, to one of `KINDS`, where the lexicon has it
    kinds: Mapping[str, str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha256(self) -> str:
        """Hash of the names, in order, which two labellings must share to be compared."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()


def load_concepts(source: str | Path | Iterable[str | Path] = PACKAGED) -> Concepts:
    r"""Load concepts from a text file, the class names of a classifier, or the packaged list.

    Spaces around and repeated spaces within a concept are dropped, blank entries left out, and of
    entries that differ only in case the first is used.

    Parameters
    ----------
    source : str, path, or list of them
        ``"packaged"``; ``"categories:imagenet"`` or ``"categories:MODEL"`` with any name that
        `xailib.networks.classifier.load_classifier` takes; or a text file with one concept a line,
        in UTF-8 (with or without a byte order mark) or else Latin-1. A list is joined in its order.

    Raises
    ------
    InputError
        If there is no such file, or it holds no concept.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    names: list[str] = []
    for one in sources:
        names += _read(str(one))
    packaged = "packaged list (xailib, MIT)"
    return from_names(names, " + ".join(packaged if s == PACKAGED else str(s) for s in sources))


def from_names(names: Iterable[str], source: str) -> Concepts:
    """Return names as concepts, by the rules of `load_concepts`; raise if nothing is left."""
    kept: dict[str, str] = {}
    for name in names:
        if tidy := " ".join(name.split()):
            kept.setdefault(tidy.casefold(), tidy)
    if not kept:
        raise InputError(f"concepts: {source or 'the list'} holds no concept")
    known = lexicon()
    kinds = {key: known[key] for key in kept if key in known}
    return Concepts(tuple(kept.values()), source, MappingProxyType(kinds))


def lexicon() -> dict[str, str]:
    """Return the packaged list as a mapping from concept to kind."""
    text = files("xailib.dissect").joinpath("concepts.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {concept: kind for kind, concept in lines}


def _read(source: str) -> list[str]:
    if source == PACKAGED:
        return list(lexicon())
    if source.startswith(_CATEGORIES):
        model = source.removeprefix(_CATEGORIES)
        if model == "imagenet":
            return list(networks.imagenet_classes())
        return list(networks.load_classifier(model).class_names)
    path = artefact(WORDS).fetch() if source == WORDS else Path(source).expanduser()
    if not path.is_file():
        if any(sign in source for sign in "/\\.~"):
            raise InputError(f"concepts: no file {source!r}")
        raise unknown_name("concepts", source, [PACKAGED, WORDS, f"{_CATEGORIES}imagenet"])
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\0" in text:
        raise InputError(f"concepts: {source!r} is not a text file in UTF-8 or Latin-1")
    return text.splitlines()
