"""The numbers that operators see of a service, and meters that refuse names that nobody declared."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from tests.serving import make_client, make_service
from tests.tiny import picture_bytes
from vlm_serving.service import Upload
from vlm_serving.telemetry import COUNTERS, GAUGES, HISTOGRAMS, CpuClock, MemoryMeters


def test_unknown_names_and_missing_tags_are_errors() -> None:
    meters = MemoryMeters()
    with pytest.raises(KeyError, match="vlm_typo"):
        meters.count("vlm_typo")
    with pytest.raises(KeyError, match="status"):
        meters.count("vlm_requests")
    with pytest.raises(KeyError, match="kind"):
        meters.gauge("vlm_gpu_memory_bytes", 1)


UNITS = "requests|rejected|pictures|hits|tokens|seconds|loads|dropped|feedback|bytes|info"


@pytest.mark.parametrize("name", [*COUNTERS, *HISTOGRAMS, *GAUGES])
def test_a_metric_s_name_ends_with_what_it_counts(name: str) -> None:
    assert re.fullmatch(rf"vlm_[a-z_]*({UNITS})", name)


def test_a_request_is_measured_by_stage_and_the_model_s_time_is_counted(bundle: Path) -> None:
    service = make_service(bundle)
    files = [("files", picture_bytes(seed)) for seed in range(3)]
    answer = make_client(service).post("/v1/captions", files=files).json()
    meters: MemoryMeters = service.meters  # type: ignore[assignment]
    seconds = {key[1]: sum(values) for key, values in meters.values.items() if key[0] == "vlm_stage_seconds"}
    assert set(seconds) == {"decode", "queue", "caption", "total", "encode", "generate"}
    assert 0 < seconds["encode"] + seconds["generate"] <= meters.counts[("vlm_model_busy_seconds", "cpu")]
    assert meters.counts[("vlm_tokens",)] == sum(one["token_count"] for one in answer["captions"])
    assert meters.counts[("vlm_cpu_seconds",)] > 0
    assert meters.gauges[("vlm_model_info", "captioner", service.slot.version)] == 1


def test_what_the_cache_answers_keeps_no_model_busy(bundle: Path) -> None:
    service = make_service(bundle)
    client, meters = make_client(service), service.meters
    busy: list[float] = []
    for _ in range(2):
        client.post("/v1/captions", files={"files": picture_bytes(1)})
        busy.append(meters.counts[("vlm_model_busy_seconds", "cpu")])  # type: ignore[attr-defined]
    assert busy[0] == busy[1] > 0


def test_gauges_tell_how_many_wait_and_end_at_none(bundle: Path) -> None:
    service = make_service(bundle, max_batch_size=2, cached_answers=0)
    seen: dict[str, list[float]] = {"vlm_in_work_pictures": [], "vlm_queued_pictures": []}
    gauge = service.meters.gauge

    def heard(name: str, value: float, **tags: str) -> None:
        seen.get(name, []).append(value)
        gauge(name, value, **tags)

    service.meters.gauge = heard  # type: ignore[method-assign]
    asyncio.run(service.caption([Upload(str(seed), picture_bytes(seed)) for seed in range(5)], "r"))
    assert seen["vlm_in_work_pictures"] == [5, 0]
    assert max(seen["vlm_queued_pictures"]) == 5 and seen["vlm_queued_pictures"][-1] == 0


def test_a_new_model_takes_the_old_one_s_place_in_the_info(bundle: Path, other_bundle: Path) -> None:
    service = make_service(bundle)
    old = service.slot.version
    new = service.put_model(str(other_bundle))
    meters: MemoryMeters = service.meters  # type: ignore[assignment]
    assert meters.gauges[("vlm_model_info", "captioner", old)] == 0
    assert meters.gauges[("vlm_model_info", "captioner", new)] == 1


def test_each_second_of_the_processor_is_counted_once() -> None:
    clock, meters = CpuClock(), [MemoryMeters(), MemoryMeters()]
    for one in meters:
        until_s = time.process_time() + 0.02
        while time.process_time() < until_s:
            pass
        clock.count(one)
    first, second = (one.counts[("vlm_cpu_seconds",)] for one in meters)
    assert first > second >= 0.02
    assert first + second <= time.process_time()
