"""Readers of every kind: by keyboard, by screen reader, in the dark, on a phone, on paper."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from browsing import AXE, PAGES
from playwright.sync_api import expect

pytestmark = pytest.mark.site
EXPLORE = "notebooks/10_explore.html"


@pytest.mark.parametrize(("mode", "width"), [("light", 1300), ("dark", 1300), ("light", 390)])
@pytest.mark.parametrize("name", [*PAGES, "search", "genindex"])
def test_no_page_breaks_a_rule_of_accessibility(page, address, name, mode, width):
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: 'npm ci --prefix tests' does it")
    page.emulate_media(color_scheme=mode)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address}/{name}.html")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.dataset.theme") == mode
    page.add_script_tag(path=AXE)
    found = page.evaluate(
        """() => axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']}).then(
        (r) => r.violations.flatMap((v) => v.nodes.map(
            (n) => `${v.id}: ${n.html} ${n.failureSummary}`)))"""
    )
    assert found == []


@pytest.mark.parametrize("width", [1300, 390])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_moves_while_a_page_arrives(page, address, name, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.add_init_script(
        """window.shift = 0; new PerformanceObserver((list) => {
            for (const e of list.getEntries()) if (!e.hadRecentInput) window.shift += e.value;
        }).observe({type: 'layout-shift', buffered: true});"""
    )
    shifts = []
    while len(shifts) < 3 and min(shifts, default=1) >= 0.1:  # what browsers' makers call good
        page.goto(f"{address}/{name}.html")
        page.wait_for_load_state("networkidle")
        shifts.append(page.evaluate("window.shift"))
    assert min(shifts) < 0.1, shifts  # at best: a busy machine draws a page in pieces


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_interactive_within_a_second(page, address, name):
    times = []
    for _ in range(3):
        page.goto(f"{address}/{name}.html")
        times.append(
            page.evaluate("performance.timing.domInteractive - performance.timing.fetchStart")
        )
    assert min(times) < 1000  # the best of three: other work on the machine is not ours


def test_a_photograph_is_picked_by_its_own_anchor(page, address):
    page.goto(f"{address}/{EXPLORE}")
    figures = page.locator("figure.explorer")
    links = page.locator(".explorer-picker a")
    assert links.count() == figures.count() > 1
    assert [figure.is_visible() for figure in figures.all()].count(True) == 1
    assert figures.first.is_visible()
    links.nth(1).click()
    expect(figures.nth(1)).to_be_visible()  # the browser tells of a new #anchor a moment later
    expect(figures.first).to_be_hidden()
    address_now = page.url
    page.goto(f"{address}/book/glossary.html")
    page.wait_for_load_state("networkidle")
    page.goto(address_now)
    expect(figures.nth(1)).to_be_visible()
    assert links.nth(1).get_attribute("aria-current") == "true"
    page.wait_for_load_state("networkidle")
    assert page.wrong == []


def test_tabs_and_slider_work_by_keyboard(page, address):
    page.goto(f"{address}/{EXPLORE}")
    figure = page.locator("figure.explorer").first
    tabs = figure.get_by_role("tab")
    assert tabs.count() > 5
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    assert tabs.nth(1).evaluate("e => e === document.activeElement")
    slider = figure.get_by_role("slider")
    slider.focus()
    before = figure.locator(".explorer-stage img").nth(1).evaluate("e => e.style.clipPath")
    page.keyboard.press("ArrowLeft")
    after = figure.locator(".explorer-stage img").nth(1).evaluate("e => e.style.clipPath")
    assert (before, after) == ("inset(0px 0px 0px 50%)", "inset(0px 0px 0px 49%)")
    tabs.nth(1).focus()
    page.keyboard.press("End")
    assert tabs.last.get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowRight")
    assert tabs.first.get_attribute("aria-selected") == "true"
    assert page.wrong == []


def test_tabs_slider_zoom_and_table_work_by_mouse(page, address):
    page.goto(f"{address}/{EXPLORE}")
    figure = page.locator("figure.explorer").first
    figure.get_by_role("tab", name="Grad-CAM", exact=True).click()
    stage = figure.locator(".explorer-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
    page.mouse.up()
    assert abs(int(figure.get_by_role("slider").input_value()) - 25) <= 1
    assert not page.get_by_role("dialog").is_visible()  # a drag is no click
    stage.click()
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    row = figure.locator("tbody tr.chosen")
    assert row.inner_text().startswith("Grad-CAM")
    figure.locator("tbody").get_by_role("button", name="LIME").first.click()
    assert figure.get_by_role("tab", selected=True).inner_text().startswith("LIME")
    assert re.search(r"\d\.\d\d", figure.locator("tbody").inner_text())
    assert page.wrong == []


def test_without_scripts_the_pictures_stand_there(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/{EXPLORE}")
    figures = page.locator("figure.explorer")
    for figure in figures.all():
        assert figure.is_visible()
        assert figure.locator("img:visible").count() > 5
    links = page.locator(".explorer-picker a")
    links.last.click()
    assert page.locator(f"[id='{page.url.split('#')[1]}']").count() == 1
    page.goto(f"{address}/notebooks/1_clip_dissect.html")
    assert page.locator("noscript tbody tr:visible").count() > 5
    page.goto(f"{address}/notebooks/2_lime.html")
    assert page.locator("figure img:visible").count() == page.locator("figure").count()
    context.close()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_each_figure_has_a_twin_for_the_dark(page, address, mode):
    page.emulate_media(color_scheme=mode)
    page.goto(f"{address}/notebooks/4_agreement.html")
    shown = page.locator("figure img:visible")
    assert shown.count() == page.locator("figure").count() > 3
    for image in shown.all():
        assert ("-dark" in image.get_attribute("src")) == (mode == "dark")


def test_paper_shows_everything_on_white(page, address):
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(f"{address}/{EXPLORE}")
    for figure in page.locator("figure.explorer").all():
        assert figure.locator(".explorer-views").is_visible()
    assert not page.locator(".bd-sidebar-primary").is_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    for part in ("code", ".highlight pre", ".admonition", "figcaption"):
        look = page.locator(f"article {part}").first.evaluate(
            "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
        )
        assert look[0] == "rgb(0, 0, 0)", part
        assert look[1] in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), part
    assert len(page.pdf()) > 10_000


class Links(HTMLParser):
    """The addresses and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found.get("id"), found.get("name")} - {None}
        self.links += [found[key] for key in ("href", "src") if found.get(key)]


def test_every_link_inside_the_site_leads_somewhere(site):
    files = [file for file in site.rglob("*.html") if "_static" not in file.parts]
    pages = {file: Links(file.read_text()) for file in files}
    wrong = []
    for file, parsed in pages.items():
        for link in parsed.links:
            address, anchor = urldefrag(link)
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            target = (file.parent / unquote(urlsplit(address).path)).resolve() if address else file
            if not target.is_file():
                wrong.append(f"{file.name}: no file {link}")
            elif target in pages and unquote(anchor) not in pages[target].anchors:
                wrong.append(f"{file.name}: no anchor {link}")
    assert wrong == []
    assert len(pages) > len(PAGES)
