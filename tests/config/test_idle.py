"""Settings that would do nothing are refused, those that do something pass."""

from __future__ import annotations

import pytest
from settled import settled

from rawrec.errors import UserError


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("em3 paradigm=hybrid content.text.train=top:1", "use paradigm=end_to_end"),
        ("em3 paradigm=frozen train.encoder_lr=1e-3", "use paradigm=end_to_end"),
        ("em3 paradigm=frozen train.encoder_lr_decay=.9", "use paradigm=end_to_end"),
        ("em3 train.encoder_lr_decay=.9", "no two layers of an encoder learn"),  # the preset's top:1
        ("em3 content.item.train=side:4 train.encoder_lr_decay=.9", "no two layers of an encoder learn"),
        ("freedom train.encoder_lr_decay=.9", "use paradigm=end_to_end"),
        ("id train.encoder_lr_decay=.9", "model id has no content"),
        ("lightgcn train.encoder_lr_decay=.9", "reads no features"),
        ("em3 paradigm=hybrid content.image.recompute=true", "no layer of the encoder learns"),
        ("em3 content.image.train=none content.image.recompute=true", "no layer of the encoder learns"),
        ("em3 content.title.train=side:2 content.title.recompute=true", "no layer of the encoder learns"),
        ("em3 content.title.side_width=8", "content.title.train=side:4"),
        ("em3 paradigm=hybrid bank.live_budget=9", "use paradigm=end_to_end"),
        ("em3 paradigm=frozen content.fusion.kind=sum", "no fusion"),
        ("em3 content.fusion.kind=sum content.fusion.heads=2", "content.fusion.kind=fqformer"),
        ("em3 content.fusion.kind=one_flow content.fusion.queries=2", "has no queries"),
        ("em3 content.fusion.text_flow=[title]", "content.fusion.kind=two_flow"),
        ("em3_freedom model.fusion=sum model.ffn=true", "model.fusion=fqformer"),
        ("em3_freedom model.fusion=two_flow model.query_num=2", "has no queries"),
        ("em3 model.cic_weight=0 model.cic_temperature=1", "model.cic_weight=0"),
        ("em3 content.image.lora_rank=4", "content.image.train=lora"),
        ("em3 content.title.lora_layers=4", "content.title.train=lora"),
        ("em3 model.cic_weight=0 model.cic_negatives=4", "model.cic_weight=0"),
        ("em3 model.cic_id=concat", "model.columns"),
        ("em3 bank.history=bank", "use paradigm=hybrid"),
        ("freedom paradigm=end_to_end bank.history=bank", "reads no histories"),
        ("em3 content.lora.rank=4", "content.lora.handover=settled"),
        ("em3 paradigm=frozen content.lora.handover=settled", "no projections and no fusion"),
        ("freedom content.lora.handover=settled", "in its own way"),
        ("em3 content.title.max_texts=2", "content.title.tokens=each"),
        ("em3 content.image.max_texts=2 content.image.tokens=each", "text fields"),
        ("freedom content.image.tokens=each", "one feature of each field"),
        ("em3 paradigm=frozen content.fusion.field_embedding=true", "no fusion"),
        ("em3 content.image.use=false content.image.size=64", "leaves the field out"),
        ("em3 content.image.max_length=64", "text fields"),
        ("em3 content.plot.size=64", "image fields"),
        ("em3 eval.full_ranking=false eval.topk=[5]", "eval.full_ranking"),
        ("id content.dim=3", "model id has no content"),
        ("id bank.history_grad=none", "model id has no content"),
        ("lemur model.lemur.short=0 model.lemur.long=0 bank.history_grad=live", "read no history"),
        ("id model.cic_weight=0.2", "model id has no content"),
        ("id content.image.train=lora", "model id has no content"),
        ("id paradigm=hybrid", "model id has no content"),
        ("id eval.protocol=mmrec", "retrieval models"),
        ("lightgcn train.id_weight_decay=1", "ranking models"),
        ("bpr train.id_decay_steps=8", "ranking models"),
        ("id train.optimizer=adam train.id_decay_steps=8", "train.optimizer=adamw"),
        ("id train.id_weight_decay=0 train.id_decay_steps=8", "above 0"),
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
        "em3 content.title.train=side:2 content.text.side_width=4",
        "em3 content.image.recompute=true",
        "em3 content.text.train=top:2 train.encoder_lr_decay=.9",
        "em3 content.title.train=lora train.encoder_lr_decay=.9",
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
