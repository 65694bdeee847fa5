"""Alerts: the JSON that a webhook gets, once per failure; without a webhook, or with a dead one, nothing stops."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vlm_assets.monitoring.alert_sensors import check_failure_alert, run_failure_alert
from vlm_assets.monitoring.alerts import Alert, send_alert

pytestmark = pytest.mark.integration


class Receiver(HTTPServer):
    """Keeps what is posted; answers `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[dict[str, Any]] = []
        self.status = 200


class Handler(BaseHTTPRequestHandler):
    server: Receiver  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        """Take a message."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("VLM_ALERT_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/secret-token")
    yield server
    server.shutdown()
    server.server_close()


def test_a_message_in_slacks_form_arrives_and_the_url_is_never_told(receiver: Receiver):
    lines: list[str] = []
    assert send_alert(Alert("retrain failed", "the gate refused it"), lines.append)
    (message,) = receiver.got
    assert message["text"] == "error: retrain failed"
    assert message["attachments"] == [{"color": "#c0392b", "title": "retrain failed", "text": "the gate refused it"}]
    receiver.status = 500
    assert not send_alert(Alert("again", "x"), lines.append)
    assert "secret-token" not in "".join(lines)


def test_a_dead_webhook_or_none_stops_nothing(monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    monkeypatch.delenv("VLM_ALERT_WEBHOOK_URL", raising=False)
    assert not send_alert(Alert("a", "b"), lines.append)
    assert lines == ["alert (VLM_ALERT_WEBHOOK_URL is not set, so nobody is told): a: b"]
    for url in ("http://127.0.0.1:1/secret-token", "no url: secret-token"):
        monkeypatch.setenv("VLM_ALERT_WEBHOOK_URL", url)
        assert not send_alert(Alert("a", "b"), lines.append)
    assert "did not reach the webhook in VLM_ALERT_WEBHOOK_URL" in lines[-1]
    assert "secret-token" not in "".join(lines)


def test_a_failed_run_is_told_with_the_assets_own_words(receiver: Receiver):
    @dg.op
    def refuse() -> None:
        raise ValueError("the gate refused it")

    @dg.job(tags={"vlm/retrain_reason": "drift"})
    def retrain() -> None:
        refuse()

    with dg.DagsterInstance.ephemeral() as instance:
        result = retrain.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            "run_failure_alert", result.get_run_failure_event(), instance, result.dagster_run
        ).for_run_failure()
        run_failure_alert(context)
    (message,) = receiver.got
    assert message["text"] == "error: retrain failed"
    assert "refuse: ValueError: the gate refused it" in message["attachments"][0]["text"]
    assert message["attachments"][0]["text"].endswith("It was asked for because of: drift.")


def test_each_failed_check_is_told_once(receiver: Receiver, tmp_path: Path):
    @dg.asset
    def data() -> int:
        return 1

    @dg.asset_check(asset=data)
    def is_large() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="1 < 5")

    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:  # SQLite, as on one machine
        defs = dg.Definitions([data], asset_checks=[is_large])
        context = dg.build_sensor_context(instance=instance, definitions=defs)
        check_failure_alert(context)
        dg.materialize([data, is_large], instance=instance)
        check_failure_alert(context)
        check_failure_alert(context)
    (message,) = receiver.got
    assert message["text"] == "warning: check did not pass: data: is_large"
