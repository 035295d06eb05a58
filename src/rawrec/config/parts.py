"""Fusions and encoders by name. Own ones are registered here; our encoders are named in `content/encoders/`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator

from rawrec import plugins
from rawrec.arguments import shown
from rawrec.config.wording import nearest
from rawrec.errors import UserError
from rawrec.shown import listed

T = TypeVar("T")
Kind = Literal["image", "text"]

FUSIONS: dict[str, plugins.Entry] = {
    "fqformer": plugins.Entry("rawrec.content.fusion.fqformer:FQFormerFusion"),
    "masked_fq_former": plugins.Entry("rawrec.content.fusion.fqformer:MaskedFQFormerFusion"),
    "one_flow": plugins.Entry("rawrec.content.fusion.flows:OneFlowFusion"),
    "two_flow": plugins.Entry("rawrec.content.fusion.flows:TwoFlowFusion"),
    "concat": plugins.Entry("rawrec.content.fusion.simple:ConcatFusion"),
    "sum": plugins.Entry("rawrec.content.fusion.simple:SumFusion"),
}
NO_FUSION = "none"
WITH_QUERIES = ("fqformer", "masked_fq_former")
WITH_LAYERS = (*WITH_QUERIES, "one_flow", "two_flow")
"""Of our fusions, those that have trainable queries, and those made of transformer layers."""


@dataclass(frozen=True)
class EncoderEntry(plugins.Entry):
    """kind: of the fields that the encoder reads."""

    kind: Kind


ENCODERS: dict[str, EncoderEntry] = {}
"""Registered encoders; ours are in `content/encoders/`."""


def register_fusion(name: str, cls: Any = None) -> Any:
    """Enter a fusion of your own, for `content.fusion.kind=NAME`.

    cls: a module, called `cls(dim, modalities, cfg)` with the `FusionConfig`, that takes tokens `[n, modalities, dim]`
    and a mask `[n, modalities]` (True = the item has the modality) and gives `[n, dim]`; or where it is, as
    "module:Class"; without it this is a decorator of the class. Raises UserError for a name that is taken.

    >>> @rawrec.register_fusion("gate")
    ... class Gate(torch.nn.Module): ...
    """

    def enter(cls: T) -> T:
        plugins.register("fusions", FUSIONS, name, plugins.Entry(cls))
        return cls

    return enter if cls is None else enter(cls)


def fusion_entry(name: str) -> plugins.Entry | None:
    """The entry of a fusion's name, loaded from the installed package that brings it; None for an unknown one."""
    return plugins.find("fusions", FUSIONS, name, register_fusion)


def fusion_names() -> list[str]:
    return plugins.names("fusions", FUSIONS)


def _known_fusion(value: str) -> str:
    if fusion_entry(value) is None:
        near = nearest(value, fusion_names())
        hint = f"did you mean {near}? " if near else ""
        raise ValueError(f"{hint}use {listed(fusion_names(), value)}")
    return value


def _known_or_none(value: str) -> str:
    return value if value == NO_FUSION else _known_fusion(value)


FusionKind = Annotated[str, AfterValidator(_known_fusion)]
"""The name of a fusion, ours or a registered one."""
ContentFusion = Annotated[str, AfterValidator(_known_or_none)]
"""The same, or none."""


def register_encoder(name: str, kind: Kind, make: Callable[..., Any] | str | None = None) -> Any:
    """Enter an encoder of your own, for `content.<field>.encoder=NAME` in fields of its kind.

    make: called with the field's settings, gives the network (a `Stack`) and how it wants its input (`Pictures` or
    `Words`), as the functions in `content/encoders/` do for ours; or where it is, as "module:function"; without it this
    is a decorator. Raises UserError for a name that is taken.

    >>> @rawrec.register_encoder("tiles", kind="image")
    ... def tiles(cfg): ...
    """
    if kind not in ("image", "text"):
        raise UserError(f"encoder {name!r}: kind={shown(kind)}; use image or text")

    def enter(make: T) -> T:
        plugins.register("encoders", ENCODERS, name, EncoderEntry(make, kind))
        return make

    return enter if make is None else enter(make)


def _bring_encoder(name: str, found: Any) -> None:
    raise UserError("its module must call rawrec.register_encoder, which says what it reads")


def encoder_entry(name: str) -> EncoderEntry | None:
    """The entry of a registered encoder, loaded from the installed package that brings it; None for any other name."""
    return plugins.find("encoders", ENCODERS, name, _bring_encoder)


def encoder_names(kind: Kind) -> list[str]:
    """Of registered encoders that read this kind; those that were not loaded yet may be of either."""
    known = plugins.names("encoders", ENCODERS)
    return [name for name in known if name not in ENCODERS or ENCODERS[name].kind == kind]
