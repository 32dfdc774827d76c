"""Classifiers: a network in eval mode with its own preprocessing and class names."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from xailib.errors import InputError, XailibError, check_name, first_line, unknown_name
from xailib.images.frames import Frame
from xailib.images.load import Photograph, as_photograph
from xailib.networks import forward, layers, zoo
from xailib.networks.counting import passed
from xailib.networks.engines import cache_of
from xailib.networks.forward import PRECISIONS, computing
from xailib.networks.memory import enough, upload
from xailib.networks.modules import is_quantised, made_ready, unwrapped
from xailib.networks.preprocessing import Inputs, Prepares, preprocessing_of, shown_by
from xailib.networks.weights import hash_of

Views = UInt8[np.ndarray, "images height width 3"]
Logits = Float32[Tensor, "images classes"]
Rows = Float32[np.ndarray, "images classes"]
BATCH = 16  # images of a pass, where no device's memory is asked


class PassOptions(TypedDict, total=False):
    """What `Classifier.forward_batches` hands on; see `xailib.networks.forward.forward_batches`."""

    batch_size: int | None
    engine: str
    expected: int
    again: bool


@dataclass(frozen=True)
class View:
    """A photograph as a classifier sees it."""

    pixels: UInt8[np.ndarray, "height width 3"]  #: resized and cropped, not normalised
    frame: Frame  #: where these pixels are in the photograph


@dataclass(frozen=True)
class Prediction:
    """A class with its probability; see `Classifier.as_probabilities`."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Classifier:
    """A network that gives one score for each class, ready to be explained."""

    name: str  #: as given to `load_classifier`
    module: nn.Module = field(repr=False)  #: in eval mode, on `device`
    preprocessing: Prepares = field(repr=False)  #: its own resizing, cropping and normalising
    class_names: tuple[str, ...] = field(repr=False)  #: the names of its outputs, in order
    weights: str  #: what its weights are called
    weights_sha256: str  #: the hash of its weights; empty for a live module, see `sha256`
    device: torch.device  #: where it computes
    #: the layer for maps, the one that was named or the last with feature maps; None where there
    #: is none (token models)
    cam_layer: str | None
    dissect_layers: tuple[str, ...]  #: the last two stages of feature maps and the output layer
    files: tuple[Path, ...] = ()  #: what it was made from, the weights' file and a user's own code
    precision: str = "exact"  #: how it computes, see `xailib.networks.forward`
    #: What the network's own output means, see `load_classifier`. Here it is logits in any case,
    #: of probabilities the logarithm, of a single output one logit for each side.
    outputs: str = "logits"
    coarse: float = 0.0  #: the relative rounding of the coarsest numbers that its layers put out
    #: a hash of its preprocessing, where that is not what its name and weights alone lead to
    shown: str = ""
    #: see `xailib.networks.layers.patches`
    patches: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    @property
    def sha256(self) -> str:
        """The hash of its weights; of a live module (`classifier_from`), of what they are now."""
        if self.weights_sha256:
            return self.weights_sha256
        entries = (t for t in self.module.state_dict().values() if isinstance(t, Tensor))
        plain = [t for t in entries if not (t.is_quantized or t.is_complex())]
        sums = torch.stack([forward.double(t).sum() for t in plain]).tolist() if plain else []
        cache = cache_of(self.module)  # which does not see what is written through ``.data``
        if cache.get("hash", (None,))[0] != sums:
            cache["hash"] = sums, hash_of(self.module)
        return str(cache["hash"][1])

    @property
    def id(self) -> str:
        """Name, start of the weights' hash, meaning, preprocessing, which comparable maps share."""
        meant = "" if self.outputs == "logits" else f"+{self.outputs}"
        shown = f"~{self.shown[:8]}" if self.shown else ""
        return f"{self.name}@{self.sha256[:12]}{shown}{meant}"

    @property
    def identity(self) -> dict[str, str]:
        """Its entry in a manifest, with name, weights, their hash, and how precisely it computes.

        And what its output means, unless that is logits; its preprocessing, where they do not tell.
        """
        meant = {} if self.outputs == "logits" else {"outputs": self.outputs}
        meant |= {"shown": self.shown} if self.shown else {}
        return {
            "model": self.name,
            "weights": self.weights,
            "sha256": self.sha256,
            "precision": self.precision,
            **meant,
        }

    def computing(self) -> AbstractContextManager[None]:
        """Return the context in which passes have this classifier's precision."""
        return computing(self.precision, self.device)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the network run in eval mode, at its precision; what it raises becomes one line."""
        try:
            with layers.evaluation(self.module), self.computing():
                yield
        except XailibError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, Exception) and forward.out_of_memory(error):
                raise
            raise InputError(f"model: {self.name!r} fails: {first_line(error)}") from error

    def check_differentiable(self) -> None:
        """Raise if gradients would be wrong: PyTorch passes through quantised layers by chance."""
        if is_quantised(self.module):
            raise InputError(
                f"model: {self.name!r} has quantised layers, which have no gradient; lime, "
                "ablationcam and scorecam need none"
            )

    def as_probabilities(self, logits: Logits) -> Logits:
        """Return scores as probabilities: by softmax, or of independent labels by sigmoids."""
        return logits.sigmoid() if self.outputs == "multilabel" else logits.softmax(dim=1)

    def view(self, photograph: Any) -> View:
        """Return the photograph, or what `as_photograph` takes, as this classifier sees it."""
        photograph = as_photograph(photograph)
        pixels = self.preprocessing.crop(photograph.pixels)
        return View(pixels, self.preprocessing.frame(*photograph.size))

    def input_tensor(self, pixels: Views) -> Inputs:
        """Return views as the network's normalised input, on its device."""
        batch = upload(pixels, self.device)
        return self.preprocessing.normalise(batch).contiguous(memory_format=torch.channels_last)

    def trial(self) -> Float32[Tensor, "1 channels height width"]:
        """Return a made-up image as the network's input, to try the network with."""
        return _trial(self.preprocessing, (0,), self.device)

    def forward_batches(
        self, make: forward.Make, count: int, **options: Unpack[PassOptions]
    ) -> forward.Scores:
        """Return the scores of many inputs by the fastest engine of this precision.

        ``make(start, stop)`` builds a part of them, on `device`; options and errors are those of
        `xailib.networks.forward.forward_batches`.
        """
        with self.running():
            return forward.forward_batches(
                self.module, make, count, precision=self.precision, **options
            )

    def logits(self, pixels: Views) -> Rows:
        """Return the scores for views; raise if one is not finite."""

        def run(start: int, stop: int) -> Tensor:
            return self.module(self.input_tensor(pixels[start:stop])).float()

        size = enough(self.device)
        with torch.no_grad(), self.running():
            parts = [found for _, _, found in forward.halving(run, len(pixels), size)]
        found = torch.cat(parts).cpu()
        self.check_finite(found)
        return found.numpy()

    def check_finite(self, scores: Float[Tensor, "..."]) -> None:
        """Raise unless all scores are finite: the rank of others would mean nothing."""
        if not torch.isfinite(scores).all():
            raise InputError(f"model: {self.name!r} gives scores that are not finite")

    def scores(self, inputs: Inputs) -> Logits:
        """Return the network's scores for a few inputs in one pass, where they are computed."""
        with torch.no_grad(), self.running():
            found = self.module(inputs).float()
        passed(len(inputs))
        return found

    def prediction(self, index: int | np.integer, probability: float | np.floating) -> Prediction:
        """Return a class with its name."""
        return Prediction(int(index), self.class_names[index], float(probability))

    def probabilities(self, pixels: Views) -> Rows:
        """Return probabilities for views; what lime calls a ``classifier_fn``."""
        return self.as_probabilities(torch.from_numpy(self.logits(pixels))).numpy()

    def predict(self, photograph: Any, top: int = 5) -> list[Prediction]:
        """Return the `top` most probable classes, best first."""
        probabilities = self.probabilities(self.view(photograph).pixels[None])[0]
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [self.prediction(i, probabilities[i]) for i in best]

    def target(self, photograph: Photograph, target: int | str | None = None) -> Prediction:
        """Return the class to explain: the predicted one unless `target` names another."""
        if target is None:
            return self.predict(photograph, top=1)[0]
        index = self.class_index(target)
        probability = self.probabilities(self.view(photograph).pixels[None])[0, index]
        return self.prediction(index, probability)

    def class_index(self, target: Any) -> int:
        """Return the index of a class given by index or by name.

        A number is an index. A text is a name: the very name if there is one, else the one that
        differs in case only, else, where no class is named by a number, an index. `InputError` is
        raised for an index out of range, an unknown name, or one that several classes have.
        """
        if isinstance(target, str):
            same = [i for i, name in enumerate(self.class_names) if name == target]
            found = same or [
                i for i, n in enumerate(self.class_names) if _plain(n) == _plain(target)
            ]
            if len(found) > 1:
                candidates = " and ".join(f"{self.class_names[i]!r} ({i})" for i in found)
                raise InputError(f"target: {target!r} may be {candidates}; give the index")
            if found:
                return found[0]
            if not target.isdecimal() or any(name.isdecimal() for name in self.class_names):
                raise unknown_name("target", target, self.class_names)
        elif isinstance(target, bool) or not isinstance(target, int | np.integer):
            kind = type(target).__name__
            raise InputError(f"target: a {kind} is neither the index nor the name of a class")
        index = int(target)  # numpy's too
        if not 0 <= index < len(self.class_names):
            last = len(self.class_names) - 1
            hint = f"; for the class of this name give '{index}' in quotes"
            hint = hint if str(index) in self.class_names else ""
            raise InputError(f"target: index {index} is not between 0 and {last}{hint}")
        return index

    def layer(self, name: str) -> nn.Module:
        """Return the layer with this `named_modules` name, or raise with the nearest names."""
        return layers.get_layer(self.module, name)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def check_classifier(classifier: object) -> None:
    """Raise unless this is a classifier, with what to do with a module."""
    if not isinstance(classifier, Classifier):
        kind = type(classifier).__name__
        raise InputError(
            f"classifier: a {kind} is not a classifier; make one by classifier_from(module, "
            "transform, class_names) or load_classifier(name)"
        )


