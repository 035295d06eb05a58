"""The three parts of a ranker, and what stands between them: tokens, losses, names of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from rawrec.config import RANKERS, DotMlpConfig, RankerConfig
from rawrec.config.models import MODELS, ModelEntry
from rawrec.models import model_class
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.columns import ItemColumns
from rawrec.models.ranking.history import HistoryContent
from rawrec.models.ranking.ranker import CONTENT_PARTS, Ranker, present_name
from rawrec.models.ranking.tokens import Head, Tokens

DIM, WIDTH = 4, 5
KNOWN_USERS = torch.tensor([True, True, False])
KNOWN_ITEMS = torch.tensor([True] * 5 + [False])
GENERATOR = torch.Generator().manual_seed(3)
COLUMNS = ItemColumns(
    {"kind": (torch.tensor([1, 2, 0, 1, 1, 2]), torch.arange(7), 3)},
    torch.randn(7, 2, generator=GENERATOR),
    torch.randn(4, 1, generator=GENERATOR),
)
EVERY = ["categories", "numbers", "user_numbers", "user", "item", "interest", "item*interest"]
OF_CONTENT = ["content", "content_interest", "content*interest", "profile"]
HISTORY = torch.tensor([[-1, 0, 4], [-1, -1, -1], [1, 2, 5]])


def small(cfg: RankerConfig | None = None, content: int | None = WIDTH, columns: ItemColumns = COLUMNS) -> Ranker:
    torch.manual_seed(0)
    cfg = cfg or DotMlpConfig(dim=DIM, hidden=[8])
    return Ranker(cfg, KNOWN_USERS, KNOWN_ITEMS, columns, content).eval()


def given(content: bool = True) -> RankingBatch:
    users, items = torch.tensor([0, 2, -1]), torch.tensor([[0, 5], [3, 1], [-1, 2]])
    if not content:
        return RankingBatch(users, items, HISTORY)
    table = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(1))
    table[3] = 0  # has no content
    past = HistoryContent(table[HISTORY.clamp(min=0)], (HISTORY >= 0) & (HISTORY != 3))
    return RankingBatch(users, items, HISTORY, table[items.clamp(min=0)] * (items >= 0)[..., None], past)


# --------------------------------------------------------------------------------------------------------------- tokens
@pytest.mark.parametrize("content", [True, False])
def test_tokens_are_named(content: bool) -> None:
    made = small(content=WIDTH if content else None)
    tokens = made.tokens(given(content))
    assert list(tokens.names) == EVERY + (OF_CONTENT if content else [])
    assert list(tokens.names[: len(EVERY)]) == made.inputs.names
    assert tokens.values.shape == (3, 2, len(tokens.names), DIM) and tokens.linear.shape == (3, 2)
    assert tokens.histories.keys() == ({"ids", "content"} if content else {"ids"})
    assert tokens.histories["ids"].history.bank.shape == (3, 3, DIM)
    assert tokens.histories["ids"].candidate.shape == (3, 2, DIM)
    without = DotMlpConfig(dim=DIM, hidden=[8], item_id=False, user_id=False)
    bare = small(without, columns=ItemColumns({}, torch.zeros(7, 0), torch.zeros(4, 0)))
    assert list(bare.tokens(given()).names) == OF_CONTENT and bare.inputs.names == []


@pytest.mark.parametrize("name", ["dot_mlp", "din"])
@pytest.mark.parametrize(("side", "tokens"), [("item", ["content"]), ("user", ["content_interest", "profile"])])
def test_each_side_of_content_stands_alone(name: str, side: Literal["item", "user"], tokens: list[str]) -> None:
    """Of the item alone the history says nothing; of the user alone an empty history says nothing of content."""
    made = small(RANKERS[name].model_validate({"dim": DIM, "hidden": [8], "content_side": side, "cic_weight": 0}))
    batch = given()
    found = made.tokens(batch)
    assert list(found.names) == EVERY + tokens
    assert ("content" in found.histories) == (side == "user")
    assert batch.history_content is not None and batch.content is not None
    other = given()
    if side == "item":
        other.history_content = HistoryContent(batch.history_content.bank + 1, batch.history_content.valid)
        same = torch.ones(3, dtype=torch.bool)
    else:
        other.content = batch.content + 1
        same = ~(batch.history_content.valid.any(1))
    equal = (made(batch) == made(other)).all(1)
    assert equal[same].all() and (side == "item" or not equal.all())
    made.losses(batch, torch.ones(3, 2))["bce"].backward()
    left = ("cic.", "content_bias.") if name == "din" else ("cic.",)  # DIN reads no biases
    idle = [key for key, p in made.content.named_parameters() if p.grad is None and not key.startswith(left)]  # type: ignore[union-attr]
    assert idle == []


def test_the_mask_says_which_tokens_are_there() -> None:
    tokens = small().tokens(given())
    mask = {name: tokens.mask[:, :, k].tolist() for k, name in enumerate(tokens.names)}
    past, content = [[True] * 2, [False] * 2, [True] * 2], [[True, True], [False, True], [False, True]]
    assert mask["interest"] == mask["item*interest"] == mask["content_interest"] == mask["profile"] == past
    assert mask["content"] == content
    both = [[a and b for a, b in zip(x, y, strict=True)] for x, y in zip(past, content, strict=True)]
    assert mask["content*interest"] == both
    assert all(all(map(all, mask[name])) for name in ("categories", "numbers", "user_numbers", "user", "item"))


def test_the_linear_part_is_the_sum_of_the_biases() -> None:
    made, batch = small(), given()
    nn.init.normal_(made.inputs.ids.user_bias.weight)
    nn.init.normal_(made.inputs.ids.item_bias.weight)
    users, items = made.inputs.ids.user_bias.weight[:, 0], made.inputs.ids.item_bias.weight[:, 0]
    expected = users[torch.tensor([1, 0, 0])][:, None] + items[torch.tensor([[1, 0], [4, 2], [0, 3]])]
    assert made.content is not None and batch.content is not None
    expected = expected + made.content.content_bias(batch.content)[..., 0]
    torch.testing.assert_close(made.tokens(batch).linear, expected)
    nothing = DotMlpConfig(dim=DIM, hidden=[8], item_id=False, user_id=False)
    assert not small(nothing, None).tokens(given(False)).linear.any()


# ---------------------------------------------------------------------------------------------------------------- heads
def test_every_head_has_its_record() -> None:
    heads = [name for name, entry in MODELS.items() if entry.ours and entry.record.kind == "ranking"]
    assert heads == list(RANKERS) and all(issubclass(model_class(name), Head) for name in heads)
    choices = RankerConfig.model_fields["content"].annotation
    assert {"none", *CONTENT_PARTS} == set(getattr(choices, "__args__", ()))


@pytest.mark.parametrize("name", RANKERS)
@pytest.mark.parametrize("content", [True, False])
def test_every_head_with_and_without_content(name: str, content: bool) -> None:
    """One impression alone is scored as it is among others, and every label has a logit of its own."""
    made, batch = small(RANKERS[name](dim=DIM), WIDTH if content else None), given(content)
    together = made(batch)
    assert together.shape == (3, 2) and together.isfinite().all() and together.std() > 0
    past = batch.history_content
    alone = RankingBatch(
        batch.users[:1],
        batch.items[:1, :1],
        batch.history[:1],
        None if batch.content is None else batch.content[:1, :1],
        None if past is None else HistoryContent(past.bank[:1], past.valid[:1]),
    )
    torch.testing.assert_close(made(alone), together[:1, :1])
    tokens = made.tokens(batch)
    head = model_class(name)
    widths = {"histories": {key: past.candidate.shape[2] for key, past in tokens.histories.items()}}
    several = head(RANKERS[name](dim=DIM), tokens.names, DIM, 3, **(widths if head.attends else {})).eval()(tokens)
    assert several.shape == (3, 2, 3) and not torch.equal(several[..., 0], several[..., 1])


class AttendingConfig(RankerConfig):
    name: Literal["attending"] = "attending"  # pyright: ignore[reportIncompatibleVariableOverride]
    width: int = 6


class Attending(Head):
    """An attention unit of its own over the history of ids, as DIN has one, in place of the pooled interest."""

    def __init__(self, cfg: AttendingConfig, names: Sequence[str], dim: int, labels: int = 1):
        super().__init__()
        self.kept = [k for k, name in enumerate(names) if name not in ("interest", "item*interest")]
        self.unit = nn.Sequential(nn.Linear(4 * dim, cfg.width), nn.ReLU(), nn.Linear(cfg.width, 1))
        self.out = nn.Linear((len(self.kept) + 1) * dim, labels)

    def forward(self, tokens: Tokens) -> Tensor:
        candidate, history = tokens.histories["ids"]
        shape = (*candidate.shape[:2], *history.bank.shape[1:])
        h, c = history.bank[:, None].expand(shape), candidate[:, :, None].expand(shape)
        weights = self.unit(torch.cat([c, h, c - h, c * h], 3))[..., 0] * history.valid[:, None]
        values = torch.cat([tokens.values[:, :, self.kept].flatten(2), history.mix(weights)], 2)
        return tokens.linear[..., None] + self.out(values)


def test_a_head_may_attend_to_the_history_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "attending", ModelEntry(Attending, AttendingConfig))
    made, batch = small(AttendingConfig(dim=DIM)), given()
    logits = made(batch)
    assert logits.shape == (3, 2) and {name.split(".")[0] for name in made.state_dict()} == {
        "inputs",
        "content",
        "head",
    }
    batch.history = batch.history.clone()
    batch.history[0, 1] = 3
    assert (made(batch) != logits).any(1).tolist() == [True, False, False]


# --------------------------------------------------------------------------------------------------------------- losses
def test_losses_are_sums_over_real_candidates() -> None:
    made, batch = small(), given()
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    logits = made(batch).detach()
    each = -(labels * torch.sigmoid(logits).log() + (1 - labels) * torch.sigmoid(-logits).log())
    real = torch.tensor([[1, 1], [1, 1], [0, 1]])  # -1 stands where nothing could be drawn
    found = made.losses(batch, labels)
    assert found.keys() == {"bce"}
    torch.testing.assert_close(found["bce"], (each * real).sum())


def test_losses_of_a_step() -> None:
    made, rows = small(), torch.tensor([0, 3, 4, 5])
    content = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(2), requires_grad=True)
    found = made.step_losses(rows, content)
    assert found.keys() == {"cic"} and made.loss_weights == {"bce": 1.0, "cic": 0.1}
    torch.testing.assert_close(found["cic"], made.contrast(rows, content))
    found["cic"].backward()
    assert content.grad is not None and content.grad.any(1).tolist() == [True, True, True, False]  # 5 has no trained id
    assert made.step_losses(rows[:0], content[:0]) == {}
    for without in (small(DotMlpConfig(dim=DIM, hidden=[8], cic_weight=0)), small(content=None)):
        assert without.step_losses(rows, content) == {} and without.loss_weights == {"bce": 1.0}


# ---------------------------------------------------------------------------------------------------------------- names
def test_every_earlier_name_has_its_place() -> None:
    """Those of one class, which had no parts; with what stands before them in checkpoints."""
    names = {f"ranker.{name}" for name in small().state_dict()}
    earlier = {name.replace(".inputs.ids.", ".").replace(".inputs.", ".").replace(".head.", ".") for name in names}
    earlier = {name.replace(".content.", ".", 1) if ".cic." not in name else name for name in earlier}
    earlier = {name.replace(".content.cic.", ".cic.") for name in earlier}
    assert {"ranker.user.weight", "ranker.cic.content.weight", "ranker.mlp.0.weight"} <= earlier
    assert {present_name(name) for name in earlier} == names
    assert present_name("model.ranker.item.weight") == "model.ranker.inputs.ids.item.weight"
    assert present_name("optim.ranker.bags.kind.weight.exp_avg") == "optim.ranker.inputs.bags.kind.weight.exp_avg"
    for other in ("content_in.weight", "tower.fusion.query.weight", "encoder.image.item.weight", *names):
        assert present_name(other) == other
