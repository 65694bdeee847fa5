"""What operators see: counters, histograms in seconds, and one JSON object per log line."""

import json
import logging
import sys
import time
from collections import defaultdict
from typing import Any, Protocol

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]
PICTURES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vlm_requests": ("Requests answered, by HTTP status.", ("status",)),
    "vlm_rejected": ("Requests refused, by reason.", ("reason",)),
    "vlm_pictures": ("Pictures captioned, by model version.", ("version",)),
    "vlm_feedback": ("Corrections kept.", ()),
    "vlm_cache_hits": ("Pictures answered without the model: the same was asked for before.", ()),
    "vlm_model_loads": ("Bundles loaded, by outcome.", ("outcome",)),
    "vlm_request_log_dropped": ("Request-log rows lost because the writer could not keep up.", ()),
}
HISTOGRAMS: dict[str, tuple[str, list[float], tuple[str, ...]]] = {
    "vlm_stage_seconds": ("Time of one stage of a request, seconds.", SECONDS, ("stage",)),
    "vlm_batch_pictures": ("Pictures in one pass of the model.", PICTURES, ()),
}
LOGGER = logging.getLogger("vlm_serving")


class Meters(Protocol):
    """Where numbers go. Names are those of COUNTERS and HISTOGRAMS."""

    def count(self, name: str, value: float = 1, **tags: str) -> None:
        """Add `value` to a counter."""
        ...

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record `value` in a histogram."""
        ...


class MemoryMeters:
    """Keeps numbers in a dictionary: for a server without Ray, and for tests."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], float] = defaultdict(float)
        self.values: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def count(self, name: str, value: float = 1, **tags: str) -> None:
        """Add `value` to a counter; an unknown name or tag is an error."""
        self.counts[(name, *(tags[key] for key in COUNTERS[name][1]))] += value

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record `value` in a histogram; an unknown name or tag is an error."""
        self.values[(name, *(tags[key] for key in HISTOGRAMS[name][2]))].append(value)


class RayMeters:
    """Prometheus metrics that Ray exports (as `ray_<name>`), with deployment and replica as further tags."""

    def __init__(self) -> None:
        from ray.serve import metrics

        api: Any = metrics  # Ray annotates tag_keys as a tuple of one

        self._counters: dict[str, Any] = {
            name: api.Counter(name, description=text, tag_keys=tags) for name, (text, tags) in COUNTERS.items()
        }
        self._histograms: dict[str, Any] = {
            name: api.Histogram(name, description=text, boundaries=bounds, tag_keys=tags)
            for name, (text, bounds, tags) in HISTOGRAMS.items()
        }

    def count(self, name: str, value: float = 1, **tags: str) -> None:
        """Add `value` to a counter."""
        if value > 0:  # Ray refuses zero
            self._counters[name].inc(value, tags=tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record `value` in a histogram."""
        self._histograms[name].observe(value, tags=tags)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, event, and whatever fields the caller gave."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(level: int = logging.INFO) -> None:
    """Send this package's records to stderr as JSON lines. Called once by whoever owns the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    LOGGER.handlers = [handler]
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def log_event(event: str, level: int = logging.INFO, exc_info: bool = False, **fields: Any) -> None:
    """Write one event with its fields, e.g. `log_event("request", request_id="a1", status=200)`."""
    LOGGER.log(level, event, exc_info=exc_info, extra={"fields": fields})
