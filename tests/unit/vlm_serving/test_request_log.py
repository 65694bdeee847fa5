"""The request log: whole segments only, a bound on its size, and no request that ever waits for it."""

import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vlm_serving import segment_log
from vlm_serving.request_log import PREFIX, SCHEMA, LogRow, RequestLog, read_request_log
from vlm_serving.segment_log import sampled, segment_paths, to_table, trim

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


def wait_until(done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, flush_s=60)
    log.append([ROW])
    log.close()
    assert log.dropped == 0
    table = read_request_log(tmp_path)
    assert table.schema == SCHEMA
    assert table.to_pylist() == [{**vars(ROW), "embedding": [0.0, 1.0, 2.0, 3.0]}]


def test_segments_from_before_thumbnails_are_read(tmp_path: Path) -> None:
    old = to_table([ROW], SCHEMA).drop_columns(["thumbnail"])
    pq.write_table(old, tmp_path / "requests-0000000100000-1-x-000001.parquet")
    assert read_request_log(tmp_path)["thumbnail"].to_pylist() == [None]


def test_rows_become_visible_within_the_flush_time(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, flush_s=0.05)
    log.append(rows(3))
    wait_until(lambda: read_request_log(tmp_path).num_rows == 3)
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
    monkeypatch.setattr(segment_log.pq, "read_table", lambda path, **k: (opened.append(str(path)), read(path, **k))[1])
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

    def slow(*_: object) -> object:
        writing.set()
        held.wait(10)
        return to_table([ROW], SCHEMA)

    monkeypatch.setattr(segment_log, "to_table", slow)
    log = RequestLog(tmp_path, flush_s=0.001, max_queued_rows=5)
    log.append([ROW])
    assert writing.wait(5)
    started_s = time.monotonic()
    log.append(rows(12))
    assert time.monotonic() - started_s < 1
    assert log.dropped == 7
    held.set()
    log.close()


def test_the_oldest_segments_go_first_and_the_newest_stays(tmp_path: Path) -> None:
    for start_s in (300, 100, 200):
        log = RequestLog(tmp_path)
        log.append(rows(5, start_s))
        log.close()
    size = segment_paths(tmp_path, PREFIX)[0].stat().st_size
    assert trim(tmp_path, PREFIX, max_bytes=int(2.5 * size)) == 1
    assert read_request_log(tmp_path)["time_unix_s"].to_pylist()[0] == 200.0
    assert trim(tmp_path, PREFIX, max_bytes=1) == 1
    assert len(segment_paths(tmp_path, PREFIX)) == 1


def test_a_disk_that_cannot_be_written_costs_rows_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = RequestLog(tmp_path / "file", flush_s=0.01)
    log.append(rows(4))
    log.close()
    assert log.dropped == 4


def test_a_full_disk_costs_the_rows_and_keeps_no_half_segment(tmp_path: Path) -> None:
    """No file may grow beyond 64 KiB meanwhile: the segment's writing fails halfway, as on a full disk."""
    noise = np.random.default_rng(0).normal(size=(200, 512)).astype(np.float32)
    big = [replace(row, embedding=vector) for row, vector in zip(rows(200), noise, strict=True)]
    log = RequestLog(tmp_path, flush_s=0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    try:
        log.append(big)
        wait_until(lambda: log.dropped == 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    log.append(rows(3))  # there is room again
    log.close()
    assert (read_request_log(tmp_path).num_rows, log.dropped) == (3, 200)


def test_memory_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    row = replace(ROW, embedding=np.zeros(50_000, dtype=np.float32))
    log = RequestLog(tmp_path, flush_s=60, max_queued_bytes=10 * RequestLog.row_bytes(row))
    log.append([row] * 15)
    assert log.dropped == 5
    log.close()
    assert read_request_log(tmp_path).num_rows == 10


def test_a_writer_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, writing = threading.Event(), threading.Event()
    monkeypatch.setattr(segment_log, "to_table", lambda *_: (writing.set(), held.wait(10)))
    log = RequestLog(tmp_path, flush_s=0.001, max_queued_rows=2)
    log.append([ROW])
    assert writing.wait(5)
    log.append(rows(2))
    started_s = time.monotonic()
    log.close(timeout_s=0.05)
    assert time.monotonic() - started_s < 1
    held.set()


def test_a_share_of_the_requests_is_kept_with_all_their_pictures(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, share=0.25)
    for number in range(2000):
        log.append([replace(ROW, request_id=f"r{number}/{index}") for index in range(2)])
    log.close()
    kept = [one.partition("/")[0] for one in read_request_log(tmp_path)["request_id"].to_pylist()]
    assert log.dropped == 0
    assert abs(len(set(kept)) - 500) < 60  # three standard deviations of a binomial
    assert all(kept.count(one) == 2 for one in set(kept))
    assert [sampled("r", share) for share in (0, 1)] == [False, True]
    assert all(sampled(one, 0.5) for one in kept)  # a larger share holds the smaller


def test_half_segments_of_killed_writers_go(tmp_path: Path) -> None:
    old, new = (tmp_path / f".requests-0000000000001-{name}-x-000001.parquet.tmp" for name in ("1", "2"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    trim(tmp_path, PREFIX, 1000)
    assert [path.name for path in tmp_path.iterdir()] == [new.name]


def test_writers_in_one_directory_do_not_meet(tmp_path: Path) -> None:
    logs = [RequestLog(tmp_path) for _ in range(3)]
    for log in logs:
        log.append([ROW])
    for log in logs:
        log.close()
    assert read_request_log(tmp_path).num_rows == 3
    assert all(f"-{os.getpid()}-" in path.name for path in segment_paths(tmp_path, PREFIX))
