"""What serving wrote, rotated into a store on a real S3 server."""

import io
import time
import uuid
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from tests.seaweed import BUCKET, Seaweed, set_environment
from tests.unit.vlm_serving.test_request_log import ROW
from vlm_assets.monitoring.assets import request_log
from vlm_assets.resources import RefIOManager, StoreResource
from vlm_serving.request_log import RequestLog

pytestmark = pytest.mark.integration


def test_the_window_of_requests_lies_as_parquet_on_s3(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, {**seaweed.environment(), "VLM_CACHE": str(tmp_path / "cache")})
    monkeypatch.setenv("VLM_REQUEST_LOG", str(tmp_path / "log"))
    log, now_s = RequestLog(tmp_path / "log"), time.time()
    log.append([replace(ROW, time_unix_s=now_s - n, request_id=f"r{n}", thumbnail=b"jpeg") for n in range(5)])
    log.close()
    prefix = f"log-{uuid.uuid4().hex[:8]}"
    store = StoreResource(root=f"s3://{BUCKET}/{prefix}")
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"store": store, "io_manager": RefIOManager(store=store)}
        assert dg.materialize([request_log], instance=instance, resources=resources).success
    [key] = [key for key in seaweed.keys(prefix) if key.endswith("rows.parquet")]
    data = seaweed.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    assert [row["request_id"] for row in rows] == ["r4", "r3", "r2", "r1", "r0"]
    assert {row["thumbnail"] for row in rows} == {b"jpeg"}
