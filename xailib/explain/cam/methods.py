"""Class activation maps: which part of a layer's feature maps a prediction rests on."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor

from xailib.errors import InputError, check_least, check_name
from xailib.explain.cam.ablation import RULES, ablation_weights, closed_weights, shortcuts
from xailib.explain.cam.gradient import GRADIENT_METHODS, combined, layer_pass
from xailib.explain.cam.gradient import guided_backprop as guided_backprop
from xailib.explain.cam.gradient import guided_backprops as guided_backprops
from xailib.explain.cam.layout import layout_in, token_layer
from xailib.explain.cam.scorecam import score_weights
from xailib.explain.cam.tail import Tail
from xailib.explain.explanation import Explanation
from xailib.explain.record import no_signal, record, rounding
from xailib.explain.stream import Outcome, Seen, explain_alone, one_by_one
from xailib.networks.classifier import Classifier, PassOptions, check_classifier
from xailib.networks.engines import cache_of
from xailib.networks.forward import ENGINES, double, halving
from xailib.networks.layers import hookable
from xailib.networks.memory import download

Inputs = Float32[Tensor, "images colours height width"]  # of the network

# The classes of the grad-cam package that do the same; the gradient methods are computed by them.
METHODS = {**GRADIENT_METHODS, "ablationcam": AblationCAM, "scorecam": ScoreCAM}


def check_methods(methods: Sequence[str]) -> None:
    """Raise unless `methods` names at least one, each known."""
    if not methods:
        raise InputError(f"methods: the list is empty; allowed: {', '.join(METHODS)}")
    for method in methods:
        check_name("methods", method, METHODS)


def cam_layer_of(classifier: Classifier, layer: str | None = None) -> str:
    """Return the layer to use: the one named, or the classifier's own.

    That is its last layer with feature maps; where tokens follow these (ViT, Swin), see
    `xailib.explain.cam.layout.token_layer`. `InputError` is raised where the network has neither.
    """
    name = layer or classifier.cam_layer
    if name is None:
        cache = cache_of(classifier.module)
        if "token layer" not in cache:
            with classifier.running():
                cache["token layer"] = token_layer(
                    classifier.module, classifier.trial(), classifier.patches
                )
        name = cache["token layer"]
    if name is None and not hookable(classifier.module):
        raise InputError(f"layer: {classifier.name} is TorchScript, which takes no hooks")
    if name is None:
        raise InputError(
            f"layer: {classifier.name} has neither feature maps nor attention over tokens; "
            "name a layer whose output is one of these"
        )
    classifier.layer(name)
    return name


class CamOptions(TypedDict, total=False):
    """What a class activation map takes besides classifier, photograph, method and target.

    Attributes
    ----------
    layer : str or None
        A `named_modules` name; by default `cam_layer_of` the classifier. Its output may be
        feature maps, channels first or last, or tokens.
    batch_size : int or None
        Images a forward pass, for the methods that need many; by default as many as bring
        something and fit.
    engine : str
        For these, see `xailib.networks.forward.forward_batches`.
    rule : str
        For ``"ablationcam"``, see `xailib.explain.cam.ablation.ablation_weights`.
    """

    layer: str | None
    batch_size: int | None
    engine: str
    rule: str


def explain_cam(
    classifier: Classifier,
    photograph: Any,
    method: str = "gradcam",
    target: int | str | None = None,
    **options: Unpack[CamOptions],
) -> Explanation:
    """Explain one prediction by a class activation map of one layer.

    Parameters
    ----------
    classifier : Classifier
        What is explained.
    photograph : Photograph, str, path, PIL image, array or tensor
        See `xailib.images.load.as_photograph`.
    method : str
        A name in `METHODS`.
    target : int or str, optional
        A class's index or name; by default the predicted one. Its logit is explained.
    **options
        See `CamOptions`.

    Returns
    -------
    Explanation
        In [0, 1], as grad-cam scales it (negative parts clipped, then by minimum and maximum);
        ``raw`` is the weighted sum of the layer's maps before that. ``parameters`` say the
        layer, and for the methods with many passes how and by which engine they were made.

    Raises
    ------
    InputError
        For an unknown method, layer, target, engine or rule, or a layer without feature maps.
    """
    return explain_alone(classifier, photograph, Cam(classifier, method, (target,), **options))[0]


# Maps that the device is making, or has made: of what, how, and a function that waits for them.
Started = tuple[Sequence[Seen], Sequence[dict[str, str]], Callable[[], list[np.ndarray]]]


class Cam:
    """One CAM with its options, for any number of images (`xailib.explain.stream`).

    Arguments and errors are those of `explain_cam`. ``targets`` are classes, None is the predicted
    one; they share what passes they can.
    """

    def __init__(
        self,
        classifier: Classifier,
        method: str,
        targets: Sequence[int | str | None] = (None,),
        **options: Unpack[CamOptions],
    ) -> None:
        check_classifier(classifier)
        for name in options:
            check_name("option", name, CamOptions.__annotations__)
        size, engine = options.get("batch_size"), options.get("engine", "auto")
        self.passes: PassOptions = {"batch_size": size, "engine": engine}
        self.rule = options.get("rule", "centred")
        check_name("method", method, METHODS)
        check_name("engine", engine, ENGINES)
        check_name("rule", self.rule, RULES)
        check_least("batch_size", size)
        self.classifier = classifier
        self.method = method
        self.layer = cam_layer_of(classifier, options.get("layer"))
        self.targets = [None if t is None else classifier.class_index(t) for t in targets]

    def prepare(self, seen: Seen) -> None:
        """Do nothing: what the classifier sees is all that is needed."""

    def stage(
        self, seen: Sequence[Seen], _prepared: Sequence[None]
    ) -> tuple[Sequence[Seen], Inputs]:
        """Take the images to the device."""
        return seen, self.classifier.input_tensor(np.stack([one.view.pixels for one in seen]))

    def start(self, staged: tuple[Sequence[Seen], Inputs], images: int = 1) -> Started:
        """Make the maps; on a GPU, gradients only fill the queue."""
        seen, inputs = staged
        if self.method in GRADIENT_METHODS:
            hows, found = self._gradients(inputs)
        elif self.method == "ablationcam":
            hows, found = self._ablated(inputs)
        else:
            hows, found = self._scored(inputs, images)
        return seen, [{"layer": self.layer, **how} for how in hows], download(*found)

    def finish(self, started: Started) -> list[Outcome]:
        """Wait for the device, and return for each image its targets' explanations."""
        views, parameters, wait = started
        logits, targets, *found = wait()
        probabilities = self.classifier.as_probabilities(torch.from_numpy(logits)).numpy()
        what = "score"
        if self.method in GRADIENT_METHODS:
            found, what = self._combined(*found), "gradient"
        relative = rounding(self.classifier)

        def explained(image: int) -> list[Explanation]:
            seen, made = views[image], []
            self.classifier.check_finite(torch.from_numpy(logits[image]))
            exact_to = relative * float(np.abs(logits[image]).max())
            for place, target in enumerate(targets[image]):
                raw, moved, terms = (part[image, place] for part in found)
                if not np.isfinite(raw).all():
                    raise InputError(
                        f"layer: features or gradients of {self.layer!r} overflow for "
                        f"{seen.photograph.id!r}; name another layer"
                    )
                why = no_signal(
                    raw,
                    signed=False,
                    moved=float(moved),
                    exact_to=exact_to,
                    terms=float(terms),
                    relative=relative,
                    what=what,
                )
                made.append(
                    record(
                        self.method,
                        self.classifier,
                        seen.photograph,
                        self.classifier.prediction(target, probabilities[image, target]),
                        seen.view,
                        saliency=saliency_of(raw, seen.view.frame.size),
                        raw=raw,
                        parameters=parameters[image],
                        no_signal=why,
                    )
                )
            return made

        return one_by_one(explained, len(views))

    def _combined(
        self,
        activations: Float32[np.ndarray, "images channels rows columns"],
        gradients: Float32[np.ndarray, "targets images channels rows columns"],
    ) -> list[Float[np.ndarray, "images targets ..."]]:
        """Return maps, by how much the layer moves the score, and the sums of absolute terms."""
        raw, moved, terms = [], [], []
        with np.errstate(all="ignore"):  # `finish` reports overflow, with the layer's name
            size = np.abs(activations)
            for one in gradients:
                sizes = size, np.abs(one)
                raw.append(combined(self.method, activations, one))
                moved.append((sizes[0] * sizes[1]).sum((1, 2, 3)))
                terms.append(combined(self.method, *sizes).max((1, 2)))
        return [np.stack(column, axis=1) for column in (raw, moved, terms)]

    def _chosen(self, logits: Float[Tensor, "images classes"]) -> Int[Tensor, "images targets"]:
        """Return the classes to explain, from scores that are there already."""
        if not logits.is_cuda:
            self.classifier.check_finite(logits)
        best = logits.argmax(1)
        columns = [best if t is None else torch.full_like(best, t) for t in self.targets]
        return torch.stack(columns, dim=1)

    def _gradients(self, inputs: Inputs) -> tuple[list[dict[str, str]], list[Tensor]]:
        """Return logits, targets, the layer's maps, and the gradients target by target."""

        def run(start: int, stop: int) -> list[Tensor]:
            part = layer_pass(self.classifier, self.layer, inputs[start:stop])
            targets = self._chosen(part.logits)
            gradients = []
            for column in targets.T:
                found = part.gradient(column)
                if found is None:
                    raise InputError(
                        f"layer: {self.method} cannot use {self.layer!r} of "
                        f"{self.classifier.name}: no gradient reaches it"
                    )
                gradients.append(part.layout.maps(found).float())
            stacked = torch.stack(gradients, dim=1)
            return [part.logits.detach(), targets, part.maps.float(), stacked]

        with self.classifier.running():  # backwards, too
            parts = [found for _, _, found in halving(run, len(inputs), len(inputs), counted=True)]
        logits, targets, activations, gradients = (
            column[0] if len(parts) == 1 else torch.cat(column)
            for column in zip(*parts, strict=True)
        )
        return [{}] * len(inputs), [logits, targets, activations, gradients.movedim(1, 0)]

    def _ablated(self, inputs: Inputs) -> tuple[list[dict[str, str]], list[Tensor]]:
        """Return logits, targets, maps, by how much channels move the score, and sums of terms.

        The closed form serves all images in one pass.
        """
        classifier, layer = self.classifier, self.layer
        rows: list[list[Tensor]] = []
        hows: list[dict[str, str]] = []
        key = (layer, classifier.precision, *inputs.shape[1:])
        with classifier.running():
            while len(left := inputs[len(hows) :]):
                made, how, engine = None, "closed form", "eager"
                if shortcuts(classifier.module).get(key) == how:
                    size = self.passes["batch_size"]
                    made = closed_weights(classifier, layer, left, self._chosen, self.rule, size)
                if made is None:
                    tail = Tail(classifier.module, layer, left[:1])
                    layout = layout_in(classifier, layer, tail.output, inputs)
                    logits = tail.logits.float()
                    targets, maps = self._chosen(logits), layout.maps(tail.output)
                    weights, level, how, engine = ablation_weights(
                        classifier, tail, layout, targets[0], self.rule, self.passes
                    )
                    made = logits, targets, maps, weights[None], level[None]
                logits, targets, maps, weights, level = made
                raw, terms = _weighted(weights, maps)
                rows.append([logits, targets, raw, weights.abs().amax(2) * level, terms])
                hows += [{"rule": self.rule, "passes": how, "engine": engine}] * len(logits)
        return hows, [torch.cat(column) for column in zip(*rows, strict=True)]

    def _scored(self, inputs: Inputs, images: int) -> tuple[list[dict[str, str]], list[Tensor]]:
        """Return what `_ablated` does; masked copies of all images share batches."""
        part = layer_pass(self.classifier, self.layer, inputs, gradients=False)
        maps, targets = part.maps, self._chosen(part.logits)
        passes = self.passes
        if inputs.is_cuda:
            passes = {**passes, "expected": images * maps.shape[1]}
        weights, used = score_weights(self.classifier, inputs, maps, targets, passes)
        # Of a softmax, ratios are differences of scores. One channel says nothing of the score.
        moved = (weights.amax(2) / weights.amin(2)).log()
        raw, terms = _weighted(weights, maps)
        return [{"engine": used}] * len(inputs), [part.logits, targets, raw, moved, terms]


def _weighted(
    weights: Float[Tensor, "images targets channels"],
    maps: Float[Tensor, "images channels rows columns"],
) -> tuple[Float32[Tensor, "images targets rows columns"], Float32[Tensor, "images targets"]]:
    """Return the weighted sums of maps, and the largest sum of absolute terms in each."""
    factors = double(weights), double(maps)
    raw, terms = (
        torch.einsum("itc,ichw->ithw", *some).float()
        for some in (factors, [factor.abs() for factor in factors])
    )
    return raw, terms.amax((2, 3))


def saliency_of(
    raw: Float32[np.ndarray, "rows columns"], size: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    """Return a map as grad-cam shows it: negative parts clipped, scaled, enlarged, scaled again."""
    enlarged = scale_cam_image(np.maximum(raw, 0)[None], size[::-1])
    return scale_cam_image(np.maximum(enlarged, 0))[0].astype(np.float32)
