"""The two phases of a run with LoRA (EM3, eq. 9): matrices learn until they settle, then low-rank ones beside them."""

from __future__ import annotations

from torch import Tensor

from rawrec.config import Config
from rawrec.content.item_model import ItemModel
from rawrec.data.sampling import Samples

ENCODERS = ("encoders", "itc", "query")  # parts of an item model below projections and fusion
SETTLED = 0.01  # a matrix has settled where it moved less in an epoch, by its norm


class LoraPhases:
    """Of a run with content.lora.handover. begun: the matrices as they were at the beginning of the epoch, by name,
    where the second phase waits until they have settled."""

    def __init__(self, cfg: Config, item_model: ItemModel, samples: Samples) -> None:
        self.cfg, self.item_model, self.samples = cfg, item_model, samples
        self.begun: dict[str, Tensor] = {}

    def matrices(self) -> dict[str, Tensor]:
        """Of projections and fusion, by name."""
        return {name: layer.weight.detach() for name, layer in self.item_model.matrices().items()}

    def note_matrices(self) -> None:
        """Keep them as they are at the beginning of an epoch, to see how far they move in it."""
        if self.cfg.content.lora.after is None:
            self.begun = {name: weight.clone() for name, weight in self.matrices().items()}

    def second_begins(self, epoch: int, ends: bool) -> bool:
        """Whether the second phase begins after `epoch` epochs; ends: early stopping would end the first."""
        if self.item_model.adapted:
            return False
        after, now = self.cfg.content.lora.after, self.matrices()
        settled = all((now[name] - before).norm() < SETTLED * before.norm() for name, before in self.begun.items())
        self.note_matrices()
        return ends or (settled if after is None else epoch >= after)

    def begin_second(self) -> None:
        self.item_model.adapt()
        self.begun = {}
        self.set_history()

    def set_history(self) -> None:
        """Histories as long as the weights learned from: longer ones beside LoRA."""
        self.samples.history = (self.item_model.adapted and self.cfg.content.lora.history) or self.cfg.data.history

    def metrics(self) -> dict[str, float]:
        """The phase, the length of histories and how many numbers above the encoders learn."""
        model = self.item_model
        top = [p for name, p in model.named_parameters() if p.requires_grad and name.split(".")[0] not in ENCODERS]
        return {
            "lora/active": int(model.adapted),
            "lora/history": self.samples.history,
            "lora/parameters": sum(p.numel() for p in top),
        }

    def notes(self) -> list[str]:
        """What is told after the last epoch."""
        if self.item_model.adapted:
            return []
        return [
            f"content.lora.handover={self.cfg.content.lora.handover}: training ended before the second phase began; "
            "use epoch:<n>, or more train.epochs"
        ]
