"""Captions of pictures that a model was not trained on: today's test split, and what people corrected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_assets.data.shards import contract_of
from vlm_assets.data.tables import read_rows
from vlm_assets.errors import StoreError
from vlm_assets.evaluation.originals import Originals
from vlm_assets.evaluation.pictures import PictureBatch, split_files
from vlm_assets.evaluation.predict import CAPTION_SCHEMA, CaptionTable, caption_batches, caption_split
from vlm_assets.evaluation.provenance import Provenance, placed_table, read_provenance, with_kin
from vlm_assets.evaluation.systems import HEADLINE_SPLIT, same_pixels, wanted_splits

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import MeasureConfig
    from vlm_serving.captioner import Captioner

Log = Callable[[str], None]

ROW_COLUMNS = ["image_id", "captions", "slots"]


@dataclass(frozen=True)
class Pictures:
    """Directories of what there is: shards, what they were made from, a feedback_captions.

    The latter two are None where the store does not have them, or nothing was corrected.
    """

    shards: Path
    originals: Originals | None = None
    corrections: Path | None = None

    def provenance(self) -> Provenance:
        """What the splits behind the shards know; nothing without them."""
        return read_provenance(self.originals.splits) if self.originals else Provenance()


@dataclass(frozen=True)
class Said:
    """A table of `predict.CAPTION_SCHEMA`, maybe without rows, and how many pictures were left out of it."""

    table: CaptionTable
    left_out: int


class HeldOut:
    """Captions with their clusters, less those of pictures that trained the model and of others of their clusters."""

    def __init__(
        self, captioner: Captioner, pictures: Pictures, trained_on: Collection[str], config: MeasureConfig, log: Log
    ) -> None:
        self._captioner, self._pictures, self._config, self._log = captioner, pictures, config, log
        self.provenance = pictures.provenance()
        self._known = with_kin(trained_on, self.provenance)

    def of_test(self) -> Said:
        """Of the headline split. ConfigError if there is none, StoreError if originals are needed and not here."""
        [split, *_] = wanted_splits(self._pictures.shards, [HEADLINE_SPLIT])
        table = caption_split(
            self._captioner, split_files(self._pictures.shards, split), self._config.batch_size, self._log,
            label="champion on test", limit=self._config.max_pictures, view=self._view(),
        )  # fmt: skip
        names: list[str] = table["image_id"].to_pylist()
        unknown = np.array([name not in self._known for name in names], dtype=np.bool_)
        return Said(placed_table(table.filter(pa.array(unknown)), self.provenance), int((~unknown).sum()))

    def of_corrections(self) -> Said:
        """Of the pictures that people corrected, from the files that they had sent."""
        if self._pictures.corrections is None:
            return Said(CAPTION_SCHEMA.empty_table(), 0)
        rows = read_rows(self._pictures.corrections / "rows.parquet", ROW_COLUMNS)
        unknown = [row for row in rows if row["image_id"] not in self._known]
        wanted = unknown[: self._config.max_pictures or None]
        if not wanted:
            return Said(CAPTION_SCHEMA.empty_table(), len(rows) - len(unknown))
        batches = self._batches(Originals(self._pictures.corrections, self._pictures.corrections), wanted)
        table = caption_batches(self._captioner, batches, len(wanted), self._log, "champion on corrected pictures")
        return Said(placed_table(table, self.provenance), len(rows) - len(unknown))

    def _view(self) -> Callable[[PictureBatch], NDArray[np.uint8]] | None:
        """None where the shards hold the pixels that this model takes; else the same pictures from their originals."""
        wanted, made_by = self._captioner.bundle.contract, contract_of(self._pictures.shards)
        if same_pixels(wanted, made_by):
            return None
        if self._pictures.originals is None:
            raise StoreError(
                f"The champion takes {wanted.image_size_px} px pictures, these shards hold {made_by.image_size_px} px, "
                "and what they were made from is not in the store. Materialize tokenized_shards again from a source."
            )
        return self._pictures.originals.view(wanted)

    def _batches(self, originals: Originals, rows: Sequence[dict[str, Any]]) -> Iterator[PictureBatch]:
        for start in range(0, len(rows), self._config.batch_size):
            batch = rows[start : start + self._config.batch_size]
            names, captions, slots = ([row[column] for row in batch] for column in ROW_COLUMNS)
            yield PictureBatch(names, originals.pixels(names, self._captioner.bundle.contract), captions, slots)
