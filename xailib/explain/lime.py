"""LIME for photographs (Ribeiro, Singh & Guestrin 2016): the authors' method, a faster engine.

Superpixels, samples, distances and the linear model are lime's. Perturbed images are made by
choosing pixels, on the classifier's device, a batch at a time, and equal samples are scored once;
on a GPU, batches, superpixels and linear models are those of several images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from skimage.segmentation import felzenszwalb, quickshift, slic
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from xailib.errors import InputError, check_least, check_name
from xailib.explain import lime_engine
from xailib.explain import quickshift as on_device
from xailib.explain.explanation import Explanation, Superpixels, scaled
from xailib.explain.record import exact_to, no_signal, record, rounding
from xailib.explain.sampling import (
    BLOCKS,
    DESIGNS,
    AnyRows,
    Draw,
    Perturbed,
    Rows,
    hidden,
)
from xailib.explain.stability import STEP, closeness, mask_is_stable, next_draw
from xailib.explain.stream import Outcome, Seen, explain_alone, one_by_one
from xailib.networks.classifier import Classifier, check_classifier
from xailib.networks.forward import ENGINES
from xailib.networks.memory import download, upload

Segment = Callable[[UInt8[np.ndarray, "height width 3"]], Int[np.ndarray, "height width"]]

# lime's own settings for quickshift; the others give about as many superpixels at 224 pixels.
_RATIO = 0.2
# Of quickshift's noise, which breaks ties: scikit-image's default, which lime always has, since
# the seed that it draws does not reach scikit-image.
SEGMENT_SEED = 42
SEGMENTATIONS = {
    "quickshift": quickshift,
    "slic": partial(slic, n_segments=60, compactness=10, start_label=0),
    "felzenszwalb": partial(felzenszwalb, scale=200, sigma=0.5),
}


def _settings(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what of a segmentation's settings follows from a view's shape."""
    side = min(1.0, min(shape[:2]) / 224)
    if name == "quickshift":
        return {"kernel_size": max(1, 4 * side), "max_dist": 200}
    return {"min_size": round(200 * side**2)} if name == "felzenszwalb" else {}


def segmentation(name: str, seed: int = SEGMENT_SEED) -> Segment:
    """Return the function that segments a view into superpixels numbered from 0.

    ``"quickshift"`` has lime's settings, and its seed; ``"slic"`` and ``"felzenszwalb"`` have
    nothing random. For views under 224 pixels (CIFAR's 32) the settings are scaled with them:
    lime's own leave one or two superpixels.
    """
    check_name("segmentation", name, SEGMENTATIONS)
    own = {"ratio": _RATIO, "rng": seed} if name == "quickshift" else {}
    return lambda pixels: SEGMENTATIONS[name](pixels, **own, **_settings(name, pixels.shape))


class LimeOptions(TypedDict, total=False):
    """What `explain_lime` takes besides classifier, photograph and target.

    Attributes
    ----------
    num_samples : int or "auto"
        Perturbed images, at least 10; the first is the whole view. ``"auto"`` draws until the
        mask is stable, see `xailib.explain.stability`, the score turns out to be constant, or
        `max_samples` are drawn; which of the three is the explanation's parameter ``stopped``:
        ``"stable"``, ``"no signal"`` or ``"max_samples"``.
    max_samples, num_features : int
        For ``"auto"``: its cap, and superpixels in the mask that it makes stable.
    design : str
        How samples are drawn, see `xailib.explain.sampling`; ``"independent"`` is lime's way.
    segments : str
        See `segmentation`.
    hide_color : int or None
        The gray level, 0 to 255, of hidden superpixels; None for each superpixel's mean colour.
    seed, segment_seed : int
        Of the samples; of quickshift, by default that of lime, which its own seed does not change.
    batch_size : int, optional
        Images a forward pass; by default as many as bring something and fit.
    engine : str
        See `xailib.networks.forward.forward_batches`.
    """

    num_samples: int | Literal["auto"]
    max_samples: int
    num_features: int
    design: str
    segments: str
    hide_color: int | None
    seed: int
    segment_seed: int
    batch_size: int | None
    engine: str


