"""What the hardware multiplies natively, and so in which precision a model runs if no one says."""

import torch

CPU_BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}  # what multiplies bf16 faster than fp32


def resolve_device(precision: str = "auto", device: str = "auto") -> tuple[str, str, str]:
    """(device, precision, why): CUDA if there is, and bf16 wherever the device multiplies it natively, else fp32."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision != "auto":
        return device, precision, "as configured"
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return device, "bf16" if native else "fp32", f"the GPU {'has' if native else 'lacks'} bf16"
    capabilities = torch.cpu.get_capabilities()
    native = [name for feature, name in CPU_BF16.items() if capabilities.get(feature)]
    why = f"the CPU has {native[0]}" if native else f"the CPU has neither {' nor '.join(CPU_BF16.values())}"
    return device, "bf16" if native else "fp32", why
