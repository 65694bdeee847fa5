"""Attention on the CPU by matrix products over a few heads at a time, so that their weights stay in the cache.

softmax(Q K^T / sqrt(d)) V. torch's fused CPU kernel tiles finer, and multiplies small matrices of bf16 at a fraction
of the speed of larger ones: a pass over BLIP's 577 patches takes it three times as long (docs/experiments.md). In fp32
it is as fast.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

BLOCK_BYTES = 2 * 2**20  # of weights at a time: what the caches of a core hold


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention without a mask by the kernel that suits the device. (B, heads, T, d), (B, heads, S, d) twice."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and not dropout:
        return blocked_attention(query, key, value)
    return scaled_dot_product_attention(query, key, value, dropout_p=dropout)


def blocked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, heads, T, d), (B, heads, S, d) twice -> (B, heads, T, d), of one dtype; differentiable once."""
    batch, heads, tokens, width = query.shape
    # the scale goes onto Q: d numbers a row instead of S
    query, key, value = (one.reshape(batch * heads, -1, width) for one in (query * width**-0.5, key, value))
    learns = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
    context: Any = _Blocked.apply(query, key, value) if learns else _forward(query, key, value)
    return context.view(batch, heads, tokens, width)


def _forward(query: Tensor, key: Tensor, value: Tensor, kept: list[Tensor] | None = None) -> Tensor:
    """(N, T, d) from the scaled queries (N, T, d), keys and values (N, S, d) of N heads; `kept` gets the weights."""
    context = torch.empty_like(query)
    for part in _parts(query, key):
        weights = torch.bmm(query[part], key[part].transpose(1, 2)).softmax(-1)
        torch.bmm(weights, value[part], out=context[part])
        if kept is not None:
            kept.append(weights)
    return context


class _Blocked(torch.autograd.Function):
    """`_forward`, differentiable. Weights are kept for the backward pass: forming them anew costs more than reading."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `_forward`."""
        kept: list[Tensor] = []
        context = _forward(query, key, value, kept)
        ctx.save_for_backward(query, key, value, *kept)
        return context

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of queries, keys and values from the one of the context."""
        query, key, value, *kept = ctx.saved_tensors
        (of_context,) = gradients
        of_query, of_key, of_value = (torch.empty_like(states) for states in (query, key, value))
        for part, weights in zip(_parts(query, key), kept, strict=True):
            torch.bmm(weights.transpose(1, 2), of_context[part], out=of_value[part])
            of_weights = torch.bmm(of_context[part], value[part].transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            torch.bmm(of_scores, key[part], out=of_query[part])
            torch.bmm(of_scores.transpose(1, 2), query[part], out=of_key[part])
        return of_query, of_key, of_value


def _parts(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Of N heads, some at a time."""
    count, tokens, _ = query.shape
    size = max(1, BLOCK_BYTES // max(1, tokens * key.shape[1] * query.element_size()))
    return (slice(start, start + size) for start in range(0, count, size))
