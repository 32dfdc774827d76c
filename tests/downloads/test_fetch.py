"""Fetching, against a real server on this machine that breaks off, changes its mind, or is gone."""

import contextlib
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
from http.server import BaseHTTPRequestHandler

import pooch
import pytest
from conftest import ROOT
from faults_table import shown
from serving import serving
from sweeps import until

from xailib.downloads import fetch as downloads
from xailib.downloads import hub, web
from xailib.downloads.fetch import fetch
from xailib.errors import UnavailableError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Place:
    """What a server offers, how it behaves, and what it was asked for."""

    def __init__(self):
        self.content: bytes = CONTENT
        self.etag: str | None = '"one"'
        self.limits: list[int] = []  # bytes after which each answer breaks off
        self.status: int | None = None
        self.announce = True
        self.halt: threading.Event | None = None  # in the middle of the first answer
        self.asked: list[str | None] = []


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    for name in ("http_proxy", "https_proxy", "all_proxy", web.MIRROR):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Place()


@pytest.fixture
def address(place):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            given = self.headers.get("Range")
            place.asked.append(given)
            if place.status:
                self.send_error(place.status)
                return
            same = self.headers.get("If-Range") in (None, place.etag)
            start = int(given.removeprefix("bytes=").rstrip("-")) if given and same else 0
            if start >= len(place.content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if place.announce:
                self.send_header("Content-Length", str(len(place.content) - start))
            if place.etag:
                self.send_header("ETag", place.etag)
            self.end_headers()
            limit = place.limits.pop(0) if place.limits else len(place.content)
            if place.halt and not start:
                half = len(place.content) // 2
                self.wfile.write(place.content[:half])
                self.wfile.flush()
                place.halt.wait(30)
                start = half
            with contextlib.suppress(ConnectionError):  # who asked was killed
                self.wfile.write(place.content[start : start + limit])

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with serving(Handler) as (_, found):
        yield f"{found}/some/file.bin"


def test_fetched_once_and_checked(address, place):
    file = fetch(address, sha256=SHA256)
    assert file.read_bytes() == CONTENT
    (lock,) = file.parent.glob(".*.lock")
    lock.unlink()
    assert fetch(address, sha256=SHA256) == file
    assert place.asked == [None]
    assert not lock.exists()  # what is there may lie where nobody may write
    file.write_bytes(b"damaged")  # on the disk: mended
    assert fetch(address, sha256=SHA256).read_bytes() == CONTENT


def test_another_content_than_stated_is_refused(address, place, tmp_path):
    with pytest.raises(UnavailableError, match=shown("other_hash")):
        fetch(address, sha256="0" * 64)
    left = [f.name for f in (tmp_path / "cache").rglob("*") if f.is_file()]
    assert [name for name in left if not name.endswith(".lock")] == []


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


def test_a_broken_connection_is_gone_on_with_at_once(address, place):
    place.limits = [1000, 2000]
    seen = []
    assert (
        fetch(address, watch=lambda have, total: seen.append((have, total))).read_bytes() == CONTENT
    )
    assert place.asked == [None, "bytes=1000-", "bytes=3000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_what_came_of_an_interrupted_download_is_used_by_the_next(address, place):
    place.limits = [1000, 0]
    with pytest.raises(UnavailableError, match=shown("broken_off")):
        fetch(address)
    assert fetch(address).read_bytes() == CONTENT
    assert place.asked[-1] == "bytes=1000-"


def test_parts_of_two_versions_are_never_joined(address, place):
    place.limits = [1000, 0]
    with pytest.raises(UnavailableError, match="broke off"):
        fetch(address)
    place.content, place.etag = CONTENT[::-1], '"two"'
    assert fetch(address).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_only_a_checked_file_is_gone_on_with(address, place, etag):
    place.etag = etag
    place.limits = [1000, 0]
    with pytest.raises(UnavailableError, match="broke off"):
        fetch(address)
    place.content = CONTENT[::-1]
    assert fetch(address).read_bytes() == CONTENT[::-1]  # from the start
    assert place.asked[-1] is None
    other = f"{address}?2"
    place.limits, place.content = [1000, 0], CONTENT
    with pytest.raises(UnavailableError, match="broke off"):
        fetch(other, sha256=SHA256)
    assert fetch(other, sha256=SHA256).read_bytes() == CONTENT
    assert place.asked[-1] == "bytes=1000-"


def test_a_part_that_is_the_whole_needs_no_more(address, place):
    file = downloads.kept(address)
    file.parent.mkdir()
    file.with_name(file.name + ".part").write_bytes(CONTENT)
    assert fetch(address, sha256=SHA256).read_bytes() == CONTENT
    assert place.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("announce", [True, False])
def test_a_file_that_is_too_large_is_refused(address, place, announce):
    place.announce = announce
    with pytest.raises(UnavailableError, match=shown("too_large")):
        fetch(address, most=100)


def test_a_full_disk_is_said_before(address, place, monkeypatch):
    full = type("Usage", (), {"free": 500})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: full)
    with pytest.raises(UnavailableError, match="where 0 MB are free"):
        fetch(address)


def test_a_server_without_the_file_says_so_once(address, place):
    place.status = 404
    with pytest.raises(downloads.GoneError, match=r"127.0.0.1:.*: HTTP 404"):
        fetch(address)
    place.status = 503
    with pytest.raises(UnavailableError, match="HTTP 503"):
        fetch(address)
    assert len(place.asked) == 2


def test_no_network_and_no_name_are_one_line_at_once(place, monkeypatch):
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=shown("no_network")):
        fetch("http://127.0.0.1:9/x")

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
    assert web.problem_with("http://nowhere.example/x") == line.partition(": ")[2]


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://x/y", "x"])
def test_only_the_web_is_fetched_from(place, address):
    with pytest.raises(UnavailableError, match="only http and https"):
        fetch(address)


