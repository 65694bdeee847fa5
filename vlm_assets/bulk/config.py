"""Settings of the job `bulk_captions`."""

from typing import Any

import dagster as dg
from pydantic import Field

HOW = ("pictures", "model_version", "block_pictures", "workers", "max_bad_fraction")


class BulkConfig(dg.Config):
    """Which pictures, by which model, and how."""

    pictures: str = Field(
        min_length=1,
        description="a folder or s3://bucket/prefix of picture files, with all below; or a Parquet table: a file "
        "name.parquet, or a folder or prefix that holds such files and no pictures",
    )
    picture_column: str = Field(
        default="image", min_length=1, description="of a table: the pictures' bytes, or structs with a field `bytes`"
    )
    id_column: str = Field(default="", description="of a table: what names a row; empty = file and number of the row")
    model_version: str = Field(
        default="", description="version of a bundle or of a finetuned_model; empty = the champion"
    )
    num_beams: int = Field(default=0, ge=0, le=64, description="beams of the search; 0 = the model's own")
    max_new_tokens: int = Field(default=0, ge=0, le=512, description="longest caption, in tokens; 0 = the model's own")
    embeddings: bool = Field(default=False, description="also write each picture's embedding")
    block_pictures: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="picture files of a block, the least that a killed run loses; of a table it is a row group",
    )
    workers: int = Field(
        default=0, ge=0, le=10_000, description="copies of the model; 0 = one for each GPU of the cluster, or else CPU"
    )
    max_bad_fraction: float = Field(
        default=0.05, ge=0, le=1, description="share of the pictures that may fail before the job does"
    )

    def recipe(self) -> dict[str, Any]:
        """What decides the captions, beside the pictures and the model."""
        return self.model_dump(exclude=set(HOW))

    def options(self) -> dict[str, int]:
        """What is asked of the search beyond the model's own."""
        asked = {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}
        return {name: value for name, value in asked.items() if value}
