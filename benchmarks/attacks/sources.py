"""Damaged files of every source: a dataset that is whole, or a message."""

from __future__ import annotations

import shutil

from attacks.engine import Fault, Place, message


def imports(place: Place) -> None:
    from test_fuzz import SOURCES

    from mutations import damage
    from rawrec.data.validate import validate

    rng = place.rng
    name = rng.choice(sorted(SOURCES))
    make, ways = SOURCES[name]
    whole = place.origin.path.parent / f"source-{name}"
    if not whole.is_dir():
        whole.mkdir()
        make(whole)
    folder = place.here / "files"
    shutil.copytree(whole, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    tables = [path for path in files if path.suffix not in (".jpg", ".png")]
    marker = place.here / "executed"
    for path in rng.sample(tables, min(len(tables), rng.choice([1, 2, 4]))):
        damage(path, rng, marker)
    out = place.here / "out"
    said = message(lambda: rng.choice(ways)(folder, out))
    if marker.exists():
        raise Fault("something in a file was executed")
    if said is None and validate(out, progress=False).problems:
        raise Fault(f"{name}: the dataset is not sound")
    if said is not None and out.exists():
        raise Fault(f"{name}: refused, and a dataset is there")
