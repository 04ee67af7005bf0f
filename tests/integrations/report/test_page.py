"""The report in a real browser: drawn, silent, on a desk, a phone and on paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright")
from playwright.sync_api import Browser

from gfb_integrations.report import write_report
from tests.integrations.chromium import chromium, needs_chromium
from tests.integrations.recorded_runs import HOSTILE, KINDS
from tests.integrations.report.browser import visited

pytestmark = needs_chromium

Report = Callable[[str], Path]
# Charts that every kind of run has; the others are said to be missing.
CHARTS = {"ended": 9, "given": 5, "under_way": 6, "without_budgets": 7}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(run_folder: Report, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("reports")
    return lambda kind: write_report(run_folder(kind), folder / f"{kind}.html")


SCREENS = [(kind, True) for kind in KINDS] + [
    (kind, False) for kind in ("ended", "hostile", "many", "on_a_board")
]


@pytest.mark.parametrize("kind, phone", SCREENS)
def test_charts_are_drawn_without_a_word_or_a_request(
    browser: Browser, report: Report, kind: str, phone: bool
) -> None:
    path = report(kind)
    with visited(browser, path, phone=phone) as visit:
        assert visit.messages == []
        assert visit.requests == [path.as_uri()]
        width = 360 if phone else 1280
        assert visit.evaluate("document.documentElement.scrollWidth") == width
        charts = visit.evaluate(
            """[...document.querySelectorAll(".chart")].map(chart => {
                const box = chart.querySelector("svg.main-svg").getBoundingClientRect();
                const marks = [...chart.querySelectorAll(".trace path, .hm image")];
                const visible = marks.filter(mark => {
                    const place = mark.getBoundingClientRect();
                    return place.width + place.height > 0 && place.left >= box.left - 8
                        && place.right <= box.right + 8 && place.bottom <= box.bottom + 8;
                });
                return {width: box.width, height: box.height, visible: visible.length};
            })"""
        )
        assert len(charts) == CHARTS.get(kind, 8)
        for chart in charts:
            assert (300 if phone else 800) < chart["width"] < width and chart["height"] > 250
            assert chart["visible"] > 0


def test_what_is_pointed_at_is_explained(browser: Browser, report: Report) -> None:
    with visited(browser, report("hostile")) as visit:
        # The bar of the weights with the hostile name is the second one.
        bar = visit.page.locator("#chart-bits .barlayer .trace.bars").nth(1).locator("path").first
        bar.scroll_into_view_if_needed()
        box = bar.bounding_box()
        assert box is not None
        visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        visit.page.wait_for_selector("#chart-bits .hoverlayer .hovertext")
        shown = visit.page.locator("#chart-bits .hoverlayer").text_content() or ""
        assert f"{HOSTILE}.weight_quant" in shown and "96 values" in shown
        assert visit.page.locator("img").count() == 0 and visit.messages == []


def test_numbers_unfold_below_a_chart(browser: Browser, report: Report) -> None:
    with visited(browser, report("ended"), phone=True) as visit:
        table = visit.page.locator("#bits table")
        assert not table.is_visible()
        visit.page.locator("#bits summary").click()
        assert table.is_visible() and table.locator("tbody tr").count() == 4
        assert (
            visit.evaluate("document.documentElement.scrollWidth") == 360
        )  # the table scrolls, not the page


def test_a_finger_scrolls_the_page_and_not_the_chart(browser: Browser, report: Report) -> None:
    with visited(browser, report("ended"), phone=True) as visit:
        styles = visit.evaluate(
            """[...document.querySelectorAll(".nsewdrag")].map(area => getComputedStyle(area).touchAction)"""
        )
        assert styles and set(styles) <= {"pan-y", "auto"}


def test_on_paper_charts_are_as_wide_as_the_page(browser: Browser, report: Report, tmp_path: Path) -> None:
    with visited(browser, report("ended")) as visit:
        before = visit.evaluate("document.querySelector('#chart-bits svg').getBoundingClientRect().width")
        visit.page.emulate_media(media="print")
        visit.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        widths = visit.evaluate(
            """[...document.querySelectorAll(".chart svg.main-svg")].map(
                svg => svg.getBoundingClientRect().width
            )"""
        )
        assert set(widths) == {670}
        assert not visit.page.locator("nav").is_visible()
        visit.page.pdf(path=tmp_path / "report.pdf", format="A4")
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
        visit.page.emulate_media(media="screen")
        visit.evaluate("window.dispatchEvent(new Event('afterprint'))")
        visit.page.wait_for_timeout(300)
        after = visit.evaluate("document.querySelector('#chart-bits svg').getBoundingClientRect().width")
        assert after == before and visit.messages == []


def test_on_paper_settings_are_unfolded_and_numbers_of_charts_left_out(
    browser: Browser, report: Report
) -> None:
    with visited(browser, report("ended")) as visit:
        settings = visit.page.locator("#settings table")
        visit.page.emulate_media(media="print")
        visit.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert settings.count() == 2 and all(table.is_visible() for table in settings.all())
        assert visit.page.locator("#settings summary").first.is_visible()
        assert not visit.page.locator("#bits summary").is_visible()
        visit.page.emulate_media(media="screen")
        visit.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert not any(table.is_visible() for table in settings.all())


def test_on_paper_what_belongs_together_stays_on_one_page(browser: Browser, report: Report) -> None:
    with visited(browser, report("ended")) as visit:
        visit.page.emulate_media(media="print")
        style = "getComputedStyle(document.querySelector('{}')).{}"
        for element, rule in (
            ("footer", "breakBefore"),  # never alone on a page
            ("#files li:last-child", "breakBefore"),
            ("#export .scroll", "breakInside"),  # a short table is not cut
            ("#asked .plain", "breakInside"),
            ("#export h2", "breakAfter"),
        ):
            assert visit.evaluate(style.format(element, rule)) == "avoid", element


def test_without_scripts_text_and_tables_are_there(browser: Browser, report: Report) -> None:
    with visited(browser, report("ended"), scripts=False) as visit:
        assert "the table below holds its numbers" in visit.page.locator("#chart-bits").inner_text()
        visit.page.locator("#bits summary").click()
        assert visit.page.locator("#bits table").is_visible()


def test_text_stands_out_from_its_ground(browser: Browser, report: Report) -> None:
    """WCAG 2.1, 1.4.3: a contrast of at least 4.5."""
    with visited(browser, report("ended")) as visit:
        colours = visit.evaluate(
            """(() => {
                const ground = (element) => {
                    for (let at = element; at; at = at.parentElement) {
                        const colour = getComputedStyle(at).backgroundColor;
                        if (!colour.endsWith(", 0)")) return colour;
                    }
                    return "rgb(255, 255, 255)";
                };
                const found = new Set();
                for (const element of document.querySelectorAll("body *")) {
                    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
                    if (!own || element.closest("script, style, svg")) continue;
                    found.add(getComputedStyle(element).color + "|" + ground(element));
                }
                for (const text of document.querySelectorAll(".chart svg text")) {
                    found.add(getComputedStyle(text).fill + "|rgb(255, 255, 255)");
                }
                return [...found];
            })()"""
        )
        assert len(colours) > 4
        for pair in colours:
            text, ground = (luminance(colour) for colour in pair.split("|"))
            lighter, darker = max(text, ground), min(text, ground)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, pair


def luminance(colour: str) -> float:
    channels = json.loads(f"[{colour.partition('(')[2].rstrip(')')}]")[:3]
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
