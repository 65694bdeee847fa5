"""BLIP's text decoder at work: the next word's probabilities, given a picture and what has been said.

The same weights and arithmetic as transformers' BlipTextLMHeadModel, laid out for generation. Of a picture keys and
values are computed once and shared by all its beams, which stand side by side as queries of one attention; transformers
copies them for every beam and reorders the copies at every step. What was said lies in one buffer of fixed size.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention

from vlm_serving.graphs import StepGraphs
from vlm_serving.memory import Said
from vlm_serving.packed import make_linear

Linear = Callable[[Tensor], Tensor]


class Decoder:
    """Runs the decoder of a BlipForConditionalGeneration, with the weights that it has now: some are laid out anew.

    On CUDA each word is one graph of kernels (`graphs`), launched as a whole. One search at a time.
    """

    def __init__(self, model: Any, graphs: bool = True) -> None:
        language_model = model.text_decoder
        config = language_model.config
        self.heads: int = config.num_attention_heads
        self.width: int = config.hidden_size
        self.head_dim = self.width // self.heads
        self.max_tokens: int = config.max_position_embeddings
        embeddings = language_model.bert.embeddings
        self._words: Tensor = embeddings.word_embeddings.weight.detach()
        self._places: Tensor = embeddings.position_embeddings.weight.detach()
        self._embedded = _norm(embeddings.LayerNorm)
        self._layers = [_Layer(layer) for layer in language_model.bert.encoder.layer]
        self.layers = len(self._layers)
        head = language_model.cls.predictions
        self._transform = make_linear(head.transform.dense, then_gelu=True)
        self._transformed = _norm(head.transform.LayerNorm)
        self._to_words = make_linear(head.decoder)
        self._graphs = StepGraphs(self) if graphs and self._words.is_cuda else None

    def look(self, states: Tensor, beams: int, longest: int) -> "Said":
        """Read pictures as the vision encoder left them, (P, T, D), for captions of up to `longest` tokens."""
        if self._graphs:
            return self._graphs.look(states, beams, longest)
        size = (2, self.layers, states.shape[0] * beams, self.heads, longest, self.head_dim)
        return Said(beams, 0, states.new_empty(size), [self.read(layer, states) for layer in range(self.layers)])

    def read(self, layer: int, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of pictures (P, T, D) for one layer, (P, heads, T, head_dim) each."""
        keys, values = self._split(self._layers[layer].read_picture(states), 2).contiguous().unbind(0)
        return keys, values

    def say(self, said: Said, tokens: Tensor) -> Tensor:
        """Append tokens to every row, (R, S) int64; returns the next word's logits, (R, V) float32."""
        if self._graphs and tokens.shape[1] == 1:
            return self._graphs.say(said, tokens)
        return self.next_word(said, tokens)

    def next_word(self, said: Said, tokens: Tensor) -> Tensor:
        """The same, one kernel at a time."""
        return self._to_words(self._transformed(self._transform(self._hidden(said, tokens)[:, -1]))).float()

    def looked(self, states: Tensor, tokens: Tensor) -> Tensor:
        """How much of each place of a picture the last layer read at each token.

        States (B, T, D), tokens (B, S) -> (B, heads, S, T), float.
        """
        said = self.look(states, 1, tokens.shape[1])
        last = self._layers[-1]
        query = self._split(last.ask_picture(self._hidden(said, tokens, up_to_picture=True)), 1)[0]
        return _weights(query, said.seen[-1][0][: len(query)]).view(*query.shape[:3], -1)

    def _hidden(self, said: Said, tokens: Tensor, up_to_picture: bool = False) -> Tensor:
        """(R, S) -> the last layer's states, (R, S, D); `up_to_picture`: those with which it turns to the picture."""
        rows, steps = tokens.shape
        x = self._embedded(embedding(tokens, self._words) + said.advance(self._places, steps))
        for number, layer in enumerate(self._layers):
            query, key, value = self._split(layer.ask(x), 3)
            keys, values, readable = said.remember(number, key, value)
            context = _attend(query, keys, values, readable, causal=steps > 1)
            x = layer.answered(layer.answer(_joined(context)) + x)
            if up_to_picture and layer is self._layers[-1]:
                break
            # the beams of a picture, and the tokens of a prompt, are queries of one attention to that picture
            query = self._split(layer.ask_picture(x).view(-1, said.beams * steps, self.width), 1)[0]
            keys, values = said.seen[number]
            context = _attend(query, keys[: len(query)], values[: len(query)])
            x = layer.seen(layer.see(_joined(context)).view(rows, steps, self.width) + x)
            x = layer.thought(layer.think(x) + x)
        return x

    def _split(self, side_by_side: Tensor, parts: int) -> Tensor:
        """(N, S, parts * D) -> (parts, N, heads, S, head_dim)."""
        rows, steps, _ = side_by_side.shape
        return side_by_side.view(rows, steps, parts, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)


class _Layer:
    """One layer's weights by what they do."""

    def __init__(self, layer: Any) -> None:
        own, other = layer.attention, layer.crossattention
        self.ask = make_linear(own.self.query, own.self.key, own.self.value)
        self.answer, self.answered = make_linear(own.output.dense), _norm(own.output.LayerNorm)
        self.ask_picture = make_linear(other.self.query)
        self.read_picture = make_linear(other.self.key, other.self.value)
        self.see, self.seen = make_linear(other.output.dense), _norm(other.output.LayerNorm)
        inner, outer = make_linear(layer.intermediate.dense, then_gelu=True), make_linear(layer.output.dense)
        self.think: Linear = lambda x: outer(inner(x))
        self.thought = _norm(layer.output.LayerNorm)


def _norm(module: torch.nn.LayerNorm) -> Linear:
    weight, bias = module.weight.detach(), module.bias.detach()
    shape, eps = tuple(module.normalized_shape), module.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, readable: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over (N, heads, S, head_dim). `readable`: bool, of the keys; on CUDA only."""
    if query.is_cuda:
        return scaled_dot_product_attention(query, key, value, attn_mask=readable, is_causal=causal)
    weights = _weights(query, key, causal)
    return torch.bmm(weights, value.flatten(0, 1)).view(query.shape)


def _weights(query: Tensor, key: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d)), (N * heads, S, T). By bmm: matmul copies keys that are part of a longer buffer."""
    steps, dim = query.shape[2:]
    scores = torch.bmm((query / math.sqrt(dim)).reshape(-1, steps, dim), key.flatten(0, 1).transpose(1, 2))
    if causal:
        seen = key.shape[2]
        later = torch.ones(steps, seen, dtype=torch.bool, device=query.device).triu(seen - steps + 1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(-1)


def _joined(context: Tensor) -> Tensor:
    """(N, heads, S, head_dim) -> (N, S, D)."""
    return context.transpose(1, 2).flatten(2)
