"""Settings that would do nothing beside the rest of a config: a user who gives one is told so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rawrec.config.content import JOINT, FieldConfig
from rawrec.config.parts import NO_FUSION, WITH_LAYERS, WITH_QUERIES
from rawrec.config.run import Config


def idle_reason(cfg: Config, key: str, value: Any, kinds: Mapping[str, str]) -> str | None:
    """Why a setting has no effect under the rest of the config; None where it has one."""
    of_features = re.fullmatch(r"paradigm|content\..+|bank\..+|train\.(encoder_lr(_decay)?|precision)", key)
    if cfg.retrieval and of_features and not cfg.model.reads_features():
        return f"model {cfg.model.name} reads no features of items"
    for pattern, holds, reason in _retrieval_rules(cfg) if cfg.retrieval else _ranking_rules(cfg, key):
        if holds and re.fullmatch(pattern, key):
            return reason
    part = key.split(".")
    if len(part) == 3 and part[0] == "content" and part[1] not in ("fusion", "lora", "query"):
        return _idle_field(cfg, part[1], part[2], value, kinds)
    return None


def _ranking_rules(cfg: Config, key: str) -> list[tuple[str, bool, str]]:
    """Settings (a pattern of their keys), whether they have no effect, and why."""
    end_to_end, fusion = cfg.paradigm == "end_to_end", cfg.content.fusion.kind
    query_learns = cfg.model.reads_queries and cfg.content.query.train != "none"
    return [
        (
            r"paradigm|content\..+|bank\..+|model\.((cic|sqdc)_.+|content_side|ranking_gradient|lemur\..+)|train\.(encoder_lr(_decay)?|precision)",
            not cfg.reads_content,
            f"model {cfg.label} has no content. Leave it out, or set model.content=em3",
        ),
        (
            r"train\.encoder_lr(_decay)?",
            not end_to_end and not query_learns,
            f"paradigm={cfg.paradigm} trains no encoder; use paradigm=end_to_end",
        ),
        (
            r"content\.itc_weight",
            not end_to_end,
            f"paradigm={cfg.paradigm} trains no encoder; use paradigm=end_to_end",
        ),
        _one_layer(cfg, query_learns),
        (r"bank\.live_budget", not end_to_end, f"paradigm={cfg.paradigm} encodes every item; use paradigm=end_to_end"),
        *_bank_rules(cfg),
        (
            r"content\.fusion\..+",
            cfg.paradigm == "frozen" and not (key == "content.fusion.kind" and fusion == NO_FUSION),
            "paradigm=frozen has no fusion; use hybrid or end_to_end, or content.fusion.kind=none, which reads the one "
            "feature as it is",
        ),
        (
            r"content\.lora\..+",
            cfg.paradigm == "frozen",
            "paradigm=frozen has no projections and no fusion; use hybrid or end_to_end",
        ),
        (
            r"content\.lora\.(rank|history|stop_gradient)",
            cfg.content.lora.handover == "none",
            "content.lora.handover=none never begins the phase of it; use content.lora.handover=settled",
        ),
        (r"bank\.warm_start", cfg.paradigm == "frozen", "paradigm=frozen always writes every row first"),
        (
            r"content\.fusion\.(layers|heads|ffn)",
            fusion not in WITH_LAYERS,
            f"content.fusion.kind={fusion} has no such part; use content.fusion.kind=fqformer",
        ),
        (
            r"content\.fusion\.queries",
            fusion not in WITH_QUERIES,
            f"content.fusion.kind={fusion} has no queries; use content.fusion.kind=fqformer",
        ),
        (
            r"content\.fusion\.text_flow",
            fusion != "two_flow",
            f"content.fusion.kind={fusion} has no flow of texts alone; use content.fusion.kind=two_flow",
        ),
        (
            r"content\.fusion\.(field_embedding|dropout)",
            fusion == NO_FUSION,
            "content.fusion.kind=none leaves an item's one feature as it is; use content.fusion.kind=fqformer",
        ),
        *_query_rules(cfg),
        (
            r"model\.cic_(temperature|negatives|id)",
            not cfg.model.cic_weight,
            "model.cic_weight=0 switches that loss off",
        ),
        (
            r"model\.cic_id",
            cfg.model.columns == "none",
            "an item's id is all there is of it without categories; name some by model.columns",
        ),
        (
            r"bank\.history",
            cfg.paradigm != "hybrid",
            "end to end reads histories from the bank, and frozen content is the same in both; use paradigm=hybrid",
        ),
        (
            r"bank\.history_grad",
            not cfg.model.ranking_gradient,
            "model.ranking_gradient=false passes none from the ranker to what it reads",
        ),
        (
            r"model\.ranking_gradient",
            cfg.paradigm == "frozen" and not query_learns,
            "paradigm=frozen: nothing of the content learns; use hybrid or end_to_end",
        ),
        (
            r"model\.id_dropout",
            not (cfg.model.item_id or cfg.model.user_id or (cfg.reads_content and cfg.model.cic_weight)),
            "the model reads no ids (model.item_id=false, model.user_id=false)",
        ),
        *_column_rules(cfg),
        *_lemur_rules(cfg),
        (
            r"model\.(multi_label|label_weights)",
            not cfg.data.further_labels,
            "the model learns one label; name several in data.labels, for example data.labels=[click,buy]",
        ),
        (
            r"train\.id_decay_steps",
            cfg.train.optimizer != "adamw" or not cfg.train.id_weight_decay,
            "only the decay of train.optimizer=adamw with a train.id_weight_decay above 0 is made up for",
        ),
        (r"eval\.topk(_users)?", not cfg.eval.full_ranking, "eval.full_ranking=false makes no lists; set it to true"),
        (
            r"eval\.(protocol|untrained_ids)|content\.order",
            True,
            f"it is a setting of retrieval models, and {cfg.label} is none",
        ),
        *_rules_of_model(cfg),
    ]


def _bank_rules(cfg: Config) -> list[tuple[str, bool, str]]:
    """The same of how the bank is kept, and what of a step goes into it."""
    bank, paradigm = cfg.bank, cfg.paradigm
    live = paradigm == "hybrid" and bank.history == "live" and not cfg.model.searched(cfg.longest_history)
    return [
        (
            r"bank\.(forward_rate|backward_rate|sampling)",
            paradigm != "end_to_end",
            f"paradigm={paradigm} encodes nothing in a step; use paradigm=end_to_end",
        ),
        (
            r"bank\.sampling",
            bank.forward_rate >= 100 and (bank.backward_rate or 100) >= 100,
            "all candidates are encoded, with gradient; use for example bank.forward_rate=20",
        ),
        (
            r"bank\.(refresh_share|momentum|capacity)",
            paradigm == "frozen",
            "paradigm=frozen writes every row once; use hybrid or end_to_end",
        ),
        (
            r"bank\.(refresh_share|momentum|capacity|dtype)",
            live,
            "content of histories is made in every step, and no row is read; use bank.history=bank",
        ),
    ]


def _query_rules(cfg: Config) -> list[tuple[str, bool, str]]:
    """The same of queries and of the contrast with them."""
    model, query, plain = cfg.model, cfg.content.query, cfg.content.fusion.kind == NO_FUSION
    return [
        (
            r"content\.query\..+",
            not model.reads_queries,
            "nothing of the model reads queries; use model.sqdc_weight, for example 0.001",
        ),
        (
            r"content\.query\.(layers|train)",
            query.encoder == "shared",
            "content.query.encoder=shared reads queries by the items' encoder; use content.query.encoder=own",
        ),
        (
            r"model\.sqdc_weight",
            model.sqdc_weight and cfg.paradigm == "frozen" and plain and query.train == "none",
            "neither content nor queries learn; use content.query.train=all, or leave it out",
        ),
        (r"model\.sqdc_(?!weight).+", not model.sqdc_weight, "model.sqdc_weight=0 switches that loss off"),
        (
            r"model\.sqdc_neighbour",
            model.sqdc_anchor == "query",
            "model.sqdc_anchor=query reads no neighbours; use model.sqdc_anchor=history",
        ),
        (
            r"model\.sqdc_neighbour",
            cfg.paradigm != "end_to_end",
            f"paradigm={cfg.paradigm} has the histories' content live, or frozen; use paradigm=end_to_end",
        ),
    ]


def _lemur_rules(cfg: Config) -> list[tuple[str, bool, str]]:
    """The same of LEMUR's content part."""
    model, lemur, history = cfg.model, cfg.model.lemur, cfg.longest_history
    long = lemur.lengths(history).get("long", 0)
    shorter = f"histories have no more than data.history={history} items; raise it"
    return [
        (r"model\.content_side", model.content == "lemur", "it is a setting of model.content=em3; see model.lemur"),
        (
            r"model\.lemur\..+",
            model.content != "lemur",
            f"it is a setting of model.content=lemur, and this is {model.content}",
        ),
        (
            r"bank\.history_grad",
            model.content == "lemur" and not lemur.lengths(history),
            "model.lemur.short=0 and model.lemur.long=0 read no history",
        ),
        (r"model\.lemur\.short", lemur.short > history, shorter),
        (r"model\.lemur\.long", (lemur.long or 0) > history, shorter),
        (
            r"model\.lemur\.(queries|ffn|marks)",
            not lemur.layers,
            "model.lemur.layers=0 switches the decoder off",
        ),
        (r"model\.lemur\.tiers", "simtier" not in lemur.similarity, "only simtier in model.lemur.similarity has tiers"),
        (r"model\.lemur\.attended", "sata" not in lemur.similarity, "only sata in model.lemur.similarity attends"),
        (
            r"model\.lemur\.search",
            long <= (lemur.search or 0),
            f"the long sequence has {long} items; see model.lemur.long and data.history",
        ),
    ]


