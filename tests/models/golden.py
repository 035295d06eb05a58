"""What a fixture says of a retrieval model, checked. A model's adapter (`golden_<model>.py`) says how names correspond.

An adapter module holds `CHECKS`: kind of fixture -> function of (description, arrays); `tests/test_golden.py` gathers
them.
"""

import re
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rawrec.config.retrieval import RetrievalConfig
from rawrec.models.graph import Interactions
from rawrec.models.retrieval import retrieval_model
from rawrec.models.retrieval.base import RetrievalModel

Arrays = Mapping[str, np.ndarray]
Tensors = dict[str, Tensor]
TOLERANCE = 1e-5


def section(arrays: Arrays, name: str) -> Tensors:
    """The arrays under `name/`, as tensors by the rest of their names."""
    return {k.removeprefix(f"{name}/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(f"{name}/")}


def assert_close(ours: Tensor, expected: Any, what: str) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), np.asarray(expected), TOLERANCE, TOLERANCE, err_msg=what)


class Draws(Mapping[str, Tensor]):
    """Random draws as a model gets them. read: gathers the names of those that are read."""

    def __init__(self, tensors: Mapping[str, Tensor], read: set[str]) -> None:
        self.tensors, self.read = tensors, read

    def __getitem__(self, name: str) -> Tensor:
        value = self.tensors[name]
        self.read.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class GoldenModel:
    """Adapter of one model; subclasses override what does not correspond by name.

    zero_gradient: of parameters that truly have none, so that what is stored is rounding noise.
    """

    config: ClassVar[type[RetrievalConfig]]
    features: ClassVar[Mapping[str, str]] = {"image": "v_feat", "text": "t_feat"}
    zero_gradient: ClassVar[str] = r"$^"

    # ------------------------------------------------------------------------------------------ what a model may change
    def settings(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        """Of the config record, from the fixture's hyper-parameters."""
        return {k: v for k, v in hyper.items() if k in self.config.model_fields}

    def parameters(self, arrays: Arrays) -> Tensors:
        """The reference's state at the start, by its own names."""
        return section(arrays, "param")

    def convert(self, tensors: Tensors) -> Tensors:
        """State (or gradients, or later state) by the reference's names -> by ours; what we do not have is left out."""
        return tensors

    def epoch_draws(self, arrays: Arrays) -> Mapping[str, Tensor]:
        """What `begin_epoch` gets."""
        return {}

    def draws(self, arrays: Arrays) -> Mapping[str, Tensor]:
        """What `loss` gets; here all that the fixture has, by its own names."""
        return section(arrays, "rand")

    def graphs(self, model: RetrievalModel) -> Tensors:
        """Dense, by the names under `graph/`; after `begin_epoch`."""
        return {}

    def part(self, name: str) -> str | None:
        """Our name of a part of the loss; None: not a part of ours."""
        return re.sub(r"_(un)?weighted$", "", name)

    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        return users @ items.T

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Checks of this model alone."""

    # ------------------------------------------------------------------------------------------------------- the checks
    def build(self, about: Mapping[str, Any], arrays: Arrays) -> RetrievalModel:
        """The model with the reference's parameters, its epoch begun."""
        prefix = "graph/edge" if "graph/edge_users" in arrays else "train"  # draws number the edges in this order
        users, items = (torch.from_numpy(arrays[f"{prefix}_{kind}"]) for kind in ("users", "items"))
        sizes = [int(arrays[f"out/{kind}_embeddings"].shape[0]) for kind in ("user", "item")]
        features = {name: torch.from_numpy(arrays[key]) for name, key in self.features.items() if key in arrays}
        cfg = self.config(**self.settings(about["hyper_parameters"]))
        model = retrieval_model(str(cfg.model_dump()["name"]))(cfg, Interactions(users, items, *sizes), features)
        model.load_state_dict(self.convert(self.parameters(arrays)))
        model.begin_epoch(self.epoch_draws(arrays))
        return model

    def loss(self, model: RetrievalModel, arrays: Arrays) -> Tensors:
        """Of the fixture's batch, with its draws."""
        batch = section(arrays, "batch")
        return model.loss(batch["users"], batch["pos"], batch.get("neg"), self.draws(arrays))

    def __call__(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Checks all; every recorded draw must be among those that the adapter gives, and each of these be read."""
        names, read = self.draw_names(arrays), set[str]()
        for key in arrays:
            if key.startswith("rand/"):
                try:
                    without = self.draw_names({k: v for k, v in arrays.items() if k != key})
                except KeyError:  # it is asked for by name
                    continue
                assert without != names, f"the adapter does not read {key}"
        noting = copy(self)
        noting.epoch_draws = lambda arrays: Draws(self.epoch_draws(arrays), read)  # type: ignore[method-assign]
        noting.draws = lambda arrays: Draws(self.draws(arrays), read)  # type: ignore[method-assign]
        noting.check(about, arrays)
        unread = set().union(*names) - read
        assert not unread, f"nothing reads the draws {', '.join(sorted(unread))}"

    def draw_names(self, arrays: Arrays) -> tuple[set[str], set[str]]:
        return set(self.epoch_draws(arrays)), set(self.draws(arrays))

    def check(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        model = self.build(about, arrays)
        for name, graph in self.graphs(model).items():
            if f"graph/{name}" in arrays:
                assert_close(graph, arrays[f"graph/{name}"], name)
        users, items = model.embeddings()
        assert_close(users, arrays["out/user_embeddings"], "user embeddings")
        assert_close(items, arrays["out/item_embeddings"], "item embeddings")
        assert_close(self.scores(users, items), arrays["out/scores"], "scores")

        losses = self.loss(model, arrays)
        assert_close(losses["loss"], arrays["out/loss"], "loss")
        for name, expected in section(arrays, "out/loss").items():
            ours = self.part(name)
            if ours is not None:
                assert_close(losses[ours], expected, name)
        losses["loss"].backward()
        self.check_gradients(model, self.convert(section(arrays, "grad")))
        if section(arrays, "step3"):
            self.check_steps(about, arrays)
        self.more(about, arrays)

    def check_gradients(self, model: RetrievalModel, expected: Tensors) -> None:
        """Within 1e-5 of each tensor's largest entry; what the loss does not reach has none."""
        reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        noise = {name for name in expected if re.search(self.zero_gradient, name)}
        assert reached - noise == {name for name, grad in expected.items() if grad.any()} - noise
        for name, parameter in model.named_parameters():
            if name in expected and parameter.grad is not None:
                atol = TOLERANCE * (1 if name in noise else max(float(expected[name].abs().max()), 1e-5))
                np.testing.assert_allclose(parameter.grad.numpy(), expected[name].numpy(), 0, atol, err_msg=name)

    def check_steps(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Three steps of Adam on one batch: entries whose gradient is more than rounding noise."""
        model = self.build(about, arrays)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for expected in arrays["step3_losses"]:
            optimizer.zero_grad()
            loss = self.loss(model, arrays)["loss"]
            assert_close(loss, expected, "loss of a step")
            loss.backward()
            optimizer.step()
        gradients = self.convert(section(arrays, "grad"))
        state = model.state_dict()
        for name, after in self.convert(section(arrays, "step3")).items():
            if name not in gradients:
                assert_close(state[name], after, name)
            elif not re.search(self.zero_gradient, name):
                clear = gradients[name].abs() > 1e-4 * gradients[name].abs().max()
                np.testing.assert_allclose(state[name][clear], after[clear], 0, TOLERANCE, err_msg=name)
