"""The settings of a run as a whole."""

from __future__ import annotations

from rawrec.config import RETRIEVAL, Config, presets, validate


def test_retrieval_models_have_the_defaults_of_their_published_runs() -> None:
    cfg = validate({"model": {"name": "lattice"}, "train": {"batch_size": 512}})
    train = cfg.train
    assert (cfg.paradigm, train.lr, train.weight_decay, train.patience) == ("hybrid", 1e-3, 0, 20)
    assert (train.metric, train.batch_size, cfg.model.train_batch_size) == ("recall@20", 512, 512)
    assert validate({"model": {"dim": 8}}).model == Config().model.model_copy(update={"dim": 8})
    assert cfg.retrieval and not Config().retrieval and set(RETRIEVAL) <= set(presets())
