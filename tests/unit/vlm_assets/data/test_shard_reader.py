"""The reader of shards: order, ranks, resuming, memory, and what it says when something is wrong."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import picture, png
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from vlm_assets.data import shard_reader
from vlm_assets.data import shards as shards_module
from vlm_assets.data.encoding import decode_pixels
from vlm_assets.data.shard_blocks import BlockCache
from vlm_assets.data.shard_reader import ShardReader
from vlm_assets.data.shards import ShardSettings, shard_paths, write_shards
from vlm_assets.data.tables import read_json, read_rows
from vlm_assets.errors import ConfigError, StoreError
from vlm_serving.resizing import default_resizer, resize_square

ROOT = Path(__file__).resolve().parents[4]
BUFFER = 20_000  # of about 5 row groups


def write(path: Path, encoding: Any = "png", number: int = 150) -> Path:
    raw, splits = write_inputs(
        path, [png(seed) for seed in range(number)], [("a dress", "a red square", "a circle")] * number
    )
    out = path / "shards"
    out.mkdir()
    settings = ShardSettings(encoding, quality=100, shard_bytes=30_000, workers=1)
    write_shards(splits, raw, tiny_bundle(path / "bundle"), out, lambda _: None, settings)
    return out


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "GROUP_BYTES", 5_000)  # small row groups, many of them
        return write(tmp_path_factory.mktemp("reader"))


def reader(shards: Path, **options: Any) -> ShardReader:
    return ShardReader(shard_paths(shards, "train"), **{"seed": 1, "buffer_bytes": BUFFER, **options})


def ids(samples: Any) -> list[str]:
    return [sample.image_id for sample in samples]


def stored(shards: Path) -> list[dict[str, Any]]:
    return [row for file in shard_paths(shards, "train") for row in read_rows(file)]


def test_without_shuffling_it_gives_the_files_rows_in_order(shards: Path):
    rows = stored(shards)
    samples = list(reader(shards, shuffle=False))
    assert ids(samples) == [row["image_id"] for row in rows]
    assert samples[3].captions == tuple(rows[3]["captions"])
    assert [list(one) for one in samples[3].input_ids] == rows[3]["input_ids"]
    assert samples[3].pixels.shape == (3, 32, 32)


@pytest.mark.parametrize("encoding", ["png", "raw", "webp"])
def test_lossless_encodings_give_the_very_pixels(shards: Path, tmp_path: Path, encoding: Any):
    ours = {sample.image_id: sample.pixels for sample in ShardReader(shard_paths(write(tmp_path, encoding), "train"))}
    assert len(ours) == len(stored(shards))
    for sample in reader(shards):
        assert np.array_equal(ours[sample.image_id], sample.pixels)


def test_an_epoch_holds_every_picture_once_in_an_order_of_its_own(shards: Path):
    plain = sorted(row["image_id"] for row in stored(shards))
    source = reader(shards)
    first, second = ids(source), ids(source)
    assert sorted(first) == sorted(second) == plain
    assert first != second and first != plain
    assert (source.epoch, ids(reader(shards))) == (2, first), "the same seed, the same order"
    assert ids(reader(shards, seed=2)) != first
    again = reader(shards)
    again.set_epoch(1)
    assert ids(again) == second


def test_neighbours_seldom_come_from_the_same_row_group(shards: Path):
    group_of: dict[str, tuple[str, int]] = {}
    sizes: list[int] = []
    import pyarrow.parquet as pq

    for file in shard_paths(shards, "train"):
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            names = parquet.read_row_group(group, ["image_id"]).column(0).to_pylist()
            group_of |= dict.fromkeys(names, (file.name, group))
            sizes.append(len(names))
    assert len(sizes) > 10
    together = pairs = 0
    for epoch in range(20):
        source = reader(shards)
        source.set_epoch(epoch)
        groups = [group_of[name] for name in ids(source)]
        together += sum(one == other for one, other in pairwise(groups))
        pairs += len(groups) - 1
    in_buffer = BUFFER / 5_000
    assert together / pairs < 1.5 / in_buffer, "one in as many as there are row groups in the buffer"


@given(st.integers(1, 7), st.integers(0, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_ranks_share_an_epoch_without_overlap(shards: Path, world: int, epoch: int, even: bool):
    parts: list[list[str]] = []
    for rank in range(world):
        source = reader(shards, rank=rank, world=world, even=even, threads=0)
        source.set_epoch(epoch)
        parts.append(ids(source))
        assert len(parts[-1]) == len(source)
    total = len(stored(shards))
    counted = Counter(name for part in parts for name in part)
    assert set(counted.values()) == {1}
    assert len(counted) == (total - total % world if even else total)
    assert {len(part) for part in parts} <= ({total // world} if even else {total // world, total // world + 1})


@given(st.integers(0, 98), st.integers(0, 2), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_resumed_at_any_picture_it_goes_on_with_the_next(shards: Path, stop: int, threads: int, epoch: int):
    whole = reader(shards, threads=threads)
    whole.set_epoch(epoch)
    expected = ids(whole) + ids(whole)
    source = reader(shards, threads=threads)
    source.set_epoch(epoch)
    running = iter(source)
    seen = [next(running).image_id for _ in range(min(stop, len(source)))]
    state = source.state_dict()
    resumed = reader(shards, threads=threads)
    resumed.load_state_dict(state)
    resumed.set_epoch(epoch)  # as Trainer does at the start: nothing is lost
    assert seen + ids(resumed) + ids(resumed) == expected


def test_resuming_reads_only_what_is_left(shards: Path, monkeypatch: pytest.MonkeyPatch):
    source = reader(shards, threads=0)
    running = iter(source)
    for _ in range(len(source) - 3):
        next(running)
    state = source.state_dict()
    resumed = reader(shards, threads=0)
    resumed.load_state_dict(state)
    reads: list[int] = []
    real = resumed._blocks.read
    monkeypatch.setattr(resumed._blocks, "read", lambda file, group: reads.append(group) or real(file, group))
    assert len(ids(resumed)) == 3
    assert len(reads) <= 6 < len(resumed._groups) / 2


def test_resuming_with_another_order_is_refused_and_says_why(shards: Path):
    state = reader(shards).state_dict()
    with pytest.raises(ConfigError, match=r"the order is another one \(seed: 1 then, 5 now; world: 1 then, 2 now\)"):
        reader(shards, seed=5, world=2).load_state_dict(state)
    other = ShardReader(shard_paths(shards, "val"), seed=1, buffer_bytes=BUFFER)
    with pytest.raises(ConfigError, match="shards: '"):
        other.load_state_dict(state)


def test_at_most_two_buffers_are_held(shards: Path, monkeypatch: pytest.MonkeyPatch):
    source = reader(shards, threads=0)
    loaded: list[int] = []
    real = source._load

    def load(number: int, window: Any, first: int) -> Any:
        loaded.append(sum(piece.bytes for piece in window))
        return real(number, window, first)

    monkeypatch.setattr(source, "_load", load)
    next(iter(source))
    assert len(loaded) <= 2
    assert all(size <= BUFFER for size in loaded)


def test_shards_of_another_contract_are_refused(shards: Path, tmp_path: Path):
    contract = read_json(shards / "contract.json")["sha256"]
    assert len(reader(shards, contract_sha256=contract)) > 0
    with pytest.raises(ConfigError, match=rf"contract {contract[:12]}, the model's contract is 0000"):
        reader(shards, contract_sha256="0" * 64)


def test_bad_shards_and_ranks_are_one_clear_error(shards: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no shards to read"):
        ShardReader([])
    with pytest.raises(ConfigError, match="rank is 2 of world 2; it must be 0 to 1"):
        reader(shards, rank=2, world=2)
    with pytest.raises(StoreError, match=r"missing\.parquet is not a shard that can be read"):
        ShardReader([tmp_path / "missing.parquet"])
    cut = tmp_path / "train-00000.parquet"
    cut.write_bytes(shard_paths(shards, "train")[0].read_bytes()[:-10])
    with pytest.raises(StoreError, match="is not a shard that can be read"):
        ShardReader([cut])


def test_the_cache_stays_below_its_limit_and_drops_what_was_used_longest_ago(tmp_path: Path):
    cache = BlockCache(tmp_path / "cache", 1000)
    for name in ("a", "b", "c"):
        cache.put(name, name.encode() * 300)
    assert cache.get("a") == b"a" * 300  # now b is the oldest
    cache.put("d", b"d" * 300)
    assert (cache.get("b"), cache.get("a"), cache.get("d")) == (None, b"a" * 300, b"d" * 300)
    cache.put("huge", b"x" * 2000)
    assert cache.get("huge") is None
    assert cache.size_bytes() == 900


KILLED_WRITER = """
import os, sys
from pathlib import Path
from vlm_assets.data import shard_blocks
cache = shard_blocks.BlockCache(Path(sys.argv[1]), 1000)
Path.replace = lambda *_: os.kill(os.getpid(), 9)
cache.put("a", bytes(600))
"""


def test_what_a_killed_process_was_caching_counts_and_goes(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path)], cwd=ROOT, check=False)
    cache = BlockCache(tmp_path, 1000)
    assert done.returncode == -signal.SIGKILL and cache.size_bytes() == 600
    cache.put("b", bytes(600))
    assert cache.size_bytes() == 600 and cache.get("b") == bytes(600)


def test_a_block_that_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, _: bytes) -> None:
        path.touch()
        Path("/dev/full").write_text("the kernel's own answer to a disk without room")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"Cannot write the cache of shards in .*No space left on device. Make room"):
        BlockCache(tmp_path, 1000).put("a", bytes(600))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


WRITER = """
import sys
from pathlib import Path
from vlm_assets.data.shard_blocks import BlockCache
cache = BlockCache(Path(sys.argv[1]), 1000)
for number in range(300):
    cache.put(f"{sys.argv[2]} {number}", bytes(300))
    assert cache.size_bytes() <= 1000, cache.size_bytes()
"""


def test_processes_that_share_a_cache_keep_its_limit_together(tmp_path: Path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], cwd=ROOT) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]


def test_pictures_are_what_was_drawn(shards: Path):
    resizer = default_resizer()
    drawn = {resize_square(picture(seed), 32, "bicubic", resizer).tobytes() for seed in range(150)}
    assert all(sample.pixels.transpose(1, 2, 0).tobytes() in drawn for sample in reader(shards))


def test_an_epoch_may_be_dropped_half_read_by_any_thread_even_its_own(shards: Path, monkeypatch: pytest.MonkeyPatch):
    calls, taken, dropped = count(), threading.Event(), threading.Event()
    source = iter(reader(shards, buffer_bytes=1_000_000))

    def decode(data: Any) -> Any:
        if next(calls) == shard_reader.CHUNK:  # the second chunk, decoded ahead: here the collector may run
            taken.wait(10)
            source.close()  # pyright: ignore
            dropped.set()
        return decode_pixels(data)

    monkeypatch.setattr(shard_reader, "decode_pixels", decode)
    next(source)
    taken.set()
    assert dropped.wait(10)
