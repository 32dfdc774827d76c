from types import SimpleNamespace

import pooch
import pytest
import torch
from conftest import ROOT

from xailib.downloads import fetch as downloads
from xailib.downloads.registry import artefact, artefacts
from xailib.images.frames import Frame
from xailib.networks.preprocessing import from_transform
from xailib.report.params.profiles import TASKS, load_profile
from xailib.report.run import preflight as requirements
from xailib.report.run.preflight import lacking


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """An empty home, no network, and the addresses that were asked for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    addresses = []

    def offline(address):
        addresses.append(address)
        return "no network"

    monkeypatch.setattr(requirements, "problem_with", offline)
    return addresses


def profile(name):
    """What each notebook of a profile gets."""
    loaded = load_profile(name)
    return {task: loaded.share(task) for task in TASKS}


def unreachable(tasks):
    """What cannot be had, each line once."""
    lines = [line for lack in lacking(tasks).values() for line in lack.unreachable]
    return list(dict.fromkeys(lines))


def one(**parameters):
    return {"2_lime": parameters}


@pytest.mark.parametrize("name", ["embedded", "smoke"])
def test_packaged_things_need_nobody(asked, name):
    assert unreachable(profile(name)) == []
    assert asked == []


def test_the_replication_lists_all_that_it_lacks_and_asks_each_host_once(asked):
    lines = unreachable(profile("replication"))
    for what in (
        "weights IMAGENET1K_V1 of resnet18: ",
        "weights IMAGENET1K_V2 of resnet50: ",
        "weights IMAGENET1K_V1 of resnet50: ",
        "resnet18_places365: resnet18_places365.pth.tar: ",
        "CLIP ViT-B/16: ",
        "probe images broden: ",
        "word list 20k: ",
        "files of the replicated report: ",
    ):
        assert sum(line.startswith(what) for line in lines) == 1, what
    assert len(lines) == 8
    assert all("no network" in line and "\n" not in line for line in lines)
    hosts = [address.split("/")[2] for address in asked]
    assert len(hosts) == len(set(hosts))
    assert "download.pytorch.org" in hosts


def test_what_lies_in_its_cache_is_not_asked_for(asked, tmp_path):
    wanted = one(model="resnet50", weights="IMAGENET1K_V2", probe=["broden"])
    assert len(unreachable(wanted)) == 2
    asked.clear()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth").touch()
    (tmp_path / "cache" / "broden").mkdir(parents=True)
    assert unreachable(wanted) == []
    assert asked == []
    theirs = artefacts("published")
    for part in theirs:
        part.file.parent.mkdir(parents=True, exist_ok=True)
        part.file.touch()
    assert unreachable(one(images=["published"], published="")) == []
    theirs[-1].file.unlink()
    (line,) = unreachable(one(published=""))
    assert "replicated report" in line


def test_the_cache_of_lists_and_categories_is_where_the_loader_puts_them(asked, monkeypatch):
    """Fetched by the loaders' own way, a file is found again."""

    def download(address, part, **_):
        part.write_text("a\nb")

    assert len(unreachable(one(concepts=["20k"]))) == 1
    monkeypatch.setattr(downloads, "download", download)
    artefact("20k").fetch()
    assert unreachable(one(concepts=["20k"])) == []


def test_local_files_and_random_weights_need_nobody(asked, tmp_path):
    file = tmp_path / "w.pth"
    file.touch()
    for own in (
        {"model": "resnet50", "weights": str(file)},
        {"model": "resnet50", "weights": "random"},
        {"encoder": "clip:ViT-B/16", "encoder_weights": str(file)},
        {"published": str(tmp_path)},
        {"model": "timm_model_or_typo"},
    ):
        assert unreachable(one(**own)) == []
    assert asked == []


def test_weights_that_are_neither_file_nor_published_are_named(asked):
    (line,) = unreachable(one(model="resnet50", weights="no/such/file.pth"))
    assert "no file and no published weights 'no/such/file.pth'" in line


