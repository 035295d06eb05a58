"""Settings of the retrieval models, one record each. Names are those of the published code, defaults the best known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rawrec.config.parts import WITH_LAYERS, WITH_QUERIES, FusionKind
from rawrec.config.records import Count, Idle, ModelRecord, NoGradient

RegNorm = Literal["norm", "squared"]
NORMS = "norms as they are, summed and divided by {rows} (published code), or half their squares (paper)"
REG_NORM = NORMS.format(rows="the batch's size")
HALF_SQUARES = "weight of the halved squares of the batch's embeddings, whose sum is divided by train_batch_size"
TRAIN_FEATURES = "the features themselves are trained (published code) or stay as they are"
IMAGE_WEIGHT = "weight of the first modality's item graph; the others share the rest equally, a single one has all"
USER_TABLES = "one user table for all branches (published code), or one of each branch's own"
ITEM_GRAPH = (
    "path of a ready item graph in place of the features' own: an .npz with arrays row, col and value, items numbered "
    "as in the dataset"
)
TRAIN_BATCH_SIZE = (
    "what reg_weight's sum is divided by, also in the shorter last batch (published code); follows train.batch_size "
    "unless given; null: the rows of the batch"
)


READY_GRAPH = Idle(
    ("knn_k", "mm_image_weight"),
    lambda cfg: cfg.item_graph is not None,
    "model.item_graph is the item graph; leave model.item_graph out",
)


RETRIEVAL_DEFAULTS: dict[str, Any] = {
    "paradigm": "hybrid",
    "train": {
        "epochs": 1000,
        "batch_size": 2048,
        "lr": 1e-3,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "ema": 0.0,
        "warmup_steps": 0,
        "clip": None,
        "patience": 20,
        "metric": "recall@20",
    },
}
"""What the settings that rankers share are for a retrieval model unless given: as its published runs had them."""


class RetrievalConfig(ModelRecord):
    """Base of the records of retrieval models."""

    kind = "retrieval"
    defaults: ClassVar[Mapping[str, Any]] = RETRIEVAL_DEFAULTS
    item_ids: ClassVar[bool] = False
    """Whether the model reads id tables of items, all of them by `RetrievalModel.item_ids`: eval.untrained_ids acts."""
    reads_sequences: ClassVar[bool] = False
    """Whether the model is a `SequenceModel`: its samples are users, and lists are made from what they took so far."""
    fitted: ClassVar[bool] = False
    """Whether `RetrievalModel.fit` makes the model in one go: no step is taken, so no setting of steps acts."""
    reads_pieces: ClassVar[bool] = False
    """Whether several pictures or texts of an item may be modalities each (content.<field>.tokens=each), called
    `image`, `image[2]` and so on."""


class IdConfig(RetrievalConfig):
    """Base of the records of models with ids of items."""

    item_ids: ClassVar[bool] = True


class IdContentConfig(IdConfig):
    """Base of the records of models with ids of items and content."""

    id_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of a batch's items whose id is replaced by what eval.untrained_ids gives an item that "
        "training never saw, so that content learns to stand alone",
    )


class BPRConfig(IdConfig):
    """BPR: matrix factorisation, ids alone (Rendle et al., UAI 2009)."""

    name: Literal["bpr"] = Field(default="bpr", description="BPR: ids alone")
    embedding_size: Count = Field(default=64, description="width of user and item embeddings")
    reg_weight: float = Field(default=0.01, ge=0, description="weight of the norms of the batch's embeddings")
    reg_norm: RegNorm = Field(default="norm", description=REG_NORM)

    def reads_features(self) -> bool:
        return False


class LightGCNConfig(IdConfig):
    """LightGCN: propagation over the user-item graph, ids alone (He et al., SIGIR 2020)."""

    name: Literal["lightgcn"] = Field(default="lightgcn", description="LightGCN: ids and the user-item graph")
    embedding_size: Count = Field(default=64, description="width of user and item embeddings")
    n_layers: int = Field(default=2, ge=0, description="layers of propagation")
    reg_weight: float = Field(default=1e-4, ge=0, description="weight of the norms of the batch's layer-0 embeddings")
    reg_norm: RegNorm = Field(default="norm", description=REG_NORM)

    def reads_features(self) -> bool:
        return False


class VBPRConfig(IdContentConfig):
    """VBPR: BPR with projected features beside the item's id (He & McAuley, AAAI 2016)."""

    name: Literal["vbpr"] = Field(default="vbpr", description="VBPR: ids and projected features")
    embedding_size: Count = Field(default=64, description="width of each half: id embedding, projected features")
    reg_weight: float = Field(default=0.01, ge=0, description="weight of the norms of the batch's representations")
    reg_norm: RegNorm = Field(default="norm", description=REG_NORM)
    reg_on: Literal["representations", "parameters"] = Field(
        default="representations",
        description="what reg_weight holds down: the batch's representations, projected features included (published "
        "code), or the user and item embeddings alone (paper, with lambda_E = 0)",
    )
    biases: bool = Field(
        default=False,
        description="an item bias and a visual bias in the score and no bias in the projection (paper, eq. 4), instead "
        "of the reverse (published code)",
    )


