"""Networks that tests make again and again, made once in a session and copied from then on.

The pretrained ones, which are read from a package, and the random ones, which are the same for the same seed. All that
is read from a folder is read each time.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from typing import Any

import torch

PRETRAINED, RANDOM = ("minilm", "efficientnet_lite0"), ("random:conv", "random:vit", "random:bert")
KEPT = {PRETRAINED: 4, RANDOM: 200}
OF_TRAINING = {"train", "lora_rank", "lora_layers", "side_width", "recompute", "use", "encoder", "tokens", "max_texts"}
"""Settings that no network is made by."""


def once(make: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """`_network` of `rawrec.content.encoders`, with a memory."""
    from rawrec.content.encoders.base import hash_weights

    memories: dict[tuple[str, ...], OrderedDict[Any, tuple[Any, Any, torch.Tensor]]]
    memories = {PRETRAINED: OrderedDict(), RANDOM: OrderedDict()}

    @wraps(make)
    def network(kind: str, name: str, cfg: Any) -> tuple[Any, Any]:
        names = next((names for names in memories if name in names), None)
        if names is None or None in sys.modules.values():  # a test that does as if a package were missing
            return make(kind, name, cfg)
        drawn = torch.get_rng_state().numpy().tobytes() if names is RANDOM else b""
        key, memory = (kind, name, cfg.model_dump_json(exclude=OF_TRAINING), drawn), memories[names]
        if key not in memory:
            stack, reading = make(kind, name, cfg)
            stack.digest = stack.digest or hash_weights(stack)
            memory[key] = stack, reading, torch.get_rng_state()
            while len(memory) > KEPT[names]:
                memory.popitem(last=False)
        memory.move_to_end(key)
        stack, reading, after = memory[key]
        if names is RANDOM:
            torch.set_rng_state(after)
        return deepcopy((stack, reading))

    return network
