"""The site as its readers meet it: built strictly from a small run, opened in a real browser."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from serving import serving

ROOT = Path(__file__).parents[1]
AXE = ROOT / "tests" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


def pages_of(toc) -> list[str]:
    """Every page that the table of contents names."""
    found = [toc[key] for key in ("root", "file") if key in toc]
    for key in ("parts", "chapters", "sections"):
        for entry in toc.get(key, ()):
            found += pages_of(entry)
    return found


PAGES = pages_of(yaml.safe_load((ROOT / "_toc.yml").read_text()))


def outside(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:"))


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site of the smoke profile: its notebooks executed two at a time, the book built with -W.

    XAILIB_SITE may name one that is built already, for those who edit pages.
    """
    if built := os.environ.get("XAILIB_SITE"):
        return Path(built).resolve()
    # One folder for all workers of pytest-xdist: the first builds it, the others wait.
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    said = folder / "site.json"
    with FileLock(folder / "site.lock"):
        if not said.exists():
            xailib = str(Path(sys.executable).with_name("xailib"))
            command = [xailib, "report", "smoke", "--workers", "2", "--site", str(folder)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    code, stdout, stderr = json.loads(said.read_text())
    assert code == 0, stdout[-3000:] + stderr[-3000:]
    assert stdout.strip().splitlines()[-1].endswith("index.html")
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def address(site):
    """The site's address on a local server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with serving(handler) as found:
        yield found


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
    page = watched(browser)
    yield page
    page.close()


def watched(browser):
    """Open a page that keeps what goes wrong on it: errors, failures, requests to elsewhere."""
    page = browser.new_page()
    page.wrong = []
    page.on("console", lambda m: page.wrong.append(m.text) if m.type in ("error", "warning") else 0)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    # Aborted is what was on its way when the page was left.
    page.on(
        "requestfailed",
        lambda request: (
            0
            if request.failure == "net::ERR_ABORTED"
            else page.wrong.append(f"failed: {request.url}")
        ),
    )
    page.on(
        "response", lambda r: page.wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else 0
    )
    page.on("request", lambda r: page.wrong.append(r.url) if outside(r.url) else 0)
    return page


SHIFTS = """window.shift = 0; new PerformanceObserver((list) => {
    for (const e of list.getEntries()) if (!e.hadRecentInput) window.shift += e.value;
}).observe({type: 'layout-shift', buffered: true});"""
# Every picture that shows is fetched and decoded, also one that is far down.
PICTURES = """Promise.all([...document.querySelectorAll('article img')]
    .filter((i) => i.checkVisibility())
    .map((i) => { i.loading = 'eager';
        return i.decode().then(() => i.naturalWidth > 0 ? '' : i.src, () => i.src); }))
    .then((all) => all.filter(Boolean))"""
# Boxes that scroll sideways and do not say so.
SILENT = """[...document.querySelectorAll('article *')].filter((box) => {
    const look = getComputedStyle(box);
    return ['auto', 'scroll'].includes(look.overflowX) && box.scrollWidth > box.clientWidth + 1
        && box.clientWidth > 0 && look.maskImage === 'none';
    }).map((box) => box.outerHTML.slice(0, 200))"""
VIOLATIONS = """axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'],
    preload: location.protocol !== 'file:', resultTypes: ['violations']}).then(
    (r) => r.violations.flatMap((v) => v.nodes.map(
        (n) => `${v.id}: ${n.html} ${n.failureSummary}`)))"""


@dataclass(frozen=True)
class Visit:
    """What a look at a page has shown; `violations` of accessibility only where axe-core is."""

    theme: str
    shift: float
    interactive: float
    broken: list[str]
    silent: list[str]
    wide: int
    headings: int
    violations: list[str] | None
    wrong: list[str]


# A screen's width, its colours, and from where: every page once in each; ALL in each of the colours
# at each width.
LOOKS = [(1300, "light", "server"), (390, "dark", "file")]
ALL = ["book/index", "notebooks/10_explore", "search"]


@pytest.fixture(scope="session")
def visit(browser, site, address):
    """Look at a page; each way of looking once, however many tests ask what it showed."""

    @functools.cache
    def look(name: str, width: int, mode: str, way: str, attempt: int) -> Visit:
        page = watched(browser)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=mode)
        page.add_init_script(SHIFTS)
        for _ in range(attempt + 1):  # another attempt finds files that the browser has kept
            page.goto(f"{address if way == 'server' else site.as_uri()}/{name}.html")
            page.wait_for_load_state("networkidle")
        shift = page.evaluate("window.shift")
        violations = None
        if AXE.is_file() and attempt == 0:
            page.add_script_tag(path=AXE)
            violations = page.evaluate(VIOLATIONS)
        seen = Visit(
            page.evaluate("document.documentElement.dataset.theme"),
            shift,
            page.evaluate("performance.timing.domInteractive - performance.timing.fetchStart"),
            page.evaluate(PICTURES),
            page.evaluate(SILENT),
            page.evaluate("document.documentElement.scrollWidth"),
            page.locator("article h1").count(),
            violations,
            page.wrong,
        )
        page.close()
        return seen

    def visit(name: str, width: int, mode: str, way: str = "server", attempt: int = 0) -> Visit:
        return look(name, width, mode, way, attempt)  # which keeps f(1) and f(x=1) apart

    return visit
