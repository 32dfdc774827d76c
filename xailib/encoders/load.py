"""Encoders: photographs and texts in one space, where the cosine measures how well they fit.

OpenAI's CLIP, OpenCLIP's networks, and ConSE, a surrogate made of a classifier and a sentence
model, for where no CLIP weights are available. All return rows of unit length.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from xailib.encoders.clip import load_clip, load_openclip
from xailib.encoders.crops import Images, Rows, batches, cropped, unit_rows
from xailib.encoders.sentences import SentenceModel, load_sentences
from xailib.errors import InputError
from xailib.networks import classifier as models
from xailib.networks.classifier import Classifier
from xailib.networks.memory import enough
from xailib.networks.preprocessing import Prepares


@runtime_checkable
class Encoder(Protocol):
    """Photographs and texts as unit rows of one space."""

    @property
    def name(self) -> str:
        """As given to `load_encoder`."""

    @property
    def label(self) -> str:
        """What every figure made with it must state."""

    @property
    def sha256(self) -> str:
        """Hash of all its weights."""

    def encode_images(self, images: Images) -> Rows:
        """Return one unit row for each image, read one batch at a time."""

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Return one unit row for each text."""


def load_encoder(name: str, weights: str | Path | None = None, device: str = "auto") -> Encoder:
    """Load an image-text encoder by name.

    Parameters
    ----------
    name : str
        ``clip:ViT-B/16``, for which ``clip`` is short, or another of OpenAI's names;
        ``openclip:ARCH[/PRETRAINED]``; ``conse:CLASSIFIER[+SENTENCES]`` with any name that
        `xailib.networks.classifier.load_classifier` takes, and a sentence model that
        `xailib.encoders.sentences.load_sentences` takes: ``minilm`` (the default), ``mpnet``, or a
        folder.
    weights : str or path, optional
        A local file: a state dict or OpenAI's own archive for ``clip:``, what OpenCLIP reads
        for ``openclip:``, the classifier's weights for ``conse:``.
    device : str
        As in `xailib.networks.classifier.load_classifier`.

    Raises
    ------
    InputError
        For an unknown name, or weights that do not fit it.
    UnavailableError
        For weights or a package that is missing: how to supply it.
    """
    kind, _, rest = ("clip:ViT-B/16" if name == "clip" else name).partition(":")
    loaders: dict[str, Callable[..., Encoder]] = {
        "clip": load_clip,
        "openclip": load_openclip,
        "conse": _load_conse,
    }
    if kind not in loaders or not rest:
        raise InputError(
            f"encoder: {name!r} is none of clip:NAME (clip:ViT-B/16), openclip:ARCH/PRETRAINED, "
            "conse:CLASSIFIER (conse:tf_efficientnet_lite1)"
        )
    if weights is not None and kind != "conse" and not Path(weights).expanduser().is_file():
        raise InputError(f"weights: no file {str(weights)!r}")
    return loaders[kind](rest, weights, device)


@dataclass(frozen=True)
class ConseEncoder:
    """Convex combination of semantic embeddings (Norouzi et al., ICLR 2014, eq. 2).

    An image's place is the mean of the sentence embeddings of the classifier's `top` most
    probable class names, weighted by their probabilities: strong on what the classifier
    knows, weak elsewhere. A surrogate for CLIP, not CLIP.
    """

    name: str  #: as `label` and `sha256`, see `Encoder`
    label: str
    sha256: str
    bridge: Classifier  #: sees the images
    sentences: SentenceModel  #: reads the texts
    names: Rows = field(repr=False)  #: the embedded class names, unit rows
    top: int = 10  #: how many classes place an image

    @property
    def preprocessing(self) -> Prepares:
        """How the bridge sees images."""
        return self.bridge.preprocessing

    @property
    def device(self) -> torch.device:
        """Where the bridge computes."""
        return self.bridge.device

    def encode_images(self, images: Images) -> Rows:
        """Return one unit row for each image, read one batch at a time."""
        rows = []
        for batch in batches(cropped(images, self.preprocessing), enough(self.device)):
            probabilities = torch.from_numpy(self.bridge.probabilities(np.stack(batch)))
            weights, best = probabilities.topk(min(self.top, probabilities.shape[1]), dim=1)
            names = torch.from_numpy(self.names)[best]  # (batch, top, dimensions)
            rows.append((weights[..., None] * names).sum(1))
        return unit_rows(rows, "images")

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Return one unit row for each text."""
        return self.sentences.encode_texts(texts)


def _load_conse(rest: str, weights: str | Path | None, device: str) -> ConseEncoder:
    classifier, _, sentence_name = rest.partition("+")
    bridge = models.load_classifier(classifier, weights, device)
    sentences = load_sentences(sentence_name or "minilm", device)
    return ConseEncoder(
        name=f"conse:{rest}",
        label=f"ConSE surrogate ({bridge.name} + {sentences.label}), not CLIP",
        sha256=hashlib.sha256(f"{bridge.sha256} {sentences.sha256}".encode()).hexdigest(),
        bridge=bridge,
        sentences=sentences,
        names=sentences.encode_texts(bridge.class_names),
    )
