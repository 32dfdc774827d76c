"""The site as its readers meet it: built strictly from a small run, opened in a real browser."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT

from xailib.pipeline import TASKS

pytestmark = pytest.mark.site
PAGES = [
    "book/index",
    "notebooks/1_clip_dissect",
    "notebooks/2_lime",
    "notebooks/3_cam",
    "notebooks/4_agreement",
    "notebooks/5_faithfulness",
    "notebooks/6_replication",
    "notebooks/7_sanity",
    "notebooks/8_findings",
    "notebooks/9_stability",
    "book/rerun",
    "book/faults",
    "book/how",
    "book/licences",
    "book/performance",
    "book/bibliography",
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site of the smoke profile: every notebook executed, the book built with -W."""
    folder = tmp_path_factory.mktemp("site")
    xailib = str(Path(sys.executable).with_name("xailib"))
    command = [xailib, "report", "smoke", "--site", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1].endswith("index.html")
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def address(site):
    """The site's address on a local server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.fail(
            "chromium is missing, which opens the site's pages: "
            "'apt-get install chromium', or set CHROMIUM to a Chrome's path",
            pytrace=False,
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that keeps what goes wrong on it."""
    page = browser.new_page()
    page.wrong = []
    page.on("console", lambda m: page.wrong.append(m.text) if m.type in ("error", "warning") else 0)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("requestfailed", lambda request: page.wrong.append(f"failed: {request.url}"))
    page.on(
        "response", lambda r: page.wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else 0
    )
    page.on("request", lambda r: page.wrong.append(r.url) if outside(r.url) else 0)
    yield page
    page.close()


def outside(url):
    return not url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:"))


@pytest.mark.parametrize("width", [1300, 390])
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("way", ["server", "file"])
def test_every_page_opens_without_error_or_outside_request(page, site, address, name, width, way):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address if way == 'server' else site.as_uri()}/{name}.html")
    page.wait_for_load_state("networkidle")
    for image in page.locator("article img:visible").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
        assert len(image.get_attribute("alt") or "") > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("article h1").count() == 1
    assert page.wrong == []


def test_the_first_page_shows_a_figure_and_numbers(page, address):
    page.set_viewport_size({"width": 1300, "height": 900})
    page.goto(f"{address}/index.html")
    page.wait_for_url("**/book/index.html")
    figure = page.locator("article figure img").first
    box = figure.bounding_box()
    assert box["y"] + box["height"] < 900  # on the first screen
    text = page.locator("article").inner_text()
    assert re.search(r"mean overlap \(IoU\) 0\.\d\d", text)
    assert "{{" not in text


def test_equations_are_drawn(page, address):
    page.goto(f"{address}/notebooks/2_lime.html")
    page.wait_for_selector("mjx-container svg")
    assert page.wrong == []


def test_search_finds_a_word(page, address):
    page.goto(f"{address}/search.html?q=hypergeometric")
    page.wait_for_selector("#search-results li a")
    links = [a.get_attribute("href") for a in page.locator("#search-results li a").all()]
    assert any("4_agreement" in link for link in links)
    assert page.wrong == []


def test_the_unit_browser_searches_filters_and_sorts(page, address):
    page.goto(f"{address}/notebooks/1_clip_dissect.html")
    status = page.locator(".unit-browser [role=status]")
    total = int(status.inner_text().split(" of ")[1].split()[0])
    assert total > 1000
    cells = page.locator(".unit-browser tbody tr td:nth-child(3)")
    word = cells.first.inner_text()
    page.get_by_label("Search concepts").fill(word)
    assert set(cells.all_inner_texts()) == {word}
    found = int(status.inner_text().split()[0])
    page.get_by_label("Layer").select_option("classifier")
    assert int(status.inner_text().split()[0]) <= found < total
    assert set(page.locator(".unit-browser tbody tr td:nth-child(1)").all_inner_texts()) <= {
        "classifier"
    }
    page.get_by_label("Search concepts").fill("")
    page.locator(".unit-browser th button", has_text="similarity").press("Enter")
    values = page.locator(".unit-browser tbody tr td:nth-child(4)").all_inner_texts()
    assert values == sorted(values, key=float, reverse=True)
    milliseconds = page.evaluate(
        """() => { const input = document.querySelector('.unit-browser input');
        const start = performance.now(); input.value = 'dog';
        input.dispatchEvent(new Event('input')); return performance.now() - start; }"""
    )
    assert milliseconds < 1000  # far above what it takes: this is no benchmark
    page.get_by_label("Search concepts").fill("")
    sheet = page.locator(".unit-browser .thumb").first.evaluate(
        "e => fetch(getComputedStyle(e).backgroundImage.slice(5, -2)).then(r => r.status)"
    )
    assert sheet == 200
    assert page.wrong == []


def test_data_behind_a_figure_can_be_downloaded(page, address):
    page.goto(f"{address}/notebooks/4_agreement.html")
    with page.expect_download() as started:
        page.get_by_text("Data (CSV)").first.click()
    lines = Path(started.value.path()).read_text().splitlines()
    assert lines[0].startswith("image,")
    assert len(lines) > 2


def test_each_results_page_says_how_it_was_made(page, address):
    for task in TASKS:
        page.goto(f"{address}/notebooks/{task}.html")
        text = page.locator("#how-this-page-was-made").inner_text()
        assert f"papermill notebooks/{task}.ipynb" in text
        assert "torch 2" in text


def test_the_site_is_small(site):
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    assert size < 25e6
