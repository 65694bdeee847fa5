"""Attention by blocks of heads gives what torch's kernel gives, and its gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vlm_serving import blocked_attention
from vlm_serving.blocked_attention import attend


def heads(tokens: int, others: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values as BLIP's projection lays them out: (B, heads, T or S, d), not contiguous."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, length, 3, 8) for length in (tokens, others, others)]
    drawn = [torch.randn(shape, generator=generator).to(dtype).transpose(1, 2) for shape in shapes]
    return [states.requires_grad_() for states in drawn]


@pytest.mark.parametrize(("tokens", "others"), [(1, 1), (37, 37), (5, 17)])
@pytest.mark.parametrize("block_bytes", [1, 12_000, 2**21])
def test_it_equals_torch_forward_and_backward(
    tokens: int, others: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked_attention, "BLOCK_BYTES", block_bytes)
    found: list[list[Tensor]] = []
    for kernel in (blocked_attention.blocked_attention, scaled_dot_product_attention):
        states = heads(tokens, others, torch.float32)
        context = kernel(*states)
        (context * torch.arange(8.0)).sum().backward()
        found.append([context, *(one.grad for one in states if one.grad is not None)])
    assert len(found[0]) == 4
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_in_bf16_it_is_as_near_to_exact_as_stock_attention_is() -> None:
    states = heads(37, 37, torch.bfloat16)
    exact = scaled_dot_product_attention(*(one.float() for one in states))
    query, key, value = states
    stock = torch.softmax(query @ key.transpose(-1, -2) * 8**-0.5, dim=-1) @ value
    errors = [(context.float() - exact).abs().max().item() for context in (attend(*states), stock)]
    assert errors[0] <= 1.5 * errors[1]


def test_nothing_is_kept_where_nothing_is_learnt() -> None:
    states = heads(5, 5, torch.bfloat16)
    with torch.inference_mode():
        assert attend(*states).grad_fn is None
    assert attend(*(one.detach() for one in states)).grad_fn is None
    assert attend(*states).grad_fn is not None