_DEFAULTS = LimeOptions(
    num_samples=1000,
    max_samples=4000,
    num_features=10,
    design="independent",
    segments="quickshift",
    hide_color=0,
    seed=0,
    segment_seed=SEGMENT_SEED,
    batch_size=None,
    engine="auto",
)


def explain_lime(
    classifier: Classifier,
    photograph: Any,
    target: int | str | None = None,
    **options: Unpack[LimeOptions],
) -> Explanation:
    """Explain one prediction by LIME.

    Superpixels of the classifier's view are hidden at random, and a ridge regression weighted
    by closeness to the whole image gives each superpixel its share in the probability.

    Parameters
    ----------
    classifier : Classifier
        What is explained.
    photograph : Photograph, str, path, PIL image, array or tensor
        See `xailib.images.load.as_photograph`.
    target : int or str, optional
        A class's index or name; by default the predicted one.
    **options
        See `LimeOptions`; by default lime's own 1000 samples of quickshift's superpixels.

    Returns
    -------
    Explanation
        Signed; ``raw`` is each pixel's superpixel's weight, ``superpixels`` the linear model
        with its samples.

    Raises
    ------
    InputError
        For a parameter out of range, before any forward pass.
    """
    return explain_lime_targets(classifier, photograph, (target,), **options)[0]


def explain_lime_targets(
    classifier: Classifier,
    photograph: Any,
    targets: Sequence[int | str | None],
    **options: Unpack[LimeOptions],
) -> list[Explanation]:
    """Explain several classes from one sampling: the cost of one, in the order of `targets`.

    The parameters are those of `explain_lime`, and so are the results; ``num_samples="auto"``
    draws until every target's mask is stable.
    """
    return explain_alone(classifier, photograph, Lime(classifier, targets, **options))


@dataclass(frozen=True)
class _Staged:
    """Images whose superpixels and first samples are on the device."""

    seen: Sequence[Seen]
    segments: Sequence[Int[np.ndarray, "height width"]]
    random: Sequence[np.random.RandomState]
    perturbed: Perturbed
    draw: Draw


@dataclass(frozen=True)
class _Started:
    """Explanations that the device is making, or has made."""

    staged: _Staged
    data: Sequence[AnyRows]
    engine: str
    stopped: Sequence[str]
    found: Callable[[], list[Any]]


