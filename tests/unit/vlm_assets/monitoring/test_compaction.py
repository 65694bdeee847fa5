"""What of a serving log becomes the window, and what is left out, by reason."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlm_assets.errors import SourceError
from vlm_assets.monitoring.compaction import SCHEMA, checked, read_window, select_window, write_window


def test_a_whole_window_is_kept_oldest_first(requests):
    table = requests(6)
    window = select_window(table.take([3, 1, 5, 0, 2, 4]), 100)
    assert window.table.equals(table)
    assert set(window.dropped.values()) == {0}


def test_a_repeated_request_id_counts_once_with_its_first_row(requests):
    table = requests(4, request_id=["a", "b", "a", "b"], caption=["first", "second", "third", "fourth"])
    window = select_window(table, 100)
    assert window.table["caption"].to_pylist() == ["first", "second"]
    assert window.dropped["written twice"] == 2


def test_the_latest_rows_are_kept_when_there_are_too_many(requests):
    window = select_window(requests(10), 3)
    assert window.table["time_unix_s"].to_pylist() == [1_007.0, 1_008.0, 1_009.0]
    assert window.dropped["over max_rows"] == 7


def test_incomplete_rows_are_dropped(requests):
    vectors = [[1.0, 2.0], None, [], [1.0, float("nan")], [1.0, None], [3.0, 4.0], [5.0, 6.0]]
    table = requests(7, embedding=vectors, confidence=[0.5] * 6 + [None])
    window = select_window(table, 100)
    assert window.table["embedding"].to_pylist() == [[1.0, 2.0], [3.0, 4.0]]
    assert window.dropped["incomplete"] == 5


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_kept_or_counted(requests, seed):
    generator = np.random.default_rng(seed)
    ids = [str(number) for number in generator.integers(0, 30, 60)]
    confidence = np.where(generator.random(60) < 0.1, np.nan, 0.5)
    window = select_window(requests(60, request_id=ids, confidence=confidence), 12)
    assert window.table.num_rows + sum(window.dropped.values()) == 60


def test_a_log_without_a_column_is_refused(requests):
    with pytest.raises(
        SourceError, match=r"request log in here lacks embedding, latency_ms; it has .* set VLM_REQUEST_LOG"
    ):
        checked(requests(3).drop_columns(["embedding", "latency_ms"]), "here")


def test_a_log_with_another_type_is_refused(requests):
    table = requests(1)
    at = table.column_names.index("token_count")
    with pytest.raises(SourceError, match="holds values of another type"):
        checked(table.set_column(at, "token_count", pa.array(["many"])), "here")


def test_further_columns_and_narrower_types_are_accepted(requests):
    table = requests(2).append_column("replica", pa.array(["r1", "r2"]))
    at = table.column_names.index("brightness")
    narrow = table.set_column(at, "brightness", table["brightness"].cast(pa.float32()))
    assert checked(narrow, "here").schema == SCHEMA


def test_the_window_is_read_from_what_serving_wrote(requests, tmp_path):
    from vlm_serving.request_log import LogRow, RequestLog

    log = RequestLog(tmp_path / "log", flush_s=0.01)
    rows = requests(5).to_pylist()
    log.append([LogRow(**{**row, "embedding": np.asarray(row["embedding"])}) for row in rows])
    log.close()
    window = read_window(tmp_path / "log", 1_001.5, 100)
    assert window.table["request_id"].to_pylist() == [row["request_id"] for row in rows[2:]]
    assert window.table.schema == SCHEMA
    assert read_window(tmp_path / "log", 2_000.0, 100).table.num_rows == 0


def test_no_log_yet_is_an_empty_window(tmp_path):
    window = read_window(tmp_path / "absent", 0.0, 100)
    assert window.table.num_rows == 0
    assert write_window(window, tmp_path) == {"rows": 0}
    assert pq.read_schema(tmp_path / "rows.parquet") == SCHEMA
    assert json.loads((tmp_path / "summary.json").read_text())["first_unix_s"] is None


def test_summary_counts_by_model_and_by_reason(requests, tmp_path):
    table = pa.concat_tables([requests(3, version="a"), requests(2, version="b", seed=2)])
    write_window(select_window(table, 4), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["model_versions"] == {"a": 2, "b": 2}
    assert summary["rows"] == 4
    assert summary["dropped"] == {"incomplete": 0, "written twice": 0, "over max_rows": 1}
    assert (summary["first_unix_s"], summary["last_unix_s"]) == (1_000.0, 1_002.0)


def test_equal_windows_have_equal_fingerprints(requests):
    table = requests(5)
    shuffled = select_window(table.take([4, 2, 0, 1, 3]), 100)
    assert shuffled.fingerprint() == select_window(table, 100).fingerprint()
    assert shuffled.fingerprint() != select_window(table, 4).fingerprint()
