"""Requests that failed because of the model leave a row for the guard; what callers or load are to blame for, none."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.serving import BAD, encode, make_client, make_service
from tests.tiny import picture_bytes
from tests.unit.vlm_serving.test_app_remote import CONTRACT, Handle
from tests.unit.vlm_serving.test_app_service import PNG, Allergic, gathered
from vlm_serving import failure_log, model_slot
from vlm_serving.config import ServingConfig
from vlm_serving.engine import Item, Outcome, RunBatch, Submit
from vlm_serving.errors import DeadlineExceededError, OverloadedError, PictureFailedError
from vlm_serving.exchange import EngineState, JobResult, ModelCard
from vlm_serving.failure_log import FailureLog, FailureRow, read_failures
from vlm_serving.generation import DEFAULT_OPTIONS
from vlm_serving.remote import RemoteEngine
from vlm_serving.request_log import RequestLog, read_request_log
from vlm_serving.segment_log import sampled
from vlm_serving.service import CaptionService
from vlm_serving.telemetry import MemoryMeters

POISON = encode(Image.new("RGB", (40, 30), (66, 66, 66)), "PNG")


@pytest.fixture
def allergic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that raise on POISON."""
    monkeypatch.setattr(Allergic, "poison", 66)
    monkeypatch.setattr(model_slot, "Captioner", Allergic)


def post(client: httpx.Client, *pictures: bytes, **asked: Any) -> httpx.Response:
    return client.post("/v1/captions", files=[("files", picture) for picture in pictures], **asked)


def failures(log: Path) -> list[dict[str, Any]]:
    return read_failures(log).to_pylist()


@pytest.mark.usefixtures("allergic")
def test_a_picture_that_the_model_fails_on_leaves_a_row_with_the_version(bundle: Path, tmp_path: Path) -> None:
    service = make_service(bundle, RequestLog(tmp_path, flush_s=0.05))
    client, before_s = make_client(service), time.time()
    answers = [post(client, PNG.data), post(client, PNG.data, POISON, headers={"x-request-id": "r-7"})]
    assert [answer.status_code for answer in answers] == [200, 500]
    service.close()
    (row,) = failures(tmp_path)
    assert before_s <= row.pop("time_unix_s") <= time.time()
    assert row == {
        "request_id": "r-7", "model_version": service.slot.version, "reason": "captioning-failed", "pictures": 2,
    }  # fmt: skip
    assert read_request_log(tmp_path).num_rows == 1


def caller_faults() -> dict[str, tuple[int, bytes, dict[str, Any]]]:
    faults: dict[str, tuple[int, bytes, dict[str, Any]]] = {
        name: (status, data, {}) for name, (data, status, _, _) in BAD.items()
    }
    long_prompt = {"params": {"prompt": "a red square " * 3}}
    return faults | {
        "an option out of bounds": (422, PNG.data, {"params": {"num_beams": 99}}),
        "a prompt without room": (422, PNG.data, long_prompt),
        "an unknown model": (404, PNG.data, {"params": {"model": "x"}}),
        "no patience": (504, PNG.data, {"headers": {"x-request-timeout-s": "0.001"}}),
    }


def test_what_the_caller_did_wrong_leaves_none(bundle: Path, tmp_path: Path) -> None:
    service = make_service(bundle, RequestLog(tmp_path))
    client = make_client(service)
    for name, (status, data, asked) in caller_faults().items():
        assert post(client, data, **asked).status_code == status, name
    service.close()
    assert failures(tmp_path) == []


def test_load_and_callers_that_leave_or_hurry_leave_none(bundle: Path, tmp_path: Path) -> None:
    service = make_service(bundle, RequestLog(tmp_path), batched=gathered(2), max_pictures=1, max_waiting_pictures=1)

    async def scene() -> None:
        first = asyncio.create_task(service.caption([PNG], "leaves"))
        while service.admission.waiting < 1:
            await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await service.caption([PNG], "refused")
        first.cancel()
        await asyncio.wait([first])
        with pytest.raises(DeadlineExceededError):
            await service.caption([PNG], "hurries", timeout_s=0.2)

    asyncio.run(scene())
    service.close()
    assert failures(tmp_path) == []


