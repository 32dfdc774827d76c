"""OpenAI's CLIP and OpenCLIP's networks, from their publishers or from a local file."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xailib.downloads import hub
from xailib.downloads.fetch import problem_with
from xailib.downloads.registry import artefact
from xailib.encoders.crops import TEXTS, Images, Rows, batches, cropped, import_optional, unit_rows
from xailib.errors import InputError, UnavailableError, check_name, unknown_name
from xailib.files import sha256_of
from xailib.networks import classifier as models
from xailib.networks import layers
from xailib.networks import weights as weights_io
from xailib.networks.counting import passed
from xailib.networks.memory import enough
from xailib.networks.preprocessing import Preprocessing

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipEncoder:
    """A two-tower network: OpenAI's CLIP (Radford et al., ICML 2021) or one of OpenCLIP's."""

    name: str  #: as `label` and `sha256`, see `Encoder`
    label: str
    sha256: str
    module: nn.Module = field(repr=False)  #: with `encode_image` and `encode_text`, float32
    preprocessing: Preprocessing = field(repr=False)  #: of its image tower
    #: to (texts, tokens) int; what is too long is cut
    tokenize: Callable[[list[str]], Tensor] = field(repr=False)
    device: torch.device

    def encode_images(self, images: Images) -> Rows:
        """Return one unit row for each image, read one batch at a time."""
        rows = []
        for batch in batches(cropped(images, self.preprocessing), enough(self.device)):
            pixels = torch.from_numpy(np.stack(batch)).to(self.device)
            rows.append(self._run("encode_image", self.preprocessing.normalise(pixels)))
            passed(len(batch))
        return unit_rows(rows, "images")

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Return one unit row for each text."""
        rows = [
            self._run("encode_text", self.tokenize(batch).to(self.device))
            for batch in batches(texts, TEXTS)
        ]
        return unit_rows(rows, "texts")

    def _run(self, tower: str, batch: Tensor) -> Tensor:
        with torch.inference_mode(), layers.evaluation(self.module):
            return getattr(self.module, tower)(batch).float().cpu()


def load_clip(rest: str, weights: str | Path | None, device: str) -> ClipEncoder:
    """Load one of OpenAI's networks; see `xailib.encoders.load.load_encoder`."""
    clip = import_optional("clip", "openai-clip")
    check_name("encoder: clip", rest, clip.available_models())
    file = Path(weights).expanduser() if weights else artefact(f"clip:{rest}").fetch()
    module = _build_clip(clip, file)
    _check_clip(module, rest, file)
    side = int(module.visual.input_resolution)
    chosen = models._device(device)
    return ClipEncoder(
        name=f"clip:{rest}",
        label=f"CLIP {rest}" + (f" ({file.name})" if weights else ""),
        sha256=sha256_of(file),
        module=module.to(chosen),
        preprocessing=Preprocessing((side, side), side, _CLIP_MEAN, _CLIP_STD, "bicubic"),
        tokenize=lambda texts: clip.tokenize(
            texts, context_length=module.context_length, truncate=True
        ),
        device=chosen,
    )


def _build_clip(clip: Any, file: Path) -> Any:
    """Build OpenAI's network from a state dict, or from the TorchScript archive they publish."""
    # torch calls TorchScript deprecated; they publish it.
    with warnings.catch_warnings(action="ignore"):
        try:
            state = weights_io.read_state_dict(file)
        except InputError:
            try:
                state = dict(torch.jit.load(str(file), map_location="cpu").state_dict())
            except (RuntimeError, ValueError):
                state = {}
    if not state:
        raise InputError(f"weights: {file.name!r} is neither a state dict nor OpenAI's archive")
    try:
        return clip.model.build_model(state).float()
    except (KeyError, RuntimeError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"weights: {file.name!r} is not a CLIP network: {reason}") from error


def _check_clip(module: Any, name: str, file: Path) -> None:
    """Raise if weights under a ViT's name are of another patch size, or a ResNet's."""
    kernel = module.visual.conv1.kernel_size[0]
    is_vit = hasattr(module.visual, "transformer")
    patch = int(name.split("/")[1].split("@")[0]) if name.startswith("ViT") else None
    if patch != (kernel if is_vit else None):
        found = f"a ViT with patches of {kernel} pixels" if is_vit else "a ResNet"
        raise InputError(f"weights: {file.name!r} is {found}, not CLIP's {name}")


def _create_openclip(
    open_clip: Any, arch: str, source: str, device: Any, config: dict[str, Any], tag: str
) -> nn.Module:
    """Build one of OpenCLIP's networks, with weights from a file or, under a tag, from the hub.

    With the activation that the tag's configuration states, of which OpenCLIP only warns; a host
    that is out of reach is said at once.
    """
    quick = bool(config.get("quick_gelu"))
    config = config if tag else {}
    repository, _, name = config.get("hf_hub", "").rpartition("/")
    names = [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    here = bool(repository) and hub.in_their_cache(repository, names) is not None
    address = hub.address(repository, names[-1]) if repository else config.get("url", "")
    problem = problem_with(address) if address and not here else None
    if problem:
        raise UnavailableError(problem)
    with hub.offline() if here else nullcontext():
        return open_clip.create_model(
            arch, pretrained=source, device=device, precision="fp32", force_quick_gelu=quick
        )


def load_openclip(rest: str, weights: str | Path | None, device: str) -> ClipEncoder:
    """Load one of OpenCLIP's networks; see `xailib.encoders.load.load_encoder`."""
    open_clip = import_optional("open_clip", "open-clip-torch")
    arch, _, tag = rest.partition("/")
    check_name("encoder: openclip", arch, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if (weights is None or tag) and tag not in tags:
        raise unknown_name(f"encoder: weights of openclip:{arch}", tag, tags)
    chosen = models._device(device)
    source = str(Path(weights).expanduser()) if weights else tag
    of_tag = open_clip.get_pretrained_cfg(arch, tag) if tag else {}
    try:
        module = _create_openclip(open_clip, arch, source, chosen, of_tag, "" if weights else tag)
    except (OSError, RuntimeError) as error:
        raise UnavailableError(
            f"weights: could not fetch OpenCLIP {rest} ({(str(error).splitlines() or ['?'])[0]}); "
            "download it elsewhere and give weights=PATH"
        ) from error
    config = open_clip.get_model_preprocess_cfg(module)
    own = ("mean", "std", "interpolation", "resize_mode")
    config |= {name: of_tag[name] for name in own if of_tag.get(name)}
    size = config["size"] if isinstance(config["size"], (tuple, list)) else (config["size"],) * 2
    squash = config.get("resize_mode") == "squash"
    file = Path(source)
    return ClipEncoder(
        name=f"openclip:{rest}",
        label=f"OpenCLIP {rest}" + (f" ({file.name})" if weights else ""),
        sha256=sha256_of(file) if weights else weights_io.hash_of(module),
        module=module.eval(),
        preprocessing=Preprocessing(
            (size[0], size[1]),
            (size[0], size[1]) if squash else min(size),
            tuple(config["mean"]),
            tuple(config["std"]),
            config["interpolation"],
        ),
        tokenize=open_clip.get_tokenizer(arch),
        device=chosen,
    )
