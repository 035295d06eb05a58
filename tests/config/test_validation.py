"""Mistakes in settings: each is named in a line of its own, with what would work."""

from __future__ import annotations

import pytest
from settled import settled

from rawrec.config import resolve
from rawrec.errors import UserError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("em4", ["em4", "did you mean em3", "Known: bm3, bpr, "]),
        ("nothing.yaml", ["nothing.yaml does not exist"]),
        ("em3 train.epoch=3", ["train.epoch:", "did you mean epochs"]),
        ("em3 trian.epochs=3", ["did you mean train"]),
        ("em3 train.epochs=0", ["train.epochs=0", "greater than or equal to 1"]),
        ("em3 train.epochs=x", ["train.epochs=x", "integer"]),
        ("em3 train.epochs=true", ["train.epochs=true", "number"]),
        ("em3 train.lr=.nan", ["train.lr=nan"]),
        ("em3 train.lr=2001-99-99", ["not valid YAML"]),
        ("em3 train=3", ["train=3", "train.epochs"]),
        ("em3 content=3", ["content=3", "content.dim"]),
        ("em3 content.image=3", ["content.image=3", "content.image.train"]),
        ("em3 content.fusion=sum", ["content.fusion.kind"]),
        ("em3 content.dmi=3", ["content.dmi", "did you mean dim"]),
        ("em3 content.image.trian=all", ["content.image.trian", "did you mean train"]),
        ("em3 content.image.train=top", ["content.image.train=top", "top:1"]),
        ("em3 content.dim=10", ["content.dim=10", "content.fusion.heads=4", "content.dim=12"]),
        ("em3 model.columns=5", ["model.columns=5", "[genres,year]"]),
        ("em3 model.hidden=[8,a]", ["model.hidden=a"]),
        ("em3 model.hidden=[0]", ["model.hidden=0"]),
        ("em3 eval.topk=[]", ["eval.topk=[]"]),
        ("em3 paradigm=hybird", ["paradigm=hybird", "'hybrid'"]),
        ("em3 train.metric=recall", ["train.metric=recall", "cold/auc"]),
        (
            "em3 train.metric=recall@20 eval.full_ranking=false",
            ["train.metric=recall@20", "eval.full_ranking=true", "auc"],
        ),
        ("em3 model=3", ["model=3", "model.dim"]),
        ("em3 model.name=lightgnc", ["model.name", "did you mean lightgcn"]),
        ("em3 model.name=[em3]", ["model.name", "em3", "lightgcn"]),
        ("em3 model.name=null", ["model.name", "em3", "lightgcn"]),
        ("em3 model.n_layers=2", ["model.n_layers", "Known: name, dim"]),
        ("lightgcn model.dim=2", ["model.dim", "Known: name, embedding_size"]),
        ("lightgcn model.n_layers=true", ["model.n_layers=true", "number"]),
        ("lightgcn train.metric=auc", ["train.metric=auc", "recall@20"]),
        ("freedom paradigm=end_to_end model.reg_weight=0", ["model.reg_weight=0", "model.reg_weight=0.001", "hybrid"]),
        ("bm3 paradigm=end_to_end model.cl_weight=0", ["model.cl_weight=0", "model.cl_weight=2.0"]),
        ("lattice paradigm=end_to_end model.lambda_coeff=1", ["model.lambda_coeff=1", "model.lambda_coeff=0.9"]),
        ("lightgcn eval.topk=[5,10]", ["train.metric=recall@20", "eval.topk=[5, 10]", "recall@10"]),
        ("lightgcn train.learning_rate=1e-3", ["train.learning_rate: unknown; rawrec calls it train.lr"]),
        ("lightgcn learning_rate=1e-3", ["learning_rate: unknown; rawrec calls it train.lr"]),
        ("em3 train.learning_rate_scheduler=[1,50]", ["train.learning_rate_scheduler", "calls it train.lr_decay"]),
        ("freedom train_batch_size=512", ["train_batch_size", "calls it train.batch_size"]),
        ("lattice train_batch_size=512", ["train_batch_size", "calls it train.batch_size"]),
        ("freedom model.train_batch_size=512", ["model.train_batch_size", "calls it train.batch_size"]),
        ("em3 eval_batch_size=512", ["eval_batch_size", "calls it eval.batch_size"]),
        ("bm3 stopping_step=20", ["stopping_step", "calls it train.patience"]),
        ("bm3 train.valid_metric=Recall@20", ["train.valid_metric", "calls it train.metric"]),
        ("bm3 topk=[20]", ["topk", "calls it eval.topk"]),
        ("bm3 epochs=20", ["epochs", "calls it train.epochs"]),
        ("bm3 model.seed=20", ["model.seed", "calls it seed"]),
        ("bm3 reg_weight=0.1", ["reg_weight", "calls it model.reg_weight"]),
        ("bm3 train.n_layers=1", ["train.n_layers", "calls it model.n_layers"]),
        ("mmgcl n_layers=1", ["n_layers", "calls it model.layer_num"]),
        ("freedom model.n_layers=1", ["model.n_layers", "calls it model.n_ui_layers"]),
        ("em3 n_layers=1", ["n_layers", "Known: model, paradigm"]),
        ("bpr embedding_size=8", ["embedding_size", "calls it model.embedding_size"]),
        ("slmrec model.embedding_size=8", ["model.embedding_size", "calls it model.recdim"]),
        ("em3 model.embedding_size=8", ["model.embedding_size", "calls it model.dim"]),
        ("freedom content.order=text", ["content.order=text", "list"]),
        ("em3 epochs", ["'epochs'", "key=value"]),
        ("em3 =5", ["key=value"]),
        ("em3 seed=1 seed=2", ["seed is given twice"]),
    ],
)
def test_mistakes_are_named(words: str, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        settled(*words.split())
    for part in said:
        assert part in str(caught.value)
    assert "Traceback" not in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_of_many_mistakes_some_are_told() -> None:
    with pytest.raises(UserError) as caught:
        resolve({"model": {"name": "id"}, **{f"wrong{n}": n for n in range(500)}})
    lines = str(caught.value).splitlines()
    assert len(lines) == 11 and lines[-1] == "... and 490 more" and len(str(caught.value)) < 2000
