"""What the words of parameters name: networks, photographs, encoders, files, finished runs.

Each function takes a parameter's name and its value, and raises one line if nothing of that name
can be had. Loaders look again, and deeper; this is the look that costs nothing.
"""

import re
import symtable
from collections.abc import Sequence
from pathlib import Path

from xailib.errors import InputError, unknown_name
from xailib.images.packaged import PACKAGES, packaged
from xailib.networks import names
from xailib.project import project_root
from xailib.report.params.rules import a_file, exists, is_file, looks_like_path, near_paths

PUBLISHED = "published"  # photographs of the replicated report
PROBES = ("packaged", "broden", "imagenet-sample")
RANDOM = "random"
_CATEGORIES = "categories:"
_LISTS = ("packaged", "20k", f"{_CATEGORIES}imagenet")


def network(name: str, word: str) -> None:
    """Raise unless a word names a network, or a function in a Python file."""
    if ".py:" in word:
        _function(name, word)
    elif word.endswith(".py"):
        raise InputError(f"{name}: name the function too, as in {word}:load")
    elif word not in names.networks():
        raise unknown_name(name, word, names.networks())


def _function(name: str, word: str) -> None:
    place, _, function = word.rpartition(":")
    if not is_file(place):
        raise InputError(f"{name}: no file {place!r} (from {word!r}){near_paths(place)}")
    try:
        source = Path(place).expanduser().read_text(encoding="utf-8")
        table = symtable.symtable(source, place, "exec")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{name}: {place!r} is not a Python file: {error}") from error
    # A function is assigned too.
    bound = [s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()]
    if function not in bound and "import *" not in source:
        raise unknown_name(f"{name}: function in {Path(place).name}", function, bound)


def weights_of(name: str, word: str, of: str) -> None:
    """Raise unless a word names weights that the network `of` can have."""
    if word == RANDOM and ".py:" in of:
        raise InputError(f"{name}: {RANDOM!r} is for networks by name; {of!r} takes a file")
    members = [] if of in names.PACKAGED else names.torchvision_networks().get(of, ())
    if word == RANDOM or word in members or is_file(word):
        return
    known = [*members, *([] if ".py:" in of else [RANDOM])]
    near = near_paths(word) if looks_like_path(word) else ""
    listed = f" nor one of {', '.join(known)}" if known else ""
    raise InputError(f"{name}: {word!r} is {'neither' if known else 'not'} a file{listed}{near}")


def any_image(name: str, listed: Sequence[str]) -> None:
    """Raise unless at least one word names photographs; the others are told on the page."""
    reasons = [reason for word in listed if (reason := _no_image(name, word))]
    if listed and len(reasons) == len(listed):
        more = f" (and {len(reasons) - 1} more failed)" if len(reasons) > 1 else ""
        raise InputError(f"{reasons[0]}{more}")


def _no_image(name: str, word: str) -> str | None:
    known = [*packaged(), *PACKAGES, *(PROBES if name == "probe" else ()), PUBLISHED]
    if word in known or exists(word):
        return None
    if looks_like_path(word):
        return f"{name}: no file or folder {word[:80]!r}{near_paths(word)}"
    return str(unknown_name(name, word, known))


def most_images(listed: Sequence[str]) -> int | None:
    """Return the most photographs that a list can name; None where only reading it can tell."""
    count = 0
    for word in dict.fromkeys(listed):
        if word == "packaged":
            count += len(packaged())
        elif word in packaged() or is_file(word):
            count += 1
        elif word in PACKAGES:
            count += len(PACKAGES[word][2])
        else:
            return None
    return count


def concepts(name: str, word: str) -> None:
    """Raise unless a word names a list of concepts."""
    if word.startswith(_CATEGORIES) and word not in _LISTS:
        network(name, word.removeprefix(_CATEGORIES))
    elif word not in _LISTS and not is_file(word):
        if looks_like_path(word):
            raise InputError(f"{name}: no file {word!r}{near_paths(word)}")
        raise unknown_name(name, word, _LISTS)


def encoder(name: str, word: str) -> None:
    """Raise unless a word names an image-text encoder."""
    kind, _, rest = word.partition(":")
    if kind not in ("clip", "openclip", "conse") or not rest:
        raise InputError(
            f"{name}: {word!r} is none of clip:NAME (clip:ViT-B/16), openclip:ARCH/PRETRAINED, "
            "conse:CLASSIFIER (conse:tf_efficientnet_lite1)"
        )
    if kind == "clip" and names.clip_networks() and rest not in names.clip_networks():
        raise unknown_name(f"{name}: clip", rest, names.clip_networks())
    if kind == "conse":
        classifier, _, sentences = rest.partition("+")
        network(name, classifier)
        if sentences not in ("", "minilm") and not exists(sentences):
            raise InputError(f"{name}: sentence model {sentences!r} is neither minilm nor a folder")


def device(name: str, word: str) -> None:
    """Raise unless a word names a kind of device; whether it is here, torch tells."""
    if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d+)?", word):
        raise unknown_name(name, word, ("auto", "cpu", "cuda", "mps"))


def boxes(name: str, word: str) -> None:
    """Raise unless a word is ``packaged`` or names a file."""
    if word != "packaged":
        a_file("packaged, or a CSV file: image, left, top, right, bottom")(name, word)


def new_folder(name: str, word: str) -> None:
    """Raise if a word cannot be a folder, because a file has its name."""
    if is_file(str(project_root() / Path(word))):
        raise InputError(f"{name}: {word!r} is a file; name a folder")


def finished_run(name: str, word: str, task: str) -> None:
    """Raise unless a word names the folder of a finished run of a task."""
    if not is_file(str(project_root() / word / "manifest.json")):
        raise InputError(f"{name}: {word!r} holds no finished run; run {task} first")
