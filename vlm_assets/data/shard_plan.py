"""Which picture goes into which shard file. Decided before anything is written: the number of workers is no matter."""

# pyarrow ships no types.
# pyright: reportUnknownParameterType=false

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlm_assets.errors import SourceError

COLUMNS = ["image_id", "sha256", "split", "captions", "slots"]
SAMPLED_GROUPS, SAMPLED_PER_GROUP = 8, 2


@dataclass(frozen=True)
class ShardTask:
    """One shard file: `rows` in their order, and for each the pack and the row group that hold its picture."""

    split: str
    number: int
    files: int  # of this split
    rows: pa.Table  # image_id, sha256, captions, slots, pack, group

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.split}-{self.number:05d}.parquet"


class ShardPlan:
    """The rows of the splits beside the place of their pictures: about 400 bytes a picture in memory."""

    def __init__(self, splits: Path, raw: Path) -> None:
        self.packs = sorted(raw.glob("pictures-*.parquet"))
        rows = pq.read_table(splits / "rows.parquet", columns=COLUMNS)
        place, pack, group = _find(rows.column("sha256"), self.packs)
        if not rows.num_rows:
            raise SourceError("The splits are empty: there is nothing to make shards of. Look at what was dropped.")
        if len(place) != rows.num_rows:
            raise SourceError(
                f"The snapshot holds {len(place):,} of the {rows.num_rows:,} pictures of the splits: these splits "
                "were made from another snapshot. Materialize raw_dataset and validated_splits again, together."
            )
        ordered = rows.take(pa.array(place))  # as the snapshot has them
        self._rows = ordered.append_column("pack", pa.array(pack)).append_column("group", pa.array(group))
        split = ordered.column("split").combine_chunks().dictionary_encode()
        names: list[str] = split.dictionary.to_pylist()
        numbers = np.asarray(split.indices)
        self._of_split = {name: np.flatnonzero(numbers == names.index(name)) for name in sorted(names)}

    @property
    def counts(self) -> dict[str, int]:
        """Pictures per split."""
        return {name: len(rows) for name, rows in self._of_split.items()}

    @property
    def pictures(self) -> int:
        """Pictures in all."""
        return self._rows.num_rows

    def files(self, rows_per_file: int) -> dict[str, int]:
        """Files per split."""
        return {name: math.ceil(count / rows_per_file) for name, count in self.counts.items()}

    def tasks(self, rows_per_file: int) -> Iterator[ShardTask]:
        """Every file of every split, the splits with the fullest files first; a split's files differ by one row."""
        files = self.files(rows_per_file)
        for split in sorted(files, key=lambda name: (-self.counts[name] / files[name], name)):
            for number, part in enumerate(np.array_split(self._of_split[split], files[split])):
                rows = self._rows.take(pa.array(part)).drop_columns(["split"]).combine_chunks()
                yield ShardTask(split, number, files[split], rows)

    def sample(self) -> pa.Table:
        """Rows from all over the set, the same ones every time: what the size of a shard is reckoned from."""
        group = self._rows.column("pack").combine_chunks().to_numpy().astype(np.int64) << 32
        group += self._rows.column("group").combine_chunks().to_numpy()
        _, firsts = np.unique(group, return_index=True)
        chosen = firsts[np.linspace(0, len(firsts) - 1, min(SAMPLED_GROUPS, len(firsts))).astype(int)]
        wanted = (chosen[:, None] + np.arange(SAMPLED_PER_GROUP)).ravel()
        return self._rows.take(pa.array(np.unique(wanted[wanted < self.pictures]))).combine_chunks()


def _find(wanted: pa.ChunkedArray, packs: list[Path]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """For each picture of the packs, in order, that is wanted: its row in `wanted`, its pack, its row group."""
    digests: list[pa.Array] = []
    pack_of: list[NDArray[np.int32]] = []
    group_of: list[NDArray[np.int32]] = []
    for number, path in enumerate(packs):
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            digests += file.read(columns=["sha256"], use_threads=False).column("sha256").chunks
        pack_of.append(np.full(sum(sizes), number, dtype=np.int32))
        group_of.append(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
    if not packs:
        return np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32)
    compute: Any = pc  # its functions are made at import; type checkers do not see them
    found = compute.index_in(pa.chunked_array(digests, pa.string()), value_set=wanted.combine_chunks())
    place = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    here = np.asarray(place.is_valid())
    rows = np.asarray(place.fill_null(0), dtype=np.int64)
    return rows[here], np.concatenate(pack_of)[here], np.concatenate(group_of)[here]
