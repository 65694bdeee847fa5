"""Which pictures of the traffic to caption: unlike what the model was validated on, unsure, unlike each other."""

import base64
import html
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlm_assets.monitoring.compaction import ROWS
from vlm_assets.monitoring.features import bundle_version, read_reference

THUMBNAIL_PX = 96


@dataclass(frozen=True)
class Wish:
    """A picture to caption: `caption_id` is what POST /v1/feedback takes; `distance` that to the nearest known one."""

    rank: int
    caption_id: str
    caption: str
    confidence: float
    distance: float
    thumbnail: bytes | None


def wishes(
    log: Path, released: Path, count: int, known: Collection[str], picture_of: Callable[[str], bytes | None]
) -> list[Wish]:
    """The `count` pictures that would teach most. `log`: a compacted window; `known`: caption ids corrected already."""
    bundle = released / "bundle"
    rows = _candidates(log, bundle_version(bundle), known)
    if not rows:
        return []
    embeddings = np.stack([np.asarray(row["embedding"], dtype=np.float32) for row in rows])
    doubt = 1 - np.array([row["confidence"] for row in rows])
    order = spread(embeddings, read_reference(bundle).embeddings, doubt, count)
    return [
        Wish(
            rank, row["request_id"], row["caption"], row["confidence"], float(distance),
            row["thumbnail"] or _small(picture_of(row["request_id"])),
        )
        for rank, (index, distance) in enumerate(order, start=1)
        for row in [rows[index]]
    ]  # fmt: skip


def spread(
    candidates: NDArray[np.float32], known: NDArray[np.float32], doubt: NDArray[np.float64], count: int
) -> list[tuple[int, float]]:
    """Farthest-first (k-center greedy, Sener and Savarese 2018), distances weighed by 1 + doubt.

    `candidates` (n, d), `known` (m, d), `doubt` (n,) of 0..1. Returns up to `count` (index, distance to the nearest of
    `known` and of those chosen before).
    """
    nearest = np.sqrt(_squared_distances(candidates, known).min(axis=1))
    chosen: list[tuple[int, float]] = []
    for _ in range(min(count, len(candidates))):
        best = int(np.argmax(nearest * (1 + doubt)))
        if nearest[best] <= 0:
            break
        chosen.append((best, float(nearest[best])))
        nearest = np.minimum(nearest, np.sqrt(_squared_distances(candidates, candidates[best : best + 1])[:, 0]))
        nearest[best] = 0
    return chosen


def wish_table(listed: Sequence[Wish]) -> str:
    """Markdown with the thumbnails inside."""
    head = "| rank | picture | said | sure | distance | caption id |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {one.rank} | {_image(one.thumbnail)} | {_cell(one.caption)} | {100 * one.confidence:.0f} % "
        f"| {one.distance:.2f} | `{one.caption_id}` |"
        for one in listed
    )


def _candidates(log: Path, version: str, known: Collection[str]) -> list[dict[str, Any]]:
    """Each picture that this model captioned once, by its latest request, unless somebody corrected it already."""
    columns = ["request_id", "model_version", "caption", "confidence", "embedding", "picture_sha256", "thumbnail"]
    rows: list[dict[str, Any]] = pq.read_table(log / ROWS, columns=columns).to_pylist()
    done = {row["picture_sha256"] for row in rows if row["request_id"] in known}
    latest = {row["picture_sha256"]: row for row in rows if row["model_version"] == version}
    return [row for sha256, row in latest.items() if sha256 not in done]


def _squared_distances(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * left @ right.T
    return np.maximum(squares, 0)


def _small(picture: bytes | None) -> bytes | None:
    """A JPEG thumbnail of a kept picture."""
    if picture is None:
        return None
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _image(thumbnail: bytes | None) -> str:
    if thumbnail is None:
        return "(none kept)"
    return f"![](data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()})"


def _cell(text: str) -> str:
    return html.escape(text).replace("|", "\\|")
