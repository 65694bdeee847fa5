"""Which pictures and captions of a snapshot are good enough, with the signature by which twins are found later.

Each picture is decoded once. Everything left out is accounted for by reason.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_assets.data.dedup import Signature, signature
from vlm_assets.data.quality import Fault, QualityLimits, caption_fault, picture_fault
from vlm_assets.data.tables import read_rows, stream_pictures
from vlm_assets.progress import Progress
from vlm_serving.errors import PictureError
from vlm_serving.images import decode_picture


class Dropped:
    """What was left out, and why: whole pictures, and single captions of pictures that stay."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []

    def add(self, image_id: str, fault: Fault, caption: str = "") -> None:
        """Account for one picture, or for one of its captions."""
        self.rows.append({"image_id": image_id, "caption": caption, "reason": fault.reason, "detail": fault.detail})

    def reasons(self) -> dict[str, int]:
        """Counts by reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.rows).most_common())


@dataclass(frozen=True)
class Screened:
    """Rows that passed, in the source's order, their signatures, and what did not pass."""

    rows: list[dict[str, Any]]
    signatures: list[Signature]
    dropped: Dropped


def screen(raw: Path, limits: QualityLimits, log: Callable[[str], object]) -> Screened:
    """Judge every picture and caption of the snapshot in `raw`."""
    dropped = Dropped()
    rows = read_rows(raw / "rows.parquet")
    good = {row["sha256"]: row for row in rows if _keep_good_captions(row, limits, dropped)}
    signatures: dict[str, Signature] = {}
    progress = Progress("compare", len(rows), log)
    for sha256, data in stream_pictures(raw):
        progress.advance()
        if sha256 in good:
            found = _inspect(data, limits)
            if isinstance(found, Fault):
                dropped.add(good[sha256]["image_id"], found)
            else:
                signatures[sha256] = found
    progress.done()
    usable = [row for row in rows if row["sha256"] in signatures]
    return Screened(usable, [signatures[row["sha256"]] for row in usable], dropped)


def _inspect(data: bytes, limits: QualityLimits) -> Signature | Fault:
    try:
        picture = decode_picture(data)
    except PictureError as error:
        return Fault("undecodable", str(error))
    return picture_fault(picture, limits) or signature(picture)


def _keep_good_captions(row: dict[str, Any], limits: QualityLimits, dropped: Dropped) -> bool:
    """Take the faulty captions, with their slots, out of the row; False if none is left."""
    slots: list[Any] = json.loads(row["slots"]) or [{}] * len(row["captions"])
    good: list[tuple[str, Any]] = []
    for caption, said in zip(row["captions"], slots, strict=True):
        fault = caption_fault(caption, limits)
        if fault:
            dropped.add(row["image_id"], fault, caption)
        else:
            good.append((caption, said))
    row["captions"] = [caption for caption, _ in good]
    if any(said for _, said in good):
        row["slots"] = json.dumps([said for _, said in good], ensure_ascii=False)
    if not good:
        dropped.add(row["image_id"], Fault("no_caption_left", "all captions were dropped"))
    return bool(good)