class FREEDOMConfig(IdContentConfig):
    """FREEDOM: a frozen item graph and a pruned user-item graph (Zhou & Shen, ACM MM 2023)."""

    name: Literal["freedom"] = Field(default="freedom", description="FREEDOM: ids, user-item graph, item graph")
    embedding_size: Count = Field(default=64, description="width of user and item embeddings")
    knn_k: Count = Field(default=10, description="neighbours of an item in each modality's graph, itself among them")
    n_mm_layers: int = Field(default=1, ge=0, description="layers of propagation over the item graph")
    n_ui_layers: int = Field(default=2, ge=0, description="layers of propagation over the user-item graph")
    reg_weight: float = Field(default=1e-3, ge=0, description="weight of the ranking losses by features alone")
    mm_image_weight: float = Field(default=0.1, ge=0, le=1, description=IMAGE_WEIGHT)
    dropout: float = Field(default=0.8, ge=0, lt=1, description="share of the user-item edges left out in an epoch")
    train_features: bool = Field(default=True, description=TRAIN_FEATURES + "; only reg_weight gives them gradient")
    item_graph: Path | None = Field(default=None, description=ITEM_GRAPH)

    idle_rules: ClassVar[tuple[Idle, ...]] = (
        READY_GRAPH,
        Idle(
            ("train_features",),
            lambda cfg: not cfg.reg_weight,
            "model.reg_weight=0 gives features no gradient; set it above 0",
        ),
    )
    no_gradient = NoGradient("reg_weight", 0, "features only make the frozen item graph")

    def reads_features(self) -> bool:
        return self.item_graph is None or self.reg_weight > 0


