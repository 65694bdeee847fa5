"""The account of what was dropped and what was flagged: a row for each, counts by reason, examples, and a picture."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_assets.data.picture_file import read_picture
from vlm_assets.data.previews import write_contact_sheet
from vlm_assets.data.quality import Fault
from vlm_assets.data.tables import pick_pictures

SHEET_PICTURES = 24
EXAMPLES = 3


class Findings:
    """Whole pictures, and single captions of pictures that stay, each with what is wrong and where it came from."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self, row: Mapping[str, Any], fault: Fault, caption: str = "", pictures: int = 1, source_row: str = ""
    ) -> None:
        """Account for one picture, or for one of its captions; `row` is the picture's row of the snapshot.

        `pictures`: how many are concerned, of which this is an example. `source_row`: the row meant; "" = the first.
        """
        where = source_row or row["source_rows"][0]
        place = {"image_id": row["image_id"], "source_row": where, "file_name": row["file_name"]}
        said = {"caption": caption, "reason": fault.reason, "detail": fault.detail, "pictures": pictures}
        self.rows.append({**place, **said, "sha256": row["sha256"]})

    def keep(self, image_ids: Collection[str]) -> None:
        """Forget what was found of other pictures: those that were dropped in the end need no flag."""
        self.rows = [row for row in self.rows if row["image_id"] in image_ids]

    def reasons(self) -> dict[str, int]:
        """Counts by reason, most frequent first."""
        counts: Counter[str] = Counter()
        for row in self.rows:
            counts[row["reason"]] += row["pictures"]
        return dict(counts.most_common())

    def examples(self) -> dict[str, list[str]]:
        """By reason, the first few: where, what was said, and the value seen."""
        return examples_by_reason(self.rows)

    def sheet_rows(self) -> list[dict[str, Any]]:
        """Some of the whole pictures: one of each reason, then the next of each, and so on."""
        return _in_turn([row for row in self.rows if not row["caption"]])[:SHEET_PICTURES]

    def write_sheet(self, raw: Path, path: Path) -> None:
        """Draw `sheet_rows` with their reason below; without any, no file."""
        chosen = self.sheet_rows()
        if not chosen:
            return
        files = pick_pictures(raw, {row["sha256"] for row in chosen})
        pictures: list[tuple[Image.Image, str]] = [
            (read_picture(files[row["sha256"]])[1], f"{row['reason']}: {row['detail']}") for row in chosen
        ]
        write_contact_sheet(path, pictures)


def examples_by_reason(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By reason, the first few rows: where in the source, what was said, and the value seen."""
    shown: dict[str, list[str]] = {}
    for row in rows:
        examples = shown.setdefault(row["reason"], [])
        if len(examples) < EXAMPLES:
            said = f" '{row['caption']}'" if row.get("caption") else ""
            examples.append(f"{row['source_row'] or row['file_name']}{said}: {row['detail']}")
    return shown


def _in_turn(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []
    for at, row in enumerate(rows):
        turns.append((seen[row["reason"]], at))
        seen[row["reason"]] += 1
    return [rows[at] for _, at in sorted(turns)]