@pytest.mark.parametrize("where", ["models.example/a b/net.pth", "net.pth"])
def test_a_mirror_folder_serves_instead(place, tmp_path, monkeypatch, where):
    file = tmp_path / "mirror" / where
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    monkeypatch.setenv(web.MIRROR, str(tmp_path / "mirror"))
    address = "https://models.example/a%20b/net.pth"
    assert web.problem_with(address) is None
    assert fetch(address, sha256=SHA256).read_bytes() == CONTENT
    assert file.read_bytes() == CONTENT  # copied, not moved
    with pytest.raises(UnavailableError, match="another SHA-256"):
        fetch(address, tmp_path / "other", sha256="1" * 64)


@pytest.mark.parametrize("path", ["../secret", "%2e%2e/secret", "x/../../secret"])
def test_an_address_cannot_lead_out_of_the_mirror(place, tmp_path, monkeypatch, path):
    (tmp_path / "mirror" / "host").mkdir(parents=True)
    (tmp_path / "secret").write_text("no")
    monkeypatch.setenv(web.MIRROR, str(tmp_path / "mirror"))
    assert web.in_mirror(f"https://host/../{path}") is None


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
    assert place.asked == ([None, f"bytes={1 << 20}-"] if killed else [None])  # gone on with
    for process in (first, second):
        process.stderr.close()


def test_threads_wait_for_each_other_too(address, place):
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(fetch, [address] * 4))
    assert [file.read_bytes() for file in files] == [CONTENT] * 4
    assert place.asked == [None]


# The hub


@pytest.fixture
def hub_at(address, monkeypatch):
    monkeypatch.setattr(hub, "address", lambda repository, name: f"{address}/{repository}/{name}")


def test_the_hub_is_asked_for_the_first_file_that_it_has(hub_at, place, monkeypatch):
    assert hub.fetch("timm/net", ["model.safetensors"]).read_bytes() == CONTENT
    assert hub.cached("timm/net", ["other", "model.safetensors"]) is not None
    assert hub.fetch("timm/net", ["other", "model.safetensors"]).name == "model.safetensors"
    assert len(place.asked) == 1
    place.status = 404
    with pytest.raises(UnavailableError, match=r"timm/none has no a or b"):
        hub.fetch("timm/none", ["a", "b"])


def test_the_hub_out_of_reach_is_said_at_once(place, monkeypatch):
    from xailib.networks.classifier import load_classifier

    monkeypatch.setattr(hub, "address", lambda repository, name: "http://127.0.0.1:9/x")
    start = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        load_classifier("resnet10t")
    assert "could not fetch timm's weights for resnet10t (127.0.0.1:9: Conn" in str(caught.value)
    assert time.monotonic() - start < 15


def test_timms_own_weights_are_read_from_a_mirror(place, tmp_path, monkeypatch):
    import timm
    import torch
    from safetensors.torch import save_file

    from xailib.networks.classifier import load_classifier

    torch.manual_seed(1)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    repository, names = hub.timm_source("test_resnet")
    file = tmp_path / "mirror" / "huggingface.co" / repository / "resolve" / "main" / names[0]
    file.parent.mkdir(parents=True)
    save_file(state, file)
    monkeypatch.setenv(web.MIRROR, str(tmp_path / "mirror"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    found = load_classifier("test_resnet").module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_offline_ends(monkeypatch):
    from huggingface_hub import constants, is_offline_mode

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(KeyError), hub.offline():
        assert is_offline_mode()
        raise KeyError
    assert before == constants.HF_HUB_OFFLINE
