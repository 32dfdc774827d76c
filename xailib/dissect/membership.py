"""Concepts by membership: what a probe image's known class says that it shows, with no encoder.

A photograph of a tench is one of a fish, of a vertebrate and of an animal; a kitchen is indoors.
Each such set of probe images is a concept, and a unit's label is the concept, or the composition
of two, that its activations follow best.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import permutations

import numpy as np
from jaxtyping import Bool

from xailib.dissect.kinds import UNKNOWN
from xailib.errors import InputError
from xailib.images.probe import ProbeImage, ProbeSet, class_ids
from xailib.networks import zoo

# The kind of what is below a synset of WordNet 3.0; of several the first.
_KINDS = {
    "n00015388": "animal",
    "n00017222": "plant",
    "n13134947": "plant",  # fruit
    "n12992868": "plant",  # fungus
    "n00021265": "food",
    "n07555863": "food",
    "n00007846": "person",
    "n09287968": "scene",  # geological formation
    "n04341686": "scene",  # structure
    "n00021939": "object",  # artifact
}
_PAIRED = 300  # concepts of which all pairs are composed


@dataclass(frozen=True)
class Membership:
    """Concepts, and which probe images belong to each."""

    #: WordNet's first word for a class or hypernym, such as ``"dog"``; a scene's name; the setting
    #: or group of scenes; no two are equal
    names: tuple[str, ...]
    ids: tuple[str, ...]  #: WordNet's id; of a scene its name behind ``scene`` and a colon
    kinds: tuple[str, ...]  #: such as ``"animal"`` or ``"scene"``
    #: no two rows are equal, since of concepts with the same images the most specific stays
    masks: Bool[np.ndarray, "concepts probe"]

    def __len__(self) -> int:
        return len(self.names)

    def related(self) -> Bool[np.ndarray, "concepts concepts"]:
        """Return which concepts are the same, parent and child, or children of one parent.

        A concept's parent is the smallest other one that all of its images belong to.
        """
        masks = self.masks.astype(np.float32)
        sizes = masks.sum(1)
        inside = masks @ masks.T >= sizes[:, None]  # the row's images all belong to the column's
        np.fill_diagonal(inside, False)
        size = np.where(inside, sizes, np.inf)
        parent = np.where(np.isfinite(size.min(1)), size.argmin(1), -1 - np.arange(len(self)))
        own = np.arange(len(self))
        above = parent[:, None] == own
        return (own[:, None] == own) | (parent[:, None] == parent) | above | above.T


def membership_of(probe: ProbeSet, least: int = 10, most: float = 0.5) -> Membership:
    """Return the concepts that a probe set's known classes and scenes make.

    An ImageNet class brings its WordNet hypernyms. An image in a sub-folder that names no class is
    of the scene that the folder names, of its setting and its group, as
    `xailib.networks.zoo.places365_scenes` has them; of a folder unknown there, of what it says.
    Images of neither belong to nothing, and if no concept is left, `InputError` is raised.

    Parameters
    ----------
    probe : ProbeSet
        Such as folders of photographs by class.
    least, most : int, float
        Images that a concept must have, at least 1; share of the images that it may have, 0 to 1.
    """
    kept: dict[tuple[int, ...], str] = {}
    for concept, rows in rows_by_concept(probe).items():  # an image's most specific come first
        if least <= len(rows) <= most * len(probe):
            kept.setdefault(tuple(rows), concept)
    if not kept:
        raise InputError(
            f"probe: no class or scene of the {len(probe)} images has {least} of them; "
            "name folders by ImageNet's ids or by scenes, or lower `least`"
        )
    masks = np.zeros((len(kept), len(probe)), bool)
    for mask, own in zip(masks, kept, strict=True):
        mask[list(own)] = True
    ids = tuple(kept.values())
    return Membership(_unique_names(ids), ids, tuple(map(_kind, ids)), masks)


def rows_by_concept(probe: ProbeSet) -> dict[str, list[int]]:
    """Return each concept's probe images, by its id as in `Membership`, however many it has."""
    members: dict[str, list[int]] = {}
    for row, image in enumerate(probe.images):
        for concept in _concepts_of(image):
            members.setdefault(concept, []).append(row)
    return members


