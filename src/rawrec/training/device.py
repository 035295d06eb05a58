"""Where a run computes, and how precisely its encoders do."""

from __future__ import annotations

import torch

from rawrec.arguments import shown
from rawrec.config.training import DEVICE
from rawrec.errors import UserError


def choose_device(name: str, setting: str = "train.device") -> torch.device:
    """`auto` is the GPU where there is one. Raises UserError for what is no device of ours, or is not there.

    setting: what the message calls the device by.
    """
    if not isinstance(name, str) or not DEVICE.fullmatch(name):
        raise UserError(f"{setting}={shown(name)}: use auto, cpu, cuda or cuda:<n>; rawrec computes on no other device")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= there:
        raise UserError(f"{setting}={shown(name)}: this machine has {there} GPUs that torch can use; use auto or cpu")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """bf16 for the encoders where the hardware computes it natively (auto) or where asked for; None: float32."""
    if name == "auto":
        on_cpu = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # no public name for it; absent: no
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else on_cpu()
        name = "bf16" if native else "fp32"
    return torch.bfloat16 if name == "bf16" else None