class EM3FreedomConfig(IdContentConfig):
    """EM3 on FREEDOM: fused content beside ids on the same graphs, and their contrast (Deng et al. 2024, 4.6)."""

    reads_pieces: ClassVar[bool] = True
    name: Literal["em3_freedom"] = Field(default="em3_freedom", description="EM3 on FREEDOM: ids and fused content")
    embedding_size: Count = Field(default=64, description="width of ids, of features as tokens, and of content")
    knn_k: Count = Field(default=10, description="neighbours of an item in each modality's graph, itself among them")
    n_mm_layers: int = Field(default=1, ge=0, description="layers of propagation over the item graph")
    n_ui_layers: int = Field(default=2, ge=0, description="layers of propagation over the user-item graph")
    mm_image_weight: float = Field(default=0.1, ge=0, le=1, description=IMAGE_WEIGHT)
    dropout: float = Field(default=0.8, ge=0, lt=1, description="share of the user-item edges left out in an epoch")
    item_graph: Path | None = Field(default=None, description=ITEM_GRAPH)
    fusion: FusionKind = Field(
        default="fqformer", description="how an item's features are joined: any of content.fusion.kind"
    )
    query_num: Count = Field(default=1, description="trainable queries of the fusion, shared by all items")
    layer_num: Count = Field(default=1, description="transformer layers of the fusion")
    num_heads: Count = Field(
        default=4, description="attention heads of the fusion, a divisor of embedding_size; 4 in the published code"
    )
    ffn: bool = Field(
        default=False, description="a feed-forward sublayer in the fusion (paper); the published code has none"
    )
    hidden_dropout_prob: float = Field(default=0.5, ge=0, lt=1, description="dropout inside the fusion")
    cic_weight: float = Field(default=0.1, ge=0, description="weight of the content-id contrast")
    cic_temperature: float = Field(default=0.5, gt=0, description="temperature of the content-id contrast")
    cic_neg_num: Count = Field(
        default=10, description="negatives of each item in the contrast (cic_negatives=catalogue)"
    )
    cic_negatives: Literal["catalogue", "batch"] = Field(
        default="catalogue",
        description="contrast of every item with cic_neg_num items drawn from the whole catalogue, with replacement "
        "(published code), or of the batch's positives with each other (paper, eq. 12-13)",
    )
    cic_on: Literal["propagated", "embeddings"] = Field(
        default="propagated",
        description="contrast after propagation over both graphs (published code) or of content and id embeddings "
        "themselves (paper, eq. 10-11, as we read it)",
    )
    content_layers: Literal["one", "all"] = Field(
        default="one",
        description="propagation of content over the item graph: one layer, however many n_mm_layers (published "
        "code), or n_mm_layers of them as for ids (paper, as we read it)",
    )

    idle_rules: ClassVar[tuple[Idle, ...]] = (
        READY_GRAPH,
        Idle(
            ("layer_num", "num_heads", "ffn"),
            lambda cfg: cfg.fusion not in WITH_LAYERS,
            "model.fusion has no such part; use model.fusion=fqformer",
        ),
        Idle(
            ("query_num",),
            lambda cfg: cfg.fusion not in WITH_QUERIES,
            "model.fusion has no queries; use model.fusion=fqformer",
        ),
        Idle(
            ("cic_temperature", "cic_neg_num", "cic_negatives", "cic_on"),
            lambda cfg: not cfg.cic_weight,
            "model.cic_weight=0 switches the contrast off",
        ),
        Idle(
            ("cic_neg_num",),
            lambda cfg: cfg.cic_negatives == "batch",
            "model.cic_negatives=batch contrasts all of the batch; use model.cic_negatives=catalogue",
        ),
        Idle(
            ("content_layers",),
            lambda cfg: cfg.n_mm_layers < 2,
            "content and ids have one layer or none alike; use model.n_mm_layers=2 or more",
        ),
    )


class BM3Config(IdContentConfig):
    """BM3: bootstrapped latent representations, no negatives (Zhou et al., WWW 2023)."""

    name: Literal["bm3"] = Field(default="bm3", description="BM3: ids and features that predict each other")
    embedding_size: Count = Field(default=64, description="width of user, item and feature representations")
    n_layers: int = Field(default=1, ge=0, description="layers of propagation over the user-item graph")
    reg_weight: float = Field(default=0.1, ge=0, description="weight of the norms of the representations")
    cl_weight: float = Field(default=2.0, ge=0, description="weight of the losses of the modalities")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="share of a target's entries that are dropped")
    train_features: bool = Field(default=True, description=TRAIN_FEATURES)
    reg_norm: RegNorm = Field(
        default="norm", description=NORMS.format(rows="the number of items, with reg_on=batch the batch's size")
    )
    reg_on: Literal["tables", "batch"] = Field(
        default="tables",
        description="what reg_weight holds down: all users and items after propagation, divided by the number of items "
        "(published code), or the batch's",
    )

    no_gradient = NoGradient("cl_weight", 0, "features have no part in the loss")