def test_what_is_fetched_and_what_cannot_be_had_are_told_by_task(asked, monkeypatch):
    monkeypatch.setattr(
        requirements, "problem_with", lambda a: None if "pytorch" in a else "no network"
    )
    lacks = lacking({"2_lime": {"model": "resnet50"}, "3_cam": {"images": ["published"]}})
    assert lacks["2_lime"].fetched == ("weights IMAGENET1K_V2 of resnet50",)
    assert lacks["2_lime"].unreachable == lacks["3_cam"].fetched == ()
    assert lacks["3_cam"].unreachable[0].startswith("files of the replicated report: not here")


def test_a_task_can_only_fail_without_its_networks(asked):
    """Of the rest it tells what is missing, or takes what is kept here."""
    lacks = lacking(profile("replication"))
    stopped = [task for task, lack in lacks.items() if lack.networks]
    assert stopped == ["1_clip_dissect", "2_lime", "3_cam", "7_sanity", "9_stability"]
    assert lacks["6_replication"].unreachable
    lines = lacks["1_clip_dissect"].networks
    assert len(lines) == 3  # the names of the scenes are here
    assert set(lines) < set(lacks["1_clip_dissect"].unreachable)
    labels = {"model": "resnet18", "descriptions": "descriptions.csv"}
    assert lacking({"1_clip_dissect": labels})["1_clip_dissect"].networks == ()


@pytest.mark.parametrize("answer", ["HTTP 404", "HTTP 503", "timed out"])
def test_a_host_that_may_still_give_it_stops_no_task(asked, monkeypatch, answer):
    monkeypatch.setattr(requirements, "problem_with", lambda _: answer)
    lack = lacking(one(model="resnet50"))["2_lime"]
    assert answer in lack.unreachable[0]
    assert lack.networks == ()


def test_a_mirror_may_hold_what_no_host_gives(asked, monkeypatch, tmp_path):
    assert lacking(one(model="resnet50"))["2_lime"].networks
    monkeypatch.setenv(downloads.MIRROR, str(tmp_path))
    assert lacking(one(model="resnet50"))["2_lime"].networks == ()


@pytest.mark.parametrize("code", ["import nothing_of_this_name", "raise SystemExit", "def f(:"])
def test_own_code_that_fails_is_left_to_the_loader(asked, tmp_path, code):
    file = tmp_path / "mine.py"
    file.write_text(code)
    assert unreachable(one(model=f"{file}:load")) == []


def test_timms_networks_are_asked_for_too(asked, monkeypatch):
    (line,) = unreachable(one(model="resnet10t"))
    assert line.startswith("timm's weights for resnet10t: not here, and no answer from hugging")


def test_a_second_address_will_do(asked, monkeypatch):
    down = "http://netdissect"
    monkeypatch.setattr(
        requirements, "problem_with", lambda a: "down" if a.startswith(down) else None
    )
    assert unreachable(one(probe=["broden"])) == []


def test_the_replications_networks_prepare_as_the_report_did(monkeypatch):
    """Found by name as the profile says, and they fetch what they say they fetch."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        "nets_of_it", ROOT / "params" / "replication_networks.py"
    )
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    loaded = []

    def load(name, weights, device):
        loaded.append((name, weights))
        return SimpleNamespace(module=torch.nn.Identity(), class_names=("a",))

    monkeypatch.setattr(code, "load_classifier", load)
    frames = {
        "lime_resnet50": Frame((263, 376), (256, 256), (16, 16, 224, 224)),
        "cam_resnet50": Frame.whole(263, 376),
    }
    tasks = load_profile("replication").tasks
    for task, (function, frame) in zip(("2_lime", "3_cam"), frames.items(), strict=True):
        assert tasks[task]["model"] == f"params/replication_networks.py:{function}"
        _, transform, categories = getattr(code, function)()
        assert from_transform(transform).frame(263, 376) == frame
        assert categories == ("a",)
        assert getattr(code, function).fetches == loaded[-1:]