def load_classifier(
    name: str,
    weights: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    precision: str = "exact",
    *,
    outputs: str = "auto",
    preprocessing: Prepares | Callable | str | None = None,
) -> Classifier:
    """Load a classifier by name, ready to be explained.

    Parameters
    ----------
    name : str
        ``tf_efficientnet_lite0``, ``1`` or ``2`` (weights come with a package), any torchvision
        classification model, ``resnet18_places365``, any timm model, with a tag or without
        (``resnet50.a1_in1k``), or ``path/to/file.py:function`` for your own: a function that
        returns (module, transform from PIL image to tensor, class names), or what
        `classifier_from` returns.
    weights : str or path, optional
        A file with a state dict, also inside a training checkpoint (of several sets the moving
        average); a member of torchvision's weights enum, such as ``"IMAGENET1K_V1"``;
        ``"random"`` for untrained weights; by default the published ones (torchvision's
        ``DEFAULT``).
    device : str
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    seed : int
        For untrained weights.
    precision : str
        ``"exact"`` (float32), ``"tf32"`` (on a GPU, products of 10-bit factors) or ``"half"``
        (bfloat16); see `xailib.networks.forward`.
    outputs : str
        What the network's output means: ``"logits"`` (softmax makes probabilities of them),
        ``"probabilities"`` (that add up to 1), ``"multilabel"`` (each label has a sigmoid of its
        own), or ``"binary"`` (a single output). ``"auto"`` notices a network that ends in softmax
        or sigmoid and one with a single output; logits of independent labels must be stated.
    preprocessing : callable or str, optional
        Another transform than the weights' own, or, for a network of torchvision's, the name of
        the weights whose transform it is. An empty string means the default.

    Raises
    ------
    InputError
        For an unknown name, weights that do not fit, or a network that does not output one
        row of scores.
    UnavailableError
        For weights that cannot be fetched: what was tried, and how to supply a file.
    """
    check_name("precision", precision, PRECISIONS)
    chosen = _device(device)
    recipe = preprocessing if isinstance(preprocessing, str) else ""
    found = zoo.find(name, weights or None, seed, recipe)
    its: dict[str, Any] = {"weights": found.weights, "files": found.files}
    its["weights_sha256"] = found.sha256
    if isinstance(found.made, Classifier):
        if outputs != "auto" or preprocessing:
            raise InputError(
                f"model: {name!r} returns a classifier; state its outputs and preprocessing there"
            )
        module = found.made.module.to(chosen)
        its |= {"shown": "", "module": module}  # the file's hash is that of the transform, too
        return replace(found.made, name=name, device=chosen, precision=precision, **its)
    prepares = found.preprocessing
    if preprocessing and not recipe:
        prepares = preprocessing_of(preprocessing)
    usual = found.own or found.preprocessing
    if prepares is not usual and (shown := shown_by(prepares)) != shown_by(usual):
        its["shown"] = shown
    module = found.module.eval().to(chosen)
    names = found.class_names
    made = _tried(name, module, prepares, names, precision, outputs, live=False)
    return replace(made, **its)


