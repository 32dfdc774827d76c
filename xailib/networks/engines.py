"""How a network is set up to run faster, by engine: each returns a function from input to scores.

A network given here is never changed. What is set up is cached until the network is freed or its
weights change. On a GPU a convolution, an addition and a ReLU become one call of cuDNN: what lies
between would be written to the memory and read again, which takes most of the time.
"""

import copy
import importlib
import logging
import operator
import time
from collections.abc import Callable, Hashable, Mapping
from itertools import chain
from typing import Any
from warnings import catch_warnings
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

log = logging.getLogger(__name__)

Run = Callable[[Tensor], Tensor]


def _openvino(module: nn.Module, example: Tensor) -> Run:
    openvino = importlib.import_module("openvino")
    decoders = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    # Not by `convert_model`: that takes ten times as long, and reports its use over the network.
    frontend = importlib.import_module("openvino.frontend").FrontEndManager()
    pytorch = frontend.load_by_framework("pytorch")
    traced = torch.jit.trace(module, example, check_trace=False)
    decoder = decoders.TorchScriptPythonDecoder(traced)  # must live until it is converted
    model = pytorch.convert(pytorch.load(decoder))
    model.reshape([-1, *example.shape[1:]])
    options = {
        "INFERENCE_PRECISION_HINT": "f32",  # its default is bfloat16 where the CPU has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),  # several processes may share the cores
        "ENABLE_CPU_PINNING": False,  # pinned, they would all be on the first ones
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(batch: Tensor) -> Tensor:
        found = request.infer([batch.contiguous().numpy()], share_inputs=True)[0]
        # Copied, because OpenVINO's array keeps the whole input alive.
        return torch.from_numpy(found).clone()

    return run


def _compile(module: nn.Module, example: Tensor) -> Run:
    from torch._inductor import config

    plain = copy.deepcopy(module).requires_grad_(False)
    compiled = torch.compile(plain, dynamic=False if example.is_cuda else None)

    def run(batch: Tensor) -> Tensor:
        # A compiler's deprecations and hints are nothing that the user could do something about.
        with torch.inference_mode(), config.patch(freezing=True), catch_warnings(action="ignore"):
            return compiled(batch)

    if example.is_cuda:
        return _padded(run, plain, len(example))
    # Compiled for the images' size and one more batch size, after which the batch is dynamic.
    run(example[:1].expand(4, *example.shape[1:]).contiguous(memory_format=torch.channels_last))
    return run


def _padded(run: Run, plain: nn.Module, size: int) -> Run:
    """Return a function for any batch from one that was compiled for batches of one size.

    Smaller ones are filled up. Where memory runs out, later batches take the network as it is.
    """
    full = [True]

    def padded(batch: Tensor) -> Tensor:
        missing = size - len(batch)
        if missing < 0 or not full[0]:
            return plain(batch)
        if missing:
            batch = torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])])
            batch = batch.contiguous(memory_format=torch.channels_last)
        try:
            return run(batch)[: size - missing]
        except torch.OutOfMemoryError:
            full[0] = False
            raise

    return padded


def _fused(module: nn.Module, example: Tensor) -> Run:
    from torch.fx.experimental.optimization import fuse

    fused = fuse(module).to(memory_format=torch.channels_last)  # a copy
    if not example.is_cuda:
        return fused
    further = with_relu(fuse(module)).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    try:
        quicker = seconds(further, example) < seconds(fused, example)
    except RuntimeError as error:  # cuDNN has no such kernel
        log.info("convolutions stay apart from their ReLU: %s", error)
        return fused
    return further if quicker else fused


def seconds(run: Run, example: Tensor) -> float:
    """Return how long a pass takes: the shortest of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        run(example)
        if example.is_cuda:
            torch.cuda.synchronize(example.device)
        times.append(time.perf_counter() - started)
    return min(times)


SET_UPS: Mapping[str, Callable[[nn.Module, Tensor], Run]] = {
    "openvino": _openvino,
    "compile": _compile,
    "fused": _fused,
}


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


MOST = 8  # engines cached for one network: each holds a copy of the weights that it uses
Stamp = tuple[tuple[int, int], ...]
_caches: WeakKeyDictionary[nn.Module, tuple[Stamp, dict[Hashable, Any]]] = WeakKeyDictionary()


def cache_of(network: nn.Module) -> dict[Hashable, Any]:
    """Return the cache of a network with its present weights; that of other weights is dropped.

    An entry must not refer to the network itself, or neither would ever be freed.
    """
    stamp = _stamp_of(network)
    cache = _caches.get(network)
    if cache is None or cache[0] != stamp:
        cache = _caches[network] = stamp, {}
    return cache[1]


def store(entries: dict[Hashable, Any], key: Hashable, entry: Any) -> None:
    """Add an entry, and drop the oldest where there are more than `MOST`."""
    entries.pop(key, None)
    entries[key] = entry
    while len(entries) > MOST:
        del entries[next(iter(entries))]


def _stamp_of(network: nn.Module) -> Stamp:
    """Return the address of each weight and how often it was written to.

    What is written through ``.data`` or from numpy it does not see.
    """
    return tuple(
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for tensor in chain(network.parameters(), network.buffers())
    )