def test_a_model_that_is_not_done_in_the_settings_time_is_to_blame(bundle: Path, tmp_path: Path) -> None:
    service = make_service(bundle, RequestLog(tmp_path), batched=gathered(2), deadline_s=0.3)
    assert post(make_client(service), PNG.data).status_code == 504
    service.close()
    assert [(row["reason"], row["model_version"]) for row in failures(tmp_path)] == [
        ("deadline-exceeded", service.slot.version)
    ]


def test_what_nobody_expected_of_the_model_is_its_fault_and_what_comes_after_is_not(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batched(_: RunBatch) -> Submit:
        async def submit(_: Item) -> Outcome:
            raise MemoryError("CUDA out of memory")

        return submit

    broken, sound = (
        make_service(bundle, RequestLog(tmp_path / name), batched=how) for name, how in (("a", batched), ("b", None))
    )
    monkeypatch.setattr(sound, "_record", lambda *_: 1 / 0)
    for service in (broken, sound):
        assert post(make_client(service), PNG.data).status_code == 500
        service.close()
    assert [row["reason"] for row in failures(tmp_path / "a")] == ["internal-error"]
    assert failures(tmp_path / "b") == []


def blamed_elsewhere(log: Path, *answers: Any) -> list[str]:
    """Versions blamed for two requests that fail at models behind a handle, which gives these answers in turn."""
    config, engine = ServingConfig.model_validate({"deadline_s": 0.2}), RemoteEngine(Handle(*answers), "captioner")
    service = CaptionService(config, MemoryMeters(), RequestLog(log), engine=engine)

    async def twice() -> None:
        for number in range(2):
            with pytest.raises((DeadlineExceededError, PictureFailedError)):
                await service.caption([PNG], f"r{number}")
            await asyncio.sleep(0.05)

    asyncio.run(twice())
    service.close()
    return [row["model_version"] for row in failures(log)]


def test_a_model_elsewhere_is_blamed_by_its_own_version(tmp_path: Path) -> None:
    """What it answers brings its card along; of one that answers nothing the front asks who it is."""
    old, new = (ModelCard("captioner", version, CONTRACT, DEFAULT_OPTIONS) for version in ("old", "new"))
    states = [EngineState("captioner", {"captioner": card}) for card in (old, new)]
    failed = JobResult(new, [PictureFailedError("it raised")])
    assert blamed_elsewhere(tmp_path / "failing", states[0], failed, failed) == ["new", "new"]
    assert blamed_elsewhere(tmp_path / "hanging", states[0], None, states[1], None, states[1]) == ["old", "new"]


def rows(count: int, start_s: float = 100.0) -> Sequence[FailureRow]:
    return [FailureRow(start_s + number, f"r{number}", "v", "captioning-failed", 1) for number in range(count)]


def test_the_disk_they_take_is_bounded_and_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_log, "MAX_BYTES", 20_000)
    beside = RequestLog(tmp_path)
    for start_s in range(100, 130):
        log = FailureLog.beside(beside, flush_s=60)
        log.append(rows(1, start_s))
        log.close()
    beside.close()
    kept = [path.stat().st_size for path in (tmp_path / "failures").iterdir()]
    assert 10_000 < sum(kept) <= 20_000
    assert failures(tmp_path)[-1]["time_unix_s"] == 129.0
    assert failures(tmp_path)[0]["time_unix_s"] > 100.0


def test_they_are_of_the_same_requests_as_the_log_beside_them(tmp_path: Path) -> None:
    beside = RequestLog(tmp_path, share=0.3)
    log = FailureLog.beside(beside, flush_s=60)
    log.append(rows(500))
    log.close()
    beside.close()
    assert [row["request_id"] for row in failures(tmp_path)] == [
        row.request_id for row in rows(500) if sampled(row.request_id, 0.3)
    ]


@pytest.mark.usefixtures("allergic")
def test_rows_that_the_disk_refuses_cost_no_request_and_are_counted(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "failures").write_text("in the way")
    service = make_service(bundle, RequestLog(tmp_path, flush_s=0.001), request_log_flush_s=0.001)
    client, deadline_s = make_client(service), time.monotonic() + 10
    assert post(client, POISON).status_code == 500
    assert service.failures is not None
    while not service.failures.dropped and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert post(client, picture_bytes(1)).status_code == 200
    service.close()
    assert service.meters.counts[("vlm_request_log_dropped",)] == 1  # type: ignore[attr-defined]
