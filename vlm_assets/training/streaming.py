"""Shards as a torch data set that is read while it is trained on: for sets that do not fit into memory."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from vlm_assets.data.shard_reader import Sample, ShardReader
from vlm_assets.errors import ConfigError


class StreamDataset(IterableDataset[dict[str, Any]]):
    """One (picture, caption) pair per picture and epoch; after as many epochs as it has captions, each was seen once.

    Resumes to the picture with `state_dict`. Ranks are the reader's; it prefetches by itself, so that a DataLoader
    needs no worker processes and may not have them.
    """

    def __init__(self, reader: ShardReader, seed: int = 0) -> None:
        self._reader, self._seed = reader, seed

    def __len__(self) -> int:
        """Pairs of an epoch on this rank."""
        return len(self._reader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """pixels uint8 (3, H, W), input_ids: the rest of the current epoch."""
        if get_worker_info() is not None:
            raise ConfigError(
                "A StreamDataset reads ahead in threads; each worker process of a DataLoader would read the same "
                "pictures. Set num_workers to 0."
            )
        epoch = self._reader.epoch
        for sample in self._reader:
            yield {"pixels": sample.pixels, "input_ids": sample.input_ids[self._caption(sample, epoch)]}

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; Trainer and accelerate call this."""
        self._reader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where we are."""
        return self._reader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._reader.load_state_dict(state)

    def _caption(self, sample: Sample, epoch: int) -> int:
        start = hashlib.sha256(f"{self._seed} {sample.image_id}".encode()).digest()[0]
        return (start + epoch) % len(sample.input_ids)
