"""`rawrec train --dry-run`: what a run would be, printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rawrec.cli.common import console, print_json
from rawrec.shown import counted


def show_plan(model: str, data: Path, out: Path, given: dict[str, Any], overwrite: bool, as_json: bool) -> None:
    from rawrec.config.page import written
    from rawrec.training.dry_run import plan

    found = plan(model, data, given)
    stands = out.is_dir() and any(out.iterdir()) and not overwrite
    if as_json:
        print_json({**found.dump(), "out": str(out), "out_is_taken": stands})
        return
    table = Table("setting", "preset", "here", box=None, pad_edge=False)
    for key, (before, now) in found.changed.items():
        table.add_row(key, *(Text("" if value is None else written(value)) for value in (before, now)))
    if found.changed:
        console().print(table)
    facts, sizes = found.data, [f"{name} {size:,.1f} MB" for name, size in found.memory_mb.items()]
    fields = [f"{kind} {', '.join(names)}" for kind, names in facts["fields"].items()]
    learn = [f"{name}: {encoder}, train={train}" for name, (encoder, train) in found.encoders.items()]
    lines = [
        f"model: {found.model} on {found.device}",
        f"data: {facts['path']}: {counted(facts['users'], 'user')}, {counted(facts['items'], 'item')}, "
        f"{facts['train']:,} train, {facts['valid']:,} valid and {facts['test']:,} test of "
        f"{counted(facts['interactions'], 'interaction')}",
        *([f"fields: {'; '.join(fields)}"] if fields else []),
        *([f"encoders: {'; '.join(learn)}"] if learn else []),
        f"steps: {counted(found.samples, 'sample')} an epoch, {counted(found.steps_per_epoch, 'step')}; "
        f"at most {found.steps:,} in all",
        *([f"memory, beside features and activations: {', '.join(sizes)}"] if sizes else []),
        *([f"{out} is not empty: choose another --out, or --overwrite"] if stands else []),
    ]
    console().print(Text("\n".join(lines)), soft_wrap=True)
