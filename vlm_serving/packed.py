"""Linear layers whose weights lie in memory as the CPU's matrix kernels read them.

torch lays a weight out anew, or reads it across the grain, at every call; packed once (oneDNN's blocked layout) a layer
takes half the time or less, most of all when it is asked for a few rows, as in decoding. Figures: docs/benchmarks.md.
Needs torch's own oneDNN operators, those that its compiler uses; where they are missing layers stay as they are.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

PACKABLE = (torch.float32, torch.bfloat16)
_ops: Any = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """y = x W^T + b for inference on the CPU, then GELU if asked. In (..., in), out (..., out)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, then_gelu: bool = False) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed: Any = _ops._reorder_linear_weight(weight.detach().contiguous(), None)
        self.bias = None if bias is None else bias.detach().clone()
        self._then = ("gelu", "none") if then_gelu else ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Any number of leading dimensions."""
        activation, kind = self._then
        return _ops._linear_pointwise(x, self.packed, self.bias, activation, [], kind)


class PlainLinear(nn.Module):
    """The same by torch's ordinary kernels: on GPUs, and for what cannot be packed."""

    def __init__(self, weight: Tensor, bias: Tensor | None, then_gelu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias, self._then_gelu = weight.detach(), None if bias is None else bias.detach(), then_gelu

    def forward(self, x: Tensor) -> Tensor:
        """Any number of leading dimensions."""
        y = linear(x, self.weight, self.bias)
        return gelu(y) if self._then_gelu else y


def make_linear(*layers: nn.Linear, then_gelu: bool = False) -> Callable[[Tensor], Tensor]:
    """One layer for `layers` that read the same input, their outputs side by side; all have a bias."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    return (PackedLinear if can_pack(weight) else PlainLinear)(weight, bias, then_gelu)


def can_pack(weight: Tensor) -> bool:
    """Whether this machine's torch packs such a weight."""
    if weight.device.type != "cpu" or weight.dtype not in PACKABLE or not torch.backends.mkldnn.is_available():
        return False
    if not (hasattr(_ops, "_reorder_linear_weight") and hasattr(_ops, "_linear_pointwise")):
        return False
    return weight.dtype == torch.float32 or bool(_ops._is_mkldnn_bf16_supported())


def pack_linears(module: nn.Module) -> None:
    """Swap every linear layer below `module` for a packed one, in place: for inference, the weights are gone after."""
    for name, child in module.named_children():
        if type(child) is nn.Linear and can_pack(child.weight):
            setattr(module, name, PackedLinear(child.weight, child.bias))
        else:
            pack_linears(child)
