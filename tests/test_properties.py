"""Whatever the sizes, modes, masks and parameters: a result of its type, or one line of ours."""

import string

import numpy as np
import pytest
from conftest import explanation, lime_explanation
from fuzz import KINDS, MODES, fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nets import classifier
from PIL import Image

from xailib.compare.iou import iou, lime_cam_agreement
from xailib.compare.localisation import load_boxes
from xailib.compare.masks import area_mask, lime_mask, value_mask
from xailib.dissect.concepts import from_names
from xailib.errors import XailibError, near_matches, unknown_name
from xailib.explain.cam.methods import METHODS, explain_cam
from xailib.explain.explanation import scaled
from xailib.explain.lime import explain_lime
from xailib.images.frames import Frame, change_frame
from xailib.images.load import from_array, load_images
from xailib.images.packaged import PACKAGES, packaged
from xailib.networks.preprocessing import Preprocessing

settings.register_profile(
    "suite",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("suite")

SIDES = st.integers(1, 120)
MODE = st.sampled_from([*MODES, "I"])
FLOATS = st.floats(-1e6, 1e6, width=32)
NET = classifier()
TARGETS = st.one_of(
    st.none(), st.integers(-3, 8), st.sampled_from(["thing 1", "THING 4", "think 1", ""])
)


def ours(action):
    """Return what an action gives, or None if it is refused in one line."""
    try:
        return action()
    except XailibError as error:
        assert str(error).strip()
        assert "\n" not in str(error)
        return None


def known(target):
    """Tell whether the net has this category."""
    names = [name.lower() for name in NET.class_names]
    number = str(target).isdecimal() and int(target) in range(len(names))
    return target is None or number or str(target).lower() in names


@given(SIDES, SIDES, MODE, st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_any_size_mode_and_kind_of_picture(tmp_path, width, height, mode, kind, seed):
    size = len(Image.new(mode, (width, height)).tobytes())
    data = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()
    image = Image.frombytes(mode, (width, height), data)
    try:
        image.save(tmp_path / "x.bin", kind)
    except (OSError, ValueError, KeyError):
        return  # not every kind holds every mode
    found = ours(lambda: load_images(tmp_path / "x.bin"))
    if found is None:
        assert min(width, height) < 16 or mode in ("I", "F")  # too small, or beyond its range
    else:
        assert found[0].pixels.shape == (height, width, 3)
        assert found[0].pixels.dtype == np.uint8


@given(st.binary(max_size=300))
def test_any_bytes(tmp_path, data):
    (tmp_path / "x.png").write_bytes(data)
    assert ours(lambda: load_images(tmp_path / "x.png")) is None


# Without the signs of a path: "/" is all photographs of the machine. And no words that Hypothesis
# finds in the code, such as those of packaged photographs.
NAMES = st.text(st.characters(exclude_characters="/~."), max_size=40).filter(
    lambda name: name not in {*PACKAGES, *packaged()}
)


@given(st.lists(st.one_of(NAMES, st.sampled_from(["chelsea", "coffee"])), max_size=5))
def test_only_packaged_names_are_photographs(names):
    found = ours(lambda: load_images(names[0] if len(names) == 1 else names))
    packaged = [name for name in dict.fromkeys(names) if name in ("chelsea", "coffee")]
    assert [p.id for p in found or ()] == packaged
    assert found is None or {f.source for f in found.failures} == set(names) - set(packaged)


@given(st.lists(st.one_of(NAMES, st.sampled_from(["Dog", "dog ", "a  b"])), max_size=5))
def test_any_words_are_concepts_once_in_their_order(names):
    found = ours(lambda: from_names(names, "given"))
    tidy = [" ".join(name.split()) for name in names if name.strip()]
    assert (found is None) == (not tidy)
    if found is not None:
        first = {word.casefold(): word for word in reversed(tidy)}
        assert sorted(found.names) == sorted(first.values())
        assert sorted(found.names, key=tidy.index) == list(found.names)


@given(SIDES, st.integers(1, 3000), st.integers(1, 64), st.integers(1, 80), st.booleans())
def test_any_proportions_find_their_way_back(height, width, side, resize, squash):
    preparing = Preprocessing(
        (side, side), (resize, resize) if squash else resize, (0.0,) * 3, (1.0,) * 3
    )
    frame = ours(lambda: preparing.frame(height, width))
    if frame is None:
        assert resize < side or width > 100 * height or height > 100 * width
        return
    back = frame.to_photograph(np.ones((side, side), np.float32))
    assert back.shape == (height, width)
    seen = back[np.isfinite(back)]
    assert seen.size
    np.testing.assert_allclose(seen, 1, atol=1e-5)
    whole = change_frame(np.ones((height, width), np.float32), Frame.whole(height, width), frame)
    np.testing.assert_allclose(whole, 1, atol=1e-5)


MAPS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=FLOATS
)


@given(MAPS, st.integers(-5, 200))
def test_any_map_has_masks_of_any_area(saliency, pixels):
    mask = ours(lambda: area_mask(saliency, pixels))
    if mask is None:
        assert not 0 <= pixels <= saliency.size
    else:
        assert mask.sum() == pixels
        assert not pixels or pixels == mask.size or saliency[mask].min() >= saliency[~mask].max()


@given(MAPS, st.booleans(), st.floats(-2, 2))
def test_any_map_is_scaled_and_cut(raw, signed, threshold):
    found = scaled(raw, signed)
    assert np.isfinite(found).all()
    assert found.max() <= 1
    assert found.min() >= (-1 if signed else 0)
    mask = ours(lambda: value_mask(found, threshold))
    assert (mask is None) == (not 0 <= threshold < 1)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)), st.data())
