"""Corrections: on the disk before they are answered for, once however often they are sent, never lost to make room."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import make_client, make_service
from tests.tiny import picture_bytes
from vlm_serving import feedback_log
from vlm_serving.errors import FeedbackFullError, FeedbackNotKeptError
from vlm_serving.feedback_log import FeedbackLog, FeedbackRow, part_paths, read_feedback
from vlm_serving.request_log import RequestLog, read_request_log
from vlm_serving.service import CaptionService

ROW = FeedbackRow(100.0, "r1", "a red square", 2, "colour", "shop")


def rows(count: int) -> list[FeedbackRow]:
    return [replace(ROW, time_unix_s=100.0 + number, caption_id=f"r{number}") for number in range(count)]


@pytest.fixture
def service(bundle: Path, tmp_path: Path) -> Iterator[CaptionService]:
    service = make_service(bundle, RequestLog(tmp_path / "log", flush_s=0.05))
    yield service
    service.close()


@pytest.fixture
def client(service: CaptionService) -> httpx.Client:
    return make_client(service)


def test_rows_come_back_as_they_were_in_order(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path, 10_000)
    for row in reversed(rows(3)):
        assert log.append(row)
    assert read_feedback(tmp_path) == rows(3)
    assert read_feedback(tmp_path, since_unix_s=100.0) == rows(3)[1:]
    assert read_feedback(tmp_path / "none") == []


def test_the_same_correction_is_one_row_also_from_several_writers(tmp_path: Path) -> None:
    one, other = FeedbackLog(tmp_path, 10_000), FeedbackLog(tmp_path, 10_000)
    later = replace(ROW, time_unix_s=200.0, reason="said again")
    assert [one.append(ROW), one.append(later), other.append(later)] == [True, False, True]
    assert read_feedback(tmp_path) == [ROW]
    assert one.append(replace(ROW, caption="a blue square"))
    assert {row.caption for row in read_feedback(tmp_path)} == {"a blue square", "a red square"}


def test_a_writer_forgets_the_oldest_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_log, "MAX_KNOWN", 2)
    log = FeedbackLog(tmp_path, 10_000)
    assert [log.append(row) for row in [*rows(3), *reversed(rows(3))]] == [True] * 3 + [False, False, True]
    assert read_feedback(tmp_path) == rows(3)


def test_files_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_log, "PART_BYTES", 300)
    log = FeedbackLog(tmp_path, 10_000)
    for row in rows(6):
        log.append(row)
    assert len(part_paths(tmp_path)) == 3 and all(path.stat().st_size <= 300 for path in part_paths(tmp_path))
    assert read_feedback(tmp_path) == rows(6)


def test_a_full_log_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path, 300)
    for row in rows(2):
        log.append(row)
    with pytest.raises(FeedbackFullError, match=r"holds 2\d\d bytes; the limit is 300\. Its operator must move files"):
        log.append(rows(3)[2])
    assert read_feedback(tmp_path) == rows(2)


def test_a_line_that_was_cut_off_harms_no_other(tmp_path: Path) -> None:
    FeedbackLog(tmp_path, 10_000).append(ROW)
    with part_paths(tmp_path)[0].open("ab") as file:
        file.write(b'{"time_unix_s": 7, "capt')
    FeedbackLog(tmp_path, 10_000).append(rows(3)[2])
    assert read_feedback(tmp_path) == [ROW, rows(3)[2]]


def test_after_a_failed_write_it_goes_on_in_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = FeedbackLog(tmp_path, 10_000)
    log.append(ROW)

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(feedback_log.os, "fsync", broken)
        with pytest.raises(FeedbackNotKeptError, match=r"\(No space left on device\)\. Send it again later"):
            log.append(rows(3)[2])
    assert log.append(rows(3)[2])
    assert len(part_paths(tmp_path)) == 2 and len(read_feedback(tmp_path)) == 2


def test_writers_in_many_threads_lose_nothing(tmp_path: Path) -> None:
    log, all_rows = FeedbackLog(tmp_path, 1_000_000), rows(40)
    threads = [
        threading.Thread(target=lambda part=part: [log.append(row) for row in all_rows[part::4]]) for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_feedback(tmp_path) == all_rows


def test_a_correction_names_the_row_of_the_request_log(
    client: httpx.Client, service: CaptionService, tmp_path: Path
) -> None:
    files = [("files", picture_bytes(seed)) for seed in range(2)]
    captions = client.post("/v1/captions", files=files).json()["captions"]
    asked = {"id": captions[1]["id"], "caption": "  a red\nsquare ", "rating": 2, "reason": "it is red"}
    answer = client.post("/v1/feedback", json=asked)
    assert answer.status_code == 200
    (row,) = read_feedback(tmp_path / "log" / "feedback")
    assert (row.caption_id, row.caption, row.rating, row.reason) == (captions[1]["id"], "a red square", 2, "it is red")
    assert answer.json() == {"request_id": answer.headers["x-request-id"], "feedback_id": row.feedback_id}
    service.close()
    assert row.caption_id in read_request_log(tmp_path / "log")["request_id"].to_pylist()


def test_sending_it_again_changes_nothing(client: httpx.Client, service: CaptionService, tmp_path: Path) -> None:
    answers = [client.post("/v1/feedback", json={"id": "r1", "caption": "a red square"}) for _ in range(3)]
    assert len({answer.json()["feedback_id"] for answer in answers}) == 1
    assert len(read_feedback(tmp_path / "log" / "feedback")) == 1
    assert service.meters.counts[("vlm_feedback",)] == 1  # type: ignore[attr-defined]


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "no id": ({"json": {"caption": "x"}}, 422, "id: Field required"),
    "an odd id": ({"json": {"id": "../../x", "caption": "x"}}, 422, "id: String should match pattern.*'../../x'"),
    "no caption": ({"json": {"id": "r1", "caption": " \n"}}, 422, "caption: String should match pattern"),
    "a long caption": ({"json": {"id": "r1", "caption": "x" * 1001}}, 422, "caption: .* at most 1000 characters"),
    "a rating of 6": ({"json": {"id": "r1", "caption": "x", "rating": 6}}, 422, "rating: .*less than or.* 5, not 6"),
    "more": ({"json": {"id": "r1", "caption": "x", "picture": "y"}}, 422, "picture: Extra inputs"),
    "a form": ({"data": {"id": "r1"}}, 415, "Send application/json"),
    "a book": ({"json": {"id": "r1", "caption": "x" * 70_000}}, 413, "70,[0-9]{3} bytes; the limit is 65,536"),
    "half a surrogate pair": (
        {"content": b'{"id": "r1", "caption": "\\ud800"}', "headers": {"content-type": "application/json"}},
        400, "not JSON: .*hex escape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_correction_is_explained(client: httpx.Client, tmp_path: Path, name: str) -> None:
    arguments, status, text = WRONG[name]
    answer = client.post("/v1/feedback", **arguments)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.search(text, answer.json()["detail"]), answer.json()
    assert read_feedback(tmp_path / "log" / "feedback") == []


def test_without_a_request_log_it_says_so(bundle: Path) -> None:
    answer = make_client(make_service(bundle)).post("/v1/feedback", json={"id": "r1", "caption": "x"})
    assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[1]) == (501, "feedback-off")
    assert "Set VLM_REQUEST_LOG" in answer.json()["detail"]


def test_a_full_log_is_a_507(bundle: Path, tmp_path: Path) -> None:
    service = make_service(bundle, RequestLog(tmp_path / "log"), feedback_log_max_bytes=10)
    answer = make_client(service).post("/v1/feedback", json={"id": "r1", "caption": "x"})
    service.close()
    assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[1]) == (507, "feedback-full")


def test_the_file_is_plain_json_lines(tmp_path: Path) -> None:
    FeedbackLog(tmp_path, 10_000).append(replace(ROW, caption="ein rotes Viereck, schön"))
    (line,) = part_paths(tmp_path)[0].read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["caption"] == "ein rotes Viereck, schön"
