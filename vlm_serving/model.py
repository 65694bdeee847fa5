"""BLIP, with fused attention. State dicts stay Hugging Face's own: what is saved here loads in plain transformers.

transformers 5.23 runs BLIP with eager attention (matmul, softmax, matmul) in the vision encoder, the text decoder's
self-attention and its cross-attention. `use_fused_attention` swaps those modules' classes for subclasses that call
`scaled_dot_product_attention` (of pictures in bf16 on CPUs: `blocked_attention`): same weights, same results within
rounding, less time and memory.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import BlipConfig, BlipForConditionalGeneration
from transformers.cache_utils import EncoderDecoderCache
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention
from transformers.utils import logging as transformers_logging

from vlm_serving.blocked_attention import attend


class FusedVisionAttention(BlipAttention):
    """Vision self-attention. In and out: (B, T, D)."""

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Attention weights are never formed, so the second value is None."""
        batch, tokens, width = hidden_states.shape
        qkv = self.qkv(hidden_states).view(batch, tokens, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
        dropout = self.dropout.p if self.training else 0.0
        context = attend(query, key, value, dropout)
        return self.projection(context.transpose(1, 2).reshape(batch, tokens, width)), None


class FusedTextAttention(BlipTextSelfAttention):
    """Text self- or cross-attention. In and out: (B, L, D); cross-attention reads (B, S, D_vision)."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Masks are additive, (B, 1, L or 1, S). Attention weights are never formed: the second value is None."""
        query = self._heads(self.query(hidden_states))
        is_cross = encoder_hidden_states is not None
        key, value = self._key_value(hidden_states, encoder_hidden_states, past_key_values)
        mask = encoder_attention_mask if is_cross else attention_mask
        if mask is not None:
            mask = mask.to(device=query.device, dtype=query.dtype)
        dropout = self.dropout.p if self.training else 0.0
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2), None

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)  # (B, heads, L, head_dim)

    def _key_value(self, own: Tensor, other: Tensor | None, past: Any) -> tuple[Tensor, Tensor]:
        """Keys and values; those of the picture are computed once per generation and then read from the cache."""
        if past is None:  # in training; what follows differs from layer to layer, and torch.compile would see it
            source = own if other is None else other
            return self._heads(self.key(source)), self._heads(self.value(source))
        cache, layer_idx = past, int(self.layer_idx or 0)
        if isinstance(past, EncoderDecoderCache):
            cache = past.self_attention_cache if other is None else past.cross_attention_cache
            if other is not None and past.is_updated.get(layer_idx):
                layer: Any = cache.layers[layer_idx]
                return layer.keys, layer.values
        source = own if other is None else other
        key, value = self._heads(self.key(source)), self._heads(self.value(source))
        key, value = cache.update(key, value, layer_idx)
        if other is not None and isinstance(past, EncoderDecoderCache):
            past.is_updated[layer_idx] = True
        return key, value


FUSED: dict[type, type] = {BlipAttention: FusedVisionAttention, BlipTextSelfAttention: FusedTextAttention}


def use_fused_attention(model: BlipForConditionalGeneration) -> BlipForConditionalGeneration:
    """Switch every attention module of `model` to the fused kernel, in place; returns the model."""
    for module in model.modules():
        if type(module) in FUSED:
            module.__class__ = FUSED[type(module)]
    return model


def use_stock_attention(model: BlipForConditionalGeneration) -> BlipForConditionalGeneration:
    """The reverse of `use_fused_attention`, in place; returns the model."""
    stock = {fused: plain for plain, fused in FUSED.items()}
    for module in model.modules():
        if type(module) in stock:
            module.__class__ = stock[type(module)]
    return model


def load_model(path: Path | str, *, fused: bool = True, **kwargs: Any) -> BlipForConditionalGeneration:
    """BLIP in fp32 from a local directory or hub id; safetensors only. `kwargs` go to `from_pretrained`."""
    transformers_logging.disable_progress_bar()  # a bar for a file that loads in a blink
    model = BlipForConditionalGeneration.from_pretrained(path, use_safetensors=True, dtype=torch.float32, **kwargs)
    return use_fused_attention(model) if fused else model


def build_mini(
    *,
    vocab_size: int,
    bos_token_id: int,
    eos_token_id: int,
    pad_token_id: int,
    image_size_px: int = 96,
    patch_size_px: int = 16,
    width: int = 192,
    heads: int = 3,
    vision_layers: int = 4,
    text_layers: int = 2,
    max_caption_tokens: int = 40,
    label_smoothing: float = 0.1,
    seed: int = 0,
) -> BlipForConditionalGeneration:
    """A small BLIP with random weights (3.3 M parameters at the defaults), the same class as the big one."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    common = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
    config = BlipConfig(
        vision_config={
            **common,
            "num_hidden_layers": vision_layers,
            "image_size": image_size_px,
            "patch_size": patch_size_px,
            "initializer_range": 0.02,  # transformers' default here is 1e-10: nothing would be learnt from scratch
        },
        text_config={
            **common,
            "num_hidden_layers": text_layers,
            "encoder_hidden_size": width,
            "vocab_size": vocab_size,
            "max_position_embeddings": max_caption_tokens + 8,
            "bos_token_id": bos_token_id,
            "eos_token_id": eos_token_id,
            "sep_token_id": eos_token_id,  # BLIP's generate stops on [SEP]
            "pad_token_id": pad_token_id,
            "label_smoothing": label_smoothing,  # read from the text config only; the original trains with 0.1
        },
        projection_dim=width,
    )
    return use_fused_attention(BlipForConditionalGeneration(config))
