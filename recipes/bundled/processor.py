"""The number format that the processor multiplies natively."""

from __future__ import annotations

import torch


def native() -> torch.dtype:
    """bfloat16 where the processor has it (AVX512-BF16 or AMX), else float32: emulated, it is the slower one."""
    cpu = getattr(torch, "cpu", None)
    probe = getattr(cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if probe is not None and probe() else torch.float32
