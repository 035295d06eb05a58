"""What a stream's trainer publishes: versions that never change, and one pointer that says which is served.

A folder DIR holds `versions/<name>/`, each written whole or not at all, with a manifest of check sums, and
`current.json`, replaced in one step. Names grow with what was trained, and a trainer that was killed and comes to the
same step again finds its version there.

A version is full, or what has changed since another one, its base (`deltas.py`): to read it is to read the chain of its
bases from a full one on. The manifest has the check sum of what a chain must come to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rawrec.arguments import PATH, checked
from rawrec.errors import UserError
from rawrec.files import alone, clean
from rawrec.folders import discard, own_folder, placing
from rawrec.reading import damaged, read_json, typed
from rawrec.stream import gate
from rawrec.stream.version_files import HISTORIES, PAST, PLAIN, TENSORS, Whole, read_one, write
from rawrec.sums import check_file, file_sum
from rawrec.training import state as checkpoint

FORMAT = 2
FOLDER, POINTER, MANIFEST = "versions", "current.json", "manifest.json"
NAME = r"[0-9]{9}-[0-9]{12}"
LATEST = "latest"


class Version(BaseModel):
    """What a version's `manifest.json` says. run: the fingerprint of the run that it goes on from, whose folder was
    `folder`; step, events: what the trainer had done; watermark: the latest time of its events; metrics: of the
    trainer's last window; base: the version of which this one holds what has changed; sum: of all that it comes to;
    refused: why it is not to be served, where a check failed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    name: str = Field(pattern=f"^{NAME}$")
    run: str
    folder: str
    step: int
    events: int
    watermark: float | None
    positions: dict[str, int]
    items: int
    users: int
    metrics: dict[str, float | None] = {}
    base: str | None = Field(default=None, pattern=f"^{NAME}$")
    sum: str = ""
    files: dict[str, str]
    refused: str | None = None


