"""Pictures as they came from the source, for a champion that takes other pixels than the shards hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlm_assets.errors import StoreError
from vlm_assets.evaluation.pictures import PictureBatch

if TYPE_CHECKING:
    from vlm_serving.preprocessing import PreprocessingContract


@dataclass(frozen=True)
class Originals:
    """The directories of the validated_splits and the raw_dataset that the shards were made from.

    Any two with such files will do: `rows.parquet` (image_id, sha256) and `pictures-*.parquet` (sha256, image).
    """

    splits: Path
    raw: Path

    def pixels(self, image_ids: Sequence[str], contract: PreprocessingContract) -> NDArray[np.uint8]:
        """The pictures as a model of this contract takes them: uint8 (B, 3, H, W). StoreError if one is not there."""
        from vlm_serving.preprocessing import decode_for_model

        files = self._files(image_ids)
        return np.stack([decode_for_model(files[name], contract).pixels for name in image_ids])

    def view(self, contract: PreprocessingContract) -> Callable[[PictureBatch], NDArray[np.uint8]]:
        """Of a batch of shards the same pictures, as a model of this contract takes them."""
        return lambda batch: self.pixels(batch.image_ids, contract)

    def _files(self, image_ids: Sequence[str]) -> dict[str, bytes]:
        wanted = [("image_id", "in", list(image_ids))]
        rows = pq.read_table(self.splits / "rows.parquet", columns=["image_id", "sha256"], filters=wanted).to_pylist()
        names = {row["sha256"]: row["image_id"] for row in rows}
        found: dict[str, bytes] = {}
        for pack in sorted(self.raw.glob("pictures-*.parquet")):
            table = pq.read_table(pack, columns=["sha256", "image"], filters=[("sha256", "in", list(names))])
            found |= {names[row["sha256"]]: row["image"]["bytes"] for row in table.to_pylist()}
        missing = [name for name in image_ids if name not in found]
        if missing:
            raise StoreError(
                f"{len(missing)} of {len(image_ids)} pictures of the shards are not in {self.raw}, the first: "
                f"{missing[0]}. Materialize tokenized_shards again."
            )
        return found
