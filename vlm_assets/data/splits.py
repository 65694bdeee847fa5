"""From a raw snapshot to clean splits: filter, find duplicates, assign, and account for every row that is dropped."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlm_assets.data.alignment import THUMB_PX
from vlm_assets.data.contradictions import contradictions
from vlm_assets.data.corpus_quality import flag_corpus
from vlm_assets.data.dedup import Links, Signature, Thresholds, near_duplicates, pairs_among
from vlm_assets.data.findings import Findings
from vlm_assets.data.near_duplicate_gallery import write_near_duplicates
from vlm_assets.data.previews import write_caption_lengths
from vlm_assets.data.quality import Fault, QualityLimits
from vlm_assets.data.screening import Screened, screen
from vlm_assets.data.settling import PairsAmong, settle
from vlm_assets.data.source_rows import candidates, put_together
from vlm_assets.data.split import (
    VAL,
    SplitPlan,
    check_plan,
    held_values,
    leaks_of_naive_split,
    split_counts,
    unit_hash,
)
from vlm_assets.data.split_balance import write_split_balance
from vlm_assets.data.tables import (
    DROPPED,
    FLAGGED,
    NEAR_DUPLICATES,
    SIGNALS,
    SPLIT_ROWS,
    THUMBNAILS,
    Row,
    read_json,
    write_json,
    write_rows,
)
from vlm_assets.errors import ConfigError, SourceError


@dataclass(frozen=True)
class SplitSettings:
    """All that decides the splits."""

    quality: QualityLimits = field(default_factory=QualityLimits)
    thresholds: Thresholds = field(default_factory=Thresholds)
    plan: SplitPlan = field(default_factory=SplitPlan)


def write_splits(raw: Path, directory: Path, settings: SplitSettings, log: Callable[[str], object]) -> dict[str, int]:
    """Write the splits of the snapshot in `raw` into `directory`; returns the number of rows per split.

    The thumbnails (3 kB per picture, at the peak twice) stay in memory. Raises SourceError if nothing is left,
    ConfigError if a split that the plan asks for is empty.
    """
    check_plan(settings.plan)
    screened = screen(raw, settings.quality, log)
    rows, signatures, dropped = screened.rows, screened.signatures, screened.dropped
    plan = applicable_plan(rows, settings.plan)
    if not rows:
        raise SourceError(
            f"No picture is left of {len(dropped.rows):,}: {_listed(dropped.reasons())}. Loosen the quality limits or "
            "repair the source."
        )
    pairs = near_duplicates(signatures, settings.thresholds)
    every_pair = partial(pairs_among, signatures, thresholds=settings.thresholds)
    assigned = _assigned(rows, pairs, every_pair, plan, dropped)
    _judge_together(assigned, pairs, settings.quality, screened)
    kept = list(assigned.values())
    counts = dict(split_counts((row["split"] for row in kept), plan))
    _check_counts(counts, plan, given=all(all(row["given_splits"]) for row in rows))
    write_rows(directory / "rows.parquet", SPLIT_ROWS, kept)
    write_rows(directory / "dropped.parquet", DROPPED, dropped.rows)
    write_rows(directory / "flagged.parquet", FLAGGED, screened.flagged.rows)
    dropped.write_sheet(raw, directory / "dropped_pictures.webp")
    screened.flagged.write_sheet(raw, directory / "flagged_pictures.webp")
    write_rows(directory / "near_duplicates.parquet", NEAR_DUPLICATES, _pair_rows(rows, pairs))
    _write_thumbnails(directory / THUMBNAILS, [signatures[at] for at in assigned])
    write_json(directory / "summary.json", _summary(raw, kept, counts, screened, pairs, plan, settings.thresholds))
    write_near_duplicates(directory / "near_duplicates.webp", rows, raw, pairs, settings.thresholds)
    write_split_balance(directory / "split_balance.png", kept, counts, plan)
    write_caption_lengths(
        directory / "caption_lengths.png", [len(caption.split()) for row in kept for caption in row["captions"]]
    )
    return counts


def _write_thumbnails(path: Path, thumbs: Sequence[Signature]) -> None:
    """(N, 32, 32, 3) levels, in the order of rows.parquet, for whoever looks for leaks: 3 kB a picture."""
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (len(thumbs), THUMB_PX, THUMB_PX, 3))
    for at, thumb in enumerate(thumbs):
        file[at] = thumb


def _assigned(
    pictures: Sequence[Row], pairs: Links, every_pair: PairsAmong, plan: SplitPlan, dropped: Findings
) -> dict[int, dict[str, Any]]:
    """The pictures that stay, by number, with their split and with those of their source rows that tie no two splits.

    A picture that loses all rows is one finding, a row that a picture loses another.
    """
    rows, places = candidates(pictures)
    assignment = settle(rows, pairs, every_pair, plan)
    kept = put_together(pictures, places, assignment)
    gone: set[int] = set()
    for position, splits in assignment.dropped.items():
        at, row = places[position]
        if at in gone:
            continue
        fault = Fault("would_tie_splits", f"same picture, near duplicate or group of rows in {' and '.join(splits)}")
        said = pictures[at]["captions"][pictures[at]["row_captions"][row][0]] if at in kept else ""
        dropped.add(pictures[at], fault, said, source_row=pictures[at]["source_rows"][row])
        gone |= set() if at in kept else {at}
    return kept


def _judge_together(
    pictures: dict[int, dict[str, Any]], pairs: Links, limits: QualityLimits, screened: Screened
) -> None:
    """Flag what shows when rows and pictures are seen beside each other.

    Who is dropped for it goes after the splits are settled: its near duplicates stay where they are.
    """
    for at, fault in list(contradictions(pictures, pairs)):
        if fault.drops(limits):
            screened.dropped.add(pictures.pop(at), fault)
        else:
            screened.flagged.add(pictures[at], fault)
            pictures[at]["flags"] = [*pictures[at]["flags"], fault.reason]
    screened.flagged.keep({row["image_id"] for row in pictures.values()})
    flag_corpus(list(pictures.values()), limits, screened.flagged)


def _pair_rows(rows: Sequence[Row], pairs: Links) -> list[dict[str, Any]]:
    return [
        {"image_id_a": rows[first]["image_id"], "image_id_b": rows[second]["image_id"], "distance": distance}
        for first, second, distance in pairs.rows()
    ]


def _check_counts(counts: Mapping[str, int], plan: SplitPlan, given: bool) -> None:
    empty = [name for name, count in counts.items() if count == 0]
    if empty == [VAL] and given:
        raise ConfigError(
            f"Split 'val' is empty: the source gives {_listed(counts)} and nothing to validate on. Set "
            "val_of_given_train, such as 0.1, to let a share of its training pictures validate."
        )
    if empty:
        raise ConfigError(
            f"Split '{empty[0]}' is empty: {sum(counts.values()):,} pictures fell into {_listed(counts)} with seed "
            f"{plan.seed}. Use more pictures, a larger fraction for it, or another seed."
        )


def _summary(
    raw: Path,
    kept: Sequence[Row],
    counts: Mapping[str, int],
    screened: Screened,
    pairs: Links,
    plan: SplitPlan,
    thresholds: Thresholds,
) -> dict[str, Any]:
    raw_summary = read_json(raw / "summary.json")
    return {
        "pictures": len(kept),
        "captions": sum(len(row["captions"]) for row in kept),
        "splits": dict(counts),
        "dropped_by_reason": screened.dropped.reasons(),
        "dropped_examples": screened.dropped.examples(),
        "flagged_by_reason": screened.flagged.reasons(),
        "flagged_examples": screened.flagged.examples(),
        "caption_repetition": screened.repetition,
        "signals": signal_ranges(kept),
        "near_duplicate_pairs": len(pairs),
        "near_duplicate_limits": asdict(thresholds),
        "clusters": len({row["cluster"] for row in kept}),
        "naive_split": leaks_of_naive_split([row["cluster"] for row in kept], [row["copies"] for row in kept], plan),
        "held_out_values": held_out_values(kept, plan),
        "attribution": raw_summary.get("attribution", {}),
    }


def applicable_plan(rows: Sequence[Row], plan: SplitPlan) -> SplitPlan:
    """The plan without the holdouts on slots that this source does not declare: own pictures seldom come with slots."""
    declared = {slot for row in rows for caption in json.loads(row["slots"]) for slot in caption}
    return replace(plan, holdouts=tuple(holdout for holdout in plan.holdouts if declared.issuperset(holdout.slots)))


def held_out_values(rows: Sequence[Row], plan: SplitPlan) -> dict[str, list[dict[str, str]]]:
    """By holdout: the combinations of slot values that it keeps from training."""
    found: dict[str, list[dict[str, str]]] = {}
    for holdout in plan.holdouts:
        values = {value for row in rows for value in held_values(json.loads(row["slots"]), holdout)}
        held = sorted(value for value in values if unit_hash(plan.seed, holdout.name, *value) < holdout.fraction)
        found[holdout.name] = [dict(zip(holdout.slots, value, strict=True)) for value in held]
    return found


def signal_ranges(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """What was measured of the pictures, in quantiles: where to put a limit, and what a new source looks like."""
    shares = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}
    values = {field.name: [row[field.name] for row in rows] for field in SIGNALS}
    return {
        name: {label: round(float(np.quantile(seen, share)), 4) for label, share in shares.items()}
        for name, seen in values.items()
    }


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
