"""How a network is set up to run faster, by engine: each returns a function from input to scores.

`xailib.networks.forward` decides which to use, and checks it. A network given here is never
changed.
"""

import copy
import importlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from xailib.networks.fusion import with_relu

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


def _onnxruntime(module: nn.Module, example: Tensor) -> Run:
    onnxruntime = importlib.import_module("onnxruntime")
    file = io.BytesIO()
    # The older exporter traces, so that it takes what the newer one refuses, in a fifth of
    # the time.
    with _mute():  # where it fails, torch's own code prints the whole graph
        torch.onnx.export(
            copy.deepcopy(module),
            (example,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["input"],
            dynamic_axes={"input": {0: "batch"}},
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # several processes may share the cores
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"input": batch.contiguous().numpy()})[0])

    return run


def _compile(module: nn.Module, example: Tensor) -> Run:
    from torch._inductor import config

    plain = copy.deepcopy(module).requires_grad_(False)
    compiled = torch.compile(plain, dynamic=False if example.is_cuda else None)

    def run(batch: Tensor) -> Tensor:
        with torch.inference_mode(), config.patch(freezing=True), quiet():
            return compiled(batch)

    if example.is_cuda:
        return _padded(run, plain, len(example))
    # Compiled for the images' size and one more batch size, after which the batch is dynamic.
    run(example[:1].expand(4, *example.shape[1:]).contiguous(memory_format=torch.channels_last))
    return run


def _padded(run: Run, plain: nn.Module, size: int) -> Run:
    """Return a function for any batch from one that was compiled for batches of one size.

    Smaller ones are filled up, since each other size would be compiled again. Where memory runs
    out, the batches that follow go through the network as it is.
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


SET_UPS: Mapping[str, Callable[[nn.Module, Tensor], Run]] = MappingProxyType(
    {
        "openvino": _openvino,
        "onnxruntime": _onnxruntime,
        "compile": _compile,
        "fused": _fused,
    }
)


@contextmanager
def _mute() -> Iterator[None]:
    """Drop what is written to standard output, also by compiled code."""
    sys.stdout.flush()
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
        before = os.dup(1)
        try:
            os.dup2(nothing.fileno(), 1)
            yield
        finally:
            os.dup2(before, 1)
            os.close(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a compiler's deprecations and hints from the user, who can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
