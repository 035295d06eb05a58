"""Models of pictures and words: features whole and cut at every layer, logits, loss, gradients."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden import Arrays, assert_close, section
from rawrec.content.encoders.hub import FAMILIES
from rawrec.content.encoders.two_towers import TwoTowerStack

CLASSES = {"clip": "CLIP", "siglip": "Siglip", "chinese_clip": "ChineseCLIP"}


class GoldenTwoTowers:
    def __init__(self, model_type: str) -> None:
        self.model_type = model_type

    def model(self, about: Mapping[str, Any], arrays: Arrays) -> Any:
        import transformers

        hyper = about["hyper_parameters"]
        prefix = CLASSES[self.model_type]
        towers = {
            f"{kind}_config": hyper[f"{kind}_config"]
            | {"layer_norm_eps": hyper["layer_norm_eps"][other], "hidden_act": hyper["activation"][other]}
            for kind, other in (("text", "text"), ("vision", "image"))
        }
        more = {"projection_dim": hyper["projection_dim"]} if "projection_dim" in hyper else {}
        model = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")(**towers, **more))
        missing, unexpected = model.load_state_dict(section(arrays, "param"), strict=False)
        assert not [key for key in missing if "position_ids" not in key]
        assert not [key for key in unexpected if "position_ids" not in key]
        return model.eval()

    def stacks(self, model: Any, arrays: Arrays, output: Any) -> dict[str, tuple[TwoTowerStack, Tensor, Tensor | None]]:
        """Of each tower: the stack, what it reads, and the mask."""
        drawn = section(arrays, "input")
        ids, mask, pixels = drawn["input_ids"], drawn["attention_mask"].bool(), drawn["pixel_values"]
        if self.model_type == "siglip":
            mask = torch.ones_like(mask)
        family = FAMILIES[self.model_type]
        return {
            "image": (family(copy.deepcopy(model), "image", output, (pixels, None)), pixels, None),
            "text": (family(copy.deepcopy(model), "text", output, (ids, mask)), ids, mask),
        }

    def __call__(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        model = self.model(about, arrays)
        for output, name in (("projected", "features"), ("pooled", "pooled")):
            for kind, (stack, x, mask) in self.stacks(model, arrays, output).items():
                expected = arrays[f"out/{kind}_{name}"]
                for cut in range(stack.depth):
                    assert stack.can_split(cut)
                    hidden = stack.run(x, mask, 0, cut) if cut else x
                    assert_close(stack.run(hidden, mask, cut, stack.depth), expected, f"{kind} {name}, cut at {cut}")

        stacks = self.stacks(model, arrays, "projected")
        image, text = (stack.run(x, mask, 0, stack.depth) for stack, x, mask in stacks.values())
        scale = model.logit_scale.detach().exp()
        image, text = (torch.nn.functional.normalize(x, dim=1) for x in (image, text))
        logits = scale * image @ text.T
        if self.model_type == "siglip":
            logits = logits + model.logit_bias.detach()
            signs = 2 * torch.eye(len(logits)) - 1
            loss = -torch.nn.functional.logsigmoid(signs * logits).sum() / len(logits)
        else:
            target = torch.arange(len(logits))
            cross = torch.nn.functional.cross_entropy
            loss = (cross(logits, target) + cross(logits.T, target)) / 2
        assert_close(logits, arrays["out/logits_per_image"], "logits")
        assert_close(loss, arrays["out/loss"], "loss")
        loss.backward()
        self.check_gradients(about, arrays, [stack for stack, _, _ in stacks.values()])

    def check_gradients(self, about: Mapping[str, Any], arrays: Arrays, stacks: list[TwoTowerStack]) -> None:
        ours = {n: p.grad for stack in stacks for n, p in stack.model.named_parameters() if p.grad is not None}
        expected = section(arrays, "grad")
        noise = set(about["parameters_with_truly_zero_gradient"]) | {"vision_model.head.attention.in_proj_bias"}
        assert {n for n, g in ours.items() if g.any()} | noise >= {
            n for n, g in expected.items() if g.any() and not n.startswith("logit_")
        }
        for name, grad in ours.items():
            top = float(expected[name].abs().max())
            np.testing.assert_allclose(
                grad.numpy(), expected[name].numpy(), 0, 1e-5 * (1 if name in noise else max(top, 1e-5)), err_msg=name
            )


CHECKS = {name.replace("_", "-"): GoldenTwoTowers(name) for name in CLASSES}
