"""Shards straight from a real S3 server: the same pictures in the same order as from disk, through a bounded cache."""

from pathlib import Path

import pytest

from tests.seaweed import BUCKET, Seaweed, set_environment
from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import png
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from vlm_assets.data import shards as shards_module
from vlm_assets.data.shard_blocks import BlockCache, ShardBlocks
from vlm_assets.data.shard_reader import ShardReader
from vlm_assets.data.shards import ShardSettings, shard_paths, write_shards
from vlm_assets.errors import StoreError

pytestmark = pytest.mark.integration
PREFIX = f"s3://{BUCKET}/shards"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed) -> Path:
    path = tmp_path_factory.mktemp("s3-shards")
    raw, splits = write_inputs(path, [png(seed) for seed in range(120)], [("a dress", "a circle")] * 120)
    out = path / "shards"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "GROUP_BYTES", 5_000)
        write_shards(splits, raw, tiny_bundle(path / "bundle"), out, print, ShardSettings(shard_bytes=30_000))
    for file in out.glob("*.parquet"):
        seaweed.client().put_object(Bucket=BUCKET, Key=f"shards/{file.name}", Body=file.read_bytes())
    return out


@pytest.fixture(autouse=True)
def _let_in(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, seaweed.environment("reader"))


def addresses(shards: Path) -> list[str]:
    return [f"{PREFIX}/{file.name}" for file in shard_paths(shards, "train")]


def test_s3_gives_what_the_disk_gives_and_the_cache_stays_small(shards: Path, tmp_path: Path):
    here = ShardReader(shard_paths(shards, "train"), seed=3, buffer_bytes=20_000)
    cache = BlockCache(tmp_path / "cache", max_bytes=30_000)
    there = ShardReader(addresses(shards), seed=3, buffer_bytes=20_000, cache=cache)
    for _ in range(2):
        for one, other in zip(here, there, strict=True):
            assert one.image_id == other.image_id and one.pixels.tobytes() == other.pixels.tobytes()
            assert one.captions == other.captions and one.input_ids == other.input_ids
        assert 0 < cache.size_bytes() <= 30_000


def test_a_second_epoch_comes_from_the_cache(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = ShardReader(addresses(shards), seed=3, cache=BlockCache(tmp_path / "cache", max_bytes=10_000_000))
    first = [sample.image_id for sample in source]

    def refused(*_: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(source._blocks, "_fetch", refused)
    assert sorted(sample.image_id for sample in source) == sorted(first)


def test_it_resumes_on_another_machine(shards: Path):
    source = ShardReader(addresses(shards), seed=3, buffer_bytes=20_000)
    running = iter(source)
    seen = [next(running).image_id for _ in range(17)]
    resumed = ShardReader(addresses(shards), seed=3, buffer_bytes=20_000)
    resumed.load_state_dict(source.state_dict())
    whole = ShardReader(addresses(shards), seed=3, buffer_bytes=20_000)
    assert seen + [sample.image_id for sample in resumed] == [sample.image_id for sample in whole]


def test_what_s3_refuses_is_one_sentence(shards: Path, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StoreError, match=r"There is no shard s3://vlm/shards/train-99999\.parquet"):
        ShardReader([f"{PREFIX}/train-99999.parquet"])
    seaweed.client().put_object(Bucket=BUCKET, Key="other/train-00000.parquet", Body=b"x" * 100)
    with pytest.raises(StoreError, match="does not end as a Parquet file does"):
        ShardReader([f"s3://{BUCKET}/other/train-00000.parquet"])
    secret = "another-secret-4Jd8"
    set_environment(monkeypatch, seaweed.environment("reader", secret))
    with pytest.raises(StoreError, match="does not accept the credentials to read s3://vlm/shards/") as caught:
        ShardReader(addresses(shards))
    assert secret not in str(caught.value)


def test_a_shard_replaced_in_between_is_an_error_and_not_a_mixture(shards: Path, seaweed: Seaweed):
    client, data = seaweed.client(), shard_paths(shards, "train")[0].read_bytes()
    client.put_object(Bucket=BUCKET, Key="changing/train-00000.parquet", Body=data)
    blocks = ShardBlocks([f"s3://{BUCKET}/changing/train-00000.parquet"])
    client.put_object(Bucket=BUCKET, Key="changing/train-00000.parquet", Body=data[:-1] + b"2")
    with pytest.raises(StoreError, match="was replaced while it was read"):
        blocks.read(blocks.files[0], 0)