class Lime:
    """LIME of some targets with some options, for any number of images (`xailib.explain.stream`).

    Options and errors are those of `explain_lime`. ``targets`` are classes, None is the predicted
    one; they share their samples.
    """

    def __init__(
        self,
        classifier: Classifier,
        targets: Sequence[int | str | None] = (None,),
        **options: Unpack[LimeOptions],
    ) -> None:
        check_classifier(classifier)
        self.classifier = classifier
        self.options = _checked(options)
        self.segment = segmentation(self.options["segments"], self.options["segment_seed"])
        if not targets:
            raise InputError("targets: none given; name at least one class, or None")
        self.targets = [None if t is None else classifier.class_index(t) for t in targets]
        self.auto = self.options["num_samples"] == "auto"
        self.most = int(self.options["max_samples" if self.auto else "num_samples"])
        self.block = BLOCKS[self.options["design"]]
        cuda = classifier.device.type == "cuda"
        self.on_device = cuda and self.options["segments"] == "quickshift"
        self.together = cuda
        self.checked = False  # the engine

    def prepare(self, seen: Seen) -> Any:
        """Return an image's superpixels, or what they are made of on the device."""
        pixels = seen.view.pixels
        return on_device.colours(pixels, _RATIO) if self.on_device else self.segment(pixels)

    def stage(self, seen: Sequence[Seen], prepared: Sequence[Any]) -> _Staged:
        """Find superpixels, draw the first samples, and take all to the device."""
        if self.on_device:
            options = _settings("quickshift", seen[0].view.pixels.shape)
            seed, device = self.options["segment_seed"], self.classifier.device
            found = on_device.quickshift(prepared, rng=seed, device=device, **options)
            prepared = list(found.cpu().numpy())
        random = [np.random.RandomState(self.options["seed"]) for _ in seen]
        for rng in random:
            rng.randint(0, high=1000)  # lime's seed for superpixels, which does not reach them
        images = [one.view.pixels for one in seen]
        colour = self.options["hide_color"]
        blanks = [hidden(*pair, colour) for pair in zip(images, prepared, strict=True)]
        perturbed = Perturbed(self.classifier, images, blanks, prepared)
        none = [np.empty((0, len(np.unique(segments))), int) for segments in prepared]
        draw = self._drawn(range(len(seen)), none, prepared, random)
        return _Staged(seen, prepared, random, perturbed, draw)

    def _drawn(
        self,
        which: Sequence[int],
        data: Sequence[AnyRows],
        segments: Sequence[Int[np.ndarray, "height width"]],
        random: Sequence[np.random.RandomState],
    ) -> Draw:
        """Draw more samples for some of the images, as many as are due at their number."""
        rows, drawn = [], len(data[which[0]])
        count = next_draw(drawn, self.most, STEP if self.auto else self.most)
        for image in which:
            # One draw or many take the same numbers from lime's generator.
            more = DESIGNS[self.options["design"]](random[image], count, data[image].shape[1])
            if not drawn:
                more[0] = 1  # the whole image
            rows.append(more)
        return Draw.of(which, rows, [segments[image] for image in which], self.classifier.device)

    def start(self, staged: _Staged, images: int = 1) -> _Started:
        """Score all samples and fit the linear models; on a GPU only the queue is filled.

        ``images`` says how many come in all: whether setting up an engine pays.
        """
        classifier = self.classifier
        logits = classifier.scores(staged.perturbed.whole)
        if not self.together:
            classifier.check_finite(logits)
        whole = classifier.as_probabilities(logits)
        best = whole.argmax(1)
        columns = [best if t is None else torch.full_like(best, t) for t in self.targets]
        targets = torch.stack(columns, dim=1)
        # Not ``rows[:0]``: its order in memory would be the design's, and change the last digits.
        data = [np.empty((0, rows.shape[1]), int) for rows in staged.draw.rows]
        scores: list[list[Tensor]] = [[] for _ in data]
        stopped = ["max_samples"] * len(data)
        draw, engine = staged.draw, self.options["engine"]
        expected = images * self.most if self.together else 0
        while True:
            found, engine = staged.perturbed.scored(
                draw,
                batch_size=self.options["batch_size"],
                engine=engine,
                expected=expected,
                again=self.checked,
            )
            self.checked = self.together
            found = found.gather(1, targets[draw.owner])[draw.place]
            for image, rows, values in zip(draw.which, draw.rows, found, strict=True):
                data[image] = np.concatenate([data[image], rows])
                scores[image].append(values)
            if self.auto:
                for image in draw.which:
                    said = torch.cat(scores[image])
                    stopped[image] = self._stopped(data[image], said, logits[image])
            which = [
                image
                for image in draw.which
                if stopped[image] == "max_samples" and len(data[image]) < self.most
            ]
            if not which:
                break
            draw = self._drawn(which, data, staged.segments, staged.random)
        fits = self._fitted(data, [torch.cat(parts) for parts in scores], staged.random)
        largest = logits.abs().amax(1)  # not finite where one is not
        wait = download(targets, whole.gather(1, targets), largest, *fits)
        return _Started(staged, data, engine, stopped, wait)

    def _stopped(
        self,
        data: Rows,
        scores: Float[Tensor, "samples targets"],
        logits: Float[Tensor, " classes"],
    ) -> str:
        """Return why to stop: all targets' masks are stable, or say nothing; else the cap."""
        largest, relative = float(logits.abs().max()), rounding(self.classifier)
        columns = [
            column
            for column in scores.cpu().numpy().T
            if np.ptp(column) > exact_to(column, relative, largest)
        ]
        if not columns:
            return "no signal"
        shown, count = data.astype(bool), self.options["num_features"]
        stable = all(mask_is_stable(shown, column, count, self.block) for column in columns)
        return "stable" if stable else "max_samples"

    def _fitted(
        self,
        data: Sequence[AnyRows],
        scores: Sequence[Float[Tensor, "_ targets"]],
        random: Sequence[np.random.RandomState],
    ) -> list[Tensor]:
        """Return all scores, weights, intercepts and R squared, a row an image."""
        together = pad_sequence(list(scores), batch_first=True)
        if self.together:
            shown = lime_engine.padded(data)
            near = np.zeros(shown.shape[:2])
            for weights, rows in zip(near, data, strict=True):
                weights[: len(rows)] = closeness(rows.astype(bool))
            on_device = [upload(part, self.classifier.device) for part in (shown, near)]
            return [together, *lime_engine.fit(on_device[0], together, on_device[1])]
        (rows,), (rng,) = data, random  # alone
        found = lime_engine.fit_as_lime(rows, scores[0].cpu().numpy(), rng)
        fits = (torch.tensor(np.array(part))[None] for part in zip(*found, strict=True))
        return [together, *fits]

    def finish(self, started: _Started) -> list[Outcome]:
        """Wait for the device, and return for each image its targets' explanations."""
        explained = partial(self._explained, started, started.found())
        return one_by_one(explained, len(started.staged.seen))

    def _explained(
        self, started: _Started, found: Sequence[Shaped[np.ndarray, "..."]], image: int
    ) -> list[Explanation]:
        """Return one image's explanations, target by target."""
        targets, probabilities, largest, scores, weights, intercept, fit = (
            part[image] for part in found
        )
        self.classifier.check_finite(torch.as_tensor(largest))
        seen, segments = started.staged.seen[image], started.staged.segments[image]
        data, relative = started.data[image], rounding(self.classifier)
        options: Any = self.options
        names = ["num_samples", "design", "segment_seed", "hide_color"]
        names += ["max_samples", "num_features"] if self.auto else []
        parameters = {name: options[name] for name in names}
        parameters |= {"engine": started.engine, "segmentation": options["segments"]}
        if self.auto:
            parameters["stopped"] = started.stopped[image]
        made = []
        for place, target in enumerate(targets):
            every = np.zeros(int(segments.max()) + 1)  # lime never hides what is numbered beyond
            every[: data.shape[1]] = weights[place, : data.shape[1]]
            raw, own = every[segments].astype(np.float32), scores[: len(data), place]
            moved, exact = float(np.ptp(own)), exact_to(own, relative, float(largest))
            parts = Superpixels(
                segments,
                every,
                float(intercept[place]),
                float(fit[place]) if moved > exact else float("nan"),
                shown=data.astype(bool),
                scores=own,
                block=self.block,
            )
            why = no_signal(raw, signed=True, moved=moved, exact_to=exact, relative=relative)
            made.append(
                record(
                    "lime",
                    self.classifier,
                    seen.photograph,
                    self.classifier.prediction(target, probabilities[place]),
                    seen.view,
                    saliency=scaled(raw, signed=True),
                    raw=raw,
                    signed=True,
                    seed=options["seed"],
                    parameters=parameters,
                    superpixels=parts,
                    no_signal=why,
                )
            )
        return made


def _checked(options: LimeOptions) -> LimeOptions:
    """Return all options; raise unless what was asked for can be done."""
    for name in options:
        check_name("option", name, _DEFAULTS)
    chosen: LimeOptions = {**_DEFAULTS, **options}
    samples, hide_color = chosen["num_samples"], chosen["hide_color"]
    if isinstance(samples, str) and samples != "auto":
        raise InputError(f"num_samples: {samples!r} is neither a number nor 'auto'")
    least = chosen["max_samples"] if samples == "auto" else samples
    if least < 10:
        name = "max_samples" if samples == "auto" else "num_samples"
        raise InputError(f"{name}: {least} is too few; at least 10, usually 1000")
    if hide_color is not None and not 0 <= hide_color <= 255:
        raise InputError(f"hide_color: {hide_color} is not a gray level between 0 and 255")
    check_least("batch_size", chosen["batch_size"])
    check_least("num_features", chosen["num_features"])
    check_name("design", chosen["design"], DESIGNS)
    check_name("engine", chosen["engine"], ENGINES)
    return chosen
