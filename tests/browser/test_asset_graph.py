"""A person opens the UI: every asset is on the lineage page, and no dialog stands in front."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import SCREENSHOTS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "asset_graph.json"
PATIENCE_MS = 60_000


def test_the_asset_graph_shows_every_asset(browser: Browser, dagster_ui: str):
    assets = json.loads(GOLDEN.read_text())["assets"]
    page = browser.new_page(viewport={"width": 1900, "height": 1000}, device_scale_factor=1)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{dagster_ui}/asset-groups")
    unfold(page)
    for name in assets:
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.wait_for_timeout(1500)  # the graph glides into place
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "asset_graph.png")
    assert not errors
    page.close()


def unfold(page: Page) -> None:
    """Make room, wait for the folded groups to be drawn, and unfold them by the page's own shortcut."""
    page.get_by_text("Hide navigation").click(timeout=PATIENCE_MS)
    page.get_by_role("button", name="Materialize all").wait_for(timeout=PATIENCE_MS)
    expect(page.get_by_text("monitoring", exact=True).last).to_be_visible(timeout=PATIENCE_MS)
    page.keyboard.press("Alt+e")
