"""Label units with concepts (CLIP-Dissect, Oikarinen & Weng, ICLR 2023), and judge the labels."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Shaped
from torch import Tensor

from xailib.compare.intervals import mean_interval, share_interval
from xailib.dissect.concepts import Concepts
from xailib.dissect.evidence import as_tensor, product
from xailib.dissect.kinds import alive
from xailib.dissect.similarity import MEASURES, check_top_k, constant, extremes, top_images
from xailib.encoders.load import Encoder
from xailib.errors import InputError, check_name, unknown_name
from xailib.networks.forward import double

_PUBLISHED = ["layer", "unit", "description", "similarity"]
_BOUND = 1e-3  # so near to the bound is at it
_ROWS = 64  # units at a time: with 20,000 concepts 10 MB


def label_units(
    activations: Mapping[str, Float[np.ndarray, "_ _"]],
    image_embeddings: Float[np.ndarray, "probe dimensions"],
    text_embeddings: Float[np.ndarray, "concepts _"],
    concepts: Concepts,
    *,
    ids: Sequence[str] | None = None,
    measure: str = "soft_wpmi",
    top_count: int = 5,
    photographs: Sequence[int] | None = None,
    device: str | torch.device = "auto",
    **parameters: Any,
) -> pd.DataFrame:
    """Give each unit the concept that fits it best.

    The (probe, concepts) matrix is never held as a whole: see `xailib.dissect.similarity`.

    Parameters
    ----------
    activations : mapping from layer to (probe, units)
        Such as `xailib.dissect.activations.record_activations` returns.
    image_embeddings, text_embeddings : (probe, dimensions), (concepts, dimensions)
        Of the same probe images and of the concepts, in their order, from one encoder; unit rows.
    concepts : Concepts
        The labels to choose from.
    ids : sequence of str, optional
        The probe images' ids; by default those of a recording, else the rows' numbers.
    measure : str
        A key of `xailib.dissect.similarity.MEASURES`.
    top_count : int
        How many of a unit's most activating probe images to name.
    photographs : sequence of int, optional
        Of which photograph each probe image is, rising: of one photograph's crops only the most
        activating is named.
    device : str or torch.device
        Where to compute, as in `xailib.networks.classifier.load_classifier`.
    **parameters
        Of the measure, such as ``top_k``.

    Returns
    -------
    DataFrame
        One row for each unit: layer, unit, concept, similarity, runner_up (the second best
        concept), margin (by how much it is behind), zscore (the similarity minus the unit's mean
        over concepts, in its standard deviations: comparable across layers), dead (the unit is
        the same on all probe images, but for rounding, so that its label means nothing),
        top_images (ids, the most activating first).

    Raises
    ------
    InputError
        For an unknown measure or parameter, tables that do not fit each other, or activations
        that are not finite, naming the layer.
    """
    check_measure(measure, len(image_embeddings), **parameters)
    ids = getattr(activations, "ids", None) if ids is None else ids
    _check(image_embeddings, text_embeddings, concepts, ids)
    cosines = product(image_embeddings, text_embeddings, device)
    tables = {layer: as_tensor(values, cosines.device) for layer, values in activations.items()}
    scores = MEASURES[measure](cosines, tables, **parameters)
    parts = scores.split([table.shape[1] for table in tables.values()])
    return pd.concat(
        [
            unit_table(
                layer,
                part,
                concepts,
                _top_ids(table, ids, top_count, photographs),
                constant(*extremes(table)).cpu().numpy(),
            )
            for (layer, table), part in zip(tables.items(), parts, strict=True)
        ],
        ignore_index=True,
    )


def unit_table(
    layer: str,
    scores: Float32[Tensor, "units concepts"],
    concepts: Concepts,
    top: Sequence[Sequence[str]],
    dead: Bool[np.ndarray, " units"],
) -> pd.DataFrame:
    """Return one layer's part of what `label_units` returns.

    ``scores``, on any device, are modified in place, so that they need not be copied; ``top`` are
    the ids of the images that activate each unit most; ``dead`` units are the same on all images.
    """
    names = np.array(concepts.names, dtype=object)
    greatest = scores.max(1)
    # Some rows at a time: a table in double precision would be the largest thing in memory.
    moments = [torch.std_mean(double(part), 1, correction=0) for part in scores.split(_ROWS)]
    spread, centre = (torch.cat(some).cpu().numpy() for some in zip(*moments, strict=True))
    scores.scatter_(1, greatest.indices[:, None], -torch.inf)
    behind = scores.max(1)
    similarity, best, second = (
        found.cpu().numpy() for found in (greatest.values, greatest.indices, behind.indices)
    )
    alone = len(names) == 1  # a single concept has no runner-up
    return pd.DataFrame(
        {
            "layer": layer,
            "unit": np.arange(len(scores)),
            "concept": names[best],
            "similarity": similarity,
            "runner_up": None if alone else names[second],
            "margin": np.nan if alone else similarity - behind.values.cpu().numpy(),
            "zscore": np.divide(
                similarity - centre, spread, out=np.zeros_like(centre), where=spread > 0
            ),
            "dead": dead,
            "top_images": [list(images) for images in top],
        }
    )


def saturated(labels: pd.DataFrame) -> pd.Series:
    """Return which units' soft-WPMI is at its bound, the logarithm of their layer's units.

    There a value says that no other unit of the layer fits the concept, not how well this one
    does: it cannot be compared.
    """
    bound = np.log(labels.groupby("layer")["unit"].transform("size"))
    return (labels["similarity"] > bound - _BOUND).rename("saturated")


def check_measure(measure: str, probe: int, **parameters: Any) -> None:
    """Raise for what `label_units` would refuse of so many probe images, before any is shown."""
    check_name("measure", measure, MEASURES)
    defaults = signature(MEASURES[measure]).parameters
    allowed = sorted(set(defaults) - {"similarity", "activations"})
    for name in parameters:
        check_name(f"{measure}: parameter", name, allowed)
    if "top_k" in allowed:
        check_top_k(parameters.get("top_k", defaults["top_k"].default), probe)


@dataclass(frozen=True)
class LabelQuality:
    """How good the labels of output units are, whose true names are known."""

    units: int  #: how many were judged
    accuracy: float  #: share labelled with their own name (case is ignored), with Wilson's interval
    accuracy_low: float
    accuracy_high: float
    #: mean of the label's and the true name's text embeddings, with Student's t interval
    cosine: float
    cosine_low: float
    cosine_high: float
    #: what labels drawn at random from the concepts reach on average, exactly
    random_accuracy: float
    random_cosine: float


def evaluate_output_units(
    labels: pd.DataFrame,
    layer: str,
    class_names: Sequence[str],
    concepts: Concepts,
    encoder: Encoder,
    *,
    only: Collection[int] | None = None,
) -> LabelQuality:
    """Judge the labels of the output layer, whose units' true concepts are the classes.

    Parameters
    ----------
    labels, layer
        From `label_units`, and which of their layers is the output; unless it is labelled and has
        one unit for each class, `InputError` is raised.
    class_names : sequence of str
        The true names, by unit.
    concepts : Concepts
        What the labels were chosen from.
    encoder : Encoder
        Whose text side measures how near a label is to the truth.
    only : collection of int, optional
        Judge these units, such as the classes known to be in the probe set; dead ones never.
    """
    table = labels[labels["layer"] == layer]
    if table.empty:
        raise unknown_name("layer", layer, labels["layer"].unique())
    if len(table) != len(class_names):
        raise InputError(
            f"layer: {layer!r} has {len(table)} units, not {len(class_names)}, one a class"
        )
    if only is not None:
        table = table[table["unit"].isin(list(only))]
    table = alive(table)
    if table.empty:
        raise InputError("only: none of the output units is to be judged")
    truth = [" ".join(class_names[unit].split()) for unit in table["unit"]]
    texts = list(dict.fromkeys([*concepts.names, *truth, *table["concept"]]))
    vectors = dict(zip(texts, encoder.encode_texts(texts), strict=True))
    true = np.stack([vectors[name] for name in truth])  # (units, dimensions)
    given = np.stack([vectors[name] for name in table["concept"]])
    chosen_from = np.stack([vectors[name] for name in concepts.names])
    keys = [name.casefold() for name in truth]
    right = np.array([a.casefold() == b for a, b in zip(table["concept"], keys, strict=True)])
    cosine = (given * true).sum(1)
    known = {name.casefold() for name in concepts.names}
    accuracy = share_interval(int(right.sum()), len(right))
    cosines = mean_interval(cosine)
    return LabelQuality(
        units=len(table),
        accuracy=float(right.mean()),
        accuracy_low=accuracy[0],
        accuracy_high=accuracy[1],
        cosine=float(cosine.mean()),
        cosine_low=float(cosines[0]),
        cosine_high=float(cosines[1]),
        random_accuracy=float(np.mean([key in known for key in keys]) / len(concepts)),
        random_cosine=float(chosen_from.mean(0) @ true.mean(0)),
    )


def _check(
    images: np.ndarray, texts: np.ndarray, concepts: Concepts, ids: Sequence[str] | None
) -> None:
    if len(texts) != len(concepts):
        raise InputError(f"text_embeddings: {len(texts)} rows for {len(concepts)} concepts")
    if texts.shape[1] != images.shape[1]:
        raise InputError(
            f"text_embeddings: {texts.shape[1]} dimensions, image_embeddings {images.shape[1]}; "
            "both must come from one encoder"
        )
    if ids is not None and len(ids) != len(images):
        raise InputError(f"image_embeddings: {len(images)} rows for {len(ids)} probe images")
    for name, table in (("image_embeddings", images), ("text_embeddings", texts)):
        if not np.isfinite(table).all():
            raise InputError(f"{name}: not all values are finite")


def _top_ids(
    values: Shaped[Tensor, "probe units"],
    ids: Sequence[str] | None,
    count: int,
    photographs: Sequence[int] | None,
) -> list[list[str]]:
    """Return the ids of each unit's most activating images, the most activating first."""
    images = range(len(values)) if ids is None else ids
    if photographs is None:
        top = top_images(values, min(count, len(values))).T.tolist()  # (units, top)
        return [[str(images[row]) for row in unit] for unit in top]
    _, sizes = torch.unique_consecutive(torch.tensor(list(photographs)), return_counts=True)
    best = [part.max(0) for part in values.cpu().split(sizes.tolist())]  # of each photograph
    first = sizes.cumsum(0) - sizes
    shown = top_images(torch.stack([one.values for one in best]), min(count, len(best)))
    rows = torch.stack([one.indices for one in best]) + first[:, None]  # (photographs, units)
    return [[str(images[row]) for row in unit] for unit in rows.gather(0, shown).T.tolist()]


def read_descriptions(path: str | Path) -> pd.DataFrame:
    """Read labels as CLIP-Dissect publishes them: a CSV with layer, unit, description, similarity.

    The table has layer, unit, concept and similarity, as `label_units` names them. `InputError` is
    raised without such a file, for a missing column, no number, or a unit that comes twice.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"descriptions: no file {str(path)!r}")
    try:  # "nan", "null" and "none" are words here
        # Not ``usecols``: with it, a row of too many cells loses its last ones silently.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        missing = [name for name in _PUBLISHED if name not in table.columns]
        if missing:
            raise InputError(f"descriptions: {path.name!r} has no column {', '.join(missing)}")
        table = table[_PUBLISHED].astype({"unit": "int64", "similarity": "float64"})
    except InputError:
        raise
    except ValueError as error:  # pandas' own errors of parsing are among these
        raise InputError(f"descriptions: {path.name!r} cannot be read: {error}") from error
    if table.empty or table.duplicated(["layer", "unit"]).any():
        raise InputError(f"descriptions: {path.name!r} is empty or names a unit twice")
    return table.rename(columns={"description": "concept"})