def classifier_from(
    module: nn.Module,
    transform: Prepares | Callable,
    class_names: Sequence[str],
    layer: str | None = None,
    *,
    outputs: str = "auto",
    precision: str = "exact",
    name: str = "",
) -> Classifier:
    """Return a classifier made of a live module, ready to be explained.

    The module stays yours: it is used on the device where it is, in eval mode while it runs, and
    left in the mode that it was in. The classifier's id follows its weights, so that maps from
    before and after training are not compared by mistake. DataParallel and torch.compile are
    looked through, and a module in half precision computes in float32.

    Parameters
    ----------
    module : torch.nn.Module
        From a batch of images to one row of scores each.
    transform : callable
        From PIL RGB image to (channels, height, width) float tensor: the one of your evaluation.
    class_names : sequence of str
        The names of its outputs, in order.
    layer : str, optional
        The layer for class activation maps; by default the last with feature maps.
    outputs, precision : str
        See `load_classifier`.
    name : str
        What to call it; by default as its class.

    Raises
    ------
    InputError
        For a module that cannot be explained, or an argument of another type: what to give.
    """
    check_name("precision", precision, PRECISIONS)
    if not isinstance(module, nn.Module):
        raise InputError(f"module: a {type(module).__name__} is not a torch.nn.Module")
    names = zoo.check_names("class_names: give", class_names)
    module, prepares = unwrapped(module), preprocessing_of(transform)
    name = name or type(module).__name__
    made = _tried(name, module, prepares, names, precision, outputs, live=True)
    if layer is not None:
        made.layer(layer)
    shown = shown_by(prepares)
    return replace(made, cam_layer=layer or made.cam_layer, shown=shown)


