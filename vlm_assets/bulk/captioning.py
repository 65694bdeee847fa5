"""A block of pictures -> a table with a row for each: its caption, or why it has none."""

# pyarrow ships no types
# pyright: reportUnknownParameterType=false

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vlm_assets.bulk.blocks import Block, Read, chunks, read_block
from vlm_assets.bulk.config import BulkConfig
from vlm_assets.contracts import ArtifactRef

if TYPE_CHECKING:
    from vlm_serving.captioner import Captioner

BATCH = 16
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # the file's name below the source, or what the table calls the row
        ("caption", pa.string()),  # null: it failed
        ("confidence", pa.float32()),
        ("token_count", pa.int32()),
        ("finish_reason", pa.string()),  # stop, or length: it was cut off
        ("error", pa.string()),  # why there is no caption
        ("model_version", pa.string()),
    ]
)
WITH_EMBEDDING = SCHEMA.append(pa.field("embedding", pa.list_(pa.float32())))


@dataclass(frozen=True)
class BulkWork:
    """What a worker needs to know. The store and the pictures must be within its reach."""

    root: str  # of the pictures
    store: str
    model: ArtifactRef
    config: BulkConfig

    @property
    def schema(self) -> pa.Schema:
        """Of the tables."""
        return WITH_EMBEDDING if self.config.embeddings else SCHEMA


def load_model(work: BulkWork) -> "Captioner":
    """The model, from the store, with its golden pictures captioned as recorded. Raises StoreError, BundleError."""
    from vlm_assets.store import Store
    from vlm_serving.model_slot import load_captioner

    return load_captioner(str(Store(work.store).directory(work.model) / "bundle"), threads=1)


def caption_block(captioner: "Captioner", work: BulkWork, block: Block) -> pa.Table:
    """Caption a block. A picture that cannot be read or captioned has its reason in `error`; raises SourceError."""
    options = replace(captioner.options, **work.config.options())
    rows: list[dict[str, Any]] = []
    for some in chunks(read_block(work.root, block, work.config.picture_column, work.config.id_column), BATCH):
        rows += _captioned(captioner, some, options)
    return pa.Table.from_pylist([{**row, "model_version": captioner.version} for row in rows], schema=work.schema)


def _captioned(captioner: "Captioner", some: tuple[Read, ...], options: Any) -> list[dict[str, Any]]:
    from vlm_serving.bulk import caption_encoded
    from vlm_serving.captioner import Caption

    outcomes = iter(caption_encoded(captioner, [one.data for one in some if not one.error], options))
    rows: list[dict[str, Any]] = []
    for one in some:
        outcome = one.error or next(outcomes)
        if not isinstance(outcome, Caption):
            rows.append({"id": one.id, "error": str(outcome)})
            continue
        rows.append(
            {
                "id": one.id,
                "caption": outcome.text,
                "confidence": outcome.confidence,
                "token_count": outcome.token_count,
                "finish_reason": outcome.finish_reason,
                "embedding": outcome.embedding,
            }
        )
    return rows
