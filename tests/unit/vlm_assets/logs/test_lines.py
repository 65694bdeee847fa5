"""What programs print, as ECS records: lines as Dagster 1.13 and Ray 2.60 write them."""

import json

import pytest

from vlm_assets.cli.services import as_ecs, wants_ecs
from vlm_assets.cli.supervisor import Service
from vlm_assets.errors import ConfigError
from vlm_assets.logs.lines import MAX_LINES, LineReader

RUN = "a842b7b5-8ea7-4447-a6b1-b02bb97023af"
FAILED = f"""\
\x1b[32m2026-11-27 18:33:45 +0000\x1b[0m - dagster - \x1b[34mERROR\x1b[0m - rollback \
- {RUN} - 3722 - roll_back_champion - STEP_FAILURE - Execution of step "roll_back_champion" failed.

dagster._core.errors.DagsterExecutionStepExecutionError: Error occurred while executing op:

vlm_assets.errors.GateError: There is no champion yet.

Stack Trace:
  File "jobs.py", line 57, in roll_back_champion
    yield
"""


def records(text: str) -> list[dict[str, object]]:
    reader = LineReader("dagster")
    found = [record for line in text.splitlines() for record in reader.feed(line, 0.0)]
    return [*found, *reader.flush()]


def test_a_runs_line_and_what_follows_are_one_record():
    (record,) = records(FAILED)
    assert record["@timestamp"] == "2026-11-27T18:33:45.000Z"
    assert (record["log.level"], record["event.action"]) == ("error", "step-failure")
    assert (record["labels.job"], record["labels.run_id"], record["labels.step"]) == (
        "rollback",
        RUN,
        "roll_back_champion",
    )
    assert (record["process.pid"], record["message"]) == (3722, 'Execution of step "roll_back_champion" failed.')
    assert (record["error.type"], record["error.message"]) == (
        "vlm_assets.errors.GateError",
        "There is no champion yet.",
    )
    assert str(record["error.stack_trace"]).endswith("    yield")


def test_what_an_asset_logs_keeps_its_job_and_step():
    (record,) = records(
        f"2026-11-27 18:33:45 +0000 - dagster - INFO - retrain - {RUN} - drift_report - no drift: p = 0.4"
    )
    assert (record["labels.step"], record["message"]) == ("drift_report", "no drift: p = 0.4")
    assert "event.action" not in record


def test_dagsters_json_is_renamed():
    line = {"event": "Sensor skipped", "logger": "dagster.daemon.SensorDaemon", "level": "warning",
            "timestamp": "2026-11-27T18:32:58.225355Z",
            "exception": "Traceback (most recent call last):\nValueError: no"}  # fmt: skip
    (record,) = records(json.dumps(line))
    assert (record["@timestamp"], record["log.level"]) == ("2026-11-27T18:32:58.225Z", "warning")
    assert (record["log.logger"], record["message"]) == ("dagster.daemon.SensorDaemon", "Sensor skipped")
    assert (record["error.type"], record["error.message"]) == ("ValueError", "no")


def test_a_replicas_line_passes_behind_rays_prefix():
    own = {
        "@timestamp": "2026-11-27T15:42:46.118Z",
        "service.name": "vlm_serving",
        "log.level": "error",
        "message": "x",
    }
    (record,) = records(f"(ServeReplica:captioner:Captioner pid=4711) {json.dumps(own)}")
    assert {name: record[name] for name in own} == own


def test_other_lines_are_messages_and_tracebacks_stay_together():
    text = 'Traceback (most recent call last):\n  File "a.py", line 1\n    x()\nValueError: bad\nnext line\n{not json'
    traceback, following, broken = records(text)
    assert (traceback["error.type"], traceback["error.message"]) == ("ValueError", "bad")
    assert (following["message"], broken["message"]) == ("next line", "{not json")
    assert following["@timestamp"] == "1970-01-01T00:00:00.000Z"


def test_a_record_without_end_is_cut():
    first, *_ = records(FAILED + "more\n" * (2 * MAX_LINES))
    assert str(first["error.stack_trace"]).count("\n") < MAX_LINES


def test_up_wraps_its_services_only_when_asked(tmp_path):
    service = Service("Ray Serve", ["serve", "--port", "1"], {}, tmp_path / "log", lambda: True)
    assert not wants_ecs({})
    assert wants_ecs({"VLM_LOG_FORMAT": "ecs"})
    assert list(as_ecs(service).command[1:]) == [
        "-m", "vlm_assets", "ecs", "ray-serve", "serve", "--port", "1", "--worker-logs",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"VLM_LOG_FORMAT is 'json'; it takes ecs .* or text\."):
        wants_ecs({"VLM_LOG_FORMAT": "json"})
