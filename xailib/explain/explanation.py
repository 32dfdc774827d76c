"""The record that everything downstream works on: a method's map, of what, in which frame.

No network is needed to read, save, compare or draw an `Explanation`.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from xailib.errors import InputError
from xailib.files import atomic
from xailib.images.frames import Frame

Signs = Literal["positive", "both"]

_SUPERPIXEL_ARRAYS = ("segments", "weights", "shown", "scores")


@dataclass(frozen=True)
class Superpixels:
    """LIME's linear model: one weight for each superpixel.

    Attributes
    ----------
    segments : (height, width) int
        The superpixel that each pixel belongs to, numbered from 0.
    weights : (superpixels,) float
        By how much the superpixel's presence raises the target's probability in the linear
        model; negative where it lowers it.
    intercept : float
        The linear model's prediction with every superpixel hidden.
    fit : float
        R squared of the linear model on its weighted samples, at most 1; NaN if all have the
        same score.
    shown : (samples, superpixels) bool or None
        Which superpixels each sample shows; the first sample shows all. None if not stored.
    scores : (samples,) float or None
        The network's probability of the target for each sample.
    block : int
        How many neighbouring samples were drawn together.
    """

    segments: Int[np.ndarray, "height width"]
    weights: Float[np.ndarray, " superpixels"]
    intercept: float
    fit: float
    shown: Bool[np.ndarray, "samples superpixels"] | None = None
    scores: Float[np.ndarray, " samples"] | None = None
    block: int = 1

    def ranked(self, count: int, signs: Signs = "both") -> list[int]:
        """Return the `count` superpixels of largest absolute weight, or of largest positive."""
        order = np.argsort(-np.abs(self.weights), kind="stable")
        return [int(i) for i in order if signs == "both" or self.weights[i] > 0][:count]


@dataclass(frozen=True)
class Explanation:
    """One method's explanation of one photograph, classifier and target.

    Attributes
    ----------
    method : str
        Such as ``"lime"`` or ``"gradcam"``.
    image, image_sha256 : str
        The photograph's id and hash.
    classifier : str
        `Classifier.id`: name and start of the weights' hash.
    target : int
        Index of the explained class.
    target_name : str
        Its name.
    probability : float
        Its softmax probability for the whole view.
    frame : Frame
        Where the saliency is in the photograph.
    saliency : (height, width) float32
        Scaled: in [0, 1], or in [-1, 1] where `signed`.
    raw : (rows, columns) float32
        Unscaled, in the method's own resolution: a CAM before ReLU at its layer's size, LIME's
        weight at each pixel.
    signed : bool
        Whether negative values oppose the target.
    seed : int or None
        None where nothing is random.
    parameters : mapping
        All else that determines the result, JSON values.
    superpixels : Superpixels or None
        LIME's.
    no_signal : str
        Why this says nothing about the target, see `xailib.explain.record`; the saliency is then
        zero, and tables leave it out. Empty if it says something.
    """

    method: str
    image: str
    image_sha256: str
    classifier: str
    target: int
    target_name: str
    probability: float
    frame: Frame
    saliency: Float32[np.ndarray, "height width"]
    raw: Float32[np.ndarray, "rows columns"]
    signed: bool = False
    seed: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    superpixels: Superpixels | None = None
    no_signal: str = ""

    def __post_init__(self) -> None:
        if self.saliency.shape != self.frame.size:
            raise InputError(
                f"explanation: saliency {self.saliency.shape} is not the frame's {self.frame.size}"
            )
        if not np.isfinite(self.saliency).all():
            raise InputError(f"explanation: {self.method} of {self.image!r} is not finite")

    def save(self, path: Path) -> None:
        """Write to one ``.npz`` file, all or nothing."""
        text: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        arrays = {name: text.pop(name) for name in ("saliency", "raw")}
        text |= {"frame": asdict(self.frame), "parameters": dict(self.parameters)}
        if (parts := self.superpixels) is not None:
            stored = {name: getattr(parts, name) for name in _SUPERPIXEL_ARRAYS}
            arrays |= {name: array for name, array in stored.items() if array is not None}
            rest = {"intercept": parts.intercept, "fit": parts.fit, "block": parts.block}
            text["superpixels"] = rest
        with atomic(path) as file:
            np.savez_compressed(file, **arrays, description=np.array(json.dumps(text)))

    @classmethod
    def load(cls, path: Path) -> "Explanation":
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, or something else.
        """
        try:
            # Read first: of a damaged file numpy would leave the handle open.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                text = json.loads(str(file["description"]))
                arrays = {key: file[key] for key in file.files if key != "description"}
            parts = text.pop("superpixels")
            if parts is not None:
                parts |= {name: arrays.pop(name, None) for name in _SUPERPIXEL_ARRAYS}
                parts = Superpixels(**parts)
            frame = Frame(**{key: tuple(value) for key, value in text.pop("frame").items()})
            return cls(**text, **arrays, frame=frame, superpixels=parts)
        except (OSError, LookupError, ValueError, TypeError, EOFError, BadZipFile) as error:
            raise InputError(f"explanation: cannot read {str(path)!r}: {error}") from error


def scaled(
    raw: Float32[np.ndarray, "height width"], signed: bool
) -> Float32[np.ndarray, "height width"]:
    """Return a map scaled to its own range: to [0, 1], or around zero to [-1, 1].

    A constant map becomes zero: it prefers no pixel.
    """
    low, span = (0, np.abs(raw).max()) if signed else (raw.min(), np.ptp(raw))
    return ((raw - low) / span if span > 0 else np.zeros_like(raw)).astype(np.float32)
