"""Classifiers: a network in eval mode with its own preprocessing and class names."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from xailib.errors import InputError, first_line, unknown_name
from xailib.images.frames import Frame
from xailib.images.load import Photograph
from xailib.networks import forward, layers, zoo
from xailib.networks.counting import passed
from xailib.networks.memory import enough
from xailib.networks.precision import check_precision, computing
from xailib.networks.preprocessing import Prepares

BATCH = 16  # images of a pass, where no device's memory is asked


class PassOptions(TypedDict, total=False):
    """What `Classifier.forward_batches` hands on; see `xailib.networks.forward.forward_batches`."""

    batch_size: int | None
    engine: str
    expected: int
    again: bool


@dataclass(frozen=True)
class View:
    """A photograph as a classifier sees it.

    Attributes
    ----------
    pixels : (height, width, 3) uint8
        Resized and cropped, not normalised.
    frame : Frame
        Where these pixels are in the photograph.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    frame: Frame


@dataclass(frozen=True)
class Prediction:
    """A class with its probability; see `as_probabilities`."""

    index: int
    name: str
    probability: float


def as_probabilities(
    logits: Float32[Tensor, "images classes"],
) -> Float32[Tensor, "images classes"]:
    """Return scores as probabilities: by softmax, or of a single class by the sigmoid.

    A softmax over one class is 1 whatever the image shows.
    """
    return logits.softmax(dim=1) if logits.shape[1] > 1 else logits.sigmoid()


