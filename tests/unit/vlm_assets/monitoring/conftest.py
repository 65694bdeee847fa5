"""A served window and a released model, made of numbers: no picture is captioned here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlm_assets.monitoring.compaction import SCHEMA

VERSION = "5eed5eed5eed5eed"
DIMENSIONS = 8


def requests_table(
    count: int, *, shift: float = 0.0, seed: int = 1, version: str = VERSION, **columns: Any
) -> pa.Table:
    """`count` requests, a second apart, with embeddings N(shift, 1); `columns` replace whole columns."""
    generator = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "time_unix_s": 1_000.0 + np.arange(count),
        "request_id": [f"{version}-{seed}-{row}" for row in range(count)],
        "model_version": [version] * count,
        "caption": ["a woman scientist"] * count,
        "confidence": generator.uniform(0.5, 0.9, count),
        "token_count": generator.integers(3, 9, count),
        "width_px": [96] * count,
        "height_px": [96] * count,
        "brightness": generator.uniform(0.4, 0.6, count),
        "contrast": generator.uniform(0.1, 0.2, count),
        "embedding": list(generator.normal(shift, 1, (count, DIMENSIONS)).astype(np.float32)),
        "latency_ms": [40.0] * count,
        "picture_sha256": [f"picture-{seed}-{row}" for row in range(count)],
        "thumbnail": [None] * count,
        "colourfulness": generator.uniform(0.1, 0.4, count),
        "sharpness": generator.uniform(500, 900, count),
        "entropy_bits": generator.uniform(2, 5, count),
        **columns,
    }
    return pa.table(values).cast(SCHEMA)


@pytest.fixture
def requests() -> Callable[..., pa.Table]:
    return requests_table


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The directory of a released model whose bundle holds 200 reference pictures N(0, 1)."""
    bundle = tmp_path / "released" / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "bundle.json").write_text(json.dumps({"version": VERSION}))
    table = requests_table(200, seed=0)
    kept = ["embedding", "brightness", "contrast", "confidence", "token_count", "width_px", "height_px"]
    reference = table.select([*kept, "caption", "colourfulness", "sharpness", "entropy_bits"])
    reference = reference.append_column("image_id", table["request_id"])
    (bundle / "words.json").write_text(json.dumps(["a", "scientist", "woman"]))
    pq.write_table(reference, bundle / "reference.parquet")
    return bundle.parent