class SLMRecConfig(IdContentConfig):
    """SLMRec: one graph per modality, and a self-supervised task between them (Tao et al., TMM 2022)."""

    name: Literal["slmrec"] = Field(default="slmrec", description="SLMRec: a graph per modality, self-supervised")
    recdim: int = Field(default=64, ge=2, description="width of all representations")
    layer_num: int = Field(default=3, ge=0, description="layers of propagation over the user-item graph")
    temp: float = Field(default=0.2, gt=0, description="temperature of the main loss")
    ssl_task: Literal["FAC", "FD", "FM"] = Field(
        default="FAC",
        description="FAC: alignment of the modalities, fine and coarse (all that the published code can run); FD: two "
        "views with dropped features (paper); FM: two views that each lack one modality per item (paper)",
    )
    ssl_alpha: float = Field(default=0.1, ge=0, description="weight of the self-supervised loss")
    ssl_temp: float = Field(default=0.5, gt=0, description="temperature of the self-supervised loss")
    dropout_rate: float = Field(default=0.3, ge=0, lt=1, description="FD: share of a token's entries that are dropped")
    mm_fusion_mode: Literal["concat", "mean"] = Field(
        default="concat", description="branches side by side, then a linear map (as published), or their mean"
    )
    adj_type: Literal["pre", "norm"] = Field(
        default="pre", description="user-item graph: D^-1/2 A D^-1/2 (as published), or D^-1 (A + I), by rows"
    )
    user_tables: Literal["shared", "own"] = Field(default="shared", description=USER_TABLES)
    fac_similarity: Literal["dot", "cosine"] = Field(
        default="dot", description="FAC: similarity, dot products as they are (published code) or cosines"
    )
    fac_chain: Literal["three", "modalities"] = Field(
        default="three",
        description="FAC with two modalities: the second meets ids after the three maps that three modalities would "
        "need (published code), or after one map per modality; otherwise there is one map per modality",
    )

    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(("dropout_rate",), lambda cfg: cfg.ssl_task != "FD", "it is a setting of model.ssl_task=FD"),
        Idle(
            ("fac_similarity", "fac_chain"),
            lambda cfg: cfg.ssl_task != "FAC",
            "it is a setting of model.ssl_task=FAC",
        ),
    )


class MMGCNConfig(IdContentConfig):
    """MMGCN: a graph convolution per modality (Wei et al., ACM MM 2019)."""

    name: Literal["mmgcn"] = Field(default="mmgcn", description="MMGCN: a graph convolution per modality")
    embedding_size: Count = Field(default=64, description="width of ids and of each layer's output")
    n_layers: Count = Field(
        default=3, description="layers of each branch; the published code has 3, whatever its own n_layers says"
    )
    reg_weight: float = Field(
        default=0.1,
        ge=0,
        description="weight of the mean squares of ids and preferences; moves nothing unless train_ids",
    )
    latent_sizes: list[Annotated[int, Field(ge=0)]] = Field(
        default=[256],
        description="of each modality in order the width to which a trained map brings its features before the graph; "
        "0, or left out at the end of the list: as they are. The default reduces the first modality only",
    )
    train_ids: bool = Field(
        default=False,
        description="train the id embedding and the users' preferences (paper); the published code leaves them as they "
        "were drawn",
    )
    combine: Literal["concat", "add"] = Field(
        default="concat",
        description="how a layer joins neighbourhood and node: side by side before the map g (published code), or the "
        "node added after it (the paper's alternative)",
    )
    reg_preferences: Literal["first", "all"] = Field(
        default="first",
        description="preferences under reg_weight: the first modality's (published code) or all; moves nothing unless "
        "train_ids",
    )

    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(
            ("reg_weight", "reg_preferences"),
            lambda cfg: not cfg.train_ids,
            "ids and preferences are not trained, so that nothing is held down; use model.train_ids=true",
        ),
    )


