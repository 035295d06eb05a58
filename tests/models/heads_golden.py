"""What a fixture says of a ranking head, checked. Adapters (`golden_<model>.py`) say how settings and names correspond.

A fixture's model is its tables of ids and our head. Every hyper-parameter, parameter, output and draw must be known.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from golden import TOLERANCE, Arrays, Tensors, assert_close, section
from rawrec.models.ranking.tokens import Part, Past, Token, Tokens

NOT_OURS = {"batch", "regulariser_of_out_regulariser"}
"""Hyper-parameters that say something of the fixture alone."""


def take(hyper: Mapping[str, Any], known: Mapping[str, str], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by our names. known: theirs -> ours; fixed: what has to be as it is. Others are an error."""
    unknown = hyper.keys() - known.keys() - fixed.keys() - NOT_OURS
    assert not unknown, f"hyper-parameters that the adapter does not read: {', '.join(sorted(unknown))}"
    for name, value in fixed.items():
        assert name not in hyper or value is ... or hyper[name] == value, f"{name}={hyper[name]} is not there"
    return {ours: hyper[name] for name, ours in known.items() if name in hyper}


def tokens_of(values: Tensor, linear: Tensor | None = None, histories: Mapping[str, Past] | None = None) -> Tokens:
    """values: `[batch, tokens, dim]`; linear: `[batch]`."""
    part = Part([Token(f"t{k}", value[:, None]) for k, value in enumerate(values.unbind(1))])
    part.linear = [] if linear is None else [linear[:, None]]
    part.histories = dict(histories or {})
    return Tokens([part], (len(values), 1))


class GoldenHead:
    """Adapter of one head."""

    zero_gradient: ClassVar[str] = ""
    ignored: ClassVar[set[str]] = {"regulariser"}  # of the reference's trainer, no part of the loss

    def build(self, about: Mapping[str, Any], arrays: Arrays) -> nn.Module:
        """Tables and head, with the names that `convert` gives."""
        raise NotImplementedError

    def convert(self, about: Mapping[str, Any], tensors: Tensors) -> Tensors:
        """State (or gradients, or later state) by the reference's names -> by ours, all of them."""
        raise NotImplementedError

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        """By the fixture's names under `out/`, in whichever mode the model is."""
        raise NotImplementedError

    def losses(self, model: Any, given: Tensors) -> Tensors:
        """In training: "loss", and parts by the fixture's names under `out/loss/`."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------ the checks
    def __call__(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        draws = [key for key in arrays if key.startswith("rand/")]
        assert not draws, f"nothing reads the draws {', '.join(draws)}"
        given, expected = section(arrays, "input"), section(arrays, "out")
        model = self.loaded(about, arrays).eval()
        seen = {"loss", *self.ignored}
        with torch.no_grad():
            for name, value in self.outputs(model, given).items():
                if name in expected:
                    assert_close(value, expected[name], name)
                    seen.add(name)
        seen |= self.check_training(about, arrays, given)
        model = self.loaded(about, arrays).train()
        losses = self.losses(model, given)
        for name, value in losses.items():
            key = name if name == "loss" else f"loss/{name}"
            if key in expected:
                assert_close(value, expected[key], key)
                seen.add(key)
        assert not expected.keys() - seen, f"not checked: {', '.join(sorted(expected.keys() - seen))}"
        losses["loss"].backward()
        self.check_gradients(about, model, arrays)
        self.check_steps(about, arrays)

    def loaded(self, about: Mapping[str, Any], arrays: Arrays) -> nn.Module:
        model = self.build(about, arrays)
        state = self.convert(about, section(arrays, "param"))
        model.load_state_dict(state)
        return model

    def check_training(self, about: Mapping[str, Any], arrays: Arrays, given: Tensors) -> set[str]:
        """Outputs in training, and running statistics after one batch; the names of both."""
        expected = section(arrays, "out")
        model, seen = self.loaded(about, arrays).train(), set()
        with torch.no_grad():
            for name, value in self.outputs(model, given).items():
                first, _, last = name.partition("/")
                key = f"{first}_training" + (f"/{last}" if last else "")
                if key in expected:
                    assert_close(value, expected[key], key)
                    seen.add(key)
        running = section(arrays, "out/running_after_one_batch")
        model = self.loaded(about, arrays).train()
        self.losses(model, given)
        state = model.state_dict()
        for name, value in self.convert(about, running).items() if running else ():
            assert_close(state[name], value, f"{name} after one batch")
        return seen | {f"running_after_one_batch/{name}" for name in running}

    def noise(self, about: Mapping[str, Any], arrays: Arrays) -> set[str]:
        """Our names of parameters whose gradient is truly zero."""
        zero = set(about.get("parameters_with_truly_zero_gradient") or ())
        return set(self.convert(about, {k: v for k, v in section(arrays, "grad").items() if k in zero}))

    def check_gradients(self, about: Mapping[str, Any], model: nn.Module, arrays: Arrays) -> None:
        """Within 1e-5 of each tensor's largest entry; every trained parameter has one."""
        expected, noise = self.convert(about, section(arrays, "grad")), self.noise(about, arrays)
        ours = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert ours.keys() == expected.keys()
        for name, grad in ours.items():
            assert grad is not None, name
            atol = TOLERANCE * (1 if name in noise else max(float(expected[name].abs().max()), 1e-5))
            np.testing.assert_allclose(grad.numpy(), expected[name].numpy(), 0, atol, err_msg=name)

    def check_steps(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Three steps of Adam on one batch: entries whose gradient is more than rounding noise."""
        model, given = self.loaded(about, arrays).train(), section(arrays, "input")
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for expected in arrays["step3_losses"]:
            optimizer.zero_grad()
            loss = self.losses(model, given)["loss"]
            assert_close(loss, expected, "loss of a step")
            loss.backward()
            optimizer.step()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        assert_close(self.losses(model, given)["loss"], arrays["step3_loss_after"], "loss after the steps")
        gradients, noise = self.convert(about, section(arrays, "grad")), self.noise(about, arrays)
        for name, after in self.convert(about, section(arrays, "step3")).items():
            if name in gradients and name not in noise:
                clear = gradients[name].abs() > 1e-4 * gradients[name].abs().max()
                np.testing.assert_allclose(state[name][clear], after[clear], 0, TOLERANCE, err_msg=name)
            elif name not in gradients and not name.endswith("batches"):
                atol = 6e-4 if noise and name.endswith("mean") else TOLERANCE  # steps of noise move means
                np.testing.assert_allclose(state[name], after, TOLERANCE, atol, err_msg=name)