def test_any_two_masks_have_an_overlap_or_different_shapes(a, data):
    b = data.draw(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
    found = ours(lambda: iou(a, b))
    assert (found is None) == (a.shape != b.shape)
    assert found is None or np.isnan(found) == (not (a | b).any())
    assert iou(a, a) == 1 or not a.any()


@given(
    st.integers(1, 8),
    st.integers(-3, 12),
    st.sampled_from(["positive", "both"]),
    st.data(),
)
def test_any_superpixels_have_masks(count, features, signs, data):
    weights = data.draw(st.lists(st.floats(-10, 10), min_size=count, max_size=count))
    segments = data.draw(hnp.arrays(int, (6, 7), elements=st.integers(0, count - 1)))
    lime = lime_explanation(segments, weights)
    mask = ours(lambda: lime_mask(lime, features, signs))
    assert (mask is None) == (features < 1)
    cam = explanation(np.random.default_rng(0).random((6, 7)))
    table = ours(lambda: lime_cam_agreement([lime], [cam], num_features=features))
    assert (table is None) == (features < 1)
    assert table is None or table["iou"].dropna().between(0, 1).all()


@settings(max_examples=25)
@given(
    st.integers(16, 60),
    st.integers(16, 200),
    st.integers(-5, 30),
    st.sampled_from(["quickshift", "slic", "felzenszwalb", "voronoi"]),
    st.one_of(st.none(), st.integers(-300, 300)),
    st.integers(-2, 9),
    TARGETS,
)
def test_any_parameters_of_lime(height, width, samples, segments, hide, batch, target):
    picture = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    found = ours(
        lambda: explain_lime(
            NET,
            from_array(picture, "x"),
            target,
            num_samples=samples,
            segments=segments,
            hide_color=hide,
            batch_size=batch,
        )
    )
    shown = hide is None or 0 <= hide <= 255
    usable = samples >= 10 and batch >= 1 and segments != "voronoi" and shown
    assert (found is not None) == (usable and known(target))
    if found is not None:
        assert np.isfinite(found.saliency).all()
        assert np.abs(found.saliency).max() <= 1


@settings(max_examples=25)
@given(
    st.sampled_from(["gradcam", "layercam", "ablationcam", "scorecam", "gradcamm", ""]),
    TARGETS,
    st.sampled_from([None, "body", "stem", "stem.0", "fc", "boddy", ""]),
    st.integers(-2, 9),
)
def test_any_parameters_of_a_heatmap(method, target, layer, batch):
    picture = from_array(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8), "x")
    found = ours(
        lambda: explain_cam(
            NET, picture, method, target, layer=layer, batch_size=batch, engine="eager"
        )
    )
    usable = method in METHODS and batch >= 1 and layer in (None, "", "body", "stem", "stem.0")
    assert (found is not None) == (usable and known(target))
    if found is not None:
        assert found.saliency.min() >= 0
        assert found.saliency.max() <= 1


@given(st.text(string.printable, max_size=20), st.lists(st.text(max_size=9), max_size=20))
def test_any_wrong_name_gets_one_line(name, allowed):
    assert set(near_matches(name, allowed)) <= set(allowed)
    line = str(unknown_name("argument", name, [a for a in allowed if a.isprintable()]))
    assert line.startswith("argument: unknown name")
    assert "\n" not in line


NUMBERS = st.one_of(st.floats(), st.sampled_from(["", "x", "0.5", "1e400", "nan"]))


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=3))
def test_any_table_of_boxes(tmp_path, rows):
    lines = ["image,left,top,right,bottom", *(f"a,{','.join(map(str, row))}" for row in rows)]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    found = ours(lambda: load_boxes(tmp_path / "boxes.csv"))
    for box in (found or {}).get("a", []):
        assert all(0 <= side <= 1 for side in box)


def test_a_short_fuzz_of_every_reader():
    """``make fuzz`` does this for five minutes."""
    counts = fuzz(60, seed=1, most=1500)
    assert sum(counts.values()) == 1500
    for name in ("image", "boxes", "descriptions", "concepts"):
        assert counts[f"{name} read"]
        assert counts[f"{name} refused"] or name == "concepts"


def test_the_fuzz_would_notice(monkeypatch):
    def careless(path):
        return path.read_text(encoding="ascii")

    monkeypatch.setattr(
        "fuzz.READERS", dict.fromkeys(["boxes", "concepts", "descriptions", "image"], careless)
    )
    with pytest.raises(AssertionError, match=r"seed 0, file .*UnicodeDecodeError"):
        fuzz(60, most=500)
