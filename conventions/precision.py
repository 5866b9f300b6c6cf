"""Which precisions a device computes natively, and so fast, and does not emulate."""

from typing import Any

import torch

AMP_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 natively, which is faster there; emulated it is slower."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def amp_dtype(device: torch.device, wanted: bool | None, name: str = "auto") -> torch.dtype | None:
    """The dtype of autocast in training; None without autocast.

    By default, `wanted` None, it is on for CUDA. `name` is one of AMP_DTYPES or `auto`: bf16, but
    float16, whose loss must be scaled, on CUDA devices before Ampere, which emulate bf16.
    """
    if not (device.type == "cuda" if wanted is None else wanted):
        return None
    if name != "auto":
        return AMP_DTYPES[name]
    return torch.float16 if device.type == "cuda" and not has_bf16(device) else torch.bfloat16


def amp_warning(device: torch.device, wanted: bool | None, name: str = "auto") -> str | None:
    """What to tell someone who asks for autocast to bf16 where it is emulated; None elsewhere.

    Arguments are as those of `amp_dtype`.
    """
    if device.type != "cpu" or not wanted or has_bf16(device):
        return None
    if amp_dtype(device, wanted, name) != torch.bfloat16:
        return None
    return "this CPU has no bf16 and emulates it, which is much slower: leave out --use-amp"
