"""Every metric of `score` against a peer's code or a literal one, and its passes counted."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from nets import SIDE, classifier, photograph
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from xailib.errors import InputError
from xailib.evaluate import perturbation as pixels
from xailib.evaluate.metrics import score
from xailib.evaluate.scores import BETTER
from xailib.images.load import from_array

TARGET = 3
RNG = np.random.default_rng(5)
UNTIED = RNG.permutation(SIDE * SIDE).reshape(SIDE, SIDE).astype(np.float32)
MAPS = {"map": UNTIED, "signed": (UNTIED[::-1] - 500).copy()}
OPTIONS = {"steps": 8, "percentiles": [60], "engine": "eager"}


@pytest.fixture(scope="module")
def net():
    return classifier()


@pytest.fixture(scope="module")
def photo():
    return photograph()


@pytest.fixture(scope="module")
def found(net, photo):
    return score(net, photo, MAPS, TARGET, **OPTIONS).set_index(["method", "measure"])["value"]


def whole_of(net, photo):
    return net.input_tensor(net.view(photo).pixels[None]).contiguous()


def probability(net, batch):
    with torch.no_grad():
        return net.module(batch).softmax(1)[:, TARGET].double().numpy()


def area(scores):
    """RISE's `auc`."""
    return (scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


def replaced(net, start, end, saliency):
    """RISE's loop: the most salient pixels of `start` become those of `end`, an eighth a step."""
    places = np.argsort(-saliency.ravel(), kind="stable")
    picture, scores = start.clone(), [probability(net, start)[0]]
    for step in range(8):
        some = places[step * SIDE * SIDE // 8 : (step + 1) * SIDE * SIDE // 8]
        picture.view(3, -1)[:, some] = end.view(3, -1)[:, some]
        scores.append(probability(net, picture)[0])
    return np.array(scores)


def rise_kernel(size, deviation):
    """RISE's `gkern`."""
    point = np.zeros((size, size))
    point[size // 2, size // 2] = 1
    return gaussian_filter(point, deviation)


@pytest.mark.parametrize("method", MAPS)
def test_curves_are_rises_and_the_gain_their_difference(net, photo, found, method):
    whole = whole_of(net, photo)
    gray, saliency = torch.zeros_like(whole), MAPS[method]
    deletion, least = (area(replaced(net, whole, gray, s)) for s in (saliency, -saliency))
    insertion = area(replaced(net, pixels.blurred(whole), whole, saliency))
    assert abs(deletion - least) > 1e-3
    expected = [deletion, least, least - deletion, insertion]
    names = ["deletion", "least_first", "relevance_gain", "insertion"]
    assert [found[method, name] for name in names] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("side", "width"), [(224, 11), (300, 15)])
def test_insertion_starts_from_rises_blur(side, width):
    """The reviewers' counterexample: a truncated Gaussian with a reflected border is another."""
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    kernel = torch.zeros(3, 3, width, width)
    for channel in range(3):
        kernel[channel, channel] = torch.from_numpy(rise_kernel(width, 5 * side / 224))
    expected = torch.nn.functional.conv2d(image, kernel, padding=width // 2)
    torch.testing.assert_close(pixels.blurred(image), expected, rtol=0, atol=1e-6)
    assert pixels.blurred(torch.ones_like(image))[0, 0, 0, 0] < 0.5  # zero beyond the border


@pytest.mark.parametrize("method", MAPS)
def test_single_deletion_is_idsds(net, photo, found, method):
    whole, saliency = whole_of(net, photo), MAPS[method]
    cell = SIDE // 4
    with torch.no_grad():
        full = net.module(whole)[0, TARGET]
        given, lost = [], []
        for row in range(4):
            for column in range(4):
                at = np.s_[..., row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
                picture = whole.clone()
                picture[at] = 0
                given.append(saliency[at].sum(dtype=float))
                lost.append(float(full - net.module(picture)[0, TARGET]))
    expected = spearmanr(given, lost).statistic
    assert abs(expected) > 0.01
    assert found[method, "single_deletion"] == pytest.approx(expected, abs=1e-6)


def test_cells_are_equal_and_leave_the_rest_of_a_view_out():
    cells = pixels.cell_numbers((14, 9))
    assert [(cells == cell).sum() for cell in range(16)] == [3 * 2] * 16
    assert (cells[12:] == -1).all()
    assert (cells[:, 8] == -1).all()


@pytest.mark.parametrize("method", MAPS)
def test_drop_and_increase_are_torchcams(net, photo, found, method):
    whole = whole_of(net, photo)
    share = torch.from_numpy(MAPS[method]).relu()
    share = (share - share.min()) / (share.max() - share.min())
    (before,), (after,) = probability(net, whole), probability(net, share * whole)
    drop = max(before - after, 0) / before
    values = [found[method, name] for name in ("average_drop", "confidence_increase")]
    assert values == pytest.approx([drop, float(after > before)], abs=1e-6)


def test_a_map_that_says_nothing_has_stated_scores(net, photo):
    dark = {"dark": np.zeros((SIDE, SIDE), np.float32)}
    values = score(net, photo, dark, TARGET, **OPTIONS).set_index("measure")["value"]
    (before,), (gray,) = (probability(net, whole_of(net, photo) * share) for share in (1, 0))
    assert values["single_deletion"] == 0
    assert values["average_drop"] == pytest.approx(max(before - gray, 0) / before, abs=1e-6)


def test_no_image_is_passed_twice_and_no_batch_is_larger_than_asked(net, photo):
    """What two metrics or maps have in common: the whole, the gray and the blurred one, cells."""
    batches = []
    hook = net.module.register_forward_hook(
        lambda part, given, out: batches.append(given[0].clone())
    )
    try:
        table = score(net, photo, MAPS, TARGET, **OPTIONS | {"steps": 4, "batch_size": 7})
    finally:
        hook.remove()
    assert max(map(len, batches)) == 7
    seen = torch.cat(batches)
    assert len({picture.numpy().tobytes() for picture in seen}) == len(seen)
    # Of each map 3 images inside each of 3 curves, 3 flipped, 2 imputed and 1 masked.
    assert len(seen) == 3 + 16 + 2 * (3 * 3 + 3 + 2 + 1)
    assert table["measure"].tolist() == [*BETTER, *BETTER]
    assert table["method"].unique().tolist() == list(MAPS)


@pytest.mark.parametrize("measure", BETTER)
def test_one_measure_alone_is_what_it_is_among_others(net, photo, found, measure):
    alone = score(net, photo, MAPS, TARGET, measures=[measure], **OPTIONS)
    for method, _, value in alone.itertuples(index=False):
        assert value == pytest.approx(found[method, measure], abs=1e-6)


def test_ties_come_from_the_centre_of_their_superpixel():
    """The reviewers' counterexample: superpixels deleted as patches, not as noise."""
    tied = np.kron([[1, 3], [2, 0]], np.ones((16, 16))).astype(np.float32)
    order = pixels.pixel_order(tied, "centre")
    assert sorted(order.ravel()) == list(range(tied.size))
    assert np.argwhere(order < 256).min(0).tolist() == [0, 16]  # the highest superpixel first
    first = np.argwhere(order < 100)
    assert np.hypot(*(first - [7.5, 23.5]).T).max() < 6.5  # a disc around its centre
    scattered = np.argwhere(pixels.pixel_order(tied, "random") < 100)
    assert np.hypot(*(scattered - [7.5, 23.5]).T).max() > 9
    assert (pixels.pixel_order(UNTIED, "centre") == pixels.pixel_order(UNTIED)).all()


def test_ties_change_scores_of_superpixels_only(net):
    photo = from_array(photograph(3).pixels, "tied")
    maps = {"untied": UNTIED, "tied": np.kron([[1, 3], [2, 0]], np.ones((16, 16), np.float32))}
    maps["tied"] = maps["tied"].astype(np.float32)
    one, other = (
        score(net, photo, maps, TARGET, ties=ties, **OPTIONS).set_index(["method", "measure"])
        for ties in pixels.TIES
    )
    gap = (one - other)["value"].abs().unstack("measure")
    assert (gap.loc["untied"] == 0).all()
    assert (gap.loc["tied", ["deletion", "insertion", "road"]] > 1e-5).all()
    assert gap.loc["tied", "single_deletion"] == gap.loc["tied", "average_drop"] == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"measures": ["delection"]}, "measures: unknown name 'delection'; did you mean deletion"),
        ({"measures": []}, "measures: none given"),
        ({"ties": "left"}, "ties: unknown name 'left'"),
        ({"blur": 0.0}, "blur: 0"),
    ],
)
def test_wrong_options_are_one_line(net, photo, options, line):
    with pytest.raises(InputError, match=line):
        score(net, photo, MAPS, TARGET, **options)


# Without its dependencies: its opencv-python would replace the headless one that is pinned here.
@pytest.mark.skipif(
    not importlib.util.find_spec("quantus"),
    reason="quantus is not installed: pip install --no-deps quantus cachetools",
)
@pytest.mark.parametrize("method", MAPS)
def test_pixel_flipping_is_quantuss(net, photo, found, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        import quantus

        metric = quantus.PixelFlipping(
            features_in_step=SIDE * SIDE // 8,
            abs=False,
            normalise=False,
            perturb_baseline=0.0,
            return_aggregate=False,
            disable_warnings=True,
        )
        given = {"y_batch": np.array([TARGET]), "a_batch": MAPS[method][None, None]}
        whole = whole_of(net, photo).numpy()
        curve = np.ravel(metric(net.module, whole, **given, softmax=True, device="cpu")[0])
    # Each colour of a pixel is a feature of its own; its area is by a function that numpy dropped.
    area = np.trapezoid(curve[2::3])
    assert found[method, "pixel_flipping"] == pytest.approx(area / 7, abs=1e-6)  # of eight steps
