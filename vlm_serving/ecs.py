"""Log records as lines of JSON, in the field names that log stores know: those of the Elastic Common Schema (ECS 9).

What ECS has no field for goes under `labels`. An exception of a library may quote what it was given, a key or a
picture: what is longer than a word is left out of its text.
"""

import json
import logging
import os
import re
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vlm_serving.redaction import Redactor

ECS_VERSION = "9.4.0"
SERVICE = "vlm_serving"
MAX_CHARS = 300
MAX_TRACE_CHARS = 8000
LONG_WORD = re.compile(r"\S{40,}")
SOURCE_LINE = '  File "'  # of a traceback: paths may be long
# what log_event's callers say -> ECS
NAMES = {
    "request_id": "http.request.id",
    "method": "http.request.method",
    "status": "http.response.status_code",
    "path": "url.path",
    "caller": "user.name",
    "reason": "error.type",
    "error": "error.message",
}


class EcsFormatter(logging.Formatter):
    """One JSON object per record."""

    def __init__(self) -> None:
        super().__init__()
        self._service = {"service.name": SERVICE, "service.version": package_version()}
        self._redact = Redactor(os.environ)

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "@timestamp": timestamp(record.created),
            "log.level": record.levelname.lower(),
            "message": _cut(record.getMessage()),
            "ecs.version": ECS_VERSION,
            "log.logger": record.name,
            **self._service,
            "process.pid": record.process,
            **_ecs_fields(getattr(record, "fields", {})),
        }
        if record.exc_info and record.exc_info[0]:
            line["error.type"] = record.exc_info[0].__name__
            line["error.message"] = _cut(_without_content(str(record.exc_info[1])))
            line["error.stack_trace"] = self._trace(record)
        return self._redact(json.dumps(line, default=str, ensure_ascii=False))

    def _trace(self, record: logging.LogRecord) -> str:
        """The end of the traceback, where the cause stands; each line cut."""
        assert record.exc_info
        lines = self.formatException(record.exc_info).splitlines()
        kept = (line if line.startswith(SOURCE_LINE) else _without_content(line) for line in lines)
        return "\n".join(map(_cut, kept))[-MAX_TRACE_CHARS:]


def timestamp(unix_s: float) -> str:
    """As ECS wants it: UTC, with milliseconds."""
    milliseconds = round(1000 * unix_s)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{stamp}.{milliseconds % 1000:03d}Z"


def package_version() -> str:
    """The installed version of this package; 0 from a checkout that is not installed."""
    try:
        return version("vlm-captioning")
    except PackageNotFoundError:
        return "0"


def _ecs_fields(fields: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {}
    for name, value in fields.items():
        if value == "" or value is None:
            continue
        if name == "duration_ms":
            line["event.duration"] = int(1_000_000 * value)  # nanoseconds
        elif name in NAMES:
            line[NAMES[name]] = _cut(value)
        else:
            line[f"labels.{name}"] = _cut(str(value))  # ECS: labels are keywords
    return line


def _without_content(text: str) -> str:
    return LONG_WORD.sub(lambda word: f"<{len(word[0])} characters>", text)


def _cut(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= MAX_CHARS else value[:MAX_CHARS] + " …"
