"""The import of a set on S3 of which one object is refused: nothing is lost once access is given."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.unit.vlm_assets.data.pictures import write_folder
from tests.unit.vlm_assets.data.sources.places import BUCKET, Place, s3_in_memory
from vlm_assets.data.assets import raw_dataset
from vlm_assets.data.raw import import_source
from vlm_assets.errors import SourceError
from vlm_assets.resources import RefIOManager, StoreResource

PICTURES = 40
REFUSED = "set/30.png"
DENY = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/{REFUSED}"}


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Place]:
    folder = write_folder(tmp_path / "in", [{"file_name": f"{n}.png", "text": f"thing {n}"} for n in range(PICTURES)])
    with s3_in_memory() as place:
        place.put_folder(folder)
        yield place


def materialize(root: Path) -> dict[str, Any]:
    """Metadata of raw_dataset."""
    store = StoreResource(root=str(root))
    source = {"image_folder": {"path": f"s3://{BUCKET}/set"}}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [raw_dataset],
            instance=instance,
            resources={"store": store, "io_manager": RefIOManager(store=store)},
            run_config={"ops": {"raw_dataset": {"config": {"source": source}}}},
        )
    event = result.asset_materializations_for_node("raw_dataset")[0]
    return {name: value.value for name, value in event.metadata.items()}


def deny(bucket: Place) -> None:
    policy = {"Version": "2012-10-17", "Statement": [DENY]}
    bucket.client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))


def allow(bucket: Place) -> None:
    bucket.client.delete_bucket_policy(Bucket=BUCKET)


def archive(bucket: Place) -> None:
    data = bucket.client.get_object(Bucket=BUCKET, Key=REFUSED)["Body"].read()
    bucket.client.put_object(Bucket=BUCKET, Key=REFUSED, Body=data, StorageClass="GLACIER")


def restore(bucket: Place) -> None:
    bucket.client.restore_object(Bucket=BUCKET, Key=REFUSED, RestoreRequest={"Days": 1})


@pytest.mark.parametrize(
    ("refuse", "give", "message"),
    [
        (deny, allow, rf"denies these credentials to read s3://{BUCKET}/{REFUSED} \(403\)\. Give them that right"),
        (
            archive,
            restore,
            rf"s3://{BUCKET}/{REFUSED} is archived \(InvalidObjectState\)\. Restore it from the archive",
        ),
    ],
    ids=["denied", "archived"],
)
def test_an_object_that_s3_refuses_stops_the_import_which_later_goes_on_and_misses_nothing(
    bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: Any, give: Any, message: str
):
    small_packs = partial(import_source, pack_bytes=60_000)
    monkeypatch.setattr("vlm_assets.data.assets.import_source", small_packs)
    root = tmp_path / "store"
    refuse(bucket)
    with pytest.raises(SourceError, match=message):
        materialize(root)
    assert not (root / "raw_dataset").exists()
    (kept,) = (root / ".vlm" / "scratch").glob("*/pictures-00000.parquet")
    inode = kept.stat().st_ino
    give(bucket)
    metadata = materialize(root)
    assert (metadata["dagster/row_count"], metadata["reused"]) == (PICTURES, False)
    (pack,) = (root / "raw_dataset").glob("*/pictures-00000.parquet")
    assert pack.stat().st_ino == inode, "what had been read was not read again"
