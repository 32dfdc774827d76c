"""What parameters name (networks, photographs, files, finished runs), and which exclude each other.

Each function takes a parameter's name and its value, and raises one line if that names nothing
that is available. Loaders look again, and deeper; this is the look that costs nothing.
"""

import os
import re
import symtable
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from xailib.downloads import names
from xailib.errors import InputError, near_matches, unknown_name
from xailib.images.packaged import PACKAGES, packaged
from xailib.project import project_root

Heatmap = Literal[
    "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "ablationcam", "scorecam"
]
RUNS = {  # a parameter that names a finished run: of which notebook
    "dissect_run": "1_clip_dissect", "lime_run": "2_lime", "cam_run": "3_cam",
    "agreement_run": "4_agreement", "faithfulness_run": "5_faithfulness",
    "replication_run": "6_replication",
}  # fmt: skip
PUBLISHED = "published"  # photographs of the replicated report
PROBES = ("packaged", "broden", "imagenet-sample")
RANDOM = "random"
_FILES = {
    "boxes": "packaged, or a CSV file: image, left, top, right, bottom",
    "descriptions": "a published descriptions.csv",
    "encoder_weights": "the encoder's weights",
}
_CATEGORIES = "categories:"
_LISTS = ("packaged", "20k", f"{_CATEGORIES}imagenet")


def network(name: str, word: str) -> None:
    """Raise unless a text names a network, or a function in a Python file."""
    if ".py:" in word:
        _function(name, word)
    elif word.endswith(".py"):
        raise InputError(f"{name}: name the function too, as in {word}:load")
    elif word not in names.networks() and word.partition(".")[0] not in names.timm_networks():
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
    # A function is assigned too, and may come from a neighbour; what is near is the file's own.
    own = [s.get_name() for s in table.get_symbols() if s.is_assigned() and not s.is_imported()]
    imported = [s.get_name() for s in table.get_symbols() if s.is_imported()]
    if function not in (*own, *imported) and "import *" not in source:
        raise unknown_name(f"{name}: function in {Path(place).name}", function, own)


def weights_of(name: str, word: str, of: str) -> None:
    """Raise unless a text names weights that the network `of` can have."""
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
    """Raise unless at least one text names photographs; the others are listed on the page."""
    reasons = [str(reason) for word in listed if (reason := _no_image(name, word))]
    if len(reasons) == len(listed):
        more = f" (and {len(reasons) - 1} more failed)" if len(reasons) > 1 else ""
        raise InputError(f"{reasons[0]}{more}")


def names_of_images(probe: bool = True) -> list[str]:
    """Return the names by which photographs are known, so that no file or folder is meant."""
    return [*packaged(), *PACKAGES, *(PROBES if probe else ()), PUBLISHED]


def _no_image(name: str, word: str) -> InputError | None:
    known = names_of_images(name == "probe")
    if word in known or is_file(word):
        return None
    if not exists(word):
        return missing(name, word, known, "file or folder")
    if any(files for *_, files in os.walk(Path(word).expanduser(), followlinks=True)):
        return None
    return InputError(f"{name}: the folder {word!r} is empty")


def most_images(listed: Sequence[str]) -> int | None:
    """Return the most photographs that a list can name; None where only reading it can show."""
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


def concepts(name: str, listed: Sequence[str]) -> None:
    """Raise unless each text names a list of concepts."""
    for word in listed:
        if word.startswith(_CATEGORIES) and word not in _LISTS:
            network(name, word.removeprefix(_CATEGORIES))
        elif word not in _LISTS and not is_file(word):
            raise missing(name, word, _LISTS)


def encoder(name: str, word: str) -> None:
    """Raise unless a text names an image-text encoder."""
    kind, _, rest = word.partition(":")
    if kind not in ("clip", "openclip", "conse") or not rest:
        raise InputError(
            f"{name}: {word!r} is none of clip:NAME (clip:ViT-B/16), openclip:ARCH/PRETRAINED, "
            "conse:CLASSIFIER (conse:tf_efficientnet_lite1)"
        )
    if kind == "clip" and names.clip_networks() and rest not in names.clip_networks():
        raise unknown_name(f"{name}: clip", rest, names.clip_networks())
    if kind == "conse":
        classifier, _, model = rest.partition("+")
        network(name, classifier)
        if model not in ("", "minilm", "mpnet") and not exists(model):
            raise InputError(
                f"{name}: sentence model {model!r} is neither minilm nor mpnet nor a folder"
            )


def device(name: str, word: str) -> None:
    """Raise unless a text names a kind of device; whether it is here, torch knows."""
    if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d+)?", word):
        raise unknown_name(name, word, ("auto", "cpu", "cuda", "mps"))


def file(name: str, word: str) -> None:
    """Raise unless a text names a file, or those that are packaged."""
    if not is_file(word) and (name, word) != ("boxes", "packaged"):
        raise InputError(f"{name}: no file {word!r}{near_paths(word)}; give {_FILES[name]}")


