"""A normalised snapshot of a source: every picture once, with all its captions; the unusable with reasons."""

import fcntl
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from vlm_assets.data.findings import examples_by_reason
from vlm_assets.data.import_packs import PACK_BYTES, ImportPacks
from vlm_assets.data.picture_file import UPRIGHT, PictureFile, fault_of, pixel_sha256, read_picture
from vlm_assets.data.previews import write_contact_sheet
from vlm_assets.data.snapshot import Picture, Reading, Snapshot, count_reasons
from vlm_assets.data.sources.base import Source, SourceRow
from vlm_assets.data.tables import QUARANTINE, RAW_ROWS, pick_pictures, write_json, write_rows
from vlm_assets.data.workers import in_order
from vlm_assets.errors import SourceError, UnusableSourceError
from vlm_serving.errors import PictureError
from vlm_serving.progress import Progress

SHEET_PICTURES = 24
SHOWN_CHARACTERS = 500


def import_source(
    source: Source,
    directory: Path,
    *,
    max_bad_fraction: float,
    log: Callable[[str], object],
    scratch: Path | None = None,
    workers: int | None = None,
    pack_bytes: int = PACK_BYTES,
) -> dict[str, int]:
    """Write the snapshot (rows, pictures, rows put aside, summary, contact sheet) into `directory`; returns its counts.

    Packs that are finished wait in `scratch`: a killed import goes on behind them, and ends with the same bytes as one
    that was left alone. Pictures stream; what is said of each (1.2 kB) stays in memory. Raises SourceError if nothing
    is usable, or as soon as more than `max_bad_fraction` of the source's rows, less those it skips on purpose, are not.
    """
    total = source.total(log)
    if total == 0:
        raise SourceError(
            f"The source '{source.attribution.title}' is empty: 0 pictures. Put pictures and captions into it."
        )
    with _workplace(scratch, directory, log) as work, ImportPacks(work, pack_bytes) as packs:
        snapshot = Snapshot(total, max_bad_fraction)
        try:
            _read_rows(source, snapshot, packs, Progress("import", total, log), workers)
            snapshot.check()
        except UnusableSourceError:  # a rerun would find the same; what only interrupts an import keeps its packs
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        packs.finish(directory)
        return _write(snapshot, directory, source)


def read_row(row: SourceRow) -> Reading:
    """Decode and identify one row's picture, or say why it is unusable."""
    if row.reason:
        return _unusable(row, row.reason, row.detail)
    pairs = zip(row.captions, row.slots or ({},) * len(row.captions), strict=True)
    captions = {_printable(caption.strip()): slots for caption, slots in pairs if caption.strip()}
    empty = sum(not caption.strip() for caption in row.captions)
    if not captions:
        return _unusable(row, "no_caption", "all captions are empty", empty)
    said = Reading(
        _printable(row.source_row), _printable(row.file_name), repeats=row.repeats, captions=tuple(captions.items()),
        empty_captions=empty, group=_printable(row.group), split=row.split,
    )  # fmt: skip
    if row.picture is None:
        return said
    try:
        file, pixels = read_picture(row.picture)
    except PictureError as error:
        return _unusable(row, fault_of(error, row.picture), str(error))
    return replace(said, sha256=pixel_sha256(pixels), file=file)


def _unusable(row: SourceRow, reason: str, detail: str, empty_captions: int = 0) -> Reading:
    """What is said of a row that is put aside is for people: whatever a source puts there, it stays short."""
    where, name, why, what = (_shortened(_printable(text)) for text in (row.source_row, row.file_name, reason, detail))
    return Reading(where, name, why, what, empty_captions=empty_captions)


def _read_rows(source: Source, snapshot: Snapshot, packs: ImportPacks, progress: Progress, workers: int | None) -> None:
    for reading in packs.finished():
        snapshot.add(reading)
    progress.resume(snapshot.rows_read)
    rows = islice(source, snapshot.rows_read, None)
    for row, reading in in_order(lambda row: (row, read_row(row)), rows, workers):
        new = snapshot.add(reading)
        packs.add(reading, _pack_row(row, snapshot.pictures[reading.sha256]) if new else None)
        progress.advance(note=f"{len(snapshot.quarantine):,} put aside" if snapshot.quarantine else "")
    progress.done()


def _pack_row(row: SourceRow, picture: Picture) -> Mapping[str, Any]:
    name = f"{picture.image_id}.{picture.file.format.lower()}"
    return {"sha256": picture.sha256, "image": {"bytes": row.picture, "path": name}}


def _write(snapshot: Snapshot, directory: Path, source: Source) -> dict[str, int]:
    """Write the tables, the summary and the contact sheet; returns the counts worth showing."""
    pictures = snapshot.pictures.values()
    counts = {
        "pictures": len(pictures),
        "captions": sum(len(picture.captions) for picture in pictures),
        "quarantined": len(snapshot.quarantine),
        "skipped": len(snapshot.skipped),
    }
    write_rows(directory / "rows.parquet", RAW_ROWS, snapshot.rows())
    write_rows(directory / "quarantine.parquet", QUARANTINE, snapshot.quarantine)
    write_rows(directory / "skipped.parquet", QUARANTINE, snapshot.skipped)
    summary = {
        **counts,
        "source_rows": snapshot.rows_read,
        "merged_rows": sum(len(picture.mentions) - 1 for picture in pictures),
        "merged_pictures": sum(len(picture.mentions) > 1 for picture in pictures),
        "quarantined_by_reason": snapshot.reasons(),
        "quarantined_examples": examples_by_reason(snapshot.quarantine),
        "skipped_by_reason": count_reasons(snapshot.skipped),
        "skipped_examples": examples_by_reason(snapshot.skipped),
        "empty_captions": snapshot.empty_captions,
        "prescribed_split_conflicts": snapshot.split_conflicts(),
        "files": _file_counts([picture.file for picture in pictures]),
        "attribution": asdict(source.attribution),
    }
    write_json(directory / "summary.json", summary)
    _write_sheet(directory, snapshot)
    return counts


def _file_counts(files: Sequence[PictureFile]) -> dict[str, int]:
    """How many pictures came in which kind of file, most frequent first: formats, modes, and what had to be undone."""
    counts = Counter(f"{file.format} {file.mode}" for file in files)
    counts["turned upright by EXIF"] = sum(file.orientation != UPRIGHT for file in files)
    counts["animated, first frame used"] = sum(file.frames > 1 for file in files)
    counts["transparent, laid over white"] = sum(file.transparent for file in files)
    return {name: count for name, count in counts.most_common() if count}


def _write_sheet(directory: Path, snapshot: Snapshot) -> None:
    """The pictures with the smallest ids: a sample that a rerun repeats, and that has nothing to do with the order."""
    chosen = sorted(snapshot.pictures)[:SHEET_PICTURES]
    files = pick_pictures(directory, chosen)
    captions = [next(iter(snapshot.pictures[sha256].captions)) for sha256 in chosen]
    pictures = [read_picture(files[sha256])[1] for sha256 in chosen]
    write_contact_sheet(directory / "contact_sheet.webp", list(zip(pictures, captions, strict=True)))


@contextmanager
def _workplace(scratch: Path | None, directory: Path, log: Callable[[str], object]) -> Iterator[Path]:
    """Where packs are finished: `scratch` for one process at a time; anybody else works in its own `directory`."""
    if scratch is None:
        yield directory
        return
    with (scratch / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("import  another run is importing the same source; this one works beside it")
            yield directory
            return
        yield scratch


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"


def _printable(text: str) -> str:
    """Text that every file format takes: names that are not UTF-8 come as lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
