"""What was asked and answered, for monitoring: a row for each captioned picture. No picture inside, unless small ones
are asked for. How it is written: segment_log.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_serving.segment_log import ROW_BYTES, SegmentLog, read_segments

PREFIX = "requests-"
SCHEMA = pa.schema(
    [
        ("time_unix_s", pa.float64()),
        ("request_id", pa.string()),
        ("model_version", pa.string()),
        ("caption", pa.string()),
        ("confidence", pa.float32()),
        ("token_count", pa.int32()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("brightness", pa.float32()),
        ("contrast", pa.float32()),
        ("embedding", pa.list_(pa.float32())),
        ("latency_ms", pa.float32()),
        ("picture_sha256", pa.string()),
        ("thumbnail", pa.binary()),
        ("colourfulness", pa.float32()),
        ("sharpness", pa.float32()),
        ("entropy_bits", pa.float32()),
    ]
)


@dataclass(frozen=True)
class LogRow:
    """One captioned picture. Brightness and contrast are fractions of full scale; latency is the whole request's.

    `request_id` is unique per row: pictures of a request with several have `/0`, `/1`, … behind the request's id.
    """

    time_unix_s: float
    request_id: str
    model_version: str
    caption: str
    confidence: float
    token_count: int
    width_px: int
    height_px: int
    brightness: float
    contrast: float
    embedding: NDArray[np.float32]  # (D,)
    latency_ms: float
    picture_sha256: str
    thumbnail: bytes | None = None  # a small JPEG, upright; only if the settings ask for it
    colourfulness: float | None = None  # this and the next: of picture_stats, None in rows from before they were kept
    sharpness: float | None = None
    entropy_bits: float | None = None


class RequestLog(SegmentLog[LogRow]):
    """The log of the pictures that were answered; see SegmentLog."""

    prefix = PREFIX
    schema = SCHEMA

    @staticmethod
    def row_bytes(row: LogRow) -> int:
        """About what a row takes in memory."""
        return ROW_BYTES + row.embedding.nbytes + 4 * len(row.caption) + len(row.thumbnail or b"")


def read_request_log(directory: Path | str, since_unix_s: float | None = None) -> Any:
    """A pyarrow.Table of all rows after `since_unix_s` (exclusive; None: all), oldest first; empty without a log."""
    return read_segments(Path(directory), PREFIX, SCHEMA, since_unix_s)
