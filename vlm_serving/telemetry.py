"""What operators see: counters, histograms and gauges, and log lines."""

import logging
import sys
import threading
import time
from collections import defaultdict
from typing import Any, Protocol

from vlm_serving.ecs import EcsFormatter

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]
PICTURES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vlm_requests": ("Requests answered, by HTTP status.", ("status",)),
    "vlm_rejected": ("Requests refused, by reason.", ("reason",)),
    "vlm_pictures": ("Pictures captioned, by model version.", ("version",)),
    "vlm_feedback": ("Corrections kept.", ()),
    "vlm_cache_hits": ("Pictures answered without the model: the same was asked for before.", ()),
    "vlm_tokens": ("Tokens generated, those of the prompt not among them.", ()),
    "vlm_model_busy_seconds": ("Time that a model was at work on a batch, by kind of device.", ("device",)),
    "vlm_cpu_seconds": ("CPU time of the process, all its threads together.", ()),
    "vlm_model_loads": ("Bundles loaded, by outcome.", ("outcome",)),
    "vlm_request_log_dropped": (
        "Rows of the request log, or of failures, lost: the writer was behind, or the disk refused them.",
        (),
    ),
}
HISTOGRAMS: dict[str, tuple[str, list[float], tuple[str, ...]]] = {
    "vlm_stage_seconds": (
        "Time of one stage: decode, queue, caption, total of a request; encode, generate of a pass of the model.",
        SECONDS,
        ("stage",),
    ),
    "vlm_batch_pictures": ("Pictures in one batch.", PICTURES, ()),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "vlm_in_work_pictures": ("Pictures admitted and not yet answered.", ()),
    "vlm_queued_pictures": ("Pictures that wait for the model: the depth of its queue.", ()),
    "vlm_gpu_memory_bytes": ("Memory of the GPU in torch's hands, by kind: allocated, or reserved in all.", ("kind",)),
    "vlm_model_info": ("1 for the version that answers as this model, 0 for those before.", ("model", "version")),
}
LOGGER = logging.getLogger("vlm_serving")


class Meters(Protocol):
    """Where numbers go. Names are those of COUNTERS, HISTOGRAMS and GAUGES."""

    def count(self, name: str, value: float = 1, **tags: str) -> None:
        """Add `value` to a counter."""
        ...

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record `value` in a histogram."""
        ...

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge to `value`."""
        ...


class MemoryMeters:
    """Keeps numbers in a dictionary: for a server without Ray, and for tests."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], float] = defaultdict(float)
        self.values: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self.gauges: dict[tuple[str, ...], float] = {}

    def count(self, name: str, value: float = 1, **tags: str) -> None:
        """Add `value` to a counter; an unknown name or tag is an error."""
        self.counts[(name, *(tags[key] for key in COUNTERS[name][1]))] += value

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record `value` in a histogram; an unknown name or tag is an error."""
        self.values[(name, *(tags[key] for key in HISTOGRAMS[name][2]))].append(value)

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge to `value`; an unknown name or tag is an error."""
        self.gauges[(name, *(tags[key] for key in GAUGES[name][1]))] = value


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
        self._gauges: dict[str, Any] = {
            name: api.Gauge(name, description=text, tag_keys=tags) for name, (text, tags) in GAUGES.items()
        }
        self._last: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def count(self, name: str, value: float = 1, **tags: str) -> None:
        """Add `value` to a counter."""
        if value > 0:  # Ray refuses zero
            self._counters[name].inc(value, tags=tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record `value` in a histogram."""
        self._histograms[name].observe(value, tags=tags)

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge to `value`."""
        self._last[name, frozenset(tags.items())] = value
        self._gauges[name].set(value, tags=tags)

    def repeat_gauges(self) -> None:
        """Say every gauge again: Ray forgets one that was not set for two of its reports, 20 s."""
        for (name, tags), value in list(self._last.items()):
            self._gauges[name].set(value, tags=dict(tags))


class CpuClock:
    """Hands out the CPU time of this process piece by piece: whoever counts it, each second is counted once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told_s = 0.0

    def count(self, meters: Meters) -> None:
        """Add to `vlm_cpu_seconds` what has been spent since the last call."""
        with self._lock:
            now_s = time.process_time()
            spent_s, self._told_s = now_s - self._told_s, now_s
        meters.count("vlm_cpu_seconds", spent_s)


CPU_CLOCK = CpuClock()


def configure_logging(level: int = logging.INFO) -> None:
    """Send this package's records to stderr as JSON lines. Called once by whoever owns the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EcsFormatter())
    LOGGER.handlers = [handler]
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def log_event(event: str, level: int = logging.INFO, exc_info: bool = False, **fields: Any) -> None:
    """Write one event with its fields, e.g. `log_event("request", request_id="a1", status=200)`; names as in ecs.py."""
    LOGGER.log(level, event, exc_info=exc_info, extra={"fields": fields})
