"""Lines that a program printed -> ECS records. Three forms are known, all else is a message.

1. Lines of vlm_serving: they are ECS already (behind Ray's prefix, where Ray shows them in a terminal).
2. Dagster's `--log-format json`, of its daemon, web server and code servers.
3. What Dagster's runs print: `time - dagster - LEVEL - job - run - pid - step - EVENT - message`, over several lines.
"""

import json
import re
from datetime import datetime
from typing import Any

from vlm_serving.ecs import ECS_VERSION, package_version, timestamp

Record = dict[str, Any]
MAX_LINES = 400  # of one record; what a program prints without end is cut into several
ANSI = re.compile(r"\x1b\[[0-9;]*m")
RAY_PREFIX = re.compile(r"^\([^()]*pid=\d+[^()]*\) (?=\{)")
RUN_LINE = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}) - (?P<logger>[\w.-]+) - (?P<level>[A-Z]+) - (?P<rest>.*)$"
)
OF_A_RUN = re.compile(r"^(?P<job>\w+) - (?P<run>[0-9a-f-]{36}) - ((?P<pid>\d+) - )?(?P<rest>.*)$")
STEP = re.compile(r"^(?P<step>[\w.\[\]]+) - (?P<rest>.*)$")
ACTION = re.compile(r"^(?P<action>[A-Z][A-Z_]+) - (?P<rest>.*)$")
CAUSE = re.compile(r"^(?P<type>(?:\w+\.)*\w+(?:Error|Exception|Interrupt|Exit)): (?P<message>.*)$")
TRACEBACK = ("Traceback (most recent call last)", "Stack Trace:")
LEVELS = {"warn": "warning", "fatal": "critical"}


class LineReader:
    """Feed it lines; it returns the records that are complete. `flush` gives the one that may still go on."""

    def __init__(self, service: str) -> None:
        self._base = {"service.name": service, "service.version": package_version(), "ecs.version": ECS_VERSION}
        self._open: Record | None = None
        self._more: list[str] = []

    def feed(self, line: str, now_s: float) -> list[Record]:
        """Records that end before this line, and the line's own if no further line can belong to it."""
        text = ANSI.sub("", line.rstrip("\r\n"))
        own = _from_json(RAY_PREFIX.sub("", text)) if text else None
        if own is not None:
            return [*self.flush(), self._complete(own, now_s)]
        run_line = RUN_LINE.match(text)
        if run_line is None and self._open is not None and self._goes_on(text):
            self._more.append(text)
            return []
        done = self.flush()
        if text:
            self._open = self._complete(_from_run(run_line) if run_line else {"message": text}, now_s)
        return done

    def flush(self) -> list[Record]:
        """The record that was still open, if any."""
        record, more = self._open, self._more
        self._open, self._more = None, []
        return [] if record is None else [_with_lines(record, more)]

    def _goes_on(self, text: str) -> bool:
        """What follows a run's line belongs to it; after other lines only what is set in, or a traceback's end."""
        assert self._open is not None
        if len(self._more) >= MAX_LINES:
            return False
        if "labels.run_id" in self._open or not text or text[0].isspace():
            return True
        last = self._more[-1] if self._more else ""
        return self._open["message"].startswith(TRACEBACK) and last[:1].isspace()

    def _complete(self, record: Record, now_s: float) -> Record:
        return {"@timestamp": timestamp(now_s), "log.level": "info", **self._base, **record}


def _from_json(text: str) -> Record | None:
    """An ECS line as it is, a line of Dagster's renamed; None if it is neither."""
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if "@timestamp" in value:
        return value
    if "event" not in value or "level" not in value:
        return None
    record: Record = {"message": str(value["event"]), "log.level": _level(str(value["level"]))}
    if "timestamp" in value:
        record["@timestamp"] = timestamp(datetime.fromisoformat(str(value["timestamp"])).timestamp())
    if "logger" in value:
        record["log.logger"] = str(value["logger"])
    if "exception" in value:
        record |= _error(str(value["exception"]).splitlines())
    return record


def _from_run(match: "re.Match[str]") -> Record:
    """The parts of a run's line, each where ECS has a place for it."""
    when = datetime.strptime(match["time"], "%Y-%m-%d %H:%M:%S %z")
    record: Record = {
        "@timestamp": timestamp(when.timestamp()),
        "log.level": _level(match["level"]),
        "log.logger": match["logger"],
    }
    rest = match["rest"]
    if run := OF_A_RUN.match(rest):
        record |= {"labels.job": run["job"], "labels.run_id": run["run"]}
        if run["pid"]:
            record["process.pid"] = int(run["pid"])
        rest = run["rest"]
        if (step := STEP.match(rest)) and not ACTION.match(rest):
            record["labels.step"], rest = step["step"], step["rest"]
        if action := ACTION.match(rest):
            record["event.action"], rest = action["action"].lower().replace("_", "-"), action["rest"]
    return {**record, "message": rest}


def _with_lines(record: Record, more: list[str]) -> Record:
    while more and not more[-1].strip():
        more.pop()
    if not more:
        return record
    return {**record, **_error([*([record["message"]] if record["message"].startswith(TRACEBACK) else []), *more])}


def _error(lines: list[str]) -> Record:
    """The lines below a message: its stack trace, and the cause that is named first."""
    cause = next((found for found in map(CAUSE.match, reversed(lines)) if found), None)
    trace = {"error.stack_trace": "\n".join(lines)}
    return {**trace, "error.type": cause["type"], "error.message": cause["message"]} if cause else trace


def _level(name: str) -> str:
    return LEVELS.get(name.lower(), name.lower())
