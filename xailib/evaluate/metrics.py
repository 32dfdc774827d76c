"""All metrics of several saliency maps of one image, from shared passes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from xailib.errors import InputError, check_name
from xailib.evaluate.faithfulness import faithfulness_curves
from xailib.evaluate.perturbation import CELLS, Saliency, cell_numbers
from xailib.evaluate.scores import BETTER, values_of
from xailib.images.load import Photograph
from xailib.networks.classifier import Classifier

# The curves that each measure is made of.
_NEEDS = {
    "pixel_flipping": ("deletion",),
    "relevance_gain": ("deletion", "least_first"),
    "road": ("road_most", "road_least"),
    "single_deletion": ("cell",),
    "average_drop": ("masked",),
    "confidence_increase": ("masked",),
}


def score(
    classifier: Classifier,
    photograph: Photograph,
    maps: Mapping[str, Saliency],
    target: int | str,
    *,
    measures: Sequence[str] = tuple(BETTER),
    **options: Any,
) -> pd.DataFrame:
    """Score several saliency maps of one prediction by all metrics.

    Each different perturbed image goes through the network once, in batches that all maps and
    metrics share. Scores are the target's softmax probabilities, unless said otherwise:

    - ``deletion``: the area under the curve while pixels become gray, the network's zero, the
      most relevant first (RISE, Petsiuk et al. 2018; MoRF), 0 to 1;
    - ``least_first``: the same with the least relevant first (LeRF);
    - ``relevance_gain``: the second minus the first, the symmetric relevance gain (Bluecher et
      al. 2024), -1 to 1;
    - ``pixel_flipping``: Quantus's area, which leaves the whole image out, over its steps;
    - ``insertion``: the area while pixels come back into RISE's blurred image;
    - ``flipping``: the area over the curve while squares become noise, AOPC, the mean of the
      probability lost over all steps including none (Samek et al. 2017), -1 to 1;
    - ``road``: the mean over the percentiles of half the difference between imputing the least
      and the most relevant pixels, grad-cam's ``ROADCombined`` (Rong et al. 2022), -0.5 to 0.5;
    - ``single_deletion``: the rank correlation over the cells of a 4 x 4 grid of the map's sum
      with what the *logit* loses when the cell is gray (IDSDS, Hesse et al. 2024, without their
      fine-tuning), -1 to 1; 0 for a map that ranks no cell;
    - ``average_drop``: the share of the probability lost when the normalised image is multiplied
      by the map, 0 to 1, and ``confidence_increase``: 1 where it rises, else 0 (Grad-CAM++,
      Chattopadhay et al. 2018, as TorchCAM computes it). What is negative counts as 0.

    Parameters
    ----------
    classifier, photograph
        What is explained.
    maps : mapping from method to (height, width) float32
        In the classifier's view; higher is more salient, and negative opposes.
    target : int or str
        The class's index or name.
    measures : sequence of str
        Some of those above.
    **options
        Steps, percentiles, ties and so on: those of
        `xailib.evaluate.faithfulness.faithfulness_curves`.

    Returns
    -------
    DataFrame
        Columns method, measure, value: a row for each map and measure; which values support a
        map is in `xailib.evaluate.scores.BETTER`.

    Raises
    ------
    InputError
        For an unknown measure or target, a map of another size or with NaN, or a parameter out of
        range; before any forward pass.
    """
    for measure in measures:
        check_name("measures", measure, BETTER)
    if not measures:
        raise InputError("measures: none given")
    curves = {"whole"}.union(*(_NEEDS.get(measure, (measure,)) for measure in measures))
    table = faithfulness_curves(classifier, photograph, target, maps, curves=curves, **options)
    rows = []
    for method, saliency in maps.items():
        own = dict(list(table[table["method"] == method].groupby("measure")))
        parts = {str(name): part[["fraction", "score"]].to_numpy().T for name, part in own.items()}
        whole = parts.pop("whole")
        if "masked" in parts:
            parts["masked"] = np.concatenate([whole, parts["masked"]], axis=1)
        if "cell" in parts:
            cells = cell_numbers(saliency.shape)
            given = [saliency[cells == cell].sum(dtype=float) for cell in range(CELLS**2)]
            lost = own["whole"]["logit"].item() - own["cell"]["logit"].to_numpy()
            parts["cell"] = np.stack([given, lost])
        values = values_of(parts)
        rows += [(method, measure, values.get(measure, np.nan)) for measure in measures]
    return pd.DataFrame(rows, columns=["method", "measure", "value"])
