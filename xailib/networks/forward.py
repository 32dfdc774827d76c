"""Many forward passes by the fastest exact engine, in bounded memory.

Where thousands of passes are coming, a network is compiled once (OpenVINO,
``torch.compile`` with freezing, or a copy with its batch norm fused), checked against its eager
self on the work's own images, and used only if its scores agree. A network given here is
never changed: what a compiler alters is a copy.

How precisely a network computes is stated once, part of every manifest, and compared like for
like: ``"exact"`` is float32 throughout, so that a GPU gives a CPU's results within rounding;
``"tf32"`` lets a GPU round the factors of products to 10 bits (what PyTorch does for convolutions
unless set otherwise); ``"half"`` is autocast to bfloat16. On a CPU, ``"tf32"`` changes nothing.
Engines are checked at the precision at which they are used.
"""

import importlib.util
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from warnings import catch_warnings

import torch
from jaxtyping import Float, Float32, Float64, Shaped
from torch import Tensor, nn

from xailib.errors import InputError, UnavailableError, check_least, check_name, first_line
from xailib.networks.counting import passed
from xailib.networks.engines import SET_UPS, Run, cache_of, seconds, store
from xailib.networks.layers import evaluation
from xailib.networks.memory import enough, fitting_batch

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Make = Callable[[int, int], Tensor]  # (start, stop) -> that part of the images, as input

_MEASURED = 50  # passes, from which on one more pays that measures the memory of an image
_CHECKED = 2  # images sent through both at each use; more would cost more than they show
# From how many passes on an engine's set-up pays: seconds for OpenVINO (which halves a pass),
# about a minute for torch.compile. Best first; measured in benchmarks/.
_WORTH = {"openvino": 200, "compile": 3000, "fused": 50}
# On a GPU compiling takes 12 to 16 seconds and more, and is no faster than fused but for "half",
# where 27,000 images a second instead of 19,500 (H200, ResNet-50) make up for it after a million.
_WORTH_ON_CUDA = {"compile": 1_000_000, "fused": 50}
ENGINES = ("auto", *_WORTH, "eager")


# How far an engine's scores may be from eager's at the same precision, as a share of the largest
# score (at least 1): further away it is another network.
TOLERANCES: Mapping[str, float] = {"exact": 1e-3, "tf32": 5e-3, "half": 5e-2}
PRECISIONS = tuple(TOLERANCES)
ROUNDING = 8 * 2.0**-23  # of float32: sums in another order differ by some of its roundings


@dataclass(frozen=True)
class Engine:
    """A way to run a network: its name in `ENGINES`, and a function from input to scores."""

    name: str
    run: Run


@dataclass(frozen=True)
class Scores:
    """The scores of many images, (images, classes), and the engine that gave them."""

    logits: Float32[Tensor, "images classes"]
    engine: str


@dataclass(frozen=True)
class Work:
    """What an engine is chosen for: a network, its images, how many come, how they are computed."""

    module: nn.Module
    make: Make
    count: int
    size: int  #: of a pass
    of: tuple[nn.Module, str]  #: see `forward_batches`
    precision: str = "exact"


def forward_batches(
    module: nn.Module,
    make: Make,
    count: int,
    *,
    batch_size: int | None = None,
    engine: str = "auto",
    of: tuple[nn.Module, str] | None = None,
    precision: str = "exact",
    expected: int = 0,
    again: bool = False,
) -> Scores:
    """Send `count` images through a network, a batch at a time.

    Parameters
    ----------
    module : torch.nn.Module
        From input to (batch, classes). It is run in eval mode and left as it was.
    make : callable
        ``make(start, stop)`` returns that part of the images as the network's input, on its
        device: at no time does more than one batch exist.
    count : int
        How many images; it also decides whether setting up an engine pays.
    batch_size : int, optional
        At most; by default as many as bring something on the device. Fewer where less memory is
        free, halved when it runs out all the same, down to single images.
    engine : str
        ``"auto"``: the first of OpenVINO, ``torch.compile`` and batch-norm fusion that is
        installed, pays for this many passes, agrees with eager within `TOLERANCES` on the first
        images (at ``"exact"`` on the predicted class too), and is faster there; eager if none is.
        A name in `ENGINES` forces that one.
    of : (network, name), optional
        For a `module` that is made again each time, the network that it is a part of, and which
        part: engines are cached by these. It must be the same function whenever it is made.
    precision : str
        A name in `PRECISIONS`, see above.
    expected : int
        How many images will come in all, where that is known to be more than `count`.
    again : bool
        On a GPU: whether this continues work whose engine has been checked. Then nothing
        waits for the card.

    Returns
    -------
    Scores
        Logits on the network's device, in the order of the images.

    Raises
    ------
    InputError
        For an unknown engine or precision, a forced engine that cannot be used here, or a batch
        size below 1.
    """
    check_name("engine", engine, ENGINES)
    check_name("precision", precision, PRECISIONS)
    check_least("count", count)
    check_least("batch_size", batch_size)
    device = device_of(module)
    with torch.no_grad(), evaluation(module), computing(precision, device):
        network, part = of or (module, "")
        part = f"{part} {precision}"
        size = batch_size or enough(device)
        if count >= _MEASURED and not (batch_size and device.type == "cuda"):
            size = fitting_batch(module, make(0, 1), size, cache_of(network), part)
        of = network, part
        work = Work(module, make, max(count, expected), min(size, count), of, precision)
        if device.type == "cuda":
            found = _by_kept_engine(work, engine, count, again=again)
            if found is not None:
                return found
        chosen = choose(work, engine)
        return Scores(_all(chosen.run, make, count, size), chosen.name)