class _Pointer(BaseModel):
    """`current.json`. chain: for who copies them, the versions that must be there to read the one that is served, the
    last of them; manifests say so, too, and count. held: by whoever rolled back; what is published meanwhile is not
    served."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    version: str = Field(pattern=f"^{NAME}$")
    chain: list[str]
    held: bool = False


class Listed(NamedTuple):
    """The versions of a folder, oldest first; which is served; and whether somebody holds it there."""

    versions: list[Version]
    current: str | None
    held: bool


Passes = Callable[[Version, Mapping[str, Tensor], Mapping[str, Any], Version | None], str | None]
"""A version as it was read again, and the one that is served -> why it is not to be served; None where it is."""


def name_of(step: int, events: int) -> str:
    return f"{step:09d}-{events:012d}"


def is_behind(out: Path, name: str) -> bool:
    """Whether a folder has a version further than this one, and not this one."""
    if not (out / FOLDER).is_dir():
        return False
    names = [one.name for one in listed(out).versions]
    return name not in names and any(other > name for other in names)


# -------------------------------------------------------------------------------------------------------------- writing
def publish(
    out: Path,
    about: Version,
    tensors: Mapping[str, Tensor],
    plain: Mapping[str, Any],
    passes: Passes | None = None,
    full_every: int = 1,
    last: Whole | None = None,
) -> tuple[Version, Whole | None]:
    """Write a version, read it again and check it, and serve it: the pointer moves, never backwards, unless a check
    fails or somebody holds it. Returns what its manifest says, and what it comes to, if it was written now.

    Where it is there already, as a trainer left it that was killed behind it, it is not written again. passes: the
    checks; None: all values are numbers. full_every: one of so many versions is full, the others hold what has changed
    since the latest good one; last: that one, if it is at hand. Raises UserError for a folder that holds versions of
    another run.
    """
    out.mkdir(parents=True, exist_ok=True)
    with alone(out, f"another process publishes in {out} now"):
        folder = own_folder(out / FOLDER)
        clean(out)
        before = listed(out)
        if before.versions and before.versions[-1].run != about.run:
            raise UserError(f"{out} holds versions of another run: publish into another folder")
        made, whole = next((version for version in before.versions if version.name == about.name), None), None
        if made is None:
            served = next((version for version in before.versions if version.name == before.current), None)
            base = _base(out, before, about.name, full_every, last)
            plain = json.loads(json.dumps({PAST: {}} | dict(plain), allow_nan=False))  # as it will be read
            whole = Whole(about.name, tensors, plain)
            made, whole = _written(folder / about.name, about, whole, base, passes or _numbers, served)
        if made.refused is None and not before.held and (before.current is None or before.current < made.name):
            _point(out, listed(out), made.name)
    return made, whole


def _numbers(
    made: Version, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], served: Version | None
) -> str | None:
    return gate.no_numbers(tensors)


def _base(out: Path, found: Listed, name: str, full_every: int, last: Whole | None) -> Whole | None:
    """What a version is to be a delta of; None: it is to be full, as where a chain would be too long or is damaged."""
    good = [version for version in found.versions if version.refused is None and version.name < name]
    if not good or full_every == 1:
        return None
    try:
        if len(chain_of(found, good[-1], out)) >= full_every:
            return None
        return last if last is not None and last.name == good[-1].name else _whole(out, found, good[-1])
    except UserError:
        return None


def _written(
    target: Path, about: Version, whole: Whole, base: Whole | None, passes: Passes, served: Version | None
) -> tuple[Version, Whole]:
    about = about.model_copy(update={"base": None if base is None else base.name, "sum": whole.sum})
    with placing(target) as fresh:
        write(fresh, whole, base)
        again = read_one(fresh, about.name, base)
        sums = {name: file_sum(fresh / name) for name in (TENSORS, PLAIN, HISTORIES)}
        refused = passes(about, again.tensors, again.plain, served)
        if refused is None and again.sum != about.sum:
            refused = "what was read again is not what was written"
        made = about.model_copy(update={"files": sums, "refused": refused})
        checkpoint.write_json(fresh / MANIFEST, made.model_dump())
    return made, again


def _point(out: Path, found: Listed, name: str, held: bool = False) -> None:
    chain = [one.name for one in chain_of(found, _named(found, name, out), out)]
    checkpoint.write_json(out / POINTER, _Pointer(format=FORMAT, version=name, chain=chain, held=held).model_dump())


# -------------------------------------------------------------------------------------------------------------- reading
@checked(out=PATH)
def listed(out: str | Path) -> Listed:
    """The versions in a folder. Raises UserError where it holds none, or a manifest or the pointer is damaged."""
    out = Path(out)
    folder = out / FOLDER
    if not folder.is_dir():
        raise UserError(f"{out} holds no versions: `rawrec online RUN --log URL --publish {out}` makes them")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    versions = [_manifest(folder / name) for name in names]
    pointer = _pointer(out)
    return Listed(versions, None if pointer is None else pointer.version, pointer is not None and pointer.held)


def _manifest(folder: Path) -> Version:
    path = folder / MANIFEST
    try:
        found: Version = typed(Version, read_json(path), path)
    except FileNotFoundError:
        raise UserError(f"{folder} is no version: it has no {MANIFEST}; remove it") from None
    if found.format != FORMAT:
        raise UserError(
            f"{path} has format {found.format}, and this version of rawrec reads {FORMAT}: publish into another "
            "folder, or use the version of rawrec that made these"
        )
    if found.name != folder.name:
        raise UserError(f"{path} is damaged: it is of the version {found.name}")
    return found


def _pointer(out: Path) -> _Pointer | None:
    path = out / POINTER
    try:
        found: _Pointer = typed(_Pointer, read_json(path), path)
    except FileNotFoundError:
        return None
    if found.format != FORMAT:
        raise UserError(
            f"{path} has format {found.format}, and this version of rawrec reads {FORMAT}: publish into another "
            "folder, or use the version of rawrec that made these"
        )
    return found


def read(out: Path, name: str | None = None) -> tuple[Version, Mapping[str, Tensor], Mapping[str, Any]]:
    """A version, the one that is served unless another is named, whole and as it was written. Raises UserError where it
    is not there, was refused, or is damaged, or one of those that it is made of."""
    found = listed(out)
    name = name or found.current
    if name is None:
        raise UserError(f"{out} serves no version yet")
    version = _named(found, name, out)
    whole = _whole(out, found, version)
    return version, whole.tensors, whole.plain


def chain_of(found: Listed, version: Version, out: Path) -> list[Version]:
    """The versions that one is made of, a full one first, itself last. UserError where one of them is not there."""
    by_name, chain = {one.name: one for one in found.versions}, [version]
    while (base := chain[-1].base) is not None:
        if base not in by_name or base >= chain[-1].name:
            raise UserError(
                f"version {version.name} of {out} is damaged: it is made of version {base}, which is not there; "
                + _then(out)
            )
        chain.append(by_name[base])
    return chain[::-1]


def _then(out: Path) -> str:
    return f"roll back to another version (rawrec rollback {out} VERSION), or publish again"


def _whole(out: Path, found: Listed, version: Version) -> Whole:
    whole: Whole | None = None
    for one in chain_of(found, version, out):
        folder = out / FOLDER / one.name
        for file in (TENSORS, PLAIN, HISTORIES):
            check_file(folder / file, one.files.get(file, ""), _then(out))
        with damaged(folder, f"; {_then(out)}"):
            whole = read_one(folder, one.name, whole)
    assert whole is not None
    if whole.sum != version.sum:
        raise UserError(f"version {version.name} of {out} is damaged: it is not what was written; {_then(out)}")
    return whole


def _named(found: Listed, name: str, out: Path) -> Version:
    for version in found.versions:
        if version.name == name:
            if version.refused is not None:
                raise UserError(f"version {name} of {out} was refused when it was published: {version.refused}")
            return version
    known = ", ".join(version.name for version in found.versions[-5:])
    raise UserError(f"{out} has no version {name[:60]!r}. The latest: {known or 'none'}")


# ------------------------------------------------------------------------------------------------------------- changing
@checked(out=PATH)
def rollback(out: str | Path, version: str | None = None) -> str:
    """Serve another version of a folder, the one before that which is served unless it is named, and hold it: what is
    published from then on is not served until `latest` is asked for. Returns its name.

    Raises UserError where there is no such version, or it was refused or is damaged.
    """
    out = Path(out)
    with alone(out, f"another process publishes in {out} now"):
        found = listed(out)
        good = [one.name for one in found.versions if one.refused is None]
        if version == LATEST:
            name = good[-1] if good else ""
        elif version is None:
            before = [name for name in good if found.current is not None and name < found.current]
            if not before:
                raise UserError(f"{out} has no version before {found.current}, which is served")
            name = before[-1]
        else:
            name = version
        read(out, name)
        _point(out, found, name, held=version != LATEST)
    return name


@checked(out=PATH)
def prune(out: str | Path, keep: int) -> list[str]:
    """Remove versions but for the `keep` latest, the one that is served, and what these are made of; the names of those
    that went."""
    out = Path(out)
    with alone(out, f"another process publishes in {out} now"):
        found = listed(out)
        kept = [*found.versions[max(len(found.versions) - keep, 0) :]]
        kept += [one for one in found.versions if one.name == found.current]
        needed = {part.name for one in kept for part in chain_of(found, one, out)}
        old = [one.name for one in found.versions if one.name not in needed]
        for name in reversed(old):  # none is left without what it is made of
            discard(out / FOLDER / name)
    return old
