"""What every retrieval model must do: small sets that it has to learn, and what must not disturb it.

`make(pairs, features, present)` gives the model with weights of torch's present seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rawrec.models.graph import Interactions
from rawrec.models.retrieval.base import RetrievalModel

USERS, ITEMS = 24, 20
LEARNED = 0.95  # of the pairs are in order where a model has learned
WIDTHS = {"image": 6, "text": 5, "audio": 4}
Make = Callable[..., RetrievalModel]


def check(make: Make, reads_features: bool, epochs: int, lr: float, memorises: bool = True) -> None:
    """Every check of this file. reads_features: whether it reads any. memorises: whether it can learn by heart."""
    modalities = ("image", "text") if reads_features else ()
    with one_thread():
        learns_a_checkerboard(make, modalities, epochs, lr)
        if memorises:
            overfits_a_tiny_set(make, modalities, epochs, lr)
        is_the_same_twice(make, modalities, lr)
        survives_save_and_load(make, modalities, lr)
        stands_cold_users_and_items(make, modalities, lr)
        if modalities:
            stands_a_missing_modality(make, modalities, lr)
            for names in (("image",), ("image", "text", "audio")):
                reads_any_number_of_modalities(make, names, lr)
            stands_constant_features(make, modalities, lr)


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny tensors on several threads take many times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def checkerboard(share: float = 0.75) -> tuple[Interactions, Tensor]:
    """Users like items of their parity: training pairs, a share of these, and all liked `[USERS, ITEMS]` bool."""
    generator = torch.Generator().manual_seed(0)
    liked = (torch.arange(USERS)[:, None] + torch.arange(ITEMS)) % 2 == 0
    seen = liked & (torch.rand(USERS, ITEMS, generator=generator) < share)
    users, items = seen.nonzero(as_tuple=True)
    return Interactions(users, items, USERS, ITEMS), liked


def features_of(names: tuple[str, ...], n_items: int = ITEMS) -> dict[str, Tensor]:
    """Of the items, modality -> `[n_items, width]`: noise, and their parity in the first number."""
    generator = torch.Generator().manual_seed(1)
    features = {name: 0.3 * torch.randn(n_items, WIDTHS[name], generator=generator) for name in names}
    for table in features.values():
        table[:, 0] += 2.0 * (torch.arange(n_items) % 2) - 1
    return features


def train(
    model: RetrievalModel,
    epochs: int,
    lr: float,
    seed: int = 0,
    batch_size: int = 64,
    learned: Callable[[], bool] = lambda: False,
) -> list[float]:
    """Adam on all pairs, one negative each, uniform over what the user has not met; the mean loss of each epoch, of
    which there are fewer where, asked after every fifth, it has `learned`.

    A model that is fitted has no loss: nothing comes back."""
    if model.cfg.fitted:
        model.fit(torch.Generator().manual_seed(seed))
        return []
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    pairs, curve = model.pairs, []
    unseen = torch.ones(pairs.n_users, pairs.n_items)
    unseen[pairs.users, pairs.items] = 0
    for _ in range(epochs):
        model.begin_epoch(model.draw_epoch(generator))
        total = 0.0
        for rows in torch.randperm(len(pairs.users), generator=generator).split(batch_size):
            users, positives = pairs.users[rows], pairs.items[rows]
            negatives = None
            if model.uses_negatives:
                negatives = unseen[users].multinomial(1, generator=generator).squeeze(1)
            losses = model.loss(users, positives, negatives, model.draw(users, positives, negatives, generator))
            assert "loss" in losses, f"loss() must return a dict with 'loss', the part that is minimised: {losses}"
            assert all(part.isfinite().all() and part.ndim == 0 for part in losses.values()), (
                f"every part of the loss must be one finite number: {losses}"
            )
            optimizer.zero_grad()
            losses["loss"].backward()
            for name, p in model.named_parameters():
                assert p.grad is None or p.grad.isfinite().all(), f"the gradient of {name} is not finite"
            optimizer.step()
            total += losses["loss"].item() * len(rows)
        curve.append(total / len(pairs.users))
        if len(curve) % 5 == 0 and learned():
            break
    return curve


def ranked_right(scores: Tensor, good: Tensor, bad: Tensor) -> float:
    """The share of (good, bad) item pairs of a user, over all users, in which the good one scores higher."""
    wins = (scores[:, :, None] > scores[:, None, :]) & good[:, :, None] & bad[:, None, :]
    return wins.sum().item() / (good[:, :, None] & bad[:, None, :]).sum().item()


def scores_of(model: RetrievalModel) -> Tensor:
    """`[n_users, n_items]`, from embeddings that are as they should be."""
    if not model.by_vectors:
        scores = model.scores(torch.arange(model.n_users))
        assert scores.shape == (model.n_users, model.n_items), f"scores() must give [users, n_items]: {scores.shape}"
        assert scores.isfinite().all(), "scores() must be finite"
        return scores
    users, items = model.embeddings()
    shapes = f"embeddings() must give [n_users, dim] and [n_items, dim]: {list(users.shape)}, {list(items.shape)}"
    assert users.ndim == 2 and users.shape == (model.n_users, items.shape[1]), shapes
    assert items.shape[0] == model.n_items, shapes
    assert users.isfinite().all() and items.isfinite().all(), "embeddings() must be finite"
    no_history = users.grad_fn is None and items.grad_fn is None
    assert no_history, "embeddings() must carry no gradient: put @torch.no_grad() over it"
    return users.detach() @ items.detach().T


def _made(make: Make, pairs: Interactions, features: dict[str, Tensor], seed: int = 0, present=None) -> RetrievalModel:
    torch.manual_seed(seed)
    return make(pairs, features, present)


def learns_a_checkerboard(make: Make, modalities: tuple[str, ...], epochs: int, lr: float) -> None:
    pairs, liked = checkerboard()
    model = _made(make, pairs, features_of(modalities))
    held_out = liked.clone()
    held_out[pairs.users, pairs.items] = False
    train(model, epochs, lr, learned=lambda: ranked_right(scores_of(model), held_out, ~liked) > LEARNED)
    right = ranked_right(scores_of(model), held_out, ~liked)
    assert right > LEARNED, f"after {epochs} epochs {right:.2f} of the held-out pairs of a checkerboard are in order"


def overfits_a_tiny_set(make: Make, modalities: tuple[str, ...], epochs: int, lr: float) -> None:
    """Random likes, which nothing but memory explains."""
    seen = torch.rand(8, 10, generator=torch.Generator().manual_seed(3)) < 0.3
    users, items = seen.nonzero(as_tuple=True)
    model = _made(make, Interactions(users, items, 8, 10), features_of(modalities, 10))
    before = ranked_right(scores_of(model), seen, ~seen)
    enough = max(LEARNED, before)
    curve = train(model, 3 * epochs, lr, learned=lambda: ranked_right(scores_of(model), seen, ~seen) > enough)
    after = ranked_right(scores_of(model), seen, ~seen)
    assert after > enough, f"it does not learn 8 users by heart: {after:.2f} of the pairs are in order"
    assert not curve or curve[-1] < curve[0], f"the loss does not fall: {curve[0]:.4f} to {curve[-1]:.4f}"


def is_the_same_twice(make: Make, modalities: tuple[str, ...], lr: float) -> None:
    """With one seed, and not with another: all randomness is in the draws and the first weights."""
    runs = []
    for seed in (4, 4, 5):
        model = _made(make, checkerboard()[0], features_of(modalities), seed)
        runs.append((train(model, 2, lr, seed), scores_of(model)))
    same = runs[0][0] == runs[1][0] and runs[0][1].equal(runs[1][1])
    assert same, "two runs of one seed differ: draw at random in draw() and draw_epoch() alone"
    assert not runs[0][0] or runs[0][0] != runs[2][0], "runs of two seeds are the same"


def survives_save_and_load(make: Make, modalities: tuple[str, ...], lr: float) -> None:
    pairs, features = checkerboard()[0], features_of(modalities)
    model, other = _made(make, pairs, features, 0), _made(make, pairs, features, 1)
    train(model, 2, lr)
    other.load_state_dict(model.state_dict())
    same = scores_of(model).equal(scores_of(other))
    assert same, "what it learned is not all in state_dict(): use parameters and buffers"
    if model.cfg.fitted:
        return
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    losses = []
    for one, generator in zip((model, other), generators, strict=True):
        one.begin_epoch(one.draw_epoch(generator))
        users, items = one.pairs.users[:8], one.pairs.items[:8]
        negatives = (items + 1) % ITEMS if one.uses_negatives else None
        losses.append(one.loss(users, items, negatives, one.draw(users, items, negatives, generator))["loss"])
    assert losses[0].equal(losses[1]), f"a loaded model has another loss: {losses}"


def reads_any_number_of_modalities(make: Make, names: tuple[str, ...], lr: float) -> None:
    model = _made(make, checkerboard()[0], features_of(names))
    train(model, 3, lr)
    scores_of(model)


def stands_a_missing_modality(make: Make, modalities: tuple[str, ...], lr: float) -> None:
    """What stands where nothing is known has no influence, be it NaN."""
    generator = torch.Generator().manual_seed(2)
    present = {name: torch.rand(ITEMS, generator=generator) < 0.7 for name in modalities}
    for known in present.values():
        known[:3] = torch.tensor([False, True, True])  # the first item lacks all
    results = []
    for filling in (0.0, float("nan")):
        features = features_of(modalities)
        for name, known in present.items():
            features[name][~known] = filling
        model = _made(make, checkerboard()[0], features, present=present)
        train(model, 3, lr)
        results.append(scores_of(model))
    assert results[0].equal(results[1]), "what stands where an item lacks a modality changes scores: see present()"


def stands_cold_users_and_items(make: Make, modalities: tuple[str, ...], lr: float) -> None:
    """The last user and the last item have no interaction; they get numbers, and the others are trained."""
    pairs, _ = checkerboard()
    kept = (pairs.users < USERS - 1) & (pairs.items < ITEMS - 1)
    cold = Interactions(pairs.users[kept], pairs.items[kept], USERS, ITEMS)
    model = _made(make, cold, features_of(modalities))
    curve = train(model, 10, lr)
    scores_of(model)
    assert not curve or curve[-1] < curve[0], (
        f"with a cold item the loss does not fall: {curve[0]:.4f} to {curve[-1]:.4f}"
    )


def stands_constant_features(make: Make, modalities: tuple[str, ...], lr: float) -> None:
    for constant in (0.0, 1.0):
        features = {name: torch.full((ITEMS, WIDTHS[name]), constant) for name in modalities}
        model = _made(make, checkerboard()[0], features)
        train(model, 3, lr)
        scores_of(model)
