"""bulk_captions: every picture of a source with its caption, as Parquet in the store, with the model it came from."""

# pyarrow ships no types
# pyright: reportUnknownParameterType=false

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from vlm_assets.bulk.blocks import Block, Plan
from vlm_assets.bulk.captioning import BulkWork
from vlm_assets.bulk.on_ray import caption_on_ray
from vlm_assets.contracts import Recipe
from vlm_assets.data.sources.base import Log
from vlm_assets.errors import UnusableSourceError
from vlm_assets.store import Built, Draft, Store
from vlm_serving.progress import Progress

NAME = "bulk_captions"
CODE_VERSION = "1"
ROWS_PER_FILE = 200_000
FAILED = "failed.parquet"
REASONS = pa.schema([("id", pa.string()), ("error", pa.string())])

is_valid: Any = pyarrow.compute.is_valid  # pyright: ignore[reportAttributeAccessIssue]
Run = Callable[[BulkWork, Sequence[Block]], Iterable[tuple[int, pa.Table]]]


def build_bulk_captions(store: Store, plan: Plan, work: BulkWork, log: Log, run: Run = caption_on_ray) -> Built:
    """Caption what no earlier run has finished, and publish. Equal pictures, model and options are one artifact.

    Raises UnusableSourceError if more than `max_bad_fraction` failed, and what `run` does; finished blocks are kept
    for the next run.
    """
    recipe = Recipe(NAME, CODE_VERSION, work.config.recipe(), (work.model,), {"pictures": plan.fingerprint})

    def write(draft: Draft) -> None:
        scratch = store.scratch(recipe)
        _finish_blocks(plan, work, scratch, run, log)
        tables = (pq.read_table(_block_file(scratch, work, block)) for block in plan.blocks)
        draft.counts |= _write_files(tables, draft.path, work)
        _check(draft, work.config.max_bad_fraction)

    return store.build(recipe, write)


def _finish_blocks(plan: Plan, work: BulkWork, scratch: Path, run: Run, log: Log) -> None:
    todo = [block for block in plan.blocks if not _block_file(scratch, work, block).is_file()]
    progress = Progress("captioning", plan.pictures, log)
    progress.resume(plan.pictures - sum(block.pictures for block in todo))
    failures = 0
    for number, table in run(work, todo):
        file = _block_file(scratch, work, plan.blocks[number])
        pq.write_table(table, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").replace(file)
        failures += table.num_rows - table["error"].null_count
        progress.advance(table.num_rows, f"{failures:,} failed" if failures else "")
    progress.done()


def _block_file(scratch: Path, work: BulkWork, block: Block) -> Path:
    """Blocks of another size are other blocks."""
    return scratch / f"{work.config.block_pictures}-{block.number:08}.parquet"


def _write_files(tables: Iterator[pa.Table], folder: Path, work: BulkWork) -> dict[str, int]:
    """The blocks one after the other in files of bounded length, and those that failed once more by themselves."""
    rows = failures = 0
    files = _Files(folder, work.schema)
    with closing(files), pq.ParquetWriter(folder / FAILED, REASONS) as failed:
        for table in tables:
            files.write(table)
            bad = table.filter(is_valid(table["error"])).select(REASONS.names)
            failed.write_table(bad)
            rows, failures = rows + table.num_rows, failures + bad.num_rows
    return {"pictures": rows, "captioned": rows - failures, "failed": failures}


class _Files:
    """captions-00000.parquet and so on."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._count = self._rows = 0
        self._file: Any = None

    def write(self, table: pa.Table) -> None:
        """Append a block, to the next file if this one is full."""
        if self._file is None or self._rows + table.num_rows > ROWS_PER_FILE:
            self.close()
            self._file = pq.ParquetWriter(self._folder / f"captions-{self._count:05}.parquet", self._schema)
            self._count, self._rows = self._count + 1, 0
        self._file.write_table(table)
        self._rows += table.num_rows

    def close(self) -> None:
        """Finish the file that is open."""
        if self._file is not None:
            self._file.close()


def _check(draft: Draft, max_bad_fraction: float) -> None:
    pictures, failures = draft.counts["pictures"], draft.counts["failed"]
    if failures > max_bad_fraction * pictures:
        first = pq.read_table(draft.path / FAILED).slice(0, 3).to_pylist()
        listed = "; ".join(f"{row['id']}: {row['error']}" for row in first)
        raise UnusableSourceError(
            f"{failures:,} of {pictures:,} pictures failed, more than max_bad_fraction {max_bad_fraction:g}: {listed} "
            "… Mend them, or raise max_bad_fraction; what is captioned is kept."
        )
