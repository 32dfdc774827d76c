"""The live view of the explorer: any class, in the page, without a network."""

import re

import pytest
from browsing import AXE, VIOLATIONS, watched
from playwright.sync_api import expect

from xailib.report.figures.style import COLOURS

pytestmark = pytest.mark.site
EXPLORE = "notebooks/10_explore.html"
SLOW = 60_000  # ms: other work on the machine is not ours


@pytest.fixture
def live(browser, site):
    """Open the page from the disk, without a network, at what an address says."""
    pages = []

    def opened(chosen, width=1300, mode="light"):
        page = watched(browser)
        pages.append(page)
        page.context.set_offline(True)
        page.set_default_timeout(SLOW)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=mode)
        page.goto(f"{site.as_uri()}/{EXPLORE}{chosen}")
        if chosen:
            expect(view_of(page).locator("canvas")).to_have_count(3, timeout=SLOW)
        return page

    yield opened
    for page in pages:
        page.close()


def view_of(page):
    return page.locator("figure.explorer:visible .live")


def values_of(page):
    """The numbers under the controls, and a hash of what is drawn."""
    return page.evaluate(
        """[...document.querySelectorAll('.live canvas')].filter((c) => c.checkVisibility())
        .map((c) => c.getAttribute('aria-label') + c.toDataURL().length)
        .concat([...document.querySelectorAll('.live-said')].map((p) => p.textContent))"""
    )


def test_what_was_chosen_is_in_the_address_and_comes_back(live):
    page = live("")
    page.get_by_role("tab", name="any class").locator("visible=true").click()
    view = view_of(page)
    view.get_by_role("button", name=re.compile("Load")).click()
    expect(view.locator("canvas")).to_have_count(3, timeout=SLOW)
    assert re.search(r"IoU 0\.\d\d; chance level 0\.\d\d", view.inner_text())
    first = values_of(page)
    view.get_by_label("Class", exact=True).fill("tabby")
    view.get_by_label("Class", exact=True).press("Enter")
    assert values_of(page) != first
    view.get_by_label("Heatmap", exact=True).select_option("ablationcam")
    view.get_by_label("Heatmap's mask").select_option("threshold")
    view.get_by_label("Threshold:").fill("0.7")
    view.get_by_label("Minus class").fill("goose")
    view.get_by_label("Minus class").press("Enter")
    said = values_of(page)
    assert page.wrong == []
    for part in ("view=any-class", "class=281", "heatmap=ablationcam", "threshold=0.7", "other=99"):
        assert part in page.url
    again = live("#" + page.url.split("#")[1])
    assert values_of(again) == said
    view_of(again).get_by_label("Class", exact=True).fill("no such thing")
    view_of(again).get_by_label("Class", exact=True).press("Enter")
    expect(view_of(again).get_by_role("status")).to_contain_text("No class is called")
    assert again.wrong == []


def test_limes_settings_change_its_map_and_the_bootstrap_says_how_sure_it_is(live):
    page = live("#x&view=any-class&class=251")
    view = view_of(page)
    before = values_of(page)
    for label, value in (("LIME's samples", "20"), ("Kernel width", "0.5"), ("Superpixels", "3")):
        view.get_by_label(label).fill(value)
        assert values_of(page) != before
        before = values_of(page)
    view.get_by_label("Bootstrap").check()
    expect(view.locator(".live-chart")).to_be_visible(timeout=SLOW)
    assert re.search(r"\d of the \d+ selected superpixels", view.inner_text())
    view.get_by_role("button", name="Reset").click()
    assert "samples" not in page.url


def test_the_chosen_method_stays_when_the_photograph_changes(live):
    page = live("")
    page.get_by_role("tab", name="LIME 2").locator("visible=true").click()
    page.locator(".explorer-picker a").nth(1).click()
    assert page.get_by_role("tab", selected=True).locator("visible=true").inner_text() == "LIME 2"
    assert page.url.endswith("&view=lime-2")
    picker = page.locator(".explorer-picker")
    page.locator("figure.explorer:visible figcaption").scroll_into_view_if_needed()
    assert picker.bounding_box()["y"] >= 0
    assert page.wrong == []


@pytest.mark.parametrize(
    ("mode", "width"), [("light", 1300), ("dark", 1300), ("light", 390), ("dark", 390)]
)
def test_the_open_view_breaks_no_rule_of_accessibility(live, mode, width):
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: 'npm ci --prefix tests' does it")
    page = live("#x&view=any-class&class=251&bootstrap=1&rule=area", width, mode)
    expect(view_of(page).locator(".live-chart")).to_be_visible(timeout=SLOW)
    page.add_script_tag(path=AXE)
    assert page.evaluate(VIOLATIONS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for control in view_of(page).locator("input:visible, select:visible, button:visible").all():
        if control.get_attribute("type") != "checkbox":
            assert control.bounding_box()["height"] >= 44


def test_the_keyboard_reaches_every_control(live):
    page = live("#x&view=any-class&class=251")
    view = view_of(page)
    controls = view.locator("input:visible, select:visible, button:visible")
    controls.first.focus()
    seen = 1
    while seen < controls.count():
        page.keyboard.press("Tab")
        assert controls.nth(seen).evaluate("e => e === document.activeElement")
        seen += 1


def test_little_is_loaded_before_a_live_view_is_asked_for(page, address):
    page.goto(f"{address}/{EXPLORE}")
    page.wait_for_load_state("networkidle")
    loaded = page.evaluate(
        "performance.getEntries().map((one) => [one.name, one.encodedBodySize || 0])"
    )
    assert not [name for name, _ in loaded if name.endswith(("-live.js", "-network.js"))]
    assert 1e5 < sum(size for _, size in loaded) < 4e6


def test_colours_are_those_of_the_figures(site):
    text = (site / "_static" / "live-view.js").read_text()
    for method in ("lime", "gradcam", "ablationcam"):
        assert f'{method}: "{COLOURS[method]}"' in text
