"""Settings: presets, overrides, messages, and the page that describes them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rawrec import config
from rawrec.config import Config, FieldConfig, parse_overrides, presets, resolve, validate
from rawrec.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"poster": "image", "title": "text", "plot": "text"}


def settled(preset: str, *words: str) -> Config:
    return resolve(preset, parse_overrides(list(words)), KINDS)


def records(kind: Any = Config) -> list[type[BaseModel]]:
    """The records that a type is made of: a record's own and its fields', a choice's branches."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        inner = [record for field in kind.model_fields.values() for record in records(field.annotation)]
        return [kind, *inner]
    return [record for part in get_args(kind) for record in records(part)]


@pytest.mark.parametrize("name", presets())
def test_presets_resolve_and_come_back_from_yaml(name: str) -> None:
    cfg = resolve(name)
    assert cfg.model.name == name
    text = yaml.safe_dump(cfg.dump(), sort_keys=False)
    assert validate(yaml.safe_load(text)) == cfg


@pytest.mark.parametrize("record", [*records(), FieldConfig], ids=lambda r: r.__name__)
def test_every_setting_is_described(record: type[BaseModel]) -> None:
    assert record.__doc__
    for name, field in record.model_fields.items():
        assert field.description, f"{record.__name__}.{name}"


def test_settings_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page.strip() == config.describe().strip(), "run: python -m rawrec.config > docs/settings.md"
    assert "| `content.<field>.train` |" in page and f"| `train.lr` | number, > 0 | `{Config().train.lr}` |" in page


def test_overrides_reach_their_settings() -> None:
    words = ["train.epochs=5", "train.lr=1e-2", "content.image.train=lora", "model.columns=[genres]", "data.split=0"]
    cfg = settled("em3", *words, "content.fields.title.max_length=32", "bank.live_budget=null")
    assert (cfg.train.epochs, cfg.train.lr, cfg.model.columns, cfg.data.split) == (5, 0.01, ["genres"], "0")
    assert cfg.content.fields["image"].train == "lora"
    assert cfg.content.fields["image"].encoder == "efficientnet_lite0"  # from the preset
    assert cfg.content.fields["title"].max_length == 32


def test_nested_overrides_are_as_dotted_ones() -> None:
    nested = resolve("em3", {"content": {"image": {"train": "all", "size": 64}}, "train.epochs": 2})
    assert nested == resolve("em3", {"content.image.train": "all", "content.image.size": 64, "train.epochs": 2})


def test_a_preset_given_as_mapping_is_not_changed() -> None:
    tree = {"model": {"name": "em3"}, "content": {"image": {"train": "top:1"}}}
    resolve(tree, {"content.image.train": "all", "model.dim": 8})
    assert tree == {"model": {"name": "em3"}, "content": {"image": {"train": "top:1"}}}