class MMGCLConfig(IdContentConfig):
    """MMGCL: contrast on graphs with dropped edges and masked modalities (Yi et al., SIGIR 2022)."""

    name: Literal["mmgcl"] = Field(default="mmgcl", description="MMGCL: a graph per modality, contrast on graph views")
    latent_dim: Count = Field(default=64, description="width of all representations")
    layer_num: int = Field(default=3, ge=0, description="layers of propagation over the user-item graph")
    ssl_task: Literal["ED", "ED+MM", "ED+MM+CN"] = Field(
        default="ED+MM+CN",
        description="views: edge dropout twice (ED), or once and modality masking (MM), with composed negatives (CN). "
        "MM enters the loss through second_view, composed_negatives or contrast=nodes, CN through composed_negatives",
    )
    ssl_alpha: float = Field(default=0.4, ge=0, description="weight of the contrast")
    ssl_temp: float = Field(default=0.2, gt=0, description="temperature of the contrast")
    dropout_rate: float = Field(
        default=0.05, ge=0, lt=1, description="share of the edges (ED), users and items (MM) left out of a view"
    )
    mask_p: list[Annotated[float, Field(ge=0)]] | None = Field(
        default=None,
        description="chances of the modalities to be masked, one each, in order; null: equal. Acts where the masking "
        "view enters the loss, see ssl_task",
    )
    contrast: Literal["user_item", "nodes"] = Field(
        default="user_item",
        description="what the contrast joins: user and positive within a view (published code), or the two views of a "
        "node (paper)",
    )
    second_view: bool = Field(
        default=False,
        description="MM: the masking view enters the loss (paper); false: the first view counts twice (published "
        "code). Acts with contrast=user_item",
    )
    composed_negatives: bool = Field(
        default=False,
        description="the composed negatives of both views enter the loss (paper); the published code computes them and "
        "leaves them out. Acts with ssl_task=ED+MM+CN",
    )
    masking: Literal["nodes", "features"] = Field(
        default="nodes",
        description="the masked modality's branch lacks the edges of some users and items (published code), or starts "
        "from random numbers (paper). Acts where the masking view enters the loss, see ssl_task",
    )
    swap_tokens: bool = Field(
        default=True,
        description="masking a modality other than the first swaps its tokens with the first's (published code); "
        "false: every modality keeps its own. Acts with masking=nodes, where the masking view enters the loss",
    )
    user_tables: Literal["shared", "own"] = Field(default="shared", description=USER_TABLES)

    @property
    def composes(self) -> bool:
        """Whether composed negatives have a part in the loss."""
        return self.ssl_task == "ED+MM+CN" and self.composed_negatives

    @property
    def masks(self) -> bool:
        """Whether the masking view has a part in the loss."""
        return self.ssl_task != "ED" and (self.second_view or self.contrast == "nodes" or self.composes)

    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(
            ("mask_p", "masking", "swap_tokens", "second_view"),
            lambda cfg: cfg.ssl_task == "ED",
            "model.ssl_task=ED has no masking view; use model.ssl_task=ED+MM",
        ),
        Idle(
            ("mask_p", "masking", "swap_tokens"),
            lambda cfg: not cfg.masks,
            "the masking view has no part in the loss; use model.second_view=true, model.contrast=nodes, or "
            "model.composed_negatives=true with model.ssl_task=ED+MM+CN",
        ),
        Idle(
            ("swap_tokens",),
            lambda cfg: cfg.masking == "features",
            "model.masking=features swaps no tokens; use model.masking=nodes",
        ),
        Idle(
            ("second_view",),
            lambda cfg: cfg.contrast == "nodes",
            "model.contrast=nodes always joins both views; use model.contrast=user_item",
        ),
        Idle(
            ("composed_negatives",),
            lambda cfg: cfg.ssl_task != "ED+MM+CN",
            "there are composed negatives under model.ssl_task=ED+MM+CN alone",
        ),
    )


