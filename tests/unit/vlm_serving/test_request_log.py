"""The request log: whole segments only, a bound on its size, and no request that ever waits for it."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vlm_serving import request_log
from vlm_serving.request_log import SCHEMA, LogRow, RequestLog, read_request_log, segment_paths, to_table, trim

ROW = LogRow(
    time_unix_s=100.0,
    request_id="r",
    model_version="v1",
    caption="a red square",
    confidence=0.5,
    token_count=3,
    width_px=40,
    height_px=30,
    brightness=0.25,
    contrast=0.125,
    embedding=np.arange(4, dtype=np.float32),
    latency_ms=12.5,
    picture_sha256="00",
)


def rows(count: int, start_s: float = 100.0) -> list[LogRow]:
    return [replace(ROW, time_unix_s=start_s + number, request_id=f"r{number:04d}") for number in range(count)]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, flush_s=60)
    assert log.append([ROW]) == 0
    log.close()
    table = read_request_log(tmp_path)
    assert table.schema == SCHEMA
    assert table.to_pylist() == [{**vars(ROW), "embedding": [0.0, 1.0, 2.0, 3.0]}]


def test_rows_become_visible_within_the_flush_time(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, flush_s=0.05)
    log.append(rows(3))
    deadline_s = time.monotonic() + 5
    while read_request_log(tmp_path).num_rows < 3 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert read_request_log(tmp_path).num_rows == 3
    log.close()


def test_only_what_came_after_is_read_and_old_segments_stay_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start_s in (100, 200, 300):
        log = RequestLog(tmp_path)
        log.append(rows(5, start_s))
        log.close()
    opened: list[str] = []
    read = pq.read_table
    monkeypatch.setattr(request_log.pq, "read_table", lambda path, **k: (opened.append(str(path)), read(path, **k))[1])
    times = read_request_log(tmp_path, since_unix_s=202.0)["time_unix_s"].to_pylist()
    assert times == [203.0, 204.0, 300.0, 301.0, 302.0, 303.0, 304.0]
    assert len(opened) == 2


def test_no_log_is_an_empty_table(tmp_path: Path) -> None:
    table = read_request_log(tmp_path / "never")
    assert (table.num_rows, table.schema) == (0, SCHEMA)


def test_half_written_segments_are_not_seen(tmp_path: Path) -> None:
    (tmp_path / ".requests-0000000000001-1-x-000001.parquet.tmp").write_bytes(b"half")
    assert read_request_log(tmp_path).num_rows == 0


def test_a_full_queue_drops_and_counts_and_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, writing = threading.Event(), threading.Event()

    def slow(_: object) -> object:
        writing.set()
        held.wait(10)
        return to_table([ROW])

    monkeypatch.setattr(request_log, "to_table", slow)
    log = RequestLog(tmp_path, flush_s=0.001, max_queued_rows=5)
    log.append([ROW])
    assert writing.wait(5)
    started_s = time.monotonic()
    assert log.append(rows(12)) == 7
    assert time.monotonic() - started_s < 1
    assert log.dropped == 7
    held.set()
    log.close()


def test_the_oldest_segments_go_first_and_the_newest_stays(tmp_path: Path) -> None:
    for start_s in (300, 100, 200):
        log = RequestLog(tmp_path)
        log.append(rows(5, start_s))
        log.close()
    size = segment_paths(tmp_path)[0].stat().st_size
    assert trim(tmp_path, max_bytes=int(2.5 * size)) == 1
    assert read_request_log(tmp_path)["time_unix_s"].to_pylist()[0] == 200.0
    assert trim(tmp_path, max_bytes=1) == 1
    assert len(segment_paths(tmp_path)) == 1


def test_a_disk_that_cannot_be_written_costs_rows_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = RequestLog(tmp_path / "file", flush_s=0.01)
    log.append(rows(4))
    log.close()
    assert log.dropped == 4


def test_writers_in_one_directory_do_not_meet(tmp_path: Path) -> None:
    logs = [RequestLog(tmp_path) for _ in range(3)]
    for log in logs:
        log.append([ROW])
    for log in logs:
        log.close()
    assert read_request_log(tmp_path).num_rows == 3
    assert all(f"-{os.getpid()}-" in path.name for path in segment_paths(tmp_path))
