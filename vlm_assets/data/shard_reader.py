"""Reads shards for training: shuffled, divided among ranks, resumable at the exact picture, from disk or S3.

The order is a function of (seed, epoch) and of the ranks, nothing else, so that resuming reads no picture twice and
skips none. Row groups are shuffled over the whole set; then the rows of as many of them as fit into `buffer_bytes` are
shuffled together. With w row groups in the buffer, a picture's neighbours come from its own row group with a chance of
1/w: with the default buffer and row groups of 16 MB, 1 in 16. Memory holds two buffers, this one and the next.
"""

# pyarrow ships no types.
# pyright: reportUnknownParameterType=false

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_assets.contracts import digest
from vlm_assets.data.encoding import decode_pixels
from vlm_assets.data.shard_blocks import BlockCache, ShardBlocks, ShardFile
from vlm_assets.data.shard_files import info_of
from vlm_assets.errors import ConfigError

BUFFER_BYTES = 256 * 1024 * 1024
CHUNK = 8  # pictures that a thread decodes in one go


@dataclass(frozen=True)
class Sample:
    """One picture with all its captions."""

    image_id: str
    pixels: NDArray[np.uint8]  # (3, H, W), read only; a view of (H, W, 3)
    captions: tuple[str, ...]
    input_ids: tuple[tuple[int, ...], ...]  # one per caption


@dataclass(frozen=True)
class _Piece:
    """Rows [start, stop) of a row group."""

    file: ShardFile
    group: int
    start: int
    stop: int
    bytes: int


class ShardReader:
    """Iterating gives the rest of the current epoch; then the next epoch is the current one.

    `even`: every rank gets the same number of pictures (distributed training hangs otherwise), and up to world - 1 of
    an epoch, others each time, are left out; without it none is. `threads` decode ahead of the consumer; 0 decodes when
    asked, and is best for raw pictures. Raises ConfigError, StoreError.
    """

    def __init__(
        self,
        shards: Sequence[str | Path],
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        even: bool = True,
        buffer_bytes: int = BUFFER_BYTES,
        threads: int = 1,
        cache: BlockCache | None = None,
        contract_sha256: str = "",
    ) -> None:
        if not 0 <= rank < world:
            raise ConfigError(f"rank is {rank} of world {world}; it must be 0 to {world - 1}.")
        self._blocks = ShardBlocks(shards, cache)
        self._seed, self._shuffle, self._rank, self._world, self._even = seed, shuffle, rank, world, even
        self._buffer_bytes, self._threads = buffer_bytes, threads
        self._groups = [
            _Piece(file, group, 0, rows, file.span(group)[1] - file.span(group)[0])
            for file in self._blocks.files
            for group, rows in enumerate(file.rows())
        ]
        self._pictures = sum(piece.stop for piece in self._groups)
        self._identity = digest([[self._blocks_of(piece), piece.stop] for piece in self._groups])
        self._epoch, self._position = 0, 0
        _check_contracts(self._blocks.files, contract_sha256)

    def __len__(self) -> int:
        """Pictures of an epoch on this rank."""
        start, stop = self._segment(self._rank, self._world)
        return stop - start

    @property
    def epoch(self) -> int:
        """The epoch that iterating goes on with."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; to the current one: nothing, so that what was resumed stays resumed."""
        if epoch != self._epoch:
            self._epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where we are, to the picture: those handed out count, those decoded ahead do not."""
        return {"epoch": self._epoch, "position": self._position, **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. ConfigError if the order would be another one, naming what differs."""
        differing = [
            f"{name}: {state.get(name)!r} then, {value!r} now"
            for name, value in self._order().items()
            if state.get(name) != value
        ]
        if differing:
            raise ConfigError(
                f"Cannot resume in the middle of an epoch, the order is another one ({'; '.join(differing)}). Use the "
                "same shards and settings, or start at the next epoch with set_epoch."
            )
        self._epoch, self._position = int(state["epoch"]), int(state["position"])

    def __iter__(self) -> Iterator[Sample]:
        """The rest of the epoch."""
        loader, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(max(self._threads, 1))
        try:
            for rows in self._windows(loader):
                for sample in self._decoded(rows, decoders):
                    self._position += 1
                    yield sample
        finally:
            # not waited for: whoever drops the rest of an epoch may be the collector, in one of these very threads
            for pool in (loader, decoders):
                pool.shutdown(wait=False, cancel_futures=True)
        self._epoch, self._position = self._epoch + 1, 0

    def _order(self) -> dict[str, Any]:
        return {
            "shards": self._identity,
            "seed": self._seed,
            "shuffle": self._shuffle,
            "rank": self._rank,
            "world": self._world,
            "even": self._even,
            "buffer_bytes": self._buffer_bytes,
        }

    def _windows(self, loader: ThreadPoolExecutor) -> Iterator["_Rows"]:
        """Buffers from the current position on; the next one is read while one is used."""
        skipped, windows = 0, deque[tuple[int, list[_Piece], int]]()
        for number, window in enumerate(self._plan()):
            rows = sum(piece.stop - piece.start for piece in window)
            if skipped + rows > self._position:
                windows.append((number, window, max(0, self._position - skipped)))
            skipped += rows
        waiting: Future[_Rows] | None = None
        while windows or waiting:
            ready = waiting
            waiting = loader.submit(self._load, *windows.popleft()) if windows else None
            if ready is not None:
                yield ready.result()

    def _load(self, number: int, window: list[_Piece], first: int) -> "_Rows":
        tables = [self._blocks.read(piece.file, piece.group).slice(piece.start, piece.stop - piece.start)
                  for piece in window]  # fmt: skip
        rows = _Rows(tables)
        order = np.arange(len(rows))
        if self._shuffle:
            self._random(number + 1, self._rank).shuffle(order)
        rows.order = order[first:]
        return rows

    def _plan(self) -> Iterator[list[_Piece]]:
        """The pieces of this rank's part of the epoch, in order, as many together as fit into the buffer."""
        groups = list(self._groups)
        if self._shuffle:
            order = np.arange(len(groups))
            self._random(0, 0).shuffle(order)
            groups = [groups[place] for place in order]
        start, stop = self._segment(self._rank, self._world)
        window: list[_Piece] = []
        at = held_bytes = 0
        for piece in groups:
            first, last = max(start, at), min(stop, at + piece.stop)
            if first < last:
                if window and held_bytes + piece.bytes > self._buffer_bytes:
                    yield window
                    window, held_bytes = [], 0
                window.append(_Piece(piece.file, piece.group, first - at, last - at, piece.bytes))
                held_bytes += piece.bytes
            at += piece.stop
        if window:
            yield window

    def _segment(self, rank: int, world: int) -> tuple[int, int]:
        """The rows of the epoch's order that are this rank's."""
        if self._even:
            each = self._pictures // world
            return rank * each, (rank + 1) * each
        return rank * self._pictures // world, (rank + 1) * self._pictures // world

    def _random(self, purpose: int, rank: int) -> np.random.RandomState:
        # RandomState and not Generator: its stream is frozen, an order must not change with numpy's version
        return np.random.RandomState([self._seed, self._epoch, purpose, rank])

    def _decoded(self, rows: "_Rows", decoders: ThreadPoolExecutor) -> Iterator[Sample]:
        """Samples in order, decoded by threads a few ahead of the consumer."""
        if not self._threads:
            yield from (rows.sample(place) for place in rows.order)
            return
        chunks = (rows.order[at : at + CHUNK] for at in range(0, len(rows.order), CHUNK))
        ahead: deque[Future[list[Sample]]] = deque()
        for chunk in chunks:
            ahead.append(decoders.submit(rows.samples, chunk))
            if len(ahead) > 2 * self._threads:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()

    def _blocks_of(self, piece: _Piece) -> str:
        return f"{Path(piece.file.uri).name} {piece.file.tag} {piece.group}"


