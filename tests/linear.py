"""Samples of a linear network with noise, whose right weights are known."""

import numpy as np

from xailib.explain.explanation import Superpixels
from xailib.explain.sampling import independent
from xailib.explain.stability import fit

SUPERPIXELS = 20
TRUE = np.linspace(-0.5, 1, SUPERPIXELS)


def run(samples, noise, seed=0, design=independent, pairs=0.0):
    """Samples of a linear network with noise, and what pairs of superpixels add."""
    rng = np.random.RandomState(seed)
    shown = design(rng, samples, SUPERPIXELS).astype(bool)
    shown[0] = True
    together = (shown[:, ::2] & shown[:, 1::2]).sum(axis=1)
    return shown, shown @ TRUE + pairs * together + noise * rng.standard_normal(samples)


def parts(shown, scores, **more):
    segments = np.arange(SUPERPIXELS).repeat(3).reshape(6, 10)
    weights = fit(shown, scores, np.ones((1, len(shown)), int))[0]
    return Superpixels(segments, weights, 0.0, 1.0, shown, scores, **more)