def _tried(
    name: str,
    module: nn.Module,
    preprocessing: Prepares,
    class_names: tuple[str, ...],
    precision: str,
    outputs: str,
    *,
    live: bool,
) -> Classifier:
    """Try a network on two images, and return the classifier."""
    device = forward.device_of(module)
    inputs = _trial(preprocessing, (0, 1), device)
    with computing(precision, device):
        made = made_ready(name, module, class_names, inputs, outputs, live=live)
    module, class_names, outputs, traces, coarse = made
    count = len(class_names)
    return Classifier(
        name=name,
        module=module,
        preprocessing=preprocessing,
        class_names=class_names,
        weights="as they are in memory",
        weights_sha256="",
        device=device,
        cam_layer=layers.default_cam_layer(module, traces, count),
        dissect_layers=layers.default_dissect_layers(module, traces, count),
        precision=precision,
        outputs=outputs,
        coarse=coarse,
        patches=layers.patches(module, traces, inputs.shape[-2:]),
    )


def _trial(preprocessing: Prepares, seeds: Sequence[int], device: torch.device) -> Inputs:
    """Return made-up images of blobs as a network's input, each darker than the one before."""
    seen = []
    for seed in seeds:
        blobs = np.random.default_rng(seed).integers(0, 256 // (1 + seed), (16, 16, 3), np.uint8)
        seen.append(preprocessing.crop(blobs.repeat(16, axis=0).repeat(16, axis=1)))
    return preprocessing.normalise(torch.from_numpy(np.stack(seen)).to(device))


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
