"""Make the table of hypernyms of the 1,000 ImageNet classes from WordNet 3.0's own noun file.

Run it with the folder of Debian's ``wordnet-base`` (or any WordNet 3.0 ``dict`` folder)::

    python benchmarks/hypernyms.py /usr/share/wordnet

ImageNet's ids are WordNet's offsets, so no name has to be matched. The table starts with the
licence that WordNet asks to be shipped with every copy.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import timm.data

TABLE = Path(__file__).parents[1] / "xailib" / "dissect" / "hypernyms.tsv"
_COUNT = 4  # fields before a synset's words: offset, file, type, number of words
_POINTER = 4  # fields of a pointer: symbol, offset, part of speech, source and target
_KINDS = ("@", "@i")  # hypernym, instance hypernym


def synsets(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each noun's id, first word, and the ids of its direct hypernyms."""
    for line in file.read_text(encoding="ascii").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields = line.split(" | ")[0].split()
        start = _COUNT + 2 * int(fields[3], 16)
        pointers = range(start + 1, start + 1 + _POINTER * int(fields[start]), _POINTER)
        above = [f"n{fields[place + 1]}" for place in pointers if fields[place] in _KINDS]
        yield f"n{fields[0]}", fields[_COUNT].replace("_", " "), above


def main(folder: Path) -> None:
    """Write the table of the classes and of all that is above them."""
    file = folder / "data.noun"
    known = {wnid: (word, above) for wnid, word, above in synsets(file)}
    needed: dict[str, None] = {}
    queue = list(timm.data.ImageNetInfo("imagenet-1k").label_names())
    while queue:
        wnid = queue.pop(0)
        if wnid not in needed:
            needed[wnid] = None
            queue += known[wnid][1]
    text = file.read_text(encoding="ascii")
    licence = [line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  ")]
    lines = [f"# {' '.join(line[1:]).strip()}".rstrip() for line in licence]
    lines += [f"{wnid}\t{known[wnid][0]}\t{' '.join(known[wnid][1])}" for wnid in needed]
    TABLE.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
