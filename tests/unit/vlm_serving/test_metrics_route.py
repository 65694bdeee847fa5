"""`/metrics`: what happened, in Prometheus' own format, with units in the names."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import make_client, make_service
from tests.tiny import picture_bytes
from vlm_serving.prometheus_meters import PrometheusMeters
from vlm_serving.telemetry import COUNTERS, HISTOGRAMS, MemoryMeters

Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(text: str) -> dict[Sample, float]:
    families = text_string_to_metric_families(text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_requests_are_counted_as_they_happen(bundle: Path) -> None:
    meters = PrometheusMeters(also=MemoryMeters())
    service = make_service(bundle, meters=meters)
    client = make_client(service)
    client.post("/v1/captions", files=[("files", picture_bytes(1)), ("files", picture_bytes(2))])
    client.post("/v1/captions", files=[("files", b"no picture")])
    client.get("/metrics")
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.text)
    assert found["vlm_requests_total", (("status", "200"),)] == 1  # /metrics itself is no request worth counting
    assert found["vlm_requests_total", (("status", "415"),)] == 1
    assert found["vlm_rejected_total", (("reason", "unsupported-picture"),)] == 1
    assert found["vlm_pictures_total", (("version", service.slot.version),)] == 2
    assert found["vlm_stage_seconds_count", (("stage", "decode"),)] == 1
    assert 0 < found["vlm_stage_seconds_sum", (("stage", "total"),)] < 60
    assert found["vlm_batch_pictures_sum", ()] == 2
    assert found["process_resident_memory_bytes", ()] > 1e6


def test_what_is_counted_is_passed_on() -> None:
    also = MemoryMeters()
    meters = PrometheusMeters(also)
    meters.count("vlm_requests", 3, status="200")
    meters.observe("vlm_batch_pictures", 4)
    assert also.counts[("vlm_requests", "200")] == 3 and also.values[("vlm_batch_pictures",)] == [4]


def test_unknown_names_and_missing_tags_are_errors() -> None:
    with pytest.raises(KeyError, match="vlm_typo"):
        PrometheusMeters().count("vlm_typo")
    with pytest.raises(ValueError, match="label"):
        PrometheusMeters().count("vlm_requests")


def test_every_name_ends_with_its_unit() -> None:
    text = PrometheusMeters().exposition().decode()
    names = set(re.findall(r"^# TYPE (vlm_\w+) (?:counter|histogram)$", text, re.MULTILINE))
    assert names == {f"{name}_total" for name in COUNTERS} | set(HISTOGRAMS)
    assert all(name.endswith(("_total", "_seconds", "_pictures", "_bytes", "_tokens")) for name in names)


def test_where_numbers_are_kept_elsewhere_it_says_so(bundle: Path) -> None:
    answer = make_client(make_service(bundle)).get("/metrics")
    assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[1]) == (501, "metrics-off")
    assert "MemoryMeters" in answer.json()["detail"]
