"""What the splits behind the shards know of their pictures: what belongs together, where it came from, who trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_assets.evaluation.predict import CaptionTable
from vlm_assets.evaluation.systems import TRAIN_SPLIT, System

COLUMNS = ["image_id", "cluster", "file_name"]


@dataclass(frozen=True)
class Provenance:
    """By image_id: the cluster (pictures of one group, and their near duplicates) and the folder in the source."""

    cluster: Mapping[str, str] = field(default_factory=dict[str, str])
    source: Mapping[str, str] = field(default_factory=dict[str, str])


def read_provenance(splits: Path) -> Provenance:
    """From the directory of a validated_splits."""
    columns = pq.read_table(splits / "rows.parquet", columns=COLUMNS).to_pydict()
    names: list[str] = columns["image_id"]
    folders = [folder_of(name) for name in columns["file_name"]]
    return Provenance(dict(zip(names, columns["cluster"], strict=True)), dict(zip(names, folders, strict=True)))


def folder_of(file_name: str | None) -> str:
    """The outermost folder of a picture's name in the source; "" if it lies in none."""
    folder, slash, _ = (file_name or "").partition("/")
    return folder if slash else ""


def placed(system: System, provenance: Provenance) -> System:
    """The system with each picture's cluster and source in its tables; unknown ones stay alone and without source."""
    return replace(system, captions={name: _placed(table, provenance) for name, table in system.captions.items()})


def _placed(table: CaptionTable, provenance: Provenance) -> CaptionTable:
    names: list[str] = table["image_id"].to_pylist()
    known = {
        "cluster": [provenance.cluster.get(name, name) for name in names],
        "source": [provenance.source.get(name, "") for name in names],
    }
    for name, values in known.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return table


def training_pictures(splits: Path) -> frozenset[str]:
    """The image_ids of the training split: what is the same picture has the same one in every snapshot."""
    rows = pq.read_table(splits / "rows.parquet", columns=["image_id"], filters=[("split", "=", TRAIN_SPLIT)])
    return frozenset(rows["image_id"].to_pylist())
