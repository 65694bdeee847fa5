"""What the COCO caption evaluation itself said; see tests/golden/make_metrics_golden.py."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[3] / "golden"
TOKENS: dict[str, str] = json.loads(lzma.decompress((GOLDEN / "metrics_tokens.json.xz").read_bytes()))
SCORES: dict[str, dict[str, Any]] = json.loads(gzip.decompress((GOLDEN / "metrics_scores.json.gz").read_bytes()))
