"""Fetching, against a real server on this machine that breaks off, changes its mind, or is gone."""

import errno
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pooch
import pytest
import timm
import torch
from conftest import ROOT
from faults_table import shown
from huggingface_hub import constants, is_offline_mode
from safetensors.torch import save_file
from serving import Place, offering
from sweeps import until

from xailib.downloads import fetch as downloads
from xailib.downloads import hub
from xailib.downloads.fetch import fetch
from xailib.downloads.names import published_weights
from xailib.downloads.registry import Artefact
from xailib.errors import StorageError, UnavailableError
from xailib.networks.classifier import load_classifier

CONTENT = bytes(range(256)) * 40
PATH = "/some/file.bin"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def left(folder):
    """What lies in a folder and below it, besides the locks of who fetches."""
    return [f.name for f in folder.rglob("*") if f.is_file() and f.suffix != ".lock"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    for name in ("http_proxy", "https_proxy", "all_proxy", downloads.MIRROR):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Place(CONTENT)


@pytest.fixture
def address(place):
    with offering(place) as found:
        yield f"{found}{PATH}"


def test_fetched_once_and_checked(address, place):
    file = fetch(address, sha256=SHA256)
    assert file.read_bytes() == CONTENT
    (lock,) = file.parent.glob(".*.lock")
    lock.unlink()
    assert fetch(address, sha256=SHA256) == file
    assert place.asked == [PATH]
    assert not lock.exists()  # what is there may lie where nobody may write
    file.write_bytes(b"damaged")  # on the disk: mended
    assert fetch(address, sha256=SHA256[:8]).read_bytes() == CONTENT  # the start is enough
    assert fetch(address, sha256=SHA256[:8]) == file
    assert place.asked == [PATH] * 2


def test_another_content_than_stated_is_refused(address, place, tmp_path):
    with pytest.raises(UnavailableError, match=shown("other_hash")):
        fetch(address, sha256="0" * 64)
    assert left(tmp_path / "cache") == []


def test_a_hash_is_noted_at_first_use_and_a_change_refused(address, place, tmp_path):
    file = fetch(address)
    notes = tmp_path / "cache" / "hashes.txt"
    assert notes.read_text() == f"{SHA256} {address}\n"
    file.unlink()
    assert fetch(address) == file  # the same again
    assert notes.read_text().count("\n") == 1
    file.unlink()
    place.content = b"something else"
    with pytest.raises(UnavailableError, match=shown("changed_file")) as caught:
        fetch(address)
    assert "\n" not in str(caught.value)
    assert not file.exists()


def test_the_progress_is_passed_on(address, place):
    seen = []
    place.content = CONTENT * 300
    fetch(address, watch=lambda have, total: seen.append((have, total)))
    assert seen[-1] == (len(place.content), len(place.content))
    assert all(have <= total for have, total in seen)
    assert [have for have, _ in seen] == sorted(have for have, _ in seen)


def test_a_broken_download_leaves_nothing_and_is_fetched_anew(address, place, tmp_path):
    place.limits = [1000]
    with pytest.raises(UnavailableError, match=shown("broken_off")):
        fetch(address)
    assert left(tmp_path / "cache") == []
    place.content = CONTENT[::-1]  # another version: parts of two are never joined
    assert fetch(address).read_bytes() == CONTENT[::-1]


def test_what_a_killed_process_has_left_is_written_over(address, place):
    file = downloads.cached_path(address)
    file.parent.mkdir()
    file.with_name(file.name + ".part").write_bytes(b"half of another version" * 2000)
    assert fetch(address, sha256=SHA256).read_bytes() == CONTENT


def test_what_is_not_whole_is_neither_taken_nor_noted(address, place, tmp_path):
    def torn(part):
        assert part.read_bytes() == CONTENT
        raise UnavailableError("torn")

    with pytest.raises(UnavailableError, match="torn"):
        fetch(address, check=torn)
    assert not downloads.cached_path(address).exists()
    assert not (tmp_path / "cache" / "hashes.txt").exists()
    downloads.cached_path(address).write_bytes(CONTENT)  # put there by hand: looked into, too
    with pytest.raises(UnavailableError, match="torn"):
        fetch(address, check=torn)
    assert not (tmp_path / "cache" / "hashes.txt").exists()


@pytest.mark.parametrize("announce", [True, False])
def test_a_file_that_is_too_large_is_refused(address, place, tmp_path, announce):
    place.announce = announce
    with pytest.raises(UnavailableError, match=shown("too_large")):
        downloads.download(address, tmp_path / "file", most=100)


def test_a_full_disk_is_said(address, place, monkeypatch):
    def full(_address, part, **_):
        part.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "download", full)
    with pytest.raises(StorageError, match="No space left on device; make room"):
        fetch(address)
    assert not list(downloads.cache_folder().glob("*.part"))