class LATTICEConfig(IdContentConfig):
    """LATTICE: an item graph learned from features over a collaborative backbone (Zhang et al., ACM MM 2021)."""

    name: Literal["lattice"] = Field(default="lattice", description="LATTICE: a backbone and a learned item graph")
    cf_model: Literal["lightgcn", "ngcf", "mf"] = Field(
        default="lightgcn", description="the backbone; mf: ids as they are, without the user-item graph"
    )
    embedding_size: Count = Field(default=64, description="width of user and item embeddings")
    feat_embed_dim: Count = Field(default=64, description="width of projected features, of which neighbours are found")
    weight_size: list[Count] = Field(
        default=[64, 64],
        description="the backbone's layers: as many as entries; ngcf: each must be embedding_size; mf: not read",
    )
    knn_k: Count = Field(default=10, description="neighbours of an item in each modality's graph, itself among them")
    lambda_coeff: float = Field(default=0.9, ge=0, le=1, description="share of the frozen graphs in the item graph")
    n_layers: int = Field(default=1, ge=0, description="layers of propagation over the item graph")
    reg_weight: float = Field(default=1e-5, ge=0, description=HALF_SQUARES)
    train_batch_size: Count | None = Field(default=2048, description=TRAIN_BATCH_SIZE)
    mess_dropout: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=[0.1, 0.1], description="ngcf only: dropout after each layer, one entry each"
    )
    train_features: bool = Field(default=True, description=TRAIN_FEATURES)
    rebuild: Literal["epoch", "step"] = Field(
        default="epoch",
        description="when neighbours are searched anew and the graph gives gradient: in the first batch of an epoch "
        "(published code) or in each",
    )
    normalise_learned: Literal["mixed", "each"] = Field(
        default="mixed",
        description="learned graphs are normalised after they are mixed (published code), or each before (paper)",
    )
    adjacency: Literal["row_self_loops", "symmetric"] = Field(
        default="row_self_loops",
        description="the user-item graph: self loops, rows that sum to one (published code), or symmetric without "
        "loops (paper, after LightGCN); mf: not read",
    )

    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(("mess_dropout",), lambda cfg: cfg.cf_model != "ngcf", "it is a setting of model.cf_model=ngcf"),
        Idle(
            ("weight_size", "adjacency"),
            lambda cfg: cfg.cf_model == "mf",
            "model.cf_model=mf reads no user-item graph; use model.cf_model=lightgcn or ngcf",
        ),
    )
    no_gradient = NoGradient("lambda_coeff", 1, "the item graph is the frozen one alone")


class MGCNConfig(IdContentConfig):
    """MGCN: features purified by ids, propagated in views of their own, fused (Yu et al., ACM MM 2023)."""

    name: Literal["mgcn"] = Field(default="mgcn", description="MGCN: ids, item graphs, behaviour-aware fusion")
    embedding_size: Count = Field(default=64, description="width of user and item embeddings and of features")
    n_ui_layers: int = Field(default=2, ge=0, description="layers of propagation over the user-item graph")
    n_layers: int = Field(default=1, ge=0, description="layers of propagation over each item graph")
    knn_k: Count = Field(default=10, description="neighbours of an item in each modality's graph, itself among them")
    reg_weight: float = Field(default=1e-4, ge=0, description=HALF_SQUARES)
    cl_loss: float = Field(default=0.01, ge=0, description="weight of the contrast of features and behaviour")
    temperature: float = Field(default=0.2, gt=0, description="of the contrast; the published code has it fixed at 0.2")
    train_batch_size: Count | None = Field(default=2048, description=TRAIN_BATCH_SIZE)
    train_features: bool = Field(default=True, description=TRAIN_FEATURES)


class SMOREConfig(IdContentConfig):
    """SMORE: features filtered and fused in the frequency domain (Ong & Khong, WSDM 2025)."""

    name: Literal["smore"] = Field(default="smore", description="SMORE: ids, spectral fusion, item graphs")
    embedding_size: Annotated[int, Field(ge=2)] = Field(default=64, description="width of embeddings and features")
    n_ui_layers: int = Field(default=3, ge=0, description="layers of propagation over the user-item graph")
    n_layers: int = Field(default=1, ge=0, description="layers of propagation over each item graph")
    image_knn_k: Count = Field(
        default=10, description="neighbours of an item in the first modality's graph, itself among them"
    )
    text_knn_k: Count = Field(
        default=10, description="neighbours of an item in the graph of each other modality, itself among them"
    )
    dropout_rate: float = Field(
        default=0.0, ge=0, lt=1, description="share of the entries dropped of the preference gates"
    )
    reg_weight: float = Field(default=1e-4, ge=0, description=HALF_SQUARES)
    cl_loss: float = Field(default=0.01, ge=0, description="weight of the contrast of features and behaviour")
    temperature: float = Field(default=0.2, gt=0, description="of the contrast; the published code has it fixed at 0.2")
    train_batch_size: Count | None = Field(default=2048, description=TRAIN_BATCH_SIZE)
    train_features: bool = Field(default=True, description=TRAIN_FEATURES)