def _by_kept_engine(work: Work, engine: str, count: int, *, again: bool) -> Scores | None:
    """Return the scores by an engine that is set up, checked after the passes; None without one.

    The card is not waited for before it has its work.
    """
    names = _worthwhile(work) if engine == "auto" else [engine]
    example = work.make(0, min(work.size, _CHECKED))
    cached = cache_of(work.of[0])
    usable = [name for name in names if cached.get(_key(name, work, example), True)]
    found = cached.get(_key(usable[0], work, example)) if usable else None
    if found is None:
        return None
    logits = _all(found.run, work.make, count, work.size)
    if not again:
        wanted = work.module(example).float()
        if _too_far(logits[: len(wanted)], wanted, work.precision):
            return None
    return Scores(logits, found.name)


def _key(name: str, work: Work, example: Tensor) -> tuple:
    """Return where an engine is cached; on a GPU "compile" is for one size of batch."""
    size = (work.size,) if name == "compile" and example.is_cuda else ()
    return (name, work.of[1], example.dtype, *example.shape[1:], *size)


def device_of(module: nn.Module) -> torch.device:
    """Return where a network's first parameter is; the CPU for one without parameters."""
    first = next(iter(module.parameters()), None)
    return torch.device("cpu") if first is None else first.device


@torch.no_grad()
def choose(work: Work, engine: str) -> Engine:
    """Return the engine for images to come; see `forward_batches`.

    What was compiled is cached with the network's weights, and checked again at each use.
    """
    eager = Engine("eager", work.module)
    names = _worthwhile(work) if engine == "auto" else [engine]
    if names in ([], ["eager"]):
        return eager
    example = work.make(0, min(work.size, _CHECKED)).clone()
    wanted = work.module(example).float()
    for name in names:
        found = _checked(name, work, example, wanted, forced=engine != "auto")
        if found is not None:
            return found
    return eager


def _worthwhile(work: Work) -> list[str]:
    """Return the engines whose set-up pays, or on a GPU has been paid for."""
    if device_of(work.module).type != "cuda":
        return [name for name in _candidates(work.module) if work.count >= _WORTH[name]]
    network, part = work.of
    ready = {
        key[0]
        for key, found in cache_of(network).items()
        if isinstance(key, tuple) and key[1] == part and key[-1] == work.size and found
    }
    return [n for n in _candidates(work.module) if work.count >= _WORTH_ON_CUDA[n] or n in ready]


def _candidates(module: nn.Module) -> list[str]:
    device = device_of(module).type
    if device == "cuda":
        return list(_WORTH_ON_CUDA)
    if device != "cpu":
        return []
    return [n for n in _WORTH if n != "openvino" or importlib.util.find_spec(n)]