def _column_rules(cfg: Config) -> list[tuple[str, bool, str]]:
    """The same of how columns are read."""
    model = cfg.model
    columns = all(wanted == "none" or not wanted for wanted in (model.columns, model.user_columns, model.context))
    return [
        (
            r"model\.(numbers|buckets|hash_above)",
            columns,
            "no column is read: name some in model.columns, model.user_columns or model.context",
        ),
        (r"model\.counts_smoothing", not model.counts, "nothing is counted; use for example model.counts=[item,user]"),
        (r"model\.session_gap", model.session != "gap", f"model.session={model.session} reads no pauses; use gap"),
        (
            r"model\.buckets",
            model.numbers != "buckets",
            "model.numbers=standard has no buckets; use model.numbers=buckets",
        ),
    ]


def _retrieval_rules(cfg: Config) -> list[tuple[str, bool, str]]:
    """The same for a retrieval model."""
    name, end_to_end = cfg.model.name, cfg.paradigm == "end_to_end"
    trains_none = f"paradigm={cfg.paradigm} trains no encoder; use paradigm=end_to_end"
    return [
        (
            r"data\.(interactions|shuffle_window)|eval\.impressions",
            True,
            f"it is a setting of ranking models, and {cfg.label} is none",
        ),
        (
            r"data\.history",
            True,
            f"model {name} reads {'model.max_length items' if cfg.model.reads_sequences else 'no histories'}",
        ),
        (r"data\.history_mode", not cfg.model.reads_sequences, f"model {name} reads no histories"),
        (
            r"data\.history_mode",
            cfg.eval.protocol == "mmrec",
            "eval.protocol=mmrec makes lists from training positives alone",
        ),
        (r"data\.negatives", True, f"model {name} draws one negative per positive, or none, as it was published"),
        (
            r"content\.(?!fusion\.|lora\.|query\.)[^.]+\.(tokens|max_texts)",
            not cfg.model.reads_pieces,
            f"model {name} reads one feature of each field: the mean over pictures, texts as one. Of the retrieval "
            "models em3_freedom alone has a fusion, whose tokens several of them can be",
        ),
        (r"content\.query\..+", True, f"model {name} reads no queries"),
        (r"content\.(dim|(fusion|lora)\..+)", True, f"model {name} joins features in its own way; see model.*"),
        (r"bank\.history(_grad)?", True, f"model {name} reads no histories"),
        (
            r"bank\.(forward_rate|backward_rate|sampling|refresh_share|momentum|dtype|capacity)",
            True,
            f"it is a setting of ranking models; {name} reads the features of all items, as they were last made",
        ),
        (r"bank\.warm_start", True, f"model {name} reads all items' features, so every row is written first"),
        (
            r"bank\.(live_budget|micro_batch)|train\.encoder_lr(_decay)?|content\.itc_weight",
            not end_to_end,
            trains_none,
        ),
        _one_layer(cfg),
        (
            r"train\.(?!metric|device|threads|id_).+",
            cfg.model.fitted,
            f"model {name} is fitted in one go, without steps and epochs",
        ),
        (
            r"train\.id_(lr|weight_decay|decay_steps)",
            True,
            f"it is a setting of ranking models, and {name} is none; use train.lr and train.weight_decay",
        ),
        (
            r"eval\.exclude_seen",
            cfg.eval.protocol == "mmrec",
            "eval.protocol=mmrec leaves out training positives, as published",
        ),
        (
            r"eval\.untrained_ids",
            not cfg.model.item_ids,
            f"model {name} has no ids of items (a model of your own says so by `item_ids` of its record)",
        ),
        (r"eval\.full_ranking", True, f"model {name} is always evaluated by lists of the full catalogue"),
        (r"eval\.shown", True, f"model {name} is judged by lists of the full catalogue, not by what was shown"),
        (r"eval\.batch_size", True, f"model {name} makes lists for as many users at once as fit its catalogue"),
        *_rules_of_model(cfg),
    ]


