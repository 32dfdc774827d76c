"""How our cost grows, with what: one row a size, all by one engine on a small network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from cases import record
from measure import Elsewhere, Times
from skimage.segmentation import slic

from xailib.explain.cam.methods import explain_cam
from xailib.explain.lime import explain_lime
from xailib.explain.lime_engine import LimeImageExplainer
from xailib.images.load import Photograph, load_images
from xailib.networks.classifier import Classifier, load_classifier

NETWORK = "tf_efficientnet_lite0"
IMAGES = ("dalmatian", "goose", "spoonbill", "strawberry", "cannon", "drum", "yurt", "thatch")
LAYERS = ("blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5", "blocks.6", "bn2")


@dataclass(frozen=True)
class Size:
    """One point: what grows, how far, and what is done at that size."""

    grows: str
    value: int
    method: str
    work: Callable[[], object]
    anew: bool = False  # an engine is set up for this very size


def growth(photo: Photograph, repeats: int, *, quick: bool) -> Iterator[dict[str, object]]:
    """Yield time and memory for each size, smallest first.

    One engine is used throughout, the one that 1000 passes would get: the few passes of a small
    size would otherwise be made in eager mode, and the curve would have a step in it.
    """
    net = load_classifier(NETWORK)
    engine = str(explain_lime(net, photo, num_samples=1000).parameters["engine"])
    for size in sizes(net, photo, engine, quick=quick):
        if size.anew:
            size.work()
        elsewhere, times = Elsewhere(), Times()
        for _ in range(repeats):
            times.run(size.work)
        row = {
            "grows": size.grows,
            "method": size.method,
            "value": size.value,
            "seconds": times.median,
            "seconds_min": min(times.seconds),
            "seconds_max": max(times.seconds),
            "peak_mb": times.peak,
            "network": net.name,
            "engine": engine,
            "repeats": repeats,
            "cores_used_elsewhere": elsewhere.cores(),
        }
        print(
            f"{size.grows:12} {size.value:6} {size.method:14} {times.median:7.2f} s, "
            f"{times.peak:5.0f} MB",
            flush=True,
        )
        yield row


def sizes(net: Classifier, photo: Photograph, engine: str, *, quick: bool) -> Iterator[Size]:
    """Yield what is measured: in every group one thing grows and all else stays."""
    for samples in (100, 200) if quick else (100, 400, 1000, 4000):
        yield Size("samples", samples, "LIME", _lime(net, photo, samples, engine))
    for count in (10, 50) if quick else (10, 25, 60, 150, 400):
        yield _superpixels(net, photo, count, engine)
    for layer in LAYERS[:2] if quick else LAYERS:
        channels = record(net, photo, layer).output.shape[1]
        for method, name in (("scorecam", "ScoreCAM"), ("ablationcam", "AblationCAM")):
            work = _cam(net, photo, method, layer, engine)
            yield Size("channels", channels, name, work, method == "ablationcam")
    for side in (96, 128) if quick else (96, 128, 192, 256, 384):
        work = _lime(resized(net, side), photo, 300, engine)
        yield Size("image side", side, "LIME", work, True)
    for count in (1, 2) if quick else (1, 2, 4, 8):
        yield _images(net, load_images(list(IMAGES[:count])), engine)


def _lime(net: Classifier, photo: Photograph, samples: int, engine: str) -> Callable[[], object]:
    return lambda: explain_lime(net, photo, num_samples=samples, engine=engine)


def _cam(
    net: Classifier, photo: Photograph, method: str, layer: str, engine: str
) -> Callable[[], object]:
    return lambda: explain_cam(net, photo, method, layer=layer, engine=engine)


def _superpixels(net: Classifier, photo: Photograph, count: int, engine: str) -> Size:
    pixels = net.view(photo).pixels
    segments = slic(pixels, n_segments=count, compactness=10, start_label=0)

    def work() -> object:
        return LimeImageExplainer(random_state=0, engine=engine).explain_instance(
            pixels,
            net,
            hide_color=0,
            top_labels=1,
            num_samples=300,
            segmentation_fn=lambda _image: segments,
        )

    return Size("superpixels", len(np.unique(segments)), "LIME", work)


def _images(net: Classifier, photos: list[Photograph], engine: str) -> Size:
    def work() -> object:
        return [explain_lime(net, p, num_samples=100, engine=engine).saliency for p in photos]

    return Size("images", len(photos), "LIME", work)


def resized(net: Classifier, side: int) -> Classifier:
    """Return the classifier with another input size."""
    return replace(net, preprocessing=replace(net.preprocessing, size=(side, side), resize=side))
