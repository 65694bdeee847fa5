"""The evaluation report in a browser: words light up the picture, by pointer, tap and keyboard."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.unit.vlm_assets.evaluation.test_report import LEAKS, PASSED, card, scores
from vlm_assets.evaluation.report import render_report

WIDTHS_PX = (400, 1200)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    gallery = {"random": [card(1), card(2)], "worst": [card(3)], "best": []}
    path.write_text(render_report(scores() | {"leaks": LEAKS}, gallery, PASSED), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.extend(foreign(request.url)))
    page.goto(address)
    yield page
    context.close()
    assert faults == []


def foreign(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:")) else [url]


def shade_alpha(page: Page) -> list[int]:
    """How dark each of the 2 x 2 patches of the one veil on the page is."""
    pixels: list[int] = page.evaluate(
        "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 2, 2).data]"
    )
    return pixels[3::4]


def test_pointing_at_a_word_lights_what_it_looked_at(page: Page) -> None:
    words = page.locator("figure").first.locator(".word")
    words.nth(1).hover()
    alphas = shade_alpha(page)
    assert alphas[1] < 110 < 200 < min(alphas[0], alphas[2], alphas[3])  # the second word looked at the second patch
    expect(page.locator("figure").first.locator(".sure")).to_have_text("“1” 60 %")
    page.mouse.move(0, 0)
    expect(page.locator("canvas")).to_have_count(0)
    expect(page.locator("figure").first.locator(".sure")).to_have_text("confidence 0.50")


def test_a_tap_keeps_the_map_until_the_next(page: Page) -> None:
    words = page.locator("figure").first.locator(".word")
    words.nth(2).click()
    page.mouse.move(0, 0)
    expect(page.locator("canvas")).to_have_count(1)
    expect(words.nth(2)).to_have_attribute("aria-pressed", "true")
    words.nth(2).click()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    expect(page.locator("canvas")).to_have_count(0)


def test_the_keyboard_steps_through_a_caption(page: Page) -> None:
    words = page.locator("figure").nth(0).locator(".word")
    words.nth(0).focus()
    page.keyboard.press("ArrowRight")
    expect(words.nth(1)).to_be_focused()
    assert min(range(4), key=shade_alpha(page).__getitem__) == 1
    page.keyboard.press("Tab")  # one stop per caption
    expect(page.locator("figure").nth(1).locator(".word").nth(0)).to_be_focused()
    expect(words.nth(1)).to_have_attribute("aria-label", "1, 60 %")
    page.locator("summary", has_text="Worst").focus()
    page.keyboard.press("Enter")
    expect(page.locator("figure").nth(2)).to_be_visible()


@pytest.mark.parametrize("width_px", WIDTHS_PX)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hangs_out_of_the_page(browser: Browser, address: str, width_px: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width_px, "height": 800}, color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    page = context.new_page()
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    context.close()


def test_without_script_all_is_there_but_the_maps(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    caption = page.locator("figure").first.locator(".said")
    assert re.sub(r"\s+", " ", caption.inner_text()) == "said 1 perhaps"
    assert not page.get_by_text("Point at a word").is_visible()
    assert page.get_by_text("How probable each word was").is_visible()
    context.close()
