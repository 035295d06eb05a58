"""LEMUR's transformers of a trained run, written as an encoder's folder: see `encoders/joint_folder.py`."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from rawrec.content.encoders.joint import PATCHES, JointEncoder
from rawrec.content.encoders.joint_folder import (
    LOWER,
    WORDS,
    JointFolder,
    SavedField,
    SavedPictures,
)
from rawrec.content.encoders.joint_images import Grid, Patches
from rawrec.content.encoders.loading import HASHED, lower_case
from rawrec.content.encoders.query import QueryEncoder
from rawrec.content.encoders.tokens import Cleaned, FastTokenizer
from rawrec.content.finetuning import writing
from rawrec.data.texts import HashTokenizer, Tokenizer
from rawrec.errors import UserError
from rawrec.files import write_text


def write_joint(document: JointEncoder, query: QueryEncoder | None, folder: Path) -> None:
    """Make `folder` that of the two as they are now; its config.json is written last. query: None for a model that
    reads none."""
    network, pieces = document.stack.network, document.pieces
    pictures = None
    if isinstance(pieces, Patches):
        pictures = SavedPictures(encoder=PATCHES, size=pieces.framing.side, patch=pieces.patch)
    elif isinstance(pieces, Grid):
        pictures = SavedPictures(encoder=pieces.name, size=pieces.framing.side)
    own = None if query is None else query.network
    config = JointFolder(
        width=network.out_width,
        document=network.cfg,
        fields=[
            SavedField(name=one.name, kind=one.kind, length=one.length, pictures=one.pictures)
            for one in document.fields
        ],
        pictures=pictures,
        query=None if own is None else own.cfg,
        shared=query is not None and query.shared,
        query_length=None if query is None else query.max_length,
    )
    if own is not None and query is not None and query.words.tokenizer.identity != document.words.tokenizer.identity:
        raise UserError(
            "content.query.encoder: queries and items have tokenizers of their own, and a folder has one; "
            "use content.query.encoder=own"
        )
    tensors = _named("document", network) | ({} if own is None else _named("query", own))
    (folder / writing.CONFIG).unlink(missing_ok=True)
    _write_words(document.words.tokenizer, folder)
    writing.write(folder, tensors, config=config.model_dump(mode="json"))


def _named(part: str, network: nn.Module) -> dict[str, Tensor]:
    return {f"{part}.{name}": value for name, value in writing.weights(network).items()}


def _write_words(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(tokenizer, HashTokenizer):
        writing.write_json(folder / HASHED, {"vocabulary": tokenizer.vocabulary})
        return
    inner = tokenizer.tokenizer if isinstance(tokenizer, Cleaned) else tokenizer
    lower = isinstance(tokenizer, Cleaned) and tokenizer.clean is lower_case
    if not isinstance(inner, FastTokenizer) or (isinstance(tokenizer, Cleaned) and not lower):
        raise UserError("the run's tokenizer is written in Python and cannot be kept as a file; use one of tokenizers")
    write_text(folder / WORDS, inner.words())
    if lower:
        writing.write_json(folder / LOWER, {"do_lower_case": True})