class DRAGONConfig(RetrievalConfig):
    """DRAGON: modality-wise user-item propagation, then user and item graphs (Zhou et al., ECAI 2023)."""

    name: Literal["dragon"] = Field(default="dragon", description="DRAGON: features, item graph, user graph")
    embedding_size: Count = Field(default=64, description="width of a modality's preferences and representations")
    knn_k: Count = Field(default=10, description="neighbours of an item in each modality's graph, itself among them")
    n_mm_layers: int = Field(default=1, ge=0, description="layers of propagation over the item graph")
    mm_image_weight: float = Field(default=0.1, ge=0, le=1, description=IMAGE_WEIGHT)
    user_neighbours: Count = Field(default=40, description="users nearest by common items that each user listens to")
    reg_weight: float = Field(
        default=1e-3, ge=0, description="weight of the mean squares of preferences and the users' modality weights"
    )
    log_base: Literal["2", "e"] = Field(
        default="2", description="base of the ranking loss's logarithm: 2 (published code) or e (BPR as in the paper)"
    )
    pad_neighbours: bool = Field(
        default=True,
        description="a user with fewer neighbours has some of them, drawn anew each epoch, several times before the "
        "softmax (published code), or each once (paper)",
    )
    softmax_user_weights: bool = Field(
        default=False,
        description="true: a user's modality weights go through a softmax in every step; false (published code): only "
        "when they are first drawn",
    )


class LGMRecConfig(IdContentConfig):
    """LGMRec: local graph and global hypergraph embeddings (Guo et al., AAAI 2024)."""

    name: Literal["lgmrec"] = Field(default="lgmrec", description="LGMRec: ids, features, learned hypergraphs")
    cf_model: Literal["lightgcn", "mf"] = Field(
        default="lightgcn", description="behaviour: propagated over the user-item graph, or ids as they are"
    )
    embedding_size: Count = Field(default=64, description="width of user and item embeddings")
    n_ui_layers: int = Field(
        default=2, ge=0, description="layers of propagation of ids over the user-item graph; mf: not read"
    )
    n_mm_layers: int = Field(default=2, ge=0, description="layers of propagation of features over it")
    n_hyper_layer: Count = Field(default=1, description="layers of propagation over the hypergraphs")
    hyper_num: Count = Field(
        default=4, description="hyperedges of each modality, a Gumbel softmax of fixed temperature 0.2 over them"
    )
    keep_rate: float = Field(default=0.5, gt=0, le=1, description="share of the hyperedge weights kept in training")
    alpha: float = Field(default=0.3, ge=0, description="weight of the global embeddings beside the local ones")
    cl_weight: float = Field(
        default=1e-4, ge=0, description="weight of the contrast between modalities, of fixed temperature 0.2"
    )
    reg_weight: float = Field(default=1e-6, ge=0, description="weight of the norms of the batch's embeddings")
    reg_norm: RegNorm = Field(default="norm", description=REG_NORM)
    gumbel_at_evaluation: bool = Field(
        default=True,
        description="Gumbel noise in evaluation too, drawn once an epoch (published code: anew each time), or none",
    )
    train_features: bool = Field(
        default=False, description="the features themselves are trained or stay as they are (published code)"
    )

    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(
            ("n_ui_layers",),
            lambda cfg: cfg.cf_model == "mf",
            "model.cf_model=mf does not propagate ids; use model.cf_model=lightgcn",
        ),
    )
