"""Settings of the heads of rankers, one record per paper; `config/ranking.py` has what they share."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rawrec.config.ranking import DotMlpConfig, RankerConfig
from rawrec.config.records import Count, Idle, Size

Activation = Literal["dice", "prelu", "relu"]
Projection = Literal["each", "shared"]
Projected: Any = Field(default="each", description="each piece has a projection of its own, or one is shared")
Hidden = Field(default=[128, 64], description="widths of the MLP's hidden layers")
Dropout = Field(default=0.0, ge=0, lt=1, description="dropout after each hidden layer")


class WideDeepConfig(RankerConfig):
    """Wide & Deep: a linear model of ids and content beside an MLP of all inputs (Cheng et al., DLRS 2016)."""

    name: Literal["wide_deep"] = Field(default="wide_deep", description="Wide & Deep")  # pyright: ignore[reportIncompatibleVariableOverride]
    hidden: list[Size] = Hidden
    dropout: float = Dropout


class DeepFMConfig(RankerConfig):
    """DeepFM: a factorisation machine and an MLP over the same vectors (Guo et al., IJCAI 2017)."""

    name: Literal["deepfm"] = Field(default="deepfm", description="DeepFM")  # pyright: ignore[reportIncompatibleVariableOverride]
    hidden: list[Size] = Hidden
    dropout: float = Dropout


class DCNv2Config(RankerConfig):
    """DCN V2: explicit crosses of all inputs beside, or below, an MLP (Wang et al., WWW 2021)."""

    name: Literal["dcnv2"] = Field(default="dcnv2", description="DCN V2")  # pyright: ignore[reportIncompatibleVariableOverride]
    structure: Literal["parallel", "stacked", "cross"] = Field(
        default="parallel", description="an MLP beside the cross layers, one on top of them, or the cross layers alone"
    )
    cross: Literal["full", "low_rank", "mixture"] = Field(
        default="full", description="matrix of a cross layer: full, of low rank, or a gated mixture of low-rank ones"
    )
    cross_layers: Count = Field(default=3, description="cross layers")
    rank: Size = Field(default=32, description="rank of low-rank matrices")
    experts: Count = Field(default=4, description="experts of a mixture")
    hidden: list[Size] = Hidden
    dropout: float = Dropout
    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(("rank",), lambda m: m.cross == "full", "model.cross=full has no rank; use low_rank or mixture"),
        Idle(("experts",), lambda m: m.cross != "mixture", "only model.cross=mixture has experts"),
        Idle(("hidden", "dropout"), lambda m: m.structure == "cross", "model.structure=cross has no MLP"),
    )


class DINConfig(RankerConfig):
    """DIN: attention to the past by an MLP that reads the candidate, for ids and content (Zhou et al., KDD 2018)."""

    name: Literal["din"] = Field(default="din", description="DIN")  # pyright: ignore[reportIncompatibleVariableOverride]
    attention_hidden: list[Size] = Field(default=[64], description="widths of the attention units' hidden layers")
    attention_activation: Activation = Field(default="dice", description="activation of the attention units")
    softmax: bool = Field(
        default=False, description="weights sum to 1 (true), or keep the strength of the interest, as in the paper"
    )
    dice_padding: bool = Field(
        default=False, description="padding of histories counts in the units' Dice, as in the published code"
    )
    hidden: list[Size] = Hidden
    activation: Activation = Field(default="dice", description="activation of the MLP")
    dropout: float = Dropout
    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(
            ("attention_activation", "dice_padding"),
            lambda m: not m.attention_hidden,
            "attention units without hidden layers have no activation",
        ),
        Idle(
            ("dice_padding",),
            lambda m: m.attention_activation != "dice",
            "the attention units have no Dice; use model.attention_activation=dice",
        ),
        Idle(("activation", "dropout"), lambda m: not m.hidden, "model.hidden=[] has no layers"),
    )


class RankMixerConfig(RankerConfig):
    """RankMixer: tokens exchange their parts, each has a network of its own (Zhu et al., 2025)."""

    name: Literal["rankmixer"] = Field(default="rankmixer", description="RankMixer")  # pyright: ignore[reportIncompatibleVariableOverride]
    tokens: Size = Field(default=8, description="pieces that all inputs, side by side, are cut into")
    width: Size = Field(default=64, description="width of a token; a multiple of model.tokens")
    layers: Count = Field(default=2, description="blocks")
    multiplier: Count = Field(default=4, description="width of the networks' hidden layer, in widths of a token")
    projection: Projection = Projected
    norm: Literal["post", "pre"] = Field(
        default="post", description="normalise after each residual (paper) or before each part"
    )
    readout: Literal["mean", "norm_mean", "flat"] = Field(
        default="mean",
        description="what makes the logit: the tokens' mean (paper), that normalised, or all, normalised, side by side",
    )
    experts: Count = Field(default=1, description="experts of each token's network; 1: no mixture")
    routers: Literal["both", "published"] = Field(
        default="both",
        description="gates in training: the mean of both routers, or the router of training alone, as in open code",
    )
    gate_penalty: float = Field(default=0.01, ge=0, description="weight of the gates of inference in the loss")
    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(("routers", "gate_penalty"), lambda m: m.experts == 1, "model.experts=1 has no gates"),
    )

    @model_validator(mode="after")
    def _mixable(self) -> Self:
        if self.width % self.tokens:
            raise ValueError(f"width: give a multiple of model.tokens={self.tokens}, found {self.width}")
        return self


class TokenMixerLargeConfig(RankerConfig):
    """TokenMixer-Large: RankMixer made deep: mixing undone in each block, longer residuals (2026)."""

    name: Literal["tokenmixer_large"] = Field(default="tokenmixer_large", description="TokenMixer-Large")  # pyright: ignore[reportIncompatibleVariableOverride]
    tokens: Size = Field(default=7, description="pieces that all inputs, side by side, are cut into")
    width: Size = Field(default=64, description="width of a token; a multiple of model.tokens and the global one")
    layers: Count = Field(default=4, description="blocks")
    multiplier: Count = Field(default=2, description="width of the networks' hidden layers, in widths of a token")
    projection: Projection = Projected
    residual_interval: Count = Field(default=2, description="blocks that a residual, and an auxiliary score, is of")
    auxiliary_weight: float = Field(default=0.1, ge=0, description="weight of the auxiliary scores' loss")
    idle_rules: ClassVar[tuple[Idle, ...]] = (
        Idle(
            ("auxiliary_weight",),
            lambda m: m.residual_interval >= m.layers,
            "model.residual_interval is not below model.layers, so that there are no auxiliary scores",
        ),
    )

    @model_validator(mode="after")
    def _mixable(self) -> Self:
        if self.width % (self.tokens + 1):
            raise ValueError(f"width: give a multiple of model.tokens + 1 = {self.tokens + 1}, found {self.width}")
        return self

    @model_validator(mode="after")
    def _no_loss_on_conversions_alone(self) -> Self:
        if self.multi_label == "esmm" and self.auxiliary_weight and self.residual_interval < self.layers:
            raise ValueError(
                "multi_label=esmm has no loss on conversions alone, and the auxiliary scores would have one; use "
                "model.auxiliary_weight=0"
            )
        return self


RANKERS: dict[str, type[RankerConfig]] = {
    "dot_mlp": DotMlpConfig,
    "wide_deep": WideDeepConfig,
    "deepfm": DeepFMConfig,
    "dcnv2": DCNv2Config,
    "din": DINConfig,
    "rankmixer": RankMixerConfig,
    "tokenmixer_large": TokenMixerLargeConfig,
}
"""The record of every head by name."""
