"""Requests that got no caption because of the model, beside the request log: what a guard needs for an error rate.

The caller's own faults, refusals under load and uploads that are no pictures are not in it, and no picture is. How it
is written: segment_log.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlm_serving.errors import ServingError
from vlm_serving.request_log import RequestLog
from vlm_serving.segment_log import SegmentLog, read_segments

FOLDER = "failures"  # in the request log's directory
PREFIX = "failures-"
MAX_BYTES = 16 * 1024**2
SCHEMA = pa.schema(
    [
        ("time_unix_s", pa.float64()),
        ("request_id", pa.string()),
        ("model_version", pa.string()),
        ("reason", pa.string()),
        ("pictures", pa.int32()),
    ]
)
BLAMED_STATUSES = {500, 504}


@dataclass(frozen=True)
class FailureRow:
    """One request that failed. `reason` is its problem's slug; none of its `pictures` was captioned for the caller."""

    time_unix_s: float
    request_id: str
    model_version: str
    reason: str
    pictures: int


class FailureLog(SegmentLog[FailureRow]):
    """The log of the requests that failed; see SegmentLog."""

    prefix = PREFIX
    schema = SCHEMA

    @classmethod
    def beside(cls, log: RequestLog, flush_s: float) -> "FailureLog":
        """A log of the same requests as `log`: a rate needs both from one sample."""
        return cls(log.directory / FOLDER, flush_s=flush_s, max_bytes=MAX_BYTES, share=log.share)


def read_failures(request_log: Path | str, since_unix_s: float | None = None) -> Any:
    """A pyarrow.Table of all rows after `since_unix_s` (exclusive; None: all), oldest first; empty without any.

    `request_log`: the directory of the request log that they lie beside.
    """
    return read_segments(Path(request_log) / FOLDER, PREFIX, SCHEMA, since_unix_s)


def model_fault(error: Exception) -> str:
    """The slug of an error that the model can be blamed for which had the request; empty if it was something else.

    What nobody raises on purpose counts: whatever a library throws there is thrown at the model.
    """
    if not isinstance(error, ServingError):
        return ServingError.slug
    return error.slug if error.http_status in BLAMED_STATUSES else ""
