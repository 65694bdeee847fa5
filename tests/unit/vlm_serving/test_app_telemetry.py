"""Log lines are JSON objects, and meters refuse names that nobody declared."""

import json
import logging

import pytest

from vlm_serving.telemetry import JsonFormatter, MemoryMeters


def test_a_log_line_is_one_json_object() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), (ValueError, error, error.__traceback__))
    record.fields = {"request_id": "r1", "status": 500}
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["event"], line["request_id"], line["status"]) == ("error", "failed", "r1", 500)
    assert "ValueError: two\nlines" in line["exception"]
    assert line["time"].endswith("Z")


def test_unknown_names_and_missing_tags_are_errors() -> None:
    meters = MemoryMeters()
    with pytest.raises(KeyError, match="vlm_typo"):
        meters.count("vlm_typo")
    with pytest.raises(KeyError, match="status"):
        meters.count("vlm_requests")
