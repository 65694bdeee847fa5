"""The real Prometheus scrapes the real service, finds lost rows of its log, and Alertmanager tells a real receiver."""

import itertools
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.monitoring.conftest import Stack
from tests.monitoring_tools import query, wait_for
from tests.tiny import picture_bytes, tiny_bundle

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bundle_arguments(tmp_path_factory: pytest.TempPathFactory, home: Path) -> tuple[str, ...]:
    return "--bundle", str(tiny_bundle(tmp_path_factory.mktemp("bundle"))), "--request-log", str(home / "requests")


def caption(stack: Stack, seed: int) -> int:
    headers = {"content-type": "image/png"}
    url = f"{stack.captions}/v1/captions"
    return httpx.post(url, content=picture_bytes(seed), headers=headers, timeout=60, trust_env=False).status_code


def test_every_target_is_scraped_and_rays_numbers_have_the_documented_names(stack: Stack) -> None:
    assert caption(stack, 0) == 200

    def up() -> bool:
        samples = query(stack.prometheus, "up")
        return {one["metric"]["job"] for one in samples if one["value"][1] == "1"} == {
            "captions", "ray", "dagster", "node",
        }  # fmt: skip

    wait_for("an answer of every target", up, 90)
    (sample,) = wait_for(
        "a counted request", lambda: query(stack.prometheus, 'vlm_requests_total{job="ray", status="200"}'), 60
    )
    assert float(sample["value"][1]) >= 1
    assert sample["metric"]["deployment"] == "Captioner"
    assert query(stack.prometheus, 'process_resident_memory_bytes{job="captions"}')
    assert not query(stack.prometheus, 'vlm_requests_total{job="captions"}')  # or each request would count twice


def test_lost_rows_of_the_request_log_are_told_to_the_webhook(stack: Stack) -> None:
    assert not stack.webhook.alerts("RequestLogLoss")
    log = stack.home / "requests"
    if log.exists():
        log.rename(stack.home / "moved")
    log.write_text("a file where the folder of the log should be\n")
    seeds = itertools.count(1)

    def told() -> list[dict[str, Any]]:
        assert caption(stack, next(seeds)) == 200  # a caption never waits for its log, nor fails with it
        return stack.webhook.alerts("RequestLogLoss")

    (alert, *_) = wait_for("the alert at the webhook", told, 120)
    assert (alert["status"], alert["labels"]["severity"]) == ("firing", "ticket")
    assert alert["annotations"]["runbook_url"] == "docs/operations.md#requestlogloss"
    assert "rows were lost in 15 minutes" in alert["annotations"]["description"]
