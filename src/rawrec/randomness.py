"""Random numbers as functions of seed and step, so that a resumed run needs no generator's state."""

from __future__ import annotations

import numpy as np
import torch


def mixed(seed: int, step: int) -> int:
    """A seed per step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 2)


def generator_of(*key: int) -> torch.Generator:
    """A generator whose draws are a function of the key: seed, kind of draw, epoch or step."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed torch's own generators of the CPU and of `device`.

    `torch.manual_seed` seeds those of all devices and, where a kind is not in use, notes down the stack of its caller,
    which takes longer than a layer.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
