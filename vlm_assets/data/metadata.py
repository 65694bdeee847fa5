"""What Dagster shows of the data artifacts, read from their files, so that a reused artifact shows the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from vlm_assets.contracts import ArtifactRef
from vlm_assets.data.columns import MEANINGS as COLUMN_MEANINGS
from vlm_assets.data.import_reasons import meaning_of
from vlm_assets.data.previews import as_markdown
from vlm_assets.data.quality import MEANINGS
from vlm_assets.data.tables import Row, read_json, read_rows

SAMPLE_ROWS = 5
Metadata = dict[str, Any]


def raw_metadata(ref: ArtifactRef, path: Path) -> Metadata:
    """Counts, reasons, sample and contact sheet of a raw snapshot."""
    summary = read_json(path / "summary.json")
    return {
        **_common(ref, path, path / "rows.parquet", summary["pictures"]),
        "captions": summary["captions"],
        "merged_source_rows": summary["merged_rows"],
        "quarantined": reason_table(summary["quarantined_by_reason"], summary["quarantined_examples"]),
        "skipped": reason_table(summary["skipped_by_reason"], summary["skipped_examples"]),
        "empty_captions": summary["empty_captions"],
        "picture_files": count_table(summary["files"], "file"),
        "attribution": summary["attribution"]["text"],
        "licence": summary["attribution"].get("licence") or "not said: set the source's licence",
        "sample": _sample(read_rows(path / "rows.parquet", ["image_id", "captions", "width", "height"])),
        "contact_sheet": dg.MetadataValue.md(as_markdown(path / "contact_sheet.webp")),
    }


def split_metadata(ref: ArtifactRef, path: Path) -> Metadata:
    """Counts by split, dropped rows by reason, leaks avoided, sample and plots of the splits."""
    summary = read_json(path / "summary.json")
    naive = summary["naive_split"]
    return {
        **_common(ref, path, path / "rows.parquet", summary["pictures"]),
        "splits": count_table(summary["splits"], "split"),
        "dropped": reason_table(summary["dropped_by_reason"], summary["dropped_examples"]),
        "flagged": reason_table(summary["flagged_by_reason"], summary["flagged_examples"]),
        "caption_repetition": table(
            [{**row, "share": f"{100 * row['share']:.1f} %"} for row in summary["caption_repetition"]]
        ),
        "signals": table([{"signal": name, **values} for name, values in summary["signals"].items()]),
        "near_duplicate_pairs": summary["near_duplicate_pairs"],
        "leaks_avoided": f"a row-level random split would have put twins or group mates of "
        f"{naive['leaked_test_rows']:,} ± {naive['deviation']:,} of {naive['test_rows']:,} test rows into train "
        f"(mean and standard deviation over {naive['seeds']} random splits of {naive['rows']:,} source rows)",
        "held_out_values": dg.MetadataValue.json(summary["held_out_values"]),
        "sample": _sample(read_rows(path / "rows.parquet", ["image_id", "split", "captions", "cluster"])),
        "split_balance": dg.MetadataValue.md(as_markdown(path / "split_balance.png")),
        "caption_lengths": dg.MetadataValue.md(as_markdown(path / "caption_lengths.png")),
        **{
            name: dg.MetadataValue.md(as_markdown(path / f"{name}.webp"))
            for name in ("near_duplicates", "dropped_pictures", "flagged_pictures")
            if (path / f"{name}.webp").is_file()
        },
    }


def shard_metadata(ref: ArtifactRef, path: Path, texts: Sequence[Row]) -> Metadata:
    """Counts by split, token statistics, contract and sample of the shards."""
    summary = read_json(path / "summary.json")
    tokens = summary["tokens"]
    first = next(iter(sorted(path.glob("*.parquet"))))
    return {
        **_common(ref, path, first, sum(summary["splits"].values())),
        "splits": count_table(summary["splits"], "split"),
        "files": summary["files"],
        "encoding": summary["encoding"] + (f" {summary['quality']}" if summary["quality"] else ""),
        "mean_picture_bytes": summary["mean_picture_bytes"],
        "image_size_px": summary["image_size_px"],
        "contract_sha256": summary["contract_sha256"],
        "word_pieces": tokens["word_pieces"],
        "unknown_word_piece_share": tokens["unknown_share"],
        "truncated_captions": tokens["truncated_captions"],
        "sample": table(texts),
    }


def count_table(counts: Mapping[str, int], name: str) -> dg.TableMetadataValue:
    """Counts as a table, in the order given."""
    schema = dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn("count", "int")])
    records = [dg.TableRecord({name: key, "count": count}) for key, count in counts.items()]
    return dg.MetadataValue.table(records, schema)


def reason_table(counts: Mapping[str, int], examples: Mapping[str, Sequence[str]]) -> dg.TableMetadataValue:
    """Counts by reason, most frequent first, with what each means and examples."""
    columns = {"reason": "string", "count": "int", "meaning": "string", "examples": "string"}
    records = [
        dg.TableRecord(
            {
                "reason": name,
                "count": count,
                "meaning": MEANINGS.get(name) or meaning_of(name),
                "examples": "; ".join(examples[name]),
            }
        )
        for name, count in counts.items()
    ]
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table(records, schema)


def table(rows: Sequence[Row]) -> dg.TableMetadataValue:
    """A few rows as a table; an empty one keeps a column, as Dagster demands."""
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in (rows[0] if rows else {"empty": ""})])
    return dg.MetadataValue.table(
        [dg.TableRecord({name: str(value) for name, value in row.items()}) for row in rows], schema
    )


def _common(ref: ArtifactRef, path: Path, rows: Path, row_count: int) -> Metadata:
    columns = [
        dg.TableColumn(field.name, str(field.type), description=COLUMN_MEANINGS.get(field.name))
        for field in pq.read_schema(rows)
    ]
    return {
        "dagster/row_count": row_count,
        "dagster/column_schema": dg.TableSchema(columns),
        "dagster/uri": ref.uri,
        "version": ref.version,
        "size_mb": round(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6, 3),
    }


def _sample(rows: Sequence[Row]) -> dg.TableMetadataValue:
    step = max(len(rows) // SAMPLE_ROWS, 1)  # spread over the set: neighbours look alike
    return table([{**row, "captions": "; ".join(row["captions"])} for row in rows[::step][:SAMPLE_ROWS]])