def published(name: str, word: str) -> None:
    """Raise unless a text names a folder."""
    if not exists(word) or is_file(word):
        hint = "leave it empty to fetch the files"
        raise InputError(f"{name}: no folder {word!r}{near_paths(word)}; {hint}")


def new_folder(name: str, word: str) -> None:
    """Raise if a text cannot be a folder, because a file has its name."""
    if is_file(str(project_root() / word)):
        raise InputError(f"{name}: {word!r} is a file; name a folder")


def finished_run(name: str, word: str) -> None:
    """Raise unless a text names the folder of a finished run."""
    if not is_file(str(project_root() / word / "manifest.json")):
        raise InputError(f"{name}: {word!r} holds no finished run; run {RUNS[name]} first")


def together(found: Mapping[str, Any], changed: Collection[str]) -> None:
    """Raise if a notebook's values, each usable by itself, exclude each other.

    `changed` are those that have another value than their default: one that nothing uses is an
    error.
    """
    for of, name in (("model", "weights"), ("compare", "compare_weights")):
        if found.get(name):
            if not found[of]:
                raise InputError(f"{name}: given without {of}; name the network too")
            weights_of(name, found[name], found[of])
    if found.get("preprocessing"):
        names.check_preprocessing(found["model"], found["preprocessing"])
    if found.get("compare_layers") and not found["compare"]:
        raise InputError("compare_layers: given without compare; name the network too")
    if "threshold" in changed and found["mask_rule"] == "area":
        raise InputError("threshold: only for mask_rule value; mask_rule is 'area'")
    if "max_samples" in changed and not found["until_stable"]:
        raise InputError("max_samples: only with until_stable; num_samples is how many are drawn")
    if found.get("compare") and found["descriptions"]:
        raise InputError("compare: nothing is computed from descriptions; leave one of them empty")
    if "methods" in found and not [*found["methods"], *found.get("others", [])]:
        raise InputError(f"methods: the list is empty; allowed: {', '.join(get_args(Heatmap))}")
    if "first" in found and most_images(found["images"]) == 1:
        raise InputError("images: at least two are needed, to measure how alike unrelated maps are")
    if found.get("measure", "auto") not in ("auto", "soft_wpmi"):
        if "top_k" in changed:
            raise InputError(f"top_k: only for measure soft_wpmi; measure is {found['measure']!r}")
    elif "top_k" in found and not found["descriptions"]:
        count = (most_images(found["probe"]) or 0) * (1 + found["crops"])
        if count and found["top_k"] > count:
            raise InputError(f"top_k: {found['top_k']} is more than the {count} probe images")
    if "pool" in found:
        _pools(found)


def _pools(found: Mapping[str, Any]) -> None:
    several = 4 if found["long_runs"] > 1 else 2  # all photographs but one have half of the pool
    for name, least, runs in (
        ("pool", min(found["sizes"]), several), ("pool", found["cut_samples"], 4),
        ("pool", found["design_size"], 4), ("design_pool", found["design_size"], 2),
    ):  # fmt: skip
        if found[name] < runs * least:
            count = {2: "two", 4: "four"}[runs]
            raise InputError(f"{name}: {found[name]} samples are not {count} runs of {least}")
    if found["design_size"] % 2:
        raise InputError(f"design_size: {found['design_size']} is odd; samples come in pairs")


EACH: Mapping[str, Callable[[str, Any], None]] = {
    "model": network, "compare": network, "images": any_image, "probe": any_image,
    "concepts": concepts, "encoder": encoder, "device": device, "published": published,
    "out_dir": new_folder, **dict.fromkeys(_FILES, file),
}  # fmt: skip


def exists(word: str) -> bool:
    """Return whether a text names a file or folder; what cannot be a path does not."""
    try:
        return Path(word).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, an unknown user
        return False


def is_file(word: str) -> bool:
    """Return whether a text names a file."""
    return exists(word) and Path(word).expanduser().is_file()


def looks_like_path(word: str) -> bool:
    """Return whether a text that names nothing was meant as a path."""
    return any(sign in word for sign in "/\\.~")


def missing(name: str, word: str, known: Iterable[str], kind: str = "file") -> InputError:
    """Return the error for a text that is neither a known name nor a path, with what is near."""
    near = near_paths(word)
    if looks_like_path(word) or (near and not near_matches(word, known)):
        return InputError(f"{name}: no {kind} {word[:80]!r}{near}")
    return unknown_name(name, word, known)


def near_paths(word: str) -> str:
    """Return "; did you mean ...?" with files beside the one named, or nothing."""
    try:
        path = Path(word).expanduser()
        close = near_matches(word, [str(path.with_name(f.name)) for f in path.parent.glob("*")])
    except (OSError, ValueError, RuntimeError):
        return ""
    return f"; did you mean {' or '.join(close)}?" if close else ""
