"""SASRec against a plain computation, and what causal attention must not see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from retrieval_mixin import ITEMS, USERS, checkerboard
from torch import Tensor

from rawrec.config.sequences import SASRecConfig
from rawrec.models.retrieval.sasrec import SASRec
from rawrec.models.retrieval.sequences import ends
from rawrec.testing.retrieval import one_thread


@pytest.fixture(autouse=True)
def single() -> Iterator[None]:
    with one_thread():
        yield


def made(seed: int = 0, **settings: object) -> SASRec:
    torch.manual_seed(seed)
    given = {"embedding_size": 8, "max_length": 6, "dropout": 0.0} | settings
    model = SASRec(SASRecConfig.model_validate(given), checkerboard()[0], {})
    with torch.no_grad():  # biases and norms that are not those of the beginning
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


SEQUENCES = torch.tensor([[-1, -1, 3, 0, 7, 3], [5, 1, 2, 9, 4, 8], [-1, -1, -1, -1, -1, 6]])


def by_hand(model: SASRec, sequence: list[int]) -> np.ndarray:
    """`[length, dim]` of one sequence without padding, place by place."""
    weights = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    cfg, dim = model.cfg, model.cfg.embedding_size

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-8)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def layer(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    places = range(cfg.max_length - len(sequence), cfg.max_length)
    x = np.sqrt(dim) * weights["item_embedding.weight"][sequence] + weights["position_embedding.weight"][list(places)]
    for k in range(cfg.n_layers):
        at = f"blocks.{k}."
        q = norm(x, at + "attention_norm")
        source = x if cfg.residual == "normalised" else q
        query, key, value = layer(q, at + "query"), layer(source, at + "key"), layer(source, at + "value")
        read = np.zeros_like(x)
        for head in np.split(np.arange(dim), cfg.n_heads):
            for t in range(len(sequence)):
                logits = key[: t + 1, head] @ query[t, head] / np.sqrt(len(head))
                weight = np.exp(logits - logits.max())
                read[t, head] = (weight / weight.sum()) @ value[: t + 1, head]
        x = (q if cfg.residual == "normalised" else x) + read
        y = norm(x, at + "feed_forward_norm")
        inner = np.maximum(layer(y, at + "inner"), 0)
        x = (y if cfg.residual == "normalised" else x) + layer(inner, at + "outer")
    return norm(x, "norm")


@pytest.mark.parametrize("residual", ["normalised", "input"])
@pytest.mark.parametrize(("n_heads", "n_layers"), [(1, 2), (2, 1), (4, 0)])
def test_against_a_plain_computation(residual: str, n_heads: int, n_layers: int) -> None:
    model = made(residual=residual, n_heads=n_heads, n_layers=n_layers)
    read = model.encode(SEQUENCES).detach().double().numpy()
    for row, sequence in enumerate(SEQUENCES.tolist()):
        items = [item for item in sequence if item >= 0]
        np.testing.assert_allclose(read[row, -len(items) :], by_hand(model, items), atol=2e-5)

    # The loss is of all places, against the same table.
    negatives = torch.where(SEQUENCES >= 0, (SEQUENCES + 5) % ITEMS, -1)
    positives = torch.where(SEQUENCES >= 0, (SEQUENCES + 1) % ITEMS, -1)
    table, total = model.item_embedding.weight.detach().double().numpy(), []
    for row, sequence in enumerate(SEQUENCES.tolist()):
        for t, r in zip(
            [t for t, item in enumerate(sequence) if item >= 0],
            by_hand(model, [i for i in sequence if i >= 0]),
            strict=True,
        ):
            good, bad = r @ table[positives[row, t]], r @ table[negatives[row, t]]
            total.append(np.log1p(np.exp(-good)) + np.log1p(np.exp(bad)))
    parts = model.sequence_loss(SEQUENCES, positives, negatives, {})
    assert parts["loss"].item() == pytest.approx(np.mean(total), rel=1e-5)
    assert parts["loss"].item() == pytest.approx((parts["positive"] + parts["negative"]).item())


def test_no_place_reads_what_comes_after_it_or_before_the_sequence() -> None:
    model = made()
    before = model.encode(SEQUENCES)
    changed = SEQUENCES.clone()
    changed[1, 4:] = torch.tensor([0, 0])
    assert torch.allclose(model.encode(changed)[1, :4], before[1, :4], atol=1e-6)
    assert not torch.allclose(model.encode(changed)[1, 4:], before[1, 4:], atol=1e-3)
    shorter = ends(SEQUENCES[[0, 2]])
    assert shorter.shape == (2, 4) and torch.allclose(model.encode(shorter), before[[0, 2], 2:], atol=1e-6)
    assert ends(torch.full((2, 5), -1)).shape == (2, 1)


def test_embeddings_are_the_ends_of_the_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    sequences = torch.full((USERS, 6), -1)
    for user in range(1, USERS):
        length = 1 + user % 6
        sequences[user, -length:] = (torch.arange(length) * 3 + user) % ITEMS
    model.read(sequences)
    users, items = model.embeddings()
    assert items.equal(model.item_embedding.weight) and not users[0].any() and not users.requires_grad
    for user in range(1, USERS):
        expected = by_hand(model, [item for item in sequences[user].tolist() if item >= 0])[-1]
        np.testing.assert_allclose(users[user].double().numpy(), expected, atol=2e-5)
    monkeypatch.setattr("rawrec.models.retrieval.sequences.AT_ONCE", 20)
    assert torch.allclose(model.embeddings()[0], users, atol=1e-6)


def test_dropout_is_drawn_and_leaves_evaluation_alone() -> None:
    model = made(dropout=0.5, n_heads=2)
    draws = [model.draw_sequences(SEQUENCES.shape, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert {name: tuple(mask.shape) for name, mask in draws[0].items()} == {
        "embedding": (3, 6, 8),
        **{f"{k}.{name}": shape for k in (0, 1) for name, shape in
           {"attention": (3, 2, 6, 6), "inner": (3, 6, 8), "outer": (3, 6, 8)}.items()},
    }  # fmt: skip
    assert 0.4 < draws[0]["0.attention"].float().mean() < 0.6
    read = [model.encode(SEQUENCES, one) for one in draws]
    assert read[0].equal(read[1]) and not read[0].equal(read[2])
    assert model.encode(SEQUENCES).equal(model.encode(SEQUENCES)) and not model.encode(SEQUENCES).equal(read[0])
    for name in draws[0]:  # every mask has an influence
        nothing = {key: torch.ones_like(mask) for key, mask in draws[0].items()}
        one = nothing | {name: torch.zeros_like(nothing[name])}
        assert not torch.allclose(model.encode(SEQUENCES, one), model.encode(SEQUENCES, nothing)), name


def test_it_learns_what_follows_what() -> None:
    """Sequences that go on by 1 or by 2, modulo the items: the last item alone does not say how they go on."""
    model = made(n_layers=1, embedding_size=16)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)

    def sequences(n: int) -> tuple[Tensor, Tensor]:
        start, step = (torch.randint(high, (n, 1), generator=generator) for high in (ITEMS, 2))
        rows = (start + (step + 1) * torch.arange(6)) % ITEMS
        return rows[:, :5], rows[:, 1:]

    for _ in range(300):
        inputs, positives = sequences(64)
        negatives = (positives + torch.randint(1, ITEMS, positives.shape, generator=generator)) % ITEMS
        loss = model.sequence_loss(inputs, positives, negatives, {})["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    inputs, positives = sequences(200)
    scores = model.encode(inputs)[:, -1] @ model.item_vectors().T
    assert (scores.argmax(1) == positives[:, -1]).float().mean() > 0.75  # by the last item alone, half


def test_ids_that_training_never_saw_are_not_read() -> None:
    model = made()
    with torch.no_grad():
        model.item_embedding.weight[4] = torch.nan
    sequences = torch.full((USERS, 3), -1)
    sequences[:, 1:] = torch.tensor([4, 2])
    model.read(sequences)
    with model.without_ids(torch.tensor([4]), "zero"):
        users, items = model.embeddings()
    assert users.isfinite().all() and items.isfinite().all() and not items[4].any()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(
        ValueError, match="embedding_size=8 is no multiple of n_heads=3; use for example embedding_size=9"
    ):
        SASRecConfig(embedding_size=8, n_heads=3)
