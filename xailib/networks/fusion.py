"""Convolution, addition and ReLU as one call of cuDNN, in a network whose batch norm is folded.

What lies between would be written to a GPU's memory and read again, which takes most of the time.
"""

import operator

import torch
from torch import Tensor, fx, nn

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


class _ConvolutionReLU(nn.Module):
    """A convolution and ReLU, of which something else may be added in between."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, batch: Tensor, other: Tensor | None = None) -> Tensor:
        inside = self.convolution
        if torch.is_autocast_enabled("cuda"):  # which does not know these calls
            dtype = torch.get_autocast_dtype("cuda")
            batch, other = batch.to(dtype), None if other is None else other.to(dtype)
        weight = inside.weight.to(batch.dtype)
        bias = None if inside.bias is None else inside.bias.to(batch.dtype)
        padding = tuple(int(side) for side in inside.padding)
        how = (inside.stride, padding, inside.dilation, inside.groups)
        if other is None:
            return torch.cudnn_convolution_relu(batch, weight, bias, *how)
        return torch.cudnn_convolution_add_relu(batch, weight, other, 1.0, bias, *how)


def with_relu(network: fx.GraphModule) -> fx.GraphModule:
    """Put one call for each convolution (and addition) that a ReLU follows, in the network given.

    Results in between must have no other use. The network then runs on CUDA only.
    """
    parts, graph = dict(network.named_modules()), network.graph
    for number, relu in enumerate(list(graph.nodes)):
        if relu.op != "call_module" or not isinstance(parts.get(relu.target), nn.ReLU):
            continue
        before = relu.args[0]
        found = _convolution(before, parts)
        others: tuple[fx.Node, ...] = ()
        if found is None:
            terms = _terms(before)
            found = next((one for one in reversed(terms) if _convolution(one, parts)), None)
            if found is None:
                continue
            others = tuple(one for one in terms if one is not found)
        name = f"convolution_relu_{number}"
        network.add_submodule(name, _ConvolutionReLU(parts[found.target]))
        with graph.inserting_before(relu):
            fused = graph.call_module(name, (found.args[0], *others))
        relu.replace_all_uses_with(fused)
        for node in dict.fromkeys((relu, before, found)):
            graph.erase_node(node)
    graph.lint()
    network.recompile()
    return network


def _convolution(node: fx.Node, parts: dict[str, nn.Module]) -> fx.Node | None:
    """Return the node if it is a convolution that cuDNN's calls can do, of one use."""
    part = parts.get(str(node.target)) if node.op == "call_module" else None
    plain = isinstance(part, nn.Conv2d) and part.padding_mode == "zeros"
    usable = plain and not isinstance(part.padding, str) and len(node.users) == 1  # type: ignore[union-attr]
    return node if usable else None


def _terms(node: fx.Node) -> list[fx.Node]:
    """Return the two that are added, where this is an addition of one use; else none."""
    added = node.op in ("call_function", "call_method") and node.target in _ADDITIONS
    nodes = all(isinstance(one, fx.Node) for one in node.args)
    if not added or not nodes or node.kwargs or len(node.args) != 2 or len(node.users) != 1:
        return []
    return [one for one in node.args if isinstance(one, fx.Node)]
