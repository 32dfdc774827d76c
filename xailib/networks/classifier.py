"""Classifiers: a network in eval mode with its own preprocessing and category names."""

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

BATCH = 16  # pictures of a pass, where no device's memory is asked


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
        Where these pixels lie in the photograph.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    frame: Frame


@dataclass(frozen=True)
class Prediction:
    """A category with its probability; see `as_probabilities`."""

    index: int
    name: str
    probability: float


def as_probabilities(
    logits: Float32[Tensor, "images categories"],
) -> Float32[Tensor, "images categories"]:
    """Return scores as probabilities: by softmax, or of a single category by the sigmoid.

    A softmax over one category is 1 whatever the picture shows.
    """
    return logits.softmax(dim=1) if logits.shape[1] > 1 else logits.sigmoid()


@dataclass(frozen=True)
class Classifier:
    """A network that gives one score for each category, ready to be explained.

    Attributes
    ----------
    name : str
        As given to `load_classifier`.
    module : torch.nn.Module
        In eval mode, on `device`.
    preprocessing : Prepares
        Its own resizing, cropping and normalising.
    categories : tuple of str
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
    categories: tuple[str, ...] = field(repr=False)
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
        """What a manifest says of it: name, weights, their hash, and how precisely it computes."""
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
    ) -> Float32[np.ndarray, "images categories"]:
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
    ) -> Float32[Tensor, "images categories"]:
        """Return the network's scores for a few inputs in one pass, where they are computed."""
        with torch.inference_mode(), layers.evaluation(self.module), self.computing():
            found = self.module(inputs).float()
        passed(len(inputs))
        return found

    def prediction(self, index: int | np.integer, probability: float | np.floating) -> Prediction:
        """Return a category with its name."""
        return Prediction(int(index), self.categories[index], float(probability))

    def probabilities(
        self, pixels: UInt8[np.ndarray, "images height width 3"], batch_size: int | None = None
    ) -> Float32[np.ndarray, "images categories"]:
        """Return probabilities for views; what lime calls a ``classifier_fn``."""
        return as_probabilities(torch.from_numpy(self.logits(pixels, batch_size))).numpy()

    def predict(self, photograph: Photograph, top: int = 5) -> list[Prediction]:
        """Return the `top` most probable categories, best first."""
        probabilities = self.probabilities(self.view(photograph).pixels[None])[0]
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [self.prediction(i, probabilities[i]) for i in best]

    def target(self, photograph: Photograph, category: int | str | None = None) -> Prediction:
        """Return the category to explain: the predicted one unless `category` names another.

        Raises
        ------
        InputError
            For an index out of range or an unknown name.
        """
        if category is None:
            return self.predict(photograph, top=1)[0]
        index = self.category_index(category)
        probability = self.probabilities(self.view(photograph).pixels[None])[0, index]
        return self.prediction(index, probability)

    def category_index(self, category: int | np.integer | str) -> int:
        """Return the index of a category given by index or by name (case is ignored).

        Raises
        ------
        InputError
            For an index out of range or an unknown name.
        """
        if not isinstance(category, str):
            category = int(category)  # numpy's too
            if not 0 <= category < len(self.categories):
                last = len(self.categories) - 1
                raise InputError(f"target: index {category} is not between 0 and {last}")
            return category
        names = [name.lower() for name in self.categories]
        if category.lower() not in names:
            raise unknown_name("target", category, self.categories)
        return names.index(category.lower())

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
        from PIL image to tensor, category names).
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
        For an unknown name, weights that do not fit, or a network that does not put out one
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
    count = len(found.categories)
    return Classifier(
        name=name,
        module=module,
        preprocessing=found.preprocessing,
        categories=found.categories,
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
    """Send one black picture through, and return what the layers put out."""
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
    if not isinstance(output, Tensor) or output.shape != (1, len(found.categories)):
        kind = type(output).__name__
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        raise InputError(
            f"model: {name!r} puts out a {kind}{shape}; a classifier must put out a tensor "
            f"(batch, {len(found.categories)}), one score for each category name"
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
