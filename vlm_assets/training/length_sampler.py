"""Batches of captions of like length, in an order that hangs on nothing but seed and epoch."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

MEGABATCH = 50  # batches that are sorted together: like lengths, still well mixed


class LengthGroupedSampler(Sampler[int]):
    """Shuffles, then sorts within stretches of 50 batches, and shuffles the batches.

    transformers has a sampler of this name that draws from the global generator when an epoch begins; a run resumed
    in mid-epoch could not repeat its order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch's."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order: list[int] = torch.randperm(len(self._lengths), generator=generator).tolist()
        stretch = self._batch_size * MEGABATCH
        grouped = [
            index
            for start in range(0, len(order), stretch)
            for index in sorted(order[start : start + stretch], key=self._lengths.__getitem__, reverse=True)
        ]
        batches = [grouped[start : start + self._batch_size] for start in range(0, len(grouped), self._batch_size)]
        short = [batches.pop()] if len(batches[-1]) < self._batch_size else []  # stays last: a batch is never torn
        mixed: list[int] = torch.randperm(len(batches), generator=generator).tolist()
        for number in mixed:
            yield from batches[number]
        for batch in short:
            yield from batch
