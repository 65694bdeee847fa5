"""What a fine-tuning trains and validates on: pairs in memory, or streamed where they do not fit there."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_assets.training.batches import Example, Pairs, PairsInMemory, mix, read_examples, with_prompt
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.pictures import split_ids
from vlm_serving.preprocessing import PreprocessingContract

STREAM_VALIDATION_PICTURES = 2000  # of a split that does not fit: more say little more of its loss


@dataclass(frozen=True)
class Material:
    """Pairs to train on and to validate on, prompt included, and how many there are of each kind."""

    pairs: Pairs
    validation: list[Example]
    niche: int
    replay: int


def read_material(
    base: Path, shards: Path, config: FinetuneConfig, contract: PreprocessingContract, prompt_ids: Sequence[int]
) -> Material:
    """Read the shards of train and val up to `in_memory_gb`; of larger ones only what must be known before."""
    train, val = sorted(shards.glob("train-*.parquet")), sorted(shards.glob("val-*.parquet"))
    room = contract.max_caption_tokens + len(prompt_ids)
    replay = read_examples(sorted((base / "general").glob("train-*.parquet")))
    if sum(file.stat().st_size for file in (*train, *val)) > config.in_memory_gb * 1e9:
        from vlm_assets.training.streaming import ShardPairs

        streamed = ShardPairs(
            train, contract.sha256, int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")),
            prompt_ids, room, with_prompt(replay, prompt_ids, room), config.replay_share,
        )  # fmt: skip
        judged = read_examples(val, set(split_ids(val, STREAM_VALIDATION_PICTURES)))
        return Material(streamed, with_prompt(judged, prompt_ids, room), streamed.captions.pairs, len(replay))
    niche = read_examples(train)
    mixed = mix(niche, replay, config.replay_share) if niche else []
    pairs = PairsInMemory(with_prompt(mixed, prompt_ids, room))
    return Material(pairs, with_prompt(read_examples(val), prompt_ids, room), len(niche), len(replay))