def _rules_of_model(cfg: Config) -> list[tuple[str, bool, str]]:
    """The same, of what the model's own record says."""
    rules = cfg.model.idle_rules
    return [(rf"model\.({'|'.join(rule.options)})", rule.when(cfg.model), rule.reason) for rule in rules]


def _one_layer(cfg: Config, query_learns: bool = False) -> tuple[str, bool, str]:
    """The same of what tells layers of an encoder apart, where no two of them learn."""
    fields = cfg.content.fields.values()
    tops = [int(field.train.removeprefix("top:")) for field in fields if field.train.startswith("top:")]
    several = max(tops, default=0) > 1 or any(
        field.train == "all" or (field.train == "lora" and field.lora_layers != 1) for field in fields
    )
    return (
        r"train\.encoder_lr_decay",
        not several and not query_learns,
        "no two layers of an encoder learn; use train.encoder_lr, or content.<field>.train=all, lora or top:2",
    )


def _idle_field(cfg: Config, name: str, setting: str, value: Any, kinds: Mapping[str, str]) -> str | None:
    """The same for a setting of one field, or of all fields of a kind."""
    kind = name if name in ("image", "text", "item") and name not in kinds else kinds.get(name)
    settings: dict[str, Any] = {}
    for source in dict.fromkeys(("item", kind, name)):
        if source in cfg.content.fields:
            settings |= cfg.content.fields[source].model_dump(exclude_unset=True)
    field = FieldConfig.model_validate(settings)
    if setting == "layers" and not (name == "item" and (field.encoder or "").startswith(JOINT)):
        return "it is a setting of content.item with encoder=joint:..."
    if cfg.content.joint and "item" not in kinds and (reason := _idle_beside_joint(cfg, name, kind, setting)):
        return reason
    if kind == "feature" and setting != "use":
        return f"{name} is a ready-made feature, and its only setting is content.{name}.use"
    if setting == "train" and value != "none" and cfg.paradigm != "end_to_end":
        return f"paradigm={cfg.paradigm} keeps encoders frozen; use paradigm=end_to_end"
    if setting != "use" and not field.use:
        return f"content.{name}.use=false leaves the field out"
    # A field's own `train` may differ from its kind's: one of them is enough.
    general = ("image", "text", "item")
    trains = [field.train]
    if name in general and name == kind:
        trains += [
            f.train
            for n, f in cfg.content.fields.items()
            if name == "item" or kinds.get(n) == name or not (kinds or n in general)
        ]
    if kind is None:  # without the dataset, the field may be of either kind
        trains += [f.train for n, f in cfg.content.fields.items() if n in ("image", "text")]
    if setting in ("lora_rank", "lora_layers") and "lora" not in trains:
        return f"content.{name}.train={field.train} has no LoRA; use content.{name}.train=lora"
    if setting == "side_width" and not any(train.startswith("side:") for train in trains):
        return f"content.{name}.train={field.train} has nothing beside the layers; use content.{name}.train=side:4"
    if setting == "recompute" and (
        cfg.paradigm != "end_to_end" or all(train == "none" or train.startswith("side:") for train in trains)
    ):
        return "no layer of the encoder learns; use paradigm=end_to_end with train=top:<n>, lora or all"
    if setting in ("size", "max_images") and kind == "text":
        return "it is a setting of image fields"
    if setting == "max_texts" and kind == "image":
        return "it is a setting of text fields; images have max_images"
    several = [field.tokens, *(f.tokens for f in cfg.content.fields.values() if name in general)]
    if setting == "max_texts" and "each" not in several:
        return f"content.{name}.tokens=mean makes one token of all texts; use content.{name}.tokens=each"
    if setting == "max_length" and kind == "image":
        return "it is a setting of text fields; images have size"
    return None


def _idle_beside_joint(cfg: Config, name: str, kind: str | None, setting: str) -> str | None:
    """The same where LEMUR's transformer reads all texts, and pictures that have an encoder of their own."""
    joint = cfg.content.fields["item"].encoder
    if setting in ("output", "tokens", "max_texts", "side_width", "lora_rank", "lora_layers"):
        return f"content.item.encoder={joint} makes one feature of all texts; it has no {setting}"
    if name == "item" and setting in ("size", "max_images"):
        return f"content.item.encoder={joint} has pictures as content.image says; use content.image.{setting}"
    own = (cfg.content.fields.get(source) for source in dict.fromkeys((kind or name, name)))
    encoders = {field.encoder for field in own if field is not None and field.encoder}
    if kind == "image" and setting not in ("use", "encoder") and encoders <= {joint}:
        return (
            f"content.item.encoder={joint} reads pictures where they have an encoder of their own; use "
            "content.image.encoder=patches"
        )
    return None
