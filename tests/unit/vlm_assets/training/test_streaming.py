"""Pairs streamed from shards: each caption in turn, any place at once, each worker its own, the same training."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import picture_bytes
from tests.unit.vlm_assets.data.test_shard_reader import write
from tests.unit.vlm_assets.training.test_trainer import FAST
from vlm_assets.data import shards as shards_module
from vlm_assets.data.shards import shard_paths
from vlm_assets.errors import ConfigError, TrainingError
from vlm_assets.training.augmentation import Augmentation
from vlm_assets.training.batches import Example, PairsInMemory, read_examples, with_prompt
from vlm_assets.training.streaming import ShardPairs, StreamDataset
from vlm_assets.training.trainer import train
from vlm_serving.bundle import open_bundle
from vlm_serving.model import load_model

REPLAY = [Example(picture_bytes(number, (32, 32)), (5, 40 + number, 3)) for number in range(7)]
CHANGE = Augmentation(shift_px=2, flip=True, jitter_share=0.2)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures of three captions each in small row groups: `shards` and the `bundle` they are for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "GROUP_BYTES", 5_000)
        return write(tmp_path_factory.mktemp("stream")).parent


def pairs_of(home: Path, **options: Any) -> ShardPairs:
    return ShardPairs(shard_paths(home / "shards", "train"), **options)


def look(row: dict[str, Any]) -> tuple[bytes, tuple[int, ...]]:
    return row["pixels"].tobytes(), tuple(row["input_ids"])


def whole_pass(data: StreamDataset, epoch: int) -> list[tuple[bytes, tuple[int, ...]]]:
    data.set_epoch(epoch)
    return [look(data[place]) for place in range(len(data))]


def test_each_caption_is_learnt_once_in_as_many_passes_as_a_picture_has(home: Path) -> None:
    data = pairs_of(home).dataset(Augmentation(), 1)
    stored = read_examples(shard_paths(home / "shards", "train"))
    assert 3 * len(data) == len(stored)
    seen = Counter(pair for epoch in range(3) for pair in whole_pass(data, epoch))
    in_memory = PairsInMemory(stored).dataset(Augmentation(), 0)
    assert seen == Counter(look(in_memory[place]) for place in range(len(stored)))
    assert whole_pass(data, 0) != whole_pass(data, 3)  # the same captions, in another order


@given(place=st.integers(0, 500), epoch=st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_any_place_of_a_pass_is_what_reading_through_it_finds_there(home: Path, place: int, epoch: int) -> None:
    pairs = pairs_of(home, replay=REPLAY, replay_share=0.6, prompt_ids=(11, 12), max_tokens=6, rank=1, world=2)
    whole = WHOLE.get(epoch) or WHOLE.setdefault(epoch, whole_pass(pairs.dataset(CHANGE, 3), epoch))
    place %= len(whole)
    data = pairs.dataset(CHANGE, 3)
    data.set_epoch(epoch)
    assert [look(data[at]) for at in range(place, min(place + 5, len(whole)))] == whole[place : place + 5]
    with pytest.raises(IndexError):
        data[len(whole)]


WHOLE: dict[int, list[tuple[bytes, tuple[int, ...]]]] = {}


def test_workers_read_different_pictures_and_leave_out_less_than_one_each(home: Path) -> None:
    shares = [whole_pass(pairs_of(home, rank=rank, world=7).dataset(Augmentation(), 0), 0) for rank in range(7)]
    assert len({len(share) for share in shares}) == 1  # none waits for the others at the end
    pictures = Counter(pixels for share in shares for pixels, _ in share)
    assert set(pictures.values()) == {1}
    assert len(pairs_of(home).dataset(Augmentation(), 0)) - 7 < len(pictures)


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_replayed_pairs_have_their_share_and_all_come_up(share: float, home: Path) -> None:
    data = pairs_of(home, replay=REPLAY, replay_share=share).dataset(Augmentation(), 0)
    ids = [ids for _, ids in whole_pass(data, 0)]
    replayed = Counter(one for one in ids if one in {example.input_ids for example in REPLAY})
    assert sum(replayed.values()) / len(ids) == pytest.approx(share, abs=0.01)
    assert len(replayed) == len(REPLAY)
    assert max(replayed.values()) - min(replayed.values()) <= 1


def test_what_is_known_beforehand_is_what_the_pairs_have(home: Path) -> None:
    prompted = {"prompt_ids": (900, 12), "max_tokens": 6}
    stored = with_prompt(read_examples(shard_paths(home / "shards", "train")), *prompted.values())
    pairs = pairs_of(home, **prompted)
    assert pairs.extent == PairsInMemory(stored).extent
    assert pairs.head(5) == stored[:5]


def test_shards_of_another_contract_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match="was made by the preprocessing contract"):
        pairs_of(home, contract_sha256="another").dataset(Augmentation(), 0)


def test_a_stream_is_not_sorted_by_length(home: Path, tmp_path: Path) -> None:
    bundle = open_bundle(home / "bundle")
    with pytest.raises(TrainingError) as error:
        train(
            load_model(bundle.path), pairs_of(home), [], bundle.contract, replace(FAST, group_by_length=True),
            tmp_path / "s", print,
        )  # fmt: skip
    assert str(error.value) == (
        "group_by_length sorts pairs that are in memory, but these shards are larger than in_memory_gb and are read "
        "while they are trained on. Set group_by_length to false, or raise in_memory_gb."
    )


def test_a_stream_is_trained_on_for_the_epochs_of_its_pairs(home: Path, tmp_path: Path) -> None:
    bundle, lines = open_bundle(home / "bundle"), list[str]()
    settings = replace(FAST, steps=0, epochs=2, batch_size=32)
    pairs = pairs_of(home, contract_sha256=bundle.contract.sha256)
    result = train(load_model(bundle.path), pairs, [], bundle.contract, settings, tmp_path / "s", lines.append)
    assert result.steps == settings.total_steps(pairs.extent.pairs) > 10
    assert result.train_loss[-1][1] < result.train_loss[0][1] - 1
    assert any("pairs are read from the shards while they are trained on" in line for line in lines)
