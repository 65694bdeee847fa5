"""Which pictures and captions of a snapshot are good enough, with the signature by which twins are found later.

Each picture is decoded once. Everything left out, and everything doubtful, is accounted for by reason.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlm_assets.data.caption_quality import caption_faults
from vlm_assets.data.corpus_quality import repetition
from vlm_assets.data.dedup import Signature, signature
from vlm_assets.data.findings import Findings
from vlm_assets.data.picture_file import read_picture
from vlm_assets.data.quality import Fault, PictureSignals, QualityLimits, measure, picture_faults
from vlm_assets.data.source_rows import with_captions
from vlm_assets.data.tables import read_rows, stream_pictures
from vlm_assets.data.workers import in_order
from vlm_serving.errors import PictureError
from vlm_serving.progress import Progress


@dataclass
class Screened:
    """Pictures that passed, in the source's order, with their signals and flags; their signatures; what was found."""

    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    signatures: list[Signature] = field(default_factory=list[Signature])
    dropped: Findings = field(default_factory=Findings)
    flagged: Findings = field(default_factory=Findings)
    repetition: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])  # of the captions that stay


@dataclass(frozen=True)
class Inspection:
    """What one decoding of a picture gave."""

    signals: PictureSignals
    signature: Signature


def screen(raw: Path, limits: QualityLimits, log: Callable[[str], object]) -> Screened:
    """Judge every picture and caption of the snapshot in `raw`."""
    screened = Screened()
    judged = (_good_captions(row, limits, screened) for row in read_rows(raw / "rows.parquet"))
    good = {row["sha256"]: row for row in judged if row}
    inspected: dict[str, Signature] = {}
    for sha256, found in _inspections(raw, good, log):
        row = good[sha256]
        if isinstance(found, Fault):
            screened.dropped.add(row, found)
        elif _keep_good_picture(row, found.signals, limits, screened):
            inspected[sha256] = found.signature
    screened.rows = [row for row in good.values() if row["sha256"] in inspected]
    screened.flagged.keep({row["image_id"] for row in screened.rows})
    screened.repetition = repetition(screened.rows, screened.flagged)
    screened.signatures = [inspected[row["sha256"]] for row in screened.rows]
    return screened


def _inspections(
    raw: Path, good: dict[str, dict[str, Any]], log: Callable[[str], object]
) -> Iterator[tuple[str, Inspection | Fault]]:
    progress = Progress("inspect", len(good), log)
    pictures = ((sha256, data) for sha256, data in stream_pictures(raw) if sha256 in good)
    for sha256, found in in_order(lambda item: (item[0], _inspect(item[1])), pictures):
        progress.advance()
        yield sha256, found
    progress.done()


def _inspect(data: bytes) -> Inspection | Fault:
    try:
        _, picture = read_picture(data)
    except PictureError as error:
        return Fault("undecodable", str(error))
    return Inspection(measure(picture), signature(picture))


def _keep_good_picture(row: dict[str, Any], signals: PictureSignals, limits: QualityLimits, screened: Screened) -> bool:
    """Note the signals and flags in the row; False if the picture is dropped, for the first reason to do so."""
    faults = picture_faults(row, signals, limits)
    fatal = next((fault for fault in faults if fault.drops(limits)), None)
    if fatal is not None:
        screened.dropped.add(row, fatal)
        return False
    for fault in faults:
        screened.flagged.add(row, fault)
    row |= asdict(signals)
    row["flags"] = list(dict.fromkeys([*row["flags"], *(fault.reason for fault in faults)]))
    return True


def _good_captions(row: dict[str, Any], limits: QualityLimits, screened: Screened) -> dict[str, Any] | None:
    """The row without its faulty captions; None if none is left."""
    good: list[int] = []
    bad: dict[str, None] = {}
    flags: list[str] = []
    for number, caption in enumerate(row["captions"]):
        faults = caption_faults(caption, row["file_name"], limits, row["source_rows"])
        if faults and faults[0].drops(limits):
            screened.dropped.add(row, faults[0], caption)
            bad[faults[0].reason] = None
            continue
        for fault in faults:
            screened.flagged.add(row, fault, caption)
            flags.append(fault.reason)
        good.append(number)
    if not good:
        screened.dropped.add(row, Fault("no_caption_left", f"all captions were dropped: {', '.join(bad)}"))
        return None
    return {**with_captions(row, good), "flags": flags}
