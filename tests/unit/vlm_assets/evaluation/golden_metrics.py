"""What the COCO caption evaluation itself said; see tests/golden/make_metrics_golden.py."""

import gzip
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[3] / "golden"


def read(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((GOLDEN / name).read_bytes()))


TOKENS: dict[str, str] = read("metrics_tokens.json.gz")
SCORES: dict[str, dict[str, Any]] = read("metrics_scores.json.gz")
