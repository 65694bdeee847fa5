"""What the splits behind the shards know of their pictures: what belongs together, where it came from, who trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    return replace(system, captions={name: placed_table(table, provenance) for name, table in system.captions.items()})


def placed_table(table: CaptionTable, provenance: Provenance) -> CaptionTable:
    """The same of one table; a picture of which nothing is known keeps what the table says."""
    names: list[str] = table["image_id"].to_pylist()
    known: dict[str, Mapping[str, str]] = {"cluster": provenance.cluster, "source": provenance.source}
    for name, by_picture in known.items():
        said: list[str] = table[name].to_pylist()
        values = [by_picture.get(picture, before) for picture, before in zip(names, said, strict=True)]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return table


def with_kin(image_ids: Collection[str], provenance: Provenance) -> frozenset[str]:
    """These pictures and all others of their clusters."""
    clusters = {provenance.cluster[name] for name in image_ids if name in provenance.cluster}
    return frozenset(image_ids) | {name for name, cluster in provenance.cluster.items() if cluster in clusters}


def training_pictures(splits: Path) -> frozenset[str]:
    """The image_ids of the training split: what is the same picture has the same one in every snapshot."""
    rows = pq.read_table(splits / "rows.parquet", columns=["image_id"], filters=[("split", "=", TRAIN_SPLIT)])
    return frozenset(rows["image_id"].to_pylist())
