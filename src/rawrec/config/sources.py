"""Sources of `rawrec import` by name: ours, and own ones with their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, overload

from pydantic import ValidationError

from rawrec import plugins
from rawrec.config.records import Record
from rawrec.config.wording import short, unknown
from rawrec.errors import UserError
from rawrec.shown import several


class SourceOptions(Record):
    """Base of the options of a source: the field `log_file` is the option `--log-file` of `rawrec import NAME`.

    A field without a default has to be given. Texts, numbers, true or false, paths, choices of texts, and lists of
    these are possible. The docstring is what `--help` says of the source.
    """


@dataclass(frozen=True)
class SourceEntry(plugins.Entry):
    """record: the options of an own source; None for ours, which the command line declares."""

    record: type[SourceOptions] | None = None


_OURS = ("table", "movielens", "mmrec", "recbole", "amazon", "microlens", "pixelrec", "mind", "impressions")
_OURS += ("huggingface", "webdataset", "openclipart", "synthetic", "taobao-mm")
_FILES = {"pixelrec": "microlens"}
SOURCES: dict[str, SourceEntry] = {
    name: SourceEntry(f"rawrec.sources.{_FILES.get(name, name)}:import_{name}".replace("-", "_")) for name in _OURS
}
"""Every source. Own ones are added as they are registered, or asked for by name."""
SHARED = {"out", "split", "ratios", "split-seed", "allow-empty", "overwrite", "json", "help"} | {
    *("image-url-table", "image-url-table-id", "image-url-table-url", "image-url-field", "downloads"),
    *("retry-failed", "allow-private", "per-host", "per-second"),
}
"""Options that every import has."""
F = TypeVar("F", bound=Callable[..., Any])


@overload
def register_source(name: str, record: type[SourceOptions], importer: str) -> None: ...
@overload
def register_source(name: str, record: type[SourceOptions], importer: F) -> F: ...
@overload
def register_source(name: str, record: type[SourceOptions], importer: None = None) -> Callable[[F], F]: ...
def register_source(name: str, record: type[SourceOptions], importer: Any = None) -> Any:
    """Enter a source of your own: `rawrec import NAME --key value ... --out DIR`.

    record: its options. importer: called with them and an `ImportReport`, in which it counts what it leaves out; gives
    `rawrec.SourceTables`, from which rawrec writes the dataset; or where it is, as "module:function"; without it this
    is a decorator of the function. Raises UserError for a name that is taken and for options that cannot be.

    >>> @rawrec.register_source("till", TillOptions)
    ... def till(options, report): ...
    """
    if not (isinstance(record, type) and issubclass(record, SourceOptions)):
        raise UserError(f"source {name!r}: its options must be a SourceOptions of its own: {record}")
    for key, field in record.model_fields.items():
        if option(key) in SHARED:
            raise UserError(
                f"source {name!r}: every import has an option --{option(key)}: call {record.__name__}.{key} otherwise"
            )
        if not _plain(field.annotation):
            raise UserError(
                f"source {name!r}: {record.__name__}.{key} cannot be an option: use text, a number, true or false, a "
                "path, a choice of texts, or a list of these"
            )

    def enter(importer: Any) -> Any:
        plugins.register("sources", SOURCES, name, SourceEntry(importer, record))
        return importer

    return enter if importer is None else enter(importer) if not isinstance(importer, str) else enter(importer) and None


def option(key: str) -> str:
    """What a field is called on the command line, without the dashes."""
    return key.replace("_", "-")


def _plain(kind: Any) -> bool:
    """Whether a value of the type can be given as words."""
    if kind in (str, int, float, bool, Path, NoneType):
        return True
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return all(isinstance(part, str) for part in parts)
    if origin is Annotated:
        return _plain(parts[0])
    return origin in (list, Union, UnionType) and bool(parts) and all(map(_plain, parts))


def _bring(name: str, found: Any) -> None:
    raise UserError("its module must call rawrec.register_source, which says what its options are")


def source_entry(name: str) -> SourceEntry | None:
    """The entry of a source's name, loaded from the installed package that brings it; None for an unknown one."""
    return plugins.find("sources", SOURCES, name, _bring)


def source_names() -> list[str]:
    """The names of all sources: ours, registered ones, and those of installed packages."""
    return plugins.names("sources", SOURCES)


def options_of(name: str, record: type[SourceOptions], given: Mapping[str, Any]) -> SourceOptions:
    """The options of an own source from plain values or words. Raises UserError that names every mistake."""
    with plugins.own_code("source", name):  # a record may have checks of its own
        try:
            return record.model_validate(dict(given))
        except ValidationError as error:
            raise UserError(several(_explain(name, record, e) for e in error.errors())) from None


def _explain(name: str, record: type[SourceOptions], error: Any) -> str:
    key, message = str(next(iter(error["loc"]), "")), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return unknown(f"source {name!r}", key, list(record.model_fields))
    if error["type"] == "missing":
        return f"source {name!r} needs --{option(key)}: {record.model_fields[key].description or 'it has no default'}"
    if not key:  # a check across options, which names them itself
        return f"source {name!r}: {message}"
    return f"--{option(key)} {short(error['input'])}: {message[:1].lower()}{message[1:]}"