@dataclass(frozen=True)
class Classifier:
    """A network that gives one score for each class, ready to be explained.

    Attributes
    ----------
    name : str
        As given to `load_classifier`.
    module : torch.nn.Module
        In eval mode, on `device`.
    preprocessing : Prepares
        Its own resizing, cropping and normalising.
    class_names : tuple of str
        The names of its outputs, in order.
    weights : str
        What its weights are called.
    sha256 : str
        The hash of its weights.
    device : torch.device
        Where it computes.
    cam_layer : str or None
        The last layer with feature maps; None where there is none (token models).
    dissect_layers : tuple of str
        The last two stages of feature maps and the output layer.
    files : tuple of Path
        What it was made from: the weights' file, a user's own code.
    precision : str
        How it computes, see `xailib.networks.precision`.
    """

    name: str
    module: nn.Module = field(repr=False)
    preprocessing: Prepares = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    weights: str
    sha256: str
    device: torch.device
    cam_layer: str | None
    dissect_layers: tuple[str, ...]
    files: tuple[Path, ...] = ()
    precision: str = "exact"

    @property
    def id(self) -> str:
        """Name and the start of the weights' hash: what two maps must share to be compared."""
        return f"{self.name}@{self.sha256[:12]}"

    @property
    def identity(self) -> dict[str, str]:
        """Its entry in a manifest: name, weights, their hash, and how precisely it computes."""
        return {
            "model": self.name,
            "weights": self.weights,
            "sha256": self.sha256,
            "precision": self.precision,
        }

    def computing(self) -> AbstractContextManager[None]:
        """Return the context in which passes have this classifier's precision."""
        return computing(self.precision, self.device)

    def view(self, photograph: Photograph) -> View:
        """Return the photograph as this classifier sees it."""
        pixels = self.preprocessing.crop(photograph.pixels)
        return View(pixels, self.preprocessing.frame(*photograph.size))

    def input_tensor(
        self, pixels: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float32[Tensor, "batch channels height width"]:
        """Return views as the network's normalised input, on its device."""
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        return self.preprocessing.normalise(batch).contiguous(memory_format=torch.channels_last)

    def forward_batches(
        self, make: forward.Make, count: int, **options: Unpack[PassOptions]
    ) -> forward.Scores:
        """Return the scores of many inputs by the fastest engine of this precision.

        ``make(start, stop)`` builds a part of them, on `device`; see
        `xailib.networks.forward.forward_batches` for the options and the errors.
        """
        return forward.forward_batches(
            self.module, make, count, precision=self.precision, **options
        )

    def logits(
        self, pixels: UInt8[np.ndarray, "images height width 3"], batch_size: int | None = None
    ) -> Float32[np.ndarray, "images classes"]:
        """Return the network's scores for views, `batch_size` at a time.

        Raises
        ------
        InputError
            If a score is not finite: its rank would mean nothing.
        """

        def run(start: int, stop: int) -> Tensor:
            return self.module(self.input_tensor(pixels[start:stop])).float()

        size = batch_size or enough(self.device)
        with torch.inference_mode(), layers.evaluation(self.module), self.computing():
            parts = [found for _, _, found in forward.halving(run, len(pixels), size)]
        found = torch.cat(parts).cpu()
        self.check_finite(found)
        return found.numpy()

    def check_finite(self, scores: Float[Tensor, "..."]) -> None:
        """Raise unless all scores are finite: the rank of others would mean nothing.

        Raises
        ------
        InputError
            Naming the network.
        """
        if not torch.isfinite(scores).all():
            raise InputError(f"model: {self.name!r} gives scores that are not finite")

    def scores(
        self, inputs: Float32[Tensor, "images channels height width"]
    ) -> Float32[Tensor, "images classes"]:
        """Return the network's scores for a few inputs in one pass, where they are computed."""
        with torch.inference_mode(), layers.evaluation(self.module), self.computing():
            found = self.module(inputs).float()
        passed(len(inputs))
        return found

    def prediction(self, index: int | np.integer, probability: float | np.floating) -> Prediction:
        """Return a class with its name."""
        return Prediction(int(index), self.class_names[index], float(probability))

    def probabilities(
        self, pixels: UInt8[np.ndarray, "images height width 3"], batch_size: int | None = None
    ) -> Float32[np.ndarray, "images classes"]:
        """Return probabilities for views; what lime calls a ``classifier_fn``."""
        return as_probabilities(torch.from_numpy(self.logits(pixels, batch_size))).numpy()

    def predict(self, photograph: Photograph, top: int = 5) -> list[Prediction]:
        """Return the `top` most probable classes, best first."""
        probabilities = self.probabilities(self.view(photograph).pixels[None])[0]
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [self.prediction(i, probabilities[i]) for i in best]

    def target(self, photograph: Photograph, target: int | str | None = None) -> Prediction:
        """Return the class to explain: the predicted one unless `target` names another.

        Raises
        ------
        InputError
            For an index out of range or an unknown name.
        """
        if target is None:
            return self.predict(photograph, top=1)[0]
        index = self.class_index(target)
        probability = self.probabilities(self.view(photograph).pixels[None])[0, index]
        return self.prediction(index, probability)

    def class_index(self, target: int | np.integer | str) -> int:
        """Return the index of a class given by index or by name (case is ignored).

        Raises
        ------
        InputError
            For an index out of range or an unknown name.
        """
        if not isinstance(target, str):
            target = int(target)  # numpy's too
            if not 0 <= target < len(self.class_names):
                last = len(self.class_names) - 1
                raise InputError(f"target: index {target} is not between 0 and {last}")
            return target
        names = [name.lower() for name in self.class_names]
        if target.lower() not in names:
            raise unknown_name("target", target, self.class_names)
        return names.index(target.lower())

    def layer(self, name: str) -> nn.Module:
        """Return the layer with this `named_modules` name, or raise with the nearest names."""
        return layers.get_layer(self.module, name)


def load_classifier(
    name: str,
    weights: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    precision: str = "exact",
) -> Classifier:
    """Load a classifier by name, ready to be explained.

    Parameters
    ----------
    name : str
        ``tf_efficientnet_lite0``, ``1`` or ``2`` (weights come with a package), any torchvision
        classification model, ``resnet18_places365``, any timm model, or
        ``path/to/file.py:function`` for your own: a function that returns (module, transform
        from PIL image to tensor, class names).
    weights : str or path, optional
        A file with a state dict; a member of torchvision's weights enum, such as
        ``"IMAGENET1K_V1"``; ``"random"`` for untrained weights; by default the published ones
        (torchvision's ``DEFAULT``).
    device : str
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    seed : int
        For untrained weights.
    precision : str
        ``"exact"`` (float32), ``"tf32"`` (on a GPU, products of 10-bit factors) or ``"half"``
        (bfloat16); see `xailib.networks.precision`.

    Raises
    ------
    InputError
        For an unknown name, weights that do not fit, or a network that does not output one
        row of scores.
    UnavailableError
        For weights that cannot be fetched: what was tried, and how to supply a file.
    """
    check_precision(precision)
    chosen = _device(device)
    found = zoo.find(name, weights, seed)
    module = found.module.eval().to(chosen).to(memory_format=torch.channels_last)
    with computing(precision, chosen):
        traces = _check(name, module, found, chosen)
    count = len(found.class_names)
    return Classifier(
        name=name,
        module=module,
        preprocessing=found.preprocessing,
        class_names=found.class_names,
        weights=found.weights,
        sha256=found.sha256,
        device=chosen,
        cam_layer=layers.default_cam_layer(module, traces, count),
        dissect_layers=layers.default_dissect_layers(module, traces, count),
        files=found.files,
        precision=precision,
    )


def _check(
    name: str, module: nn.Module, found: zoo.Ingredients, device: torch.device
) -> list[layers.Trace]:
    """Send one black image through, and return the layers' outputs."""
    side = np.zeros((256, 256, 3), np.uint8)
    example = found.preprocessing.normalise(
        torch.from_numpy(found.preprocessing.crop(side)[None]).to(device)
    )
    try:
        with torch.inference_mode():
            output = module(example)
    except Exception as error:  # a network may raise anything
        raise InputError(
            f"model: {name!r} fails on its own input, {tuple(example.shape)}: {first_line(error)}"
        ) from error
    if not isinstance(output, Tensor) or output.shape != (1, len(found.class_names)):
        kind = type(output).__name__
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        raise InputError(
            f"model: {name!r} outputs a {kind}{shape}; a classifier must output a tensor "
            f"(batch, {len(found.class_names)}), one score for each class name"
        )
    if not torch.isfinite(output).all():
        raise InputError(f"model: {name!r} gives scores that are not finite")
    return layers.trace(module, example)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device: {name!r} cannot be used here: {reason}") from error
    return device