class _Rows:
    """Row groups held in memory, encoded; pictures are decoded when they are asked for."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self._texts: list[dict[str, Any]] = []
        self._pictures: list[memoryview] = []
        for table in tables:
            self._texts += table.select(["image_id", "captions", "input_ids"]).to_pylist()
            for chunk in table.column("image").chunks:
                self._pictures += _views(chunk.field("bytes"))
        self.order: NDArray[np.int64] = np.arange(len(self._texts))

    def __len__(self) -> int:
        return len(self._texts)

    def sample(self, place: int) -> Sample:
        """The row at `place`."""
        text = self._texts[place]
        pixels = decode_pixels(self._pictures[place]).transpose(2, 0, 1)
        ids = tuple(tuple(one) for one in text["input_ids"])
        return Sample(text["image_id"], pixels, tuple(text["captions"]), ids)

    def samples(self, places: NDArray[np.int64]) -> list[Sample]:
        """Several rows."""
        return [self.sample(place) for place in places]


def _views(column: pa.Array) -> list[memoryview]:
    """The values of a binary column without copying them."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4).tolist()
    whole = memoryview(data)
    return [whole[start:end] for start, end in pairwise(ends)]


def _check_contracts(files: Sequence[ShardFile], wanted: str) -> None:
    if not files:
        raise ConfigError("There are no shards to read. Check the split's name and the directory.")
    found = {info_of(file.metadata, file.uri)["contract_sha256"]: file.uri for file in files}
    for contract, uri in found.items():
        if contract != (wanted or next(iter(found))):
            other = "the model's contract" if wanted else f"that of {next(iter(found.values()))}"
            raise ConfigError(
                f"{uri} was made by the preprocessing contract {contract[:12]}, {other} is "
                f"{(wanted or next(iter(found)))[:12]}: pictures or token ids would be wrong. Materialize "
                "tokenized_shards for this base model."
            )