@cache
def hypernyms() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return WordNet's first word and direct hypernyms, by id, of the classes and all above."""
    text = resources.files("xailib.dissect").joinpath("hypernyms.tsv").read_text(encoding="utf-8")
    lines = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {wnid: (word, tuple(above.split())) for wnid, word, above in lines}


@cache
def lineage(wnid: str) -> tuple[str, ...]:
    """Return a synset and all above it, the nearest first."""
    found: dict[str, None] = {}
    queue = [wnid]
    while queue:
        now = queue.pop(0)
        if now not in found:
            found[now] = None
            queue += hypernyms()[now][1]
    return tuple(found)


def _concepts_of(image: ProbeImage) -> Iterator[str]:
    if image.class_index is not None:
        yield from lineage(list(class_ids())[image.class_index])
    elif image.label:
        word = image.label.split("/")[0].replace("_", " ")
        starts = (f"{word}$", f"{word}/", f"{word} ")  # the scene itself, its forms, what has it
        found = ([s for s in zoo.places365_scenes() if f"{s.name}$".startswith(w)] for w in starts)
        scenes = next(filter(None, found), [])
        yield f"scene:{word}"
        for said in ("group", "setting"):  # where all scenes of that name agree
            words = {getattr(scene, said) for scene in scenes}
            yield from (f"scene:{one}" for one in words if len(words) == 1)


def _unique_names(ids: Sequence[str]) -> tuple[str, ...]:
    def name(one: str) -> str:
        return one.removeprefix("scene:") if one.startswith("scene:") else hypernyms()[one][0]

    def longer(one: str) -> str:
        above = () if one.startswith("scene:") else hypernyms()[one][1]
        return f"{name(one)} ({name(above[0])})" if above else name(one)

    short, long = Counter(map(name, ids)), Counter(map(longer, ids))
    return tuple(
        name(one) if short[name(one)] == 1 else longer(one) if long[longer(one)] == 1 else one
        for one in ids
    )


def _kind(one: str) -> str:
    if one.startswith("scene:"):
        return "scene"
    return next((kind for above, kind in _KINDS.items() if above in lineage(one)), UNKNOWN)


def compositions(members: Membership, least: int = 10, most: float = 0.5) -> Membership:
    """Return all distinct compositions of two concepts: ``OR``, ``AND`` and ``AND NOT``.

    INVERT (Bykov et al., NeurIPS 2023) searches these step by step; of up to 300 concepts (of more,
    `InputError`) all can be scored, so that nothing is missed. What equals a concept or another
    composition is left out, and what has too few or too many images, as in `membership_of`.
    """
    if len(members) > _PAIRED:
        raise InputError(
            f"members: {len(members)} concepts make too many pairs; at most {_PAIRED} are composed"
        )
    masks = members.masks
    known = {mask.tobytes() for mask in masks}
    names, ids, kinds, rows = [], [], [], []
    for one, other in permutations(range(len(members)), 2):
        ways = [("AND NOT", masks[one] & ~masks[other])]
        if one < other:
            ways += [("OR", masks[one] | masks[other]), ("AND", masks[one] & masks[other])]
        for word, mask in ways:
            if not least <= mask.sum() <= most * len(mask) or mask.tobytes() in known:
                continue
            known.add(mask.tobytes())
            names.append(f"{members.names[one]} {word} {members.names[other]}")
            ids.append(f"{members.ids[one]} {word} {members.ids[other]}")
            same = word == "AND NOT" or members.kinds[one] == members.kinds[other]
            kinds.append(members.kinds[one] if same else UNKNOWN)
            rows.append(mask)
    found = np.array(rows) if rows else np.zeros((0, masks.shape[1]), bool)
    return Membership(tuple(names), tuple(ids), tuple(kinds), found)
