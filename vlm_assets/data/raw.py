"""A normalised snapshot of a source: every picture once, with all its captions; the unusable with reasons."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_assets.data.clusters import Clusters
from vlm_assets.data.previews import SheetSample
from vlm_assets.data.sources.base import Slots, Source, SourceRow
from vlm_assets.data.tables import PICTURES, QUARANTINE, RAW_ROWS, PackWriter, write_json, write_rows
from vlm_assets.errors import SourceError
from vlm_assets.progress import Progress
from vlm_serving.errors import PictureError, PictureTooLargeError, UnsupportedPictureError
from vlm_serving.images import decode_picture

IMAGE_ID_HEX_DIGITS = 16
HELD_OUT_FIRST = ("test", "val", "train", "")  # of two prescribed splits for one picture, the one that trains less wins


@dataclass
class Picture:
    """One picture of the snapshot, as far as the rows read so far tell."""

    sha256: str  # of the decoded pixels and the size: a PNG and its re-encoding are one picture
    width: int
    height: int
    format: str
    captions: dict[str, Slots] = field(default_factory=dict[str, Slots])  # in the order met; the first is the primary
    groups: list[str] = field(default_factory=list[str])
    split: str = ""
    copies: int = 0

    @property
    def image_id(self) -> str:
        """What the picture is called everywhere else."""
        return self.sha256[:IMAGE_ID_HEX_DIGITS]

    def to_row(self, group: str) -> dict[str, Any]:
        """The picture as a row of rows.parquet."""
        declared = any(self.captions.values())
        return {
            "image_id": self.image_id,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "format": self.format,
            "captions": list(self.captions),
            "group": group,
            "slots": json.dumps(list(self.captions.values()) if declared else [], ensure_ascii=False),
            "split": self.split,
            "copies": self.copies,
        }


def import_source(
    source: Source, directory: Path, *, max_bad_fraction: float, log: Callable[[str], object]
) -> dict[str, int]:
    """Write the snapshot (rows, pictures, quarantine, summary, contact sheet) into `directory`; returns its counts.

    Pictures stream; rows stay in memory (about 1 kB each). Raises SourceError when nothing is usable or more than
    `max_bad_fraction` of the source's rows are not.
    """
    snapshot = Snapshot()
    total = source.total()
    if total == 0:
        raise SourceError(
            f"The source '{source.attribution.title}' is empty: 0 pictures. Put pictures and captions into it."
        )
    progress = Progress("import", total, log)
    with PackWriter(directory, "pictures", PICTURES) as packs:
        for row in source:
            picture_bytes = snapshot.take(row)
            if picture_bytes is not None:
                packs.add(picture_bytes)
            progress.advance()
    progress.done()
    snapshot.check(total, max_bad_fraction)
    return snapshot.write(directory, source)


class Snapshot:
    """Collects rows: merges those that show the same pixels, puts aside those that cannot be used."""

    def __init__(self) -> None:
        self.pictures: dict[str, Picture] = {}
        self.quarantine: list[dict[str, str]] = []
        self.split_conflicts = 0
        self._groups: Clusters[str] = Clusters()
        self._sample = SheetSample()

    def take(self, row: SourceRow) -> Mapping[str, Any] | None:
        """Take one row; returns the picture to pack if it has not been seen before."""
        if row.picture is None:
            self._put_aside(row, row.reason, row.detail)
            return None
        captions = {caption.strip(): slots for caption, slots in _pairs(row) if caption.strip()}
        if not captions:
            self._put_aside(row, "no_caption", "all captions are empty")
            return None
        try:
            decoded = decode_picture(row.picture)
        except PictureError as error:
            self._put_aside(row, _reason(error), str(error))
            return None
        return self._merge(row, captions, decoded)

    def check(self, total: int, max_bad_fraction: float) -> None:
        """Raise SourceError if too little of the source is usable."""
        bad = len(self.quarantine)
        if self.pictures and bad <= max_bad_fraction * total:
            return
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons().items())
        first = self.quarantine[0] if self.quarantine else {"source_row": "", "detail": ""}
        raise SourceError(
            f"{bad:,} of {total:,} rows of the source are unusable ({100 * bad / total:.1f} %; {reasons}), allowed are "
            f"{100 * max_bad_fraction:g} %. First: {first['source_row']}: {first['detail']} "
            "Repair the source, or raise max_bad_fraction."
        )

    def reasons(self) -> dict[str, int]:
        """How many rows were put aside, by reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.quarantine).most_common())

    def write(self, directory: Path, source: Source) -> dict[str, int]:
        """Write the tables, the summary and the contact sheet; returns the counts worth showing."""
        rows = [picture.to_row(self._group_of(picture)) for picture in self.pictures.values()]
        counts = {
            "pictures": len(rows),
            "captions": sum(len(row["captions"]) for row in rows),
            "quarantined": len(self.quarantine),
        }
        write_rows(directory / "rows.parquet", RAW_ROWS, rows)
        write_rows(directory / "quarantine.parquet", QUARANTINE, self.quarantine)
        self._sample.write(directory / "contact_sheet.png")
        summary = {
            **counts,
            "source_rows": sum(row["copies"] for row in rows) + len(self.quarantine),
            "merged_rows": sum(row["copies"] - 1 for row in rows),
            "merged_pictures": sum(row["copies"] > 1 for row in rows),
            "quarantined_by_reason": self.reasons(),
            "prescribed_split_conflicts": self.split_conflicts,
            "attribution": asdict(source.attribution),
        }
        write_json(directory / "summary.json", summary)
        return counts

    def _merge(self, row: SourceRow, captions: Mapping[str, Slots], decoded: Image.Image) -> Mapping[str, Any] | None:
        sha256 = pixel_sha256(decoded)
        known = self.pictures.get(sha256)
        picture = known or Picture(sha256, decoded.width, decoded.height, _format_of(row.picture or b""))
        self.pictures[sha256] = picture
        for caption, slots in captions.items():
            picture.captions.setdefault(caption, slots)
        picture.copies += 1
        self._note_group(picture, row.group)
        self._note_split(picture, row.split)
        if known is not None:
            return None
        self._sample.offer(picture.image_id, decoded, next(iter(picture.captions)))
        return {
            "sha256": sha256,
            "image": {"bytes": row.picture, "path": f"{picture.image_id}.{picture.format.lower()}"},
        }

    def _note_group(self, picture: Picture, group: str) -> None:
        if group:
            picture.groups.append(group)
            self._groups.join(picture.groups[0], group)

    def _note_split(self, picture: Picture, split: str) -> None:
        if picture.split and split and split != picture.split:
            self.split_conflicts += 1
        picture.split = min(picture.split, split, key=HELD_OUT_FIRST.index)

    def _group_of(self, picture: Picture) -> str:
        return self._groups.find(picture.groups[0]) if picture.groups else ""

    def _put_aside(self, row: SourceRow, reason: str, detail: str) -> None:
        self.quarantine.append({"source_row": row.source_row, "reason": reason, "detail": detail})


def pixel_sha256(picture: Image.Image) -> str:
    """Hex digest of a decoded RGB picture: equal pixels and size, equal digest, whatever the file format."""
    state = hashlib.sha256(f"{picture.mode} {picture.width}x{picture.height} ".encode())
    state.update(picture.tobytes())
    return state.hexdigest()


def _pairs(row: SourceRow) -> list[tuple[str, Slots]]:
    slots = row.slots or ({},) * len(row.captions)
    return list(zip(row.captions, slots, strict=True))


def _reason(error: PictureError) -> str:
    if isinstance(error, PictureTooLargeError):
        return "picture_too_large"
    return "not_a_picture" if isinstance(error, UnsupportedPictureError) else "damaged_picture"


def _format_of(data: bytes) -> str:
    """Pillow's name of the file format, by the first bytes."""
    heads = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"RIFF": "WEBP", b"GIF8": "GIF", b"BM": "BMP"}
    return next((name for head, name in heads.items() if data.startswith(head)), "")
