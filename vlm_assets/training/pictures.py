"""Pictures of a split as the source gave them: for golden vectors and the drift reference."""

from collections.abc import Sequence
from pathlib import Path

from vlm_assets.data.tables import read_rows, stream_pictures


def raw_pictures(raw_dataset: Path, image_ids: Sequence[str]) -> list[tuple[str, bytes]]:
    """(image_id, encoded picture) for each id, in the order given; one pass over the picture packs."""
    rows = read_rows(raw_dataset / "rows.parquet", ["image_id", "sha256"])
    digest_of = {row["image_id"]: row["sha256"] for row in rows}
    wanted = {digest_of[image_id] for image_id in image_ids}
    found = {sha256: data for sha256, data in stream_pictures(raw_dataset) if sha256 in wanted}
    return [(image_id, found[digest_of[image_id]]) for image_id in image_ids]


def split_ids(shards: Sequence[Path], limit: int) -> list[str]:
    """At most `limit` image ids of the shard files: the smallest, which is a random sample since ids are hashes."""
    ids = [row["image_id"] for shard in shards for row in read_rows(shard, ["image_id"])]
    return sorted(ids)[:limit]
