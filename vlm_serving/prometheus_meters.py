"""The meters of one process as Prometheus reads them, for `/metrics`: what Ray exports, without Ray's port."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from vlm_serving.telemetry import COUNTERS, GAUGES, HISTOGRAMS, Meters

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class PrometheusMeters:
    """Counts for a registry of its own, and passes on to `also`. Counters get `_total` behind their names."""

    def __init__(self, also: Meters | None = None) -> None:
        self._also = also
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._counters = {
            name: Counter(name, text, tags, registry=self._registry) for name, (text, tags) in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(name, text, tags, buckets=bounds, registry=self._registry)
            for name, (text, bounds, tags) in HISTOGRAMS.items()
        }
        self._gauges = {name: Gauge(name, text, tags, registry=self._registry) for name, (text, tags) in GAUGES.items()}

    def count(self, name: str, value: float = 1, **tags: str) -> None:
        """Add `value` to a counter; an unknown name or tag is an error."""
        counter = self._counters[name]
        (counter.labels(**tags) if tags else counter).inc(value)
        if self._also:
            self._also.count(name, value, **tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record `value` in a histogram; an unknown name or tag is an error."""
        histogram = self._histograms[name]
        (histogram.labels(**tags) if tags else histogram).observe(value)
        if self._also:
            self._also.observe(name, value, **tags)

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge to `value`; an unknown name or tag is an error."""
        gauge = self._gauges[name]
        (gauge.labels(**tags) if tags else gauge).set(value)
        if self._also:
            self._also.gauge(name, value, **tags)

    def exposition(self) -> bytes:
        """All numbers in Prometheus' text format, MEDIA_TYPE."""
        return generate_latest(self._registry)
