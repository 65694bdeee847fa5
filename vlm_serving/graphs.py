"""One word of every caption as one CUDA graph: hundreds of kernels, launched in one call instead of one by one.

A decoder's step is so little work for a GPU that the CPU cannot hand it out fast enough: on an H100 a caption of 20
words took 107 ms launched kernel by kernel and takes 30 with graphs (docs/experiments.md). A graph works on
fixed memory and fixed sizes: pictures therefore lie in buffers that all graphs share, their number is rounded up to a
power of two, and each number of pictures and beams has a graph of its own, made when it first comes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlm_serving.memory import Said

if TYPE_CHECKING:
    from vlm_serving.decoder import Decoder

TOKENS_AT_ONCE = 32  # what was said is read up to a multiple of this many tokens
WARM_UPS = 2
Key = tuple[int, int, int]  # pictures, beams, tokens


class StepGraphs:
    """Makes and keeps the graphs of one decoder, and the buffers that they work on."""

    def __init__(self, decoder: "Decoder") -> None:
        self._decoder = decoder
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._own: Tensor = torch.empty(0)
        self._graphs: dict[Key, _Step] = {}
        self._pool: Any = None

    def look(self, states: Tensor, beams: int, longest: int) -> "GraphedSaid":
        """As `Decoder.look`."""
        pictures = 1 << (states.shape[0] - 1).bit_length()
        tokens = -(-longest // TOKENS_AT_ONCE) * TOKENS_AT_ONCE
        self._make_room(states, pictures, beams, tokens)
        for layer, (keys, values) in enumerate(self._seen):
            key, value = self._decoder.read(layer, states)
            keys[: len(key)], values[: len(value)] = key, value
        return GraphedSaid(beams, 0, self.own(pictures, beams, tokens), self._seen, self, pictures)

    def say(self, said: Said, tokens: Tensor) -> Tensor:
        """As `Decoder.say`, for one token of each row."""
        assert isinstance(said, GraphedSaid)
        key = (said.pictures, said.beams, said.own.shape[4])
        if key not in self._graphs:
            self._graphs[key] = _Step(self._decoder, said)
        step = self._graphs[key]
        step.tokens[: len(tokens)] = tokens
        step.place.fill_(said.length)
        if not step.captured:
            self._pool = step.capture(self._pool)
        step.graph.replay()
        said.length += 1
        return step.logits[: len(tokens)]

    def own(self, pictures: int, beams: int, tokens: int) -> Tensor:
        """Room for what is said of so many pictures: the beginning of the shared buffer."""
        size = self._own_size(pictures, beams, tokens)
        return self._own[: size.numel()].view(size)

    def _own_size(self, pictures: int, beams: int, tokens: int) -> torch.Size:
        decoder = self._decoder
        return torch.Size((2, decoder.layers, pictures * beams, decoder.heads, tokens, decoder.head_dim))

    def _make_room(self, states: Tensor, pictures: int, beams: int, tokens: int) -> None:
        """Buffers that are large enough; graphs of smaller ones are forgotten. Zeros: what is masked must be finite."""
        decoder, wanted = self._decoder, self._own_size(pictures, beams, tokens).numel()
        shape = (pictures, decoder.heads, states.shape[1], decoder.head_dim)
        fits = self._seen and self._seen[0][0].shape[0] >= pictures and self._seen[0][0].shape[1:] == shape[1:]
        if not fits:
            self._forget()
            self._seen = []
            self._seen = [(states.new_zeros(shape), states.new_zeros(shape)) for _ in range(decoder.layers)]
        if self._own.numel() < wanted:
            self._forget()
            self._own = states.new_zeros(wanted)

    def _forget(self) -> None:
        self._graphs.clear()
        self._pool = None  # goes with the last graph in it


@dataclass
class GraphedSaid(Said):
    """What was said and seen, in the shared buffers. The rows past the last picture hold whatever was there before."""

    graphs: StepGraphs
    pictures: int  # for how many there is room: a power of two

    def worth_leaving(self, left: int, pictures: int) -> bool:
        """When half the room is enough."""
        return left <= self.pictures // 2

    def keep(self, pictures: Tensor) -> None:
        """Forget all but these pictures. (P',) int64"""
        said = self.own[..., : self.length, :].index_select(2, self.rows_of(pictures))
        self.pictures = 1 << (len(pictures) - 1).bit_length()
        self.own = self.graphs.own(self.pictures, self.beams, self.own.shape[4])
        self.own[:, :, : said.shape[2], :, : self.length] = said
        for keys, values in self.seen:
            keys[: len(pictures)], values[: len(pictures)] = keys[pictures], values[pictures]


class _Step(Said):
    """One step at a place that is known only when it runs: reads and writes memory of fixed size."""

    def __init__(self, decoder: "Decoder", said: GraphedSaid) -> None:
        pictures, tokens, device = said.pictures, said.own.shape[4], said.own.device
        super().__init__(said.beams, 0, said.own, [(keys[:pictures], values[:pictures]) for keys, values in said.seen])
        self._decoder = decoder
        self.tokens = torch.zeros((said.own.shape[2], 1), dtype=torch.int64, device=device)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self._all = torch.arange(tokens, device=device)
        self._readable = self._all <= self.place
        self.graph = torch.cuda.CUDAGraph()
        self.captured = False
        self.logits: Tensor = torch.empty(0)

    def capture(self, pool: Any) -> Any:
        """Record the step; returns the pool of its memory. It runs a few times before, with what it is to say now."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        # another thread may be loading the next model onto the GPU
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            self.logits = self._run()
        self.captured = True
        return self.graph.pool()

    def advance(self, places: Tensor, steps: int) -> Tensor:
        """The row of `places` for the place at hand."""
        self._readable = (self._all <= self.place).view(1, 1, steps, -1)
        return places.index_select(0, self.place)

    def remember(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As of any place, and all that may be read up to it."""
        keys, values = self.own[:, layer].unbind(0)
        keys.index_copy_(2, self.place, key)
        values.index_copy_(2, self.place, value)
        return keys, values, self._readable

    def _run(self) -> Tensor:
        return self._decoder.next_word(self, self.tokens)
