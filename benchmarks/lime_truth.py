"""What the stability page keeps: scores of all masks of few superpixels, and quickshift's seeds.

    python benchmarks/lime_truth.py masks [PHOTOGRAPHS]
    python benchmarks/lime_truth.py seeds FOLDER [PHOTOGRAPHS]

`masks` hides SLIC superpixels of the packaged photographs (about 11 of the first twelve, 10 of the
others, to save time) in all 2**d ways and keeps the predicted class's probability: about 30,000
passes. `seeds` segments photographs of a folder by quickshift with lime's seed and with 0, and
keeps in which the superpixels differ. Both go on where they were stopped.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skimage.segmentation import slic

from xailib.evaluate.truth import all_masks
from xailib.explain.lime import segmentation
from xailib.explain.sampling import Perturbed, Pixels, Segments, hidden
from xailib.images.load import load_images
from xailib.images.packaged import packaged_names
from xailib.networks.classifier import load_classifier
from xailib.versions import environment

FOLDER = Path(__file__).parents[1] / "book" / "_data" / "lime"
LARGER, WANTED = 12, (11, 10)


def superpixels(pixels: Pixels, wanted: int) -> Segments:
    """Return the SLIC superpixels, of several settings, whose number is nearest to `wanted`."""
    tried = (
        slic(pixels, n_segments=count, compactness=compactness, start_label=0)
        for compactness in (10, 20)
        for count in range(8, 26)
    )
    return min(tried, key=lambda found: abs(len(np.unique(found)) - wanted))


def masks(most: str = "20") -> None:
    """Score all masks of each photograph."""
    file = FOLDER / "masks.npz"
    kept = dict(np.load(file)) if file.exists() else {}
    net = load_classifier("tf_efficientnet_lite0", device="cpu")
    photographs = load_images(list(packaged_names()["foolbox"])[: int(most)]).photographs
    for place, photo in enumerate(photographs):
        if photo.id in kept:
            continue
        pixels = net.view(photo).pixels
        segments = superpixels(pixels, WANTED[place >= LARGER])
        shown = torch.from_numpy(all_masks(len(np.unique(segments))).astype(bool))
        perturbed = Perturbed(net, [pixels], [hidden(pixels, segments, 0)], [segments])
        owner = torch.zeros(len(shown), dtype=torch.long)
        found = net.forward_batches(
            lambda a, b, p=perturbed, s=shown, o=owner: p.batch(s[a:b], o[a:b]), len(shown)
        )
        kept[photo.id] = net.as_probabilities(found.logits)[:, net.target(photo).index].numpy()
        np.savez_compressed(file, **kept)
        print(f"{photo.id}: {len(shown)} masks", flush=True)
    known = {"network": net.identity, "photographs": {p.id: p.sha256 for p in photographs}}
    known |= {"packages": environment()}
    (FOLDER / "manifest.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def seeds(folder: str, most: str = "100") -> None:
    """Compare quickshift's superpixels of lime's seed with those of another."""
    file = FOLDER / "seeds.csv"
    kept = pd.read_csv(file).to_dict("records") if file.exists() else []
    net = load_classifier("tf_efficientnet_lite0", device="cpu")
    files = sorted(Path(folder).iterdir())
    for path in files[:: max(1, len(files) // int(most))][len(kept) : int(most)]:
        pixels = net.view(load_images([str(path)]).photographs[0]).pixels
        one, other = (segmentation("quickshift", *seed)(pixels) for seed in ((), (0,)))
        kept.append({"image": path.stem, "same": bool(np.array_equal(one, other))})
        pd.DataFrame(kept).to_csv(file, index=False)
    print(f"{sum(not row['same'] for row in kept)} of {len(kept)} differ")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    {"masks": masks, "seeds": seeds}[sys.argv[1]](*sys.argv[2:])
