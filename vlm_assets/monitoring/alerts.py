"""Alerts to a webhook, as the JSON that Slack, Mattermost and their like take. The URL is a secret, never told."""

import json
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

URL_VARIABLE = "VLM_ALERT_WEBHOOK_URL"
TIMEOUT_S = 10.0
COLOURS = {"error": "#c0392b", "warning": "#e0a800", "info": "#2d7dd2"}

Log = Callable[[str], object]


@dataclass(frozen=True)
class Alert:
    """What happened, in a few words and in a sentence or two. `severity`: error, warning or info."""

    title: str
    text: str
    severity: str = "error"

    def body(self) -> bytes:
        """The message as JSON."""
        attachment = {"color": COLOURS[self.severity], "title": self.title, "text": self.text}
        return json.dumps({"text": f"{self.severity}: {self.title}", "attachments": [attachment]}).encode()


def send_alert(alert: Alert, log: Log) -> bool:
    """Post to VLM_ALERT_WEBHOOK_URL; False if it is unset, or did not take it. Never raises: an alert stops nothing."""
    url = os.environ.get(URL_VARIABLE, "")
    if not url:
        log(f"alert ({URL_VARIABLE} is not set, so nobody is told): {alert.title}: {alert.text}")
        return False
    try:
        request = urllib.request.Request(url, alert.body(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            took = 200 <= answer.status < 300
    except (OSError, ValueError) as error:  # a message of theirs may hold the URL
        log(f"the alert {alert.title!r} did not reach the webhook in {URL_VARIABLE}: {type(error).__name__}")
        return False
    log(f"alert sent: {alert.title}" if took else f"the webhook refused the alert {alert.title!r}")
    return took
