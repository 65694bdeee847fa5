"""Pairs read from the shards while they are trained on: for sets that do not fit into memory.

An epoch is one pass over the pictures, each with one of its captions: after as many passes as it has captions, each was
learnt once. Which picture, caption and change comes at which place of a worker's pass hangs on seed, epoch and worker
only, so that a run resumes at any place without reading what lies before it.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from vlm_assets.data.shard_reader import Sample, ShardReader
from vlm_assets.training.augmentation import Augmentation
from vlm_assets.training.batches import Example, Extent, decode_pixels, iterate_examples, prompted


@dataclass(frozen=True)
class ShardPairs:
    """The pairs of shard files for worker `rank` of `world`, with pairs in memory replayed between them.

    `replay_share`: of all pairs, as in `batches.mix`. `prompt_ids` come after BOS; `max_tokens` bounds a caption with
    them. Raises ConfigError if the shards were made by another contract.
    """

    shards: Sequence[Path]
    contract_sha256: str = ""
    rank: int = 0
    world: int = 1
    prompt_ids: Sequence[int] = ()
    max_tokens: int = 512
    replay: Sequence[Example] = ()
    replay_share: float = 0.0

    @cached_property
    def captions(self) -> Extent:
        """Of the shards alone, prompt included; token ids are read, pictures are not."""
        counts = [_caption_extent(shard) for shard in self.shards]
        prompt = max(self.prompt_ids, default=0)
        return Extent(
            sum(one.pairs for one in counts),
            max(prompt, *(one.highest_token for one in counts)),
            min(self.max_tokens, len(self.prompt_ids) + max(one.most_tokens for one in counts)),
        )

    @property
    def extent(self) -> Extent:
        """Of what an epoch would hold if it took every caption once."""
        pairs = self.captions.pairs
        return Extent(pairs + int(pairs * self.replayed), self.captions.highest_token, self.captions.most_tokens)

    @property
    def replayed(self) -> float:
        """Replayed pairs for each one of the shards."""
        return self.replay_share / (1 - self.replay_share) if self.replay else 0.0

    def head(self, count: int) -> list[Example]:
        """Of the first rows."""
        pairs = islice(iterate_examples(self.shards), count)
        return [Example(pair.png, prompted(pair.input_ids, self.prompt_ids, self.max_tokens)) for pair in pairs]

    def dataset(self, augmentation: Augmentation, seed: int) -> "StreamDataset":
        """What this worker reads."""
        reader = ShardReader(
            self.shards, seed=seed, rank=self.rank, world=self.world, contract_sha256=self.contract_sha256
        )
        return StreamDataset(reader, self, augmentation, seed)

    @property
    def streamed(self) -> bool:
        """They are."""
        return True


class StreamDataset(Dataset[dict[str, Any]]):
    """The pairs of one worker's pass by their place, to be asked for in order; another place is sought anew.

    The reader reads ahead in threads: a DataLoader needs no worker processes.
    """

    def __init__(
        self,
        reader: ShardReader,
        pairs: ShardPairs,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        self._reader, self._pairs, self._augmentation, self._seed = reader, pairs, augmentation, seed
        self._epoch, self._next = 0, -1
        self._rest: Generator[dict[str, Any]] | None = None

    def __len__(self) -> int:
        """Pairs of a pass on this rank."""
        return self._before(len(self._reader))

    def set_epoch(self, epoch: int) -> None:
        """The pass that places belong to."""
        if epoch != self._epoch:
            self._epoch, self._next = epoch, -1

    def __getitem__(self, place: int) -> dict[str, Any]:
        """pixels uint8 (3, H, W), input_ids."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        rest = self._rest if self._rest and place == self._next else self._sought(place)
        self._next = place + 1
        return next(rest)

    def _sought(self, place: int) -> Generator[dict[str, Any]]:
        if self._rest is not None:
            self._rest.close()
        self._rest = self._from(place)
        return self._rest

    def _from(self, place: int) -> Generator[dict[str, Any]]:
        """The rest of the pass."""
        order = np.random.RandomState([self._seed, self._epoch, self._pairs.rank]).permutation(len(self._pairs.replay))
        picture = bisect_right(range(len(self._reader) + 1), place, key=self._before) - 1
        begun = place - self._before(picture)  # its own pair and some of those replayed after it have been given
        if begun:
            yield from self._replayed(picture, order, begun - 1)
            picture += 1
        self._reader.load_state_dict({**self._reader.state_dict(), "epoch": self._epoch, "position": picture})
        for sample in self._reader:
            yield self._pair(sample)
            yield from self._replayed(picture, order, 0)
            picture += 1

    def _before(self, picture: int) -> int:
        """Pairs of the pass before the one of this picture."""
        return picture + int(picture * self._pairs.replayed)

    def _replayed(self, picture: int, order: Any, first: int) -> Generator[dict[str, Any]]:
        """Pairs replayed after a picture, from the first that is still to come."""
        start, stop = (int(number * self._pairs.replayed) for number in (picture, picture + 1))
        for number in range(start + first, stop):
            example = self._pairs.replay[order[number % len(order)]]
            pixels = self._augmentation(decode_pixels(example.png), (self._seed, self._epoch, self._pairs.rank, number))
            yield {"pixels": pixels, "input_ids": example.input_ids}

    def _pair(self, sample: Sample) -> dict[str, Any]:
        digest = hashlib.sha256(f"{self._seed} {sample.image_id}".encode()).digest()
        caption = sample.input_ids[(digest[0] + self._epoch) % len(sample.input_ids)]
        pixels = self._augmentation(sample.pixels, (self._epoch, int.from_bytes(digest[:8])))
        return {
            "pixels": pixels,
            "input_ids": prompted(caption, self._pairs.prompt_ids, self._pairs.max_tokens),
        }


def _caption_extent(shard: Path) -> Extent:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    compute: Any = pc
    captions: Any = compute.list_flatten(pq.read_table(shard, columns=["input_ids"])["input_ids"].combine_chunks())
    lengths, tokens = compute.list_value_length(captions), compute.list_flatten(captions)
    return Extent(len(captions), compute.max(tokens).as_py() or 0, compute.max(lengths).as_py() or 0)
