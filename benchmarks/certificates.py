"""Time and memory of scoring 1,768 units against 2,000 concepts over 1,735 images, score by score.

    python benchmarks/certificates.py

Activations are made up: rectified, a concept has 10 images up to half of them.
"""

import resource

import numpy as np
from measure import Times

from xailib.dissect.certificates import SCORES

IMAGES, UNITS, CONCEPTS = 1735, 1768, 2000


def main() -> None:
    """Print the wall time of each score, of all, and the most memory that the process had."""
    rng = np.random.default_rng(0)
    activations = np.maximum(rng.normal(size=(IMAGES, UNITS)), 0).astype(np.float32)
    masks = np.zeros((CONCEPTS, IMAGES), bool)
    for mask, size in zip(masks, rng.integers(10, IMAGES // 2, CONCEPTS), strict=True):
        mask[rng.choice(IMAGES, size, replace=False)] = True
    times = Times()
    for name, score in SCORES.items():
        times.run(lambda score=score: score(activations, masks))
        print(f"{name:12} {times.seconds[-1]:6.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{'all':12} {sum(times.seconds):6.2f} s, at most {peak:.2f} GB")


if __name__ == "__main__":
    main()
