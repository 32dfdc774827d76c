"""What makes ResNet-50's passes fast on this card: variants beside one another, in one process.

    python benchmarks/passes_probe.py [--weights FILE] [--seconds 1.0] [--compile]

A probe for choosing the engines of a GPU: prints passes a second of each variant, by precision, and
how far its scores are from eager's.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse


class ConvReLU(nn.Module):
    """cudnn's convolution with bias, addition and ReLU in one kernel."""

    def __init__(self, conv: nn.Conv2d, add: bool) -> None:
        super().__init__()
        self.conv, self.add = conv, add

    def forward(self, x, z=None):
        c = self.conv
        # cudnn's fused calls are not among autocast's.
        weight, bias = c.weight.to(x.dtype), c.bias.to(x.dtype)
        args = c.stride, c.padding, c.dilation, c.groups
        if self.add:
            return torch.cudnn_convolution_add_relu(x, weight, z, 1.0, bias, *args)
        return torch.cudnn_convolution_relu(x, weight, bias, *args)


def cudnn_fused(module: nn.Module) -> nn.Module:
    """Return a copy with batch norm folded and conv + ReLU, conv + add + ReLU as one call."""
    graph_module = fuse(module)
    modules = dict(graph_module.named_modules())
    graph = graph_module.graph

    def is_conv(node):
        return (
            node.op == "call_module"
            and isinstance(modules.get(node.target), nn.Conv2d)
            and len(node.users) == 1
        )

    count = 0
    for node in list(graph.nodes):
        if node.op != "call_module" or not isinstance(modules.get(node.target), nn.ReLU):
            continue
        before = node.args[0]
        other = ()
        if not is_conv(before):
            added = before.op in ("call_function", "call_method") and "add" in str(before.target)
            if not added or len(before.users) != 1 or len(before.args) != 2:
                continue
            convs = [one for one in before.args if isinstance(one, torch.fx.Node) and is_conv(one)]
            if not convs:
                continue
            conv = convs[-1]
            # the latest conv, so that the other is there already
            other = tuple(one for one in before.args if one is not conv)
        else:
            conv = before
        name = f"fused_{count}"
        count += 1
        graph_module.add_submodule(name, ConvReLU(modules[conv.target], bool(other)))
        with graph.inserting_after(node):
            new = graph.call_module(name, (conv.args[0], *other))
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        if before is not conv:
            graph.erase_node(before)
        graph.erase_node(conv)
    graph.lint()
    graph_module.recompile()
    print(f"  {count} convolutions fused with their ReLU")
    return graph_module


def rate(run, batch, seconds):
    for _ in range(3):
        found = run(batch)
    torch.cuda.synchronize()
    started, passes = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(4):
            run(batch)
        torch.cuda.synchronize()
        passes += 4 * len(batch)
    return passes / (time.perf_counter() - started), found.float()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    from xailib.networks import load_classifier
    from xailib.networks.precision import computing

    net = load_classifier("resnet50", options.weights or "random", "cuda")
    module = net.module.requires_grad_(False)
    torch.manual_seed(0)
    pictures = torch.randn(256, 3, 224, 224, device="cuda")
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    for precision in ("exact", "tf32", "half"):
        for benchmark in (False, True):
            torch.backends.cudnn.benchmark = benchmark
            with torch.inference_mode(), computing(precision, net.device):
                wanted = module(pictures).float()
                ways = {
                    "eager": lambda: module,
                    "fused": lambda: fuse(module).to(memory_format=torch.channels_last),
                    "fused by cudnn": lambda: cudnn_fused(module).to(
                        memory_format=torch.channels_last
                    ),
                }
                if precision == "half":
                    def cast(make):
                        def made():
                            part = make().to(torch.bfloat16)
                            return lambda x: _without_autocast(part, x)
                        return made
                    ways["fused, bfloat16 weights"] = cast(ways["fused"])
                    ways["fused by cudnn, bfloat16 weights"] = cast(ways["fused by cudnn"])
                if options.compile and not benchmark:
                    from torch._inductor import config

                    def compiled(base):
                        def made():
                            inside = torch.compile(base(), dynamic=False)

                            def run(x):
                                with config.patch(freezing=True):
                                    return inside(x)

                            started = time.perf_counter()
                            run(pictures)
                            print(f"  set-up {time.perf_counter() - started:.1f} s")
                            return run

                        return made

                    import copy

                    ways["compile"] = compiled(lambda: copy.deepcopy(module))
                for name, make in ways.items():
                    try:
                        run = make()
                        for size in (256, 16) if name != "compile" else (256,):
                            found, scores = rate(run, pictures[:size], options.seconds)
                            far = (scores - wanted[:size]).abs().max() / wanted.abs().max()
                            print(
                                f"{precision:6} cudnn.benchmark={benchmark!s:5} {name:34} "
                                f"batch {size:3}: {found:8.0f} passes/s, off by {far:.1e}",
                                flush=True,
                            )
                    except Exception as error:  # noqa: BLE001  one variant must not end the probe
                        print(f"{precision} {benchmark} {name}: {type(error).__name__}: {error}"[:300])


def _without_autocast(part, x):
    with torch.autocast("cuda", enabled=False):
        return part(x.to(torch.bfloat16))


if __name__ == "__main__":
    main()
