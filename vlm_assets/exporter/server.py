"""The exporter's HTTP server: what Dagster's tables hold at the time of the scrape, in Prometheus' text format.

It reads the instance that DAGSTER_HOME names and nothing else: no store, no secret. A scrape that cannot be answered
is an error 500, which Prometheus sees as a target that is down.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from wsgiref.simple_server import WSGIServer

import dagster as dg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vlm_assets.exporter.assets import asset_samples, champion_samples, check_samples
from vlm_assets.exporter.gauges import Sample, families
from vlm_assets.exporter.runs import automation_samples, daemon_samples, run_samples


class DagsterCollector(Collector):
    """Reads the instance anew at every scrape, one scrape at a time."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        check_keys: Sequence[dg.AssetCheckKey],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._instance, self._check_keys, self._clock = instance, check_keys, clock
        self._reading = threading.Lock()

    def samples(self) -> Iterator[Sample]:
        """Every gauge's values as they are now."""
        yield from run_samples(self._instance, self._clock())
        yield from daemon_samples(self._instance)
        yield from automation_samples(self._instance)
        yield from asset_samples(self._instance)
        yield from champion_samples(self._instance)
        yield from check_samples(self._instance, self._check_keys)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What prometheus_client calls."""
        with self._reading:
            yield from families(self.samples())

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing, so that registering does not read the instance."""
        return []


def start_exporter(instance: dg.DagsterInstance, host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
    """Serve in a thread of its own. Raises OSError if the port is taken."""
    from vlm_assets.definitions import defs

    keys = list(defs.resolve_asset_graph().asset_check_keys)
    registry = CollectorRegistry()
    registry.register(DagsterCollector(instance, keys))
    return start_http_server(port, host, registry)