def test_override_of_a_kind_wins_over_a_complete_config() -> None:
    """`config.yaml` of a run names every field; an override for all images must not drown in it."""
    complete = resolve("em3")
    complete.content.fields = {"poster": FieldConfig(train="top:1"), "title": FieldConfig(train="top:1")}
    cfg = resolve(complete.dump(), {"content.image.train": "all"}, KINDS)
    assert "train" not in cfg.content.fields["poster"].model_fields_set
    assert cfg.content.fields["image"].train == "all"
    assert cfg.content.fields["title"].train == "top:1"


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
        ("em3 train.metric=recall@20", ["train.metric=recall@20", "model em3", "auc"]),
        ("em3 model=3", ["model=3", "model.dim"]),
        ("em3 model.name=lightgnc", ["model.name", "did you mean lightgcn"]),
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


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("em3 paradigm=hybrid content.text.train=top:1", "use paradigm=end_to_end"),
        ("em3 paradigm=frozen train.encoder_lr=1e-3", "use paradigm=end_to_end"),
        ("em3 paradigm=hybrid bank.live_budget=9", "use paradigm=end_to_end"),
        ("em3 paradigm=frozen content.fusion.kind=sum", "no fusion"),
        ("em3 content.fusion.kind=sum content.fusion.heads=2", "content.fusion.kind=fqformer"),
        ("em3 model.cic_weight=0 model.cic_temperature=1", "model.cic_weight=0"),
        ("em3 content.image.lora_rank=4", "content.image.train=lora"),
        ("em3 content.title.lora_layers=4", "content.title.train=lora"),
        ("em3 content.image.use=false content.image.size=64", "leaves the field out"),
        ("em3 content.image.max_length=64", "text fields"),
        ("em3 content.plot.size=64", "image fields"),
        ("em3 eval.full_ranking=false eval.topk=[5]", "eval.full_ranking"),
        ("id content.dim=3", "model id has no content"),
        ("id bank.history_grad=none", "model id has no content"),
        ("id model.cic_weight=0.2", "model id has no content"),
        ("id content.image.train=lora", "model id has no content"),
        ("id paradigm=hybrid", "model id has no content"),
        ("id eval.protocol=mmrec", "retrieval models"),
        ("em3 train.lr_decay=0.9", "retrieval models"),
        ("lightgcn train.ema=0", "ranking models"),
        ("lightgcn paradigm=frozen", "reads no features"),
        ("freedom data.history=5", "reads no histories"),
        ("freedom content.fusion.kind=sum", "in its own way"),
        ("freedom bank.micro_batch=5", "use paradigm=end_to_end"),
        ("freedom train.encoder_lr=1e-3", "use paradigm=end_to_end"),
        ("freedom paradigm=end_to_end bank.warm_start=false", "every row is written first"),
        ("freedom paradigm=end_to_end bank.history_grad=none", "reads no histories"),
        ("lightgcn bank.micro_batch=5", "reads no features"),
        ("lightgcn paradigm=end_to_end train.encoder_lr=1e-3", "reads no features"),
        ("freedom content.image.train=lora", "paradigm=hybrid keeps encoders frozen"),
        ("freedom eval.batch_size=64", "as many users at once as fit"),
        ("em3 content.order=[image,text]", "retrieval models"),
        ("lightgcn content.order=[image,text]", "reads no features"),
        ("freedom model.item_graph=graph.npz model.knn_k=5", "model.item_graph is the item graph"),
        ("freedom model.reg_weight=0 model.train_features=true", "model.reg_weight=0 gives features no gradient"),
        ("em3_freedom model.cic_weight=0 model.cic_on=embeddings", "model.cic_weight=0"),
        ("em3_freedom model.content_layers=all", "model.n_mm_layers=2"),
        ("mmgcn model.reg_weight=0.1", "model.train_ids=true"),
        ("mmgcl model.mask_p=[1,2]", "model.second_view=true, model.contrast=nodes"),
        ("mmgcl model.ssl_task=ED+MM model.composed_negatives=true", "model.ssl_task=ED+MM+CN"),
        ("slmrec model.dropout_rate=0.1", "model.ssl_task=FD"),
        ("lattice model.mess_dropout=[0.1,0.2]", "model.cf_model=ngcf"),
        ("lgmrec model.cf_model=mf model.n_ui_layers=1", "model.cf_model=lightgcn"),
    ],
)
def test_an_override_that_would_do_nothing_is_refused(words: str, reason: str) -> None:
    with pytest.raises(UserError, match="would do nothing") as caught:
        settled(*words.split())
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "em3 paradigm=hybrid",  # the preset's train=top:1 gives way silently
        "em3 paradigm=hybrid content.text.train=none",
        "em3 paradigm=frozen content.dim=10",  # no attention, so no heads
        "em3 content.text.train=lora content.title.lora_rank=4",
        "em3 content.title.train=lora content.text.lora_rank=4",
        "em3 content.image.use=false",
        "em3 content.fusion.kind=sum content.fusion.dropout=0.1",
        "id train.epochs=2 model.dim=8 data.history=5",
        "lightgcn train.epochs=2 model.n_layers=1 eval.protocol=mmrec train.lr_decay=0.9 eval.topk=[20]",
        "freedom paradigm=frozen content.image.size=64 content.title.use=false content.order=[plot,image]",
        "freedom model.item_graph=graph.npz model.reg_weight=0",
        "mmgcn model.train_ids=true model.reg_weight=0.1 model.reg_preferences=all",
        "mmgcl model.composed_negatives=true model.mask_p=[1,2] model.second_view=true model.swap_tokens=false",
        "vbpr paradigm=end_to_end content.image.train=all train.encoder_lr=1e-5 bank.live_budget=9 bank.micro_batch=2",
    ],
)
def test_overrides_that_do_something_pass(words: str) -> None:
    settled(*words.split())


def test_retrieval_models_have_the_defaults_of_their_published_runs() -> None:
    cfg = validate({"model": {"name": "lattice"}, "train": {"batch_size": 512}})
    train = cfg.train
    assert (cfg.paradigm, train.lr, train.weight_decay, train.patience) == ("hybrid", 1e-3, 0, 20)
    assert (train.metric, train.batch_size, cfg.model.train_batch_size) == ("recall@20", 512, 512)
    assert validate({"model": {"dim": 8}}).model == Config().model.model_copy(update={"dim": 8})
    assert cfg.retrieval and not Config().retrieval and set(config.RETRIEVAL) <= set(presets())


def test_config_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {name: id}\ntrain: {epochs: 2}\n")
    assert resolve(path, {"train.lr": 0.1}).train.epochs == 2
    for content, said in [(b"- 1\n", "key: value"), (b"{", "not valid YAML"), (b"\xff\xfe\xff", "UTF-8")]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            resolve(path)


def test_nothing_in_a_config_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("model: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError, match="not valid YAML"):
        resolve(path)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["", "model.", "data.", "train.", "bank.", "eval.", "content.fusion.", "content.image."]),
    st.text(min_size=1, max_size=12).filter(lambda t: t.strip()),
    st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.none(), st.lists(st.integers(), max_size=2)),
)
def test_unknown_keys_are_always_refused(prefix: str, key: str, value: object) -> None:
    known = {name for record in [*records(), FieldConfig] for name in record.model_fields}
    if key.split(".")[0] in known:
        return
    with pytest.raises(UserError):
        resolve("em3", {prefix + key: value})


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30))
def test_any_word_is_an_override_or_a_mistake(word: str) -> None:
    with contextlib.suppress(UserError):
        resolve("em3", parse_overrides([word]))