def test_a_server_without_the_file_says_so_once(address, place):
    place.status = 404
    with pytest.raises(UnavailableError, match=r"127.0.0.1:.*: HTTP 404$"):
        fetch(address)
    place.status = 503
    with pytest.raises(UnavailableError, match="HTTP 503"):
        fetch(address)
    assert len(place.asked) == 2


@pytest.mark.parametrize(
    ("status", "problem"), [(200, None), (405, None), (404, "HTTP 404"), (503, "HTTP 503")]
)
def test_a_host_is_asked_for_the_file_not_fetched(address, place, status, problem):
    place.status = status
    assert downloads.problem_with(address) == problem


def test_no_network_and_no_name_are_one_line_at_once(place, monkeypatch):
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=shown("no_network")):
        fetch("http://127.0.0.1:9/x")
    assert downloads.problem_with("http://127.0.0.1:9/x") == "Connection refused"

    def unknown(*_args, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnavailableError, match=shown("no_host")):
        fetch("https://nowhere.example/x")
    assert time.monotonic() - start < 5


def test_a_proxy_that_refuses_is_named_without_its_password(place, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    with pytest.raises(UnavailableError, match=shown("proxy")) as caught:
        fetch("http://nowhere.example/x")
    line = "nowhere.example: Connection refused, through the proxy 127.0.0.1:9"
    assert str(caught.value) == line
    assert downloads.problem_with("http://nowhere.example/x") == line.partition(": ")[2]


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://x/y", "x"])
def test_only_the_web_is_fetched_from(place, address):
    with pytest.raises(UnavailableError, match=r"No connection adapters|No scheme"):
        fetch(address)


@pytest.mark.parametrize("where", ["models.example/a b/net.pth", "net.pth"])
def test_a_mirror_folder_serves_instead(place, tmp_path, monkeypatch, where):
    file = tmp_path / "mirror" / where
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    monkeypatch.setenv(downloads.MIRROR, str(tmp_path / "mirror"))
    address = "https://models.example/a%20b/net.pth"
    assert downloads.problem_with(address) is None
    assert fetch(address, sha256=SHA256).read_bytes() == CONTENT
    assert file.read_bytes() == CONTENT  # copied, not moved
    with pytest.raises(UnavailableError, match="another SHA-256"):
        fetch(address, tmp_path / "other", sha256="1" * 64)


@pytest.mark.parametrize("path", ["../secret", "%2e%2e/secret", "x/../../secret"])
def test_an_address_cannot_lead_out_of_the_mirror(place, tmp_path, monkeypatch, path):
    (tmp_path / "mirror" / "host").mkdir(parents=True)
    (tmp_path / "secret").write_text("no")
    monkeypatch.setenv(downloads.MIRROR, str(tmp_path / "mirror"))
    assert downloads.in_mirror(f"https://host/../{path}") is None


# Several at once

FETCHING = "import sys; from pathlib import Path; from xailib.downloads.fetch import fetch; "
FETCHING += "fetch(sys.argv[1], Path(sys.argv[2]))"


def fetching(address, file):
    """Another process that fetches a file."""
    command = [sys.executable, "-c", FETCHING, address, str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(file.parent)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("killed", [False, True], ids=["finishes", "is killed"])
def test_two_processes_that_fetch_one_file_fetch_it_once(address, place, tmp_path, killed):
    file, part = tmp_path / "file.bin", tmp_path / "file.bin.part"
    place.content = CONTENT * 300
    place.halt = threading.Event()  # the server sends a half, and waits
    first = fetching(address, file)
    until(lambda: part.is_file() and part.stat().st_size == 1 << 20)
    second = fetching(address, file)
    assert re.search(shown("fetched_twice"), second.stderr.readline().strip())
    if killed:
        first.kill()
    place.halt.set()
    assert first.wait(30) == (-signal.SIGKILL if killed else 0)
    assert second.wait(30) == 0
    assert second.stderr.read() == ""
    assert file.read_bytes() == place.content
    assert place.asked == [PATH] * (2 if killed else 1)  # the second takes over
    for process in (first, second):
        process.stderr.close()


def test_threads_wait_for_each_other_too(address, place):
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(fetch, [address] * 4))
    assert [file.read_bytes() for file in files] == [CONTENT] * 4
    assert place.asked == [PATH]


# The first address that has it


def two_names(address, tmp_path):
    names = ("model.safetensors", "pytorch_model.bin")
    addresses = tuple(f"{address}/{name}" for name in names)
    return Artefact("net", "weights", addresses, tuple(tmp_path / n for n in names), "give PATH")


def test_each_address_is_tried_and_its_file_has_its_own_name(address, place, tmp_path):
    place.status = 404
    one = two_names(address, tmp_path)
    with pytest.raises(UnavailableError) as caught:
        one.fetch()
    line = str(caught.value)
    assert line.startswith("weights: could not fetch http://127.0.0.1:")
    assert line.count("HTTP 404") == 2
    assert line.endswith("; give PATH")
    assert not one.here
    place.status, place.asked = None, []
    (tmp_path / "pytorch_model.bin").write_bytes(CONTENT)
    assert one.fetch().name == "pytorch_model.bin"  # what is here is taken first
    assert place.asked == []
    one.file.unlink()
    assert one.fetch().name == "model.safetensors"
    assert one.here
    assert one.bytes == len(CONTENT)


# The hub


def test_the_hub_out_of_reach_is_said_at_once(place, monkeypatch):
    monkeypatch.setattr(hub, "address", lambda repository, name: "http://127.0.0.1:9/x")
    start = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        load_classifier("resnet10t")
    line = "timm's weights for resnet10t: could not fetch http://127.0.0.1:9/x (127.0.0.1:9: Conn"
    assert line in str(caught.value)
    assert time.monotonic() - start < 15


def test_timms_own_weights_are_read_from_a_mirror(place, tmp_path, monkeypatch):
    torch.manual_seed(1)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    (one,) = published_weights("test_resnet")
    place = one.addresses[0].removeprefix("https://")
    assert place.startswith("huggingface.co/timm/test_resnet")
    file = tmp_path / "mirror" / place
    file.parent.mkdir(parents=True)
    save_file(state, file)
    monkeypatch.setenv(downloads.MIRROR, str(tmp_path / "mirror"))
    found = load_classifier("test_resnet").module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_what_the_hubs_own_package_has_fetched_is_taken(place, tmp_path, monkeypatch):
    theirs = tmp_path / "model.safetensors"
    theirs.write_bytes(CONTENT)
    monkeypatch.setattr(hub, "in_their_cache", lambda *_: theirs)
    (one,) = published_weights("resnet10t")
    assert one.here
    assert one.fetch() == theirs


def test_offline_ends(monkeypatch):
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(KeyError), hub.offline():
        assert is_offline_mode()
        raise KeyError
    assert before == constants.HF_HUB_OFFLINE
