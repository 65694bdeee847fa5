"""Evidently's page of a drift report in a browser: it draws from the file alone and names what moved."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from vlm_assets.monitoring.features import Sample
from vlm_assets.monitoring.report import write_evidently_page


def sample(count: int, shift: float) -> Sample:
    generator = np.random.default_rng(count)
    features = {
        "brightness": generator.uniform(0.4, 0.6, count) + shift,
        "token_count": generator.integers(3, 9, count).astype(np.float64),
        "unknown_word_share": np.zeros(count),  # constant, as it should be
    }
    return Sample([str(row) for row in range(count)], generator.normal(size=(count, 4)).astype(np.float32), features)


@pytest.mark.filterwarnings("ignore")  # Evidently's own
def test_the_page_needs_no_network_and_shows_every_feature(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "evidently.html"
    write_evidently_page(sample(200, 0.0), sample(120, 0.2), path)
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    foreign: list[str] = []
    page.on("request", lambda request: foreign.extend(wanted(request.url)))
    page.goto(path.as_uri())
    for feature in ("brightness", "token_count", "unknown_word_share"):
        expect(page.get_by_text(feature, exact=True).first).to_be_visible(timeout=30_000)
    expect(page.get_by_text("Drift is detected for 33.333% of columns")).to_be_visible()
    page.close()
    assert foreign == []


def wanted(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:", "blob:")) else [url]
