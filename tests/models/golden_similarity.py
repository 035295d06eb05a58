"""What MUSE's code makes of the cosines of a candidate with its history: SimTier, SA-TA, and the search before it."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from heads_golden import GoldenHead
from torch import Tensor, nn

from golden import Arrays, Tensors, assert_close, section
from rawrec.models.ranking.history import HistoryContent
from rawrec.models.ranking.readouts import SimTier, most_similar
from rawrec.models.ranking.sata import SATA


def sizes(about: Any, *known: str) -> SimpleNamespace:
    """The hyper-parameters, all of which have to be `known`."""
    hyper = about["hyper_parameters"]
    assert hyper.keys() == {*known, "batch"}, f"hyper-parameters that the adapter does not read: {sorted(hyper)}"
    return SimpleNamespace(**hyper)


def loss_of(outputs: Tensor, weights: Tensor) -> Tensor:
    """Half the sum of squares beside a weighted sum, the mean over the batch."""
    return ((weights * outputs).sum() + outputs.square().sum() / 2) / len(outputs)


def cosines_of(candidate: Tensor, history: Tensor) -> Tensor:
    """Of `[batch, width]` and `[batch, length, width]`; a vector of zeros is padding, which the reference counts."""
    return HistoryContent(history, torch.ones(history.shape[:2], dtype=torch.bool)).cosines(candidate[:, None])[:, 0]


class GoldenSimTier(GoldenHead):
    """Padding is counted, as published. edge, weights: what the fixture has beside its inputs."""

    def build(self, about: Any, arrays: Arrays) -> nn.Module:
        size = sizes(about, "widths", "dims", "tiers", "history_lengths", "content_dim")
        tables = nn.ModuleList(SimTier(*shape) for shape in zip(size.widths, size.dims, strict=True))
        assert [table.tiers for table in tables] == size.tiers
        model: Any = nn.Module()
        model.tables = tables
        model.edge, model.weights = section(arrays, "edge")["cosine"], section(arrays, "loss_weights")
        return model

    def convert(self, about: Any, tensors: Tensors) -> Tensors:
        own = re.compile(r"width(\d+)_simtier\.emb")
        found = {own.fullmatch(name): value for name, value in tensors.items()}
        return {f"tables.{name[1]}.emb": value[0] for name, value in found.items() if name}

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        found = {}
        for k, table in enumerate(model.tables):
            cosines = cosines_of(given["item"], given[f"history{k}"])
            found |= {f"cosine/{k}": cosines, f"tier/{k}": table.tier(cosines), f"count/{k}": table.counts(cosines)}
            found |= {f"feature/{k}": table(cosines)}
            found |= {f"edge_tier/{k}": table.tier(model.edge), f"edge_feature/{k}": table(model.edge)}
        return found

    def losses(self, model: Any, given: Tensors) -> Tensors:
        found = self.outputs(model, given)
        parts = [loss_of(found[f"feature/{k}"], model.weights[str(k)]) for k in range(len(model.tables))]
        return {"loss": torch.stack(parts).sum()}


class GoldenSATA(GoldenHead):
    """Without a mask, padding takes part as published; the masked outputs are of cosines that are not negative."""

    def build(self, about: Any, arrays: Arrays) -> nn.Module:
        size = sizes(about, "width", "shapes", "heads", "cosines", "history_length")
        model: Any = SATA(size.width, size.shapes)
        assert model.heads == size.heads
        model.cosines = size.cosines
        return model

    def convert(self, about: Any, tensors: Tensors) -> Tensors:
        parts = {"query": "query", "fact": "key", "value": "value"}
        ours = {}
        for name, value in tensors.items():
            if found := re.fullmatch(r"(query|fact|value)_layers\.(\d+)\.linears\.(\d+)\.(weight|bias)", name):
                name = f"{parts[found[1]]}.{found[2]}.{found[3]}.{found[4]}"
            ours[{"cosine_tau1": "tau", "cosine_tau2": "b"}.get(name, name)] = value
        return ours

    def outputs(self, model: Any, given: Tensors) -> Tensors:
        candidate, rows, mask = given["query"][:, 0], given["history"], given["mask"]
        everything, both = torch.ones_like(mask), (given["cosine"], given["cosine2"])
        found = {
            "one_cosine": model(candidate, rows, everything, both[0]),
            "two_cosines": model(candidate, rows, everything, *both),
            "without_cosine": model(candidate, rows, everything),
            "masked": model(candidate, rows, mask, given["cosine_padded"]),
            "masked_without_cosine": model(candidate, rows, mask),
            "attention_without_cosine": model.attention(candidate, rows, everything).mean(0),
        }
        return found | {"output": found[("one_cosine", "two_cosines")[model.cosines - 1]]}

    def losses(self, model: Any, given: Tensors) -> Tensors:
        return {"loss": loss_of(self.outputs(model, given)["output"], given["loss_weights"])}


def check_search(about: Any, arrays: Arrays) -> None:
    """The search by content. That by category (SIM) is none of ours, so its outputs, `hard_*`, are left aside."""
    size = sizes(about, "keep", "history_length", "width")
    given, expected = section(arrays, "input"), section(arrays, "out")
    cosines, valid = cosines_of(given["candidate"][:, 0], given["history"]), given["history"].any(2)
    assert_close(cosines, expected["cosine"], "cosine")
    top, found = most_similar(cosines, valid, size.keep)
    assert found.sum(1).tolist() == expected["top_valid"].tolist()
    np.testing.assert_array_equal(np.where(found, top, -1), np.where(found, expected["top"], -1))
    assert {name for name in expected if not name.startswith("hard_")} == {"top", "top_valid", "cosine"}


CHECKS = {"simtier": GoldenSimTier(), "sata": GoldenSATA(), "muse-search": check_search}