def _checked(
    name: str, work: Work, example: Tensor, wanted: Tensor, *, forced: bool
) -> Engine | None:
    """Return an engine that gives the wanted scores, cached or set up; None if it cannot."""
    cached = cache_of(work.of[0])
    key = _key(name, work, example)
    found = cached.get(key)
    if found and not _too_far(found.run(example).float(), wanted, work.precision):
        return found
    if found is None and key in cached and not forced:
        return None  # tried before
    batch = example
    if example.is_cuda:  # where small batches say nothing of the time that large ones take
        batch = example[:1].expand(work.size, *example.shape[1:])
        batch = batch.contiguous(memory_format=torch.channels_last)
    found = _set_up(name, work.module, batch, forced=forced)
    if found and (difference := _too_far(found.run(example).float(), wanted, work.precision)):
        if forced:
            raise InputError(f"engine: {name!r} differs from eager by {difference:.2g} here")
        log.info("%s differs from eager by %.2g", name, difference)
        found = None
    if found and not forced and not _faster(found.run, work.module, batch):
        log.info("%s is not faster than eager here", name)
        found = None
    store(cached, key, found)
    return found


def _set_up(name: str, module: nn.Module, example: Tensor, *, forced: bool) -> Engine | None:
    started = time.perf_counter()
    try:
        with catch_warnings(action="ignore"):
            run = SET_UPS[name](module, example)
            run(example)
    except Exception as error:  # a compiler may raise anything; eager always works
        reason = first_line(error)
        log.info("%s cannot be used: %s", name, reason)
        if forced:
            raise InputError(f"engine: {name!r} cannot be used here: {reason}") from error
        return None
    log.info("%s is ready after %.1f s", name, time.perf_counter() - started)
    return Engine(name, run)


def _too_far(found: Tensor, wanted: Tensor, precision: str) -> float:
    """Return a score's largest difference, if it is not allowed; infinite for another network's."""
    if found.shape != wanted.shape:
        return float("inf")
    if precision == "exact" and not torch.equal(found.argmax(1), wanted.argmax(1)):
        return float("inf")
    scale = 1.0 if precision == "exact" else max(1.0, float(wanted.abs().max()))
    difference = float((found - wanted).abs().max())
    return difference if difference > TOLERANCES[precision] * scale else 0.0


def _faster(run: Run, module: nn.Module, example: Tensor) -> bool:
    return seconds(run, example) < seconds(module, example)


def _all(run: Run, make: Make, count: int, batch_size: int) -> Float[Tensor, "images classes"]:
    logits = torch.empty(0)

    def scores(start: int, stop: int) -> Tensor:
        return run(make(start, stop)).float()

    for start, stop, found in halving(scores, count, batch_size):
        if not start:  # one block for all: small results between batches fragment the memory
            logits = found.new_empty(count, *found.shape[1:])
        logits[start:stop] = found
    return logits


def halving(
    run: Callable[[int, int], Result], count: int, batch_size: int, *, counted: bool = False
) -> Iterator[tuple[int, int, Result]]:
    """Yield ``(start, stop, run(start, stop))`` for `count` images, a batch at a time.

    Where memory runs out, batches are halved, and if a single image does not fit,
    `UnavailableError` is raised. ``counted``: `run` counts its passes itself.
    """
    start = 0
    while start < count:
        stop = min(start + batch_size, count)
        try:
            found = run(start, stop)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if stop - start == 1:
                raise UnavailableError(
                    "memory: a single image does not fit; use a smaller network or input"
                ) from error
        else:
            if not counted:
                passed(stop - start)
            yield start, stop, found
            start = stop
            continue
        # Outside the handler, where the error no longer keeps the batch alive.
        batch_size = (stop - start) // 2
        log.info("out of memory: continuing with %d images a pass", batch_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, on any device."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)  # what the CPU's allocator says


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Let passes on a device compute with this precision; afterwards all is as it was.

    PyTorch's switches hold for a process: no other thread should compute meanwhile.
    """
    if precision == "half":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif device.type != "cuda":
        yield
    else:
        with _tf32(precision == "tf32"):
            yield


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 for convolutions and for products of matrices."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    places: list[tuple[Any, str]] = [(convolutions, "allow_tf32"), (products, "allow_tf32")]
    value: bool | str = allowed
    try:
        before = [getattr(*place) for place in places]
    except RuntimeError:  # set by the names of PyTorch 2.9, which cannot be mixed with the older
        places = [(convolutions.conv, "fp32_precision"), (products, "fp32_precision")]  # type: ignore[attr-defined]
        before, value = [getattr(*place) for place in places], "tf32" if allowed else "ieee"
    try:
        for place in places:
            setattr(*place, value)
        yield
    finally:
        for place, old in zip(places, before, strict=True):
            setattr(*place, old)


def double(tensor: Shaped[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return a tensor in float64, on the host where its device has none (Apple's GPU)."""
    here = tensor.cpu() if tensor.device.type == "mps" else tensor
    return here.to(torch.float64)
