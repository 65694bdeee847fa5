"""From shards to batches: (picture, one caption) pairs, pads masked in the loss."""

import io
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from vlm_assets.training.augmentation import Augmentation
from vlm_serving.preprocessing import PreprocessingContract

READ_ROWS = 64
IGNORED = -100  # the label that cross-entropy leaves out


@dataclass(frozen=True)
class Example:
    """One picture (its PNG, already at the model's size) with one tokenized caption."""

    png: bytes
    input_ids: tuple[int, ...]


@dataclass(frozen=True)
class Extent:
    """How many pairs a data set has, the highest token id in them and the most tokens of one."""

    pairs: int = 0
    highest_token: int = 0
    most_tokens: int = 0


class Pairs(Protocol):
    """Where a training gets its pairs from: memory (`PairsInMemory`), or shards while it trains (`streaming`)."""

    @property
    def extent(self) -> Extent:
        """What is known before any picture is read."""
        ...

    def head(self, count: int) -> list[Example]:
        """Some pairs, for a trial."""
        ...

    def dataset(self, augmentation: Augmentation, seed: int) -> Dataset[dict[str, Any]]:
        """Decoded pairs by their place in an epoch, which `set_epoch` chooses."""
        ...

    @property
    def streamed(self) -> bool:
        """Whether they must be asked for in the order of their places."""
        ...


@dataclass(frozen=True)
class PairsInMemory:
    """A list of pairs."""

    examples: Sequence[Example]

    @property
    def extent(self) -> Extent:
        """By looking at each, once."""
        return self._extent

    @cached_property
    def _extent(self) -> Extent:
        if not self.examples:
            return Extent()
        ids = [example.input_ids for example in self.examples]
        return Extent(len(ids), max(max(one) for one in ids), max(len(one) for one in ids))

    def head(self, count: int) -> list[Example]:
        """The first ones."""
        return list(self.examples[:count])

    def dataset(self, augmentation: Augmentation, seed: int) -> "PairDataset":
        """Any place at any time."""
        return PairDataset(self.examples, augmentation, seed)

    @property
    def streamed(self) -> bool:
        """They are not."""
        return False


def read_examples(shards: Sequence[Path], only: Container[str] | None = None) -> list[Example]:
    """Every (picture, caption) pair of the shard files, in their order; of the image ids in `only`, if given."""
    return list(iterate_examples(shards, only))


def iterate_examples(shards: Sequence[Path], only: Container[str] | None = None) -> Iterator[Example]:
    """The same, a few rows in memory at a time."""
    import pyarrow.parquet as pq

    for shard in shards:
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(READ_ROWS, columns=["image_id", "image", "input_ids"]):
                for row in batch.to_pylist():
                    if only is None or row["image_id"] in only:
                        yield from (Example(row["image"]["bytes"], tuple(ids)) for ids in row["input_ids"])


def mix(niche: Sequence[Example], replay: Sequence[Example], replay_share: float) -> list[Example]:
    """One epoch of `niche` with about `replay_share` of `replay` in it; the smaller side is repeated whole times.

    Replaying what the model knew keeps it from forgetting (Robins 1995, "Catastrophic forgetting, rehearsal and
    pseudorehearsal").
    """
    if not replay or replay_share <= 0:
        return list(niche)
    wanted = replay_share / (1 - replay_share)  # replay pairs per niche pair
    ratio = len(replay) / len(niche)
    if ratio >= wanted:
        return list(niche) * max(1, round(ratio / wanted)) + list(replay)
    return list(niche) + list(replay) * max(1, round(wanted / ratio))


def with_prompt(examples: Sequence[Example], prompt_ids: Sequence[int], max_tokens: int) -> list[Example]:
    """The same pairs with the prompt's ids after BOS; too long captions lose their last words, never EOS."""
    if not prompt_ids:
        return list(examples)
    return [Example(example.png, prompted(example.input_ids, prompt_ids, max_tokens)) for example in examples]


def prompted(input_ids: Sequence[int], prompt_ids: Sequence[int], max_tokens: int) -> tuple[int, ...]:
    """A caption's ids with the prompt's after BOS."""
    if not prompt_ids:
        return tuple(input_ids)
    ids = (input_ids[0], *prompt_ids, *input_ids[1:])
    return ids if len(ids) <= max_tokens else (*ids[: max_tokens - 1], ids[-1])


def decode_pixels(png: bytes) -> NDArray[np.uint8]:
    """A picture of a shard as uint8 (3, H, W). Pillow reads every encoding; a bare GPU machine has nothing else."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.uint8).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def loader_processes() -> int:
    """How many processes share this one's work as a DataLoader's worker; 1 where it is none."""
    worker = get_worker_info()
    return worker.num_workers if worker else 1


class PairDataset(Dataset[dict[str, Any]]):
    """Decodes pictures on first use and keeps them while `cache_bytes` allows."""

    def __init__(
        self,
        examples: Sequence[Example],
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
        seed: int = 0,
        cache_bytes: int = 2 * 1024**3,
    ) -> None:
        self._examples, self._augmentation, self._seed = examples, augmentation, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader processes outlive epochs
        self._cache: dict[bytes, NDArray[np.uint8]] = {}
        self._cache_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """pixels uint8 (3, H, W), input_ids list of int."""
        example, key = self._examples[index], (self._seed, int(self._epoch), index)
        return {"pixels": self._augmentation(self._pixels(example.png), key), "input_ids": example.input_ids}

    def set_epoch(self, epoch: int) -> None:
        """Pictures change in another way in each epoch."""
        self._epoch.fill_(epoch)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [len(example.input_ids) for example in self._examples]

    def _pixels(self, png: bytes) -> NDArray[np.uint8]:
        pixels = self._cache.get(png)
        if pixels is None:
            pixels = decode_pixels(png)
            if (len(self._cache) + 1) * pixels.nbytes <= self._cache_bytes / loader_processes():
                self._cache[png] = pixels
        return pixels


class Normaliser:
    """Finishes a batch where the model is: grey levels travel as bytes, a quarter of what the model reads."""

    def __init__(self, contract: PreprocessingContract) -> None:
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (contract.mean, contract.std))

    def __call__(self, batch: dict[str, Tensor], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The batch on `device`, its pixel_values float32 as the contract has them."""
        moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        moved["pixel_values"] = moved["pixel_values"].float().div_(255).sub_(self._mean).div_(self._std)
        return moved


class Collator:
    """Stacks pairs into the model's inputs: pixels, padded ids, labels with BOS, prompt and pads ignored.

    BOS is never predicted (the model shifts labels by one), so ignoring it changes no loss; it makes the labels that
    count countable.
    """

    def __init__(self, contract: PreprocessingContract, prompt_tokens: int = 0) -> None:
        self._pad, self._given = contract.pad_token_id, 1 + prompt_tokens

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """pixel_values (B, 3, H, W) uint8, for a Normaliser; input_ids, attention_mask, labels (B, L) int64."""
        pixels = torch.from_numpy(np.stack([row["pixels"] for row in rows]))
        longest = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), longest), self._pad, dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        places = torch.arange(longest)[None, :]
        mask = places < lengths[:, None]  # not ids != pad: a pad inside a caption stays
        return {
            "pixel_values": pixels,
            "input_ids": ids,
            "attention_mask": mask.long(),
            "labels": ids.masked_fill(~mask | (places < self._given), IGNORED),
        }
