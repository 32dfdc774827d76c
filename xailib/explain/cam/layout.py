"""Where a layer's output holds its feature maps: in channels, channels last, or tokens."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xailib.errors import InputError
from xailib.networks.classifier import Classifier
from xailib.networks.layers import hookable, hooked


@dataclass(frozen=True)
class Layout:
    """How to read feature maps from a layer's output."""

    axis: int  #: of the channels, 1 or the last
    grid: tuple[int, int]  #: (rows, columns) of a map
    prefix: int = 0  #: tokens in front of the grid, such as ViT's class token

    def maps(self, output: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch channels h w"]:
        """Return the output as feature maps."""
        if self.axis == 1:
            return output
        if output.ndim == 3:
            output = output[:, self.prefix :].unflatten(1, self.grid)
        return output.movedim(-1, 1)


_REGISTERS = 16  # and class tokens, at most


def layout_of(
    shape: tuple[int, ...],
    size: Sequence[int],
    layer: str,
    patch: tuple[float, float] | None = None,
) -> Layout:
    """Return the layout of a layer's output, from its shape, batch first, and the image's size.

    The grid has the image's proportions. That separates channels first from channels last (Swin),
    and how many tokens stand before the grid (none, ViT's class token, DeiT's two, up to four
    registers more). Where the size of a `patch` is known (`Classifier.patches`), the grid is theirs
    and any tokens beyond stand before it; fewer tokens are patches put together. Without a grid,
    `InputError` names the layer.
    """
    if len(shape) == 4:
        if _alike(shape[2:], size):  # also where both fit: maps come first in nearly all networks
            return Layout(1, (shape[2], shape[3]))
        if _alike(shape[1:3], size):
            return Layout(-1, (shape[1], shape[2]))
    if len(shape) == 3:
        whole = (round(size[0] / patch[0]), round(size[1] / patch[1])) if patch else None
        beyond = shape[1] - whole[0] * whole[1] if whole else -1
        if whole and 0 <= beyond <= _REGISTERS:
            return Layout(-1, whole, beyond)
        fewer = whole if beyond < 0 else None
        for prefix in range(2 if fewer else 6):
            grid = _grid(shape[1] - prefix, size)
            if grid is not None and (fewer is None or _pooled(grid, fewer)):
                return Layout(-1, grid, prefix)
    raise InputError(
        f"layer: {layer!r} outputs {shape}, where neither feature maps nor a grid of tokens with "
        f"the proportions of the {size[0]} x {size[1]} input can be seen; name another layer"
    )


def layout_in(
    classifier: Classifier, layer: str, output: Tensor, image: Float[Tensor, "_ _ height width"]
) -> Layout:
    """Return the layout of what a classifier's layer outputs for images, see `layout_of`."""
    height, width = image.shape[-2:]
    return layout_of(tuple(output.shape), (height, width), layer, classifier.patches.get(layer))


def token_layer(
    module: nn.Module,
    image: Float[Tensor, "1 channels height width"],
    patches: Mapping[str, tuple[float, float]],
) -> str | None:
    """Return the layer of tokens where a CAM is taken: a norm whose every token the scores use.

    That is the norm in front of the last attention (ViT, Swin), as long as a gradient reaches its
    grid: behind the last attention only the class token counts, and the gradient of the others is
    zero. Else the last norm, or the last other layer, that a gradient reaches; where it reaches
    none (a head of zeros), whether it does is not asked. None for a network without such a layer.
    """
    named, (found, scores) = _before_attention(module), _grids(module, image, patches)
    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0)).to(scores)
    reached: list[str] = []
    if scores.requires_grad and found:
        outputs = [output for _, output in found.values()]
        gradients = torch.autograd.grad((scores * weights).sum(), outputs, allow_unused=True)
        reached = [
            name
            for (name, (layout, _)), one in zip(found.items(), gradients, strict=True)
            if one is not None and layout.maps(one).any()
        ]
    if named and (not reached or named in reached):
        return named
    parts, names = dict(module.named_modules()), reached or list(found)
    norms = [name for name in names if "Norm" in type(parts[name]).__name__]
    return next(iter(reversed(norms or names)), None)


def _grids(
    module: nn.Module,
    image: Float[Tensor, "1 channels height width"],
    patches: Mapping[str, tuple[float, float]],
) -> tuple[dict[str, tuple[Layout, Tensor]], Tensor]:
    """Return the layers that output a grid of tokens, in order, and the scores, with graphs."""
    found: dict[str, tuple[Layout, Tensor]] = {}

    def note(name: str, output: object) -> None:
        if not (name and isinstance(output, Tensor) and output.ndim == 3):
            return
        if len(output) == 1 and output.requires_grad:
            with suppress(InputError):
                shape, patch = tuple(output.shape), patches.get(name)
                found[name] = layout_of(shape, image.shape[-2:], name, patch), output

    with torch.enable_grad(), hooked(hookable(module), note):
        return found, module(image.detach().requires_grad_())


def _before_attention(module: nn.Module) -> str | None:
    """Return the first norm beside the last attention."""
    parts = hookable(module)
    attentions = [name for name, part in parts.items() if "Attention" in type(part).__name__]
    if not attentions:
        return None
    block = attentions[-1].rpartition(".")[0]
    norms = (name for name, part in parts[block].named_children() if isinstance(part, nn.LayerNorm))
    first = next(norms, None)
    return first and f"{block}.{first}".removeprefix(".")


def _alike(grid: tuple[int, ...], size: Sequence[int]) -> bool:
    """Return whether a grid covers the image in equal steps, up to one row or column."""
    rows, columns = grid
    if min(grid) < 2 or rows > size[0] or columns > size[1]:
        return False
    least = max(size[0] / (rows + 1), size[1] / (columns + 1))
    most = min(size[0] / (rows - 1), size[1] / (columns - 1))
    return least <= most and (rows == columns or size[0] != size[1])


def _pooled(grid: tuple[int, int], whole: tuple[int, int]) -> bool:
    """Return whether a grid is that of the patches, several of which are put together."""
    return any(
        all(-(-all_ // step) == side for side, all_ in zip(grid, whole, strict=True))
        for step in range(1, min(whole))
    )


def _grid(tokens: int, size: Sequence[int]) -> tuple[int, int] | None:
    """Return the (rows, columns) with this many tokens and the image's proportions."""
    rows = round((tokens * size[0] / size[1]) ** 0.5) if tokens > 3 else 0
    if rows < 2 or tokens % rows:
        return None
    grid = (rows, tokens // rows)
    exact = rows * size[1] == grid[1] * size[0]
    return grid if exact else None
