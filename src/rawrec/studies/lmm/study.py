"""`rawrec study lmm`: "Large Multi-modal Encoders for Recommendation" (Yi et al., 2023) on a dataset of one's own.

A study folder holds `study.yaml` (its settings, and the parts of its grid that were asked for), `encoders/` (those that
were tuned), `runs/`, `logs/` (what each run said), `study.json` (everything), `tables.md`, `tables.tex`, `study.html`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rawrec.arguments import COUNT, checked
from rawrec.data.dataset import Dataset
from rawrec.studies import printing
from rawrec.studies.folder import SETTINGS, Study, Words, about, begun, write
from rawrec.studies.lmm import published
from rawrec.studies.lmm.encoders import StudyEncoder, parse
from rawrec.studies.lmm.grid import Grid, Point
from rawrec.studies.lmm.results import Result, gather
from rawrec.studies.lmm.settings import StudyConfig, joined, study_config
from rawrec.studies.lmm.tables import tables
from rawrec.studies.running import Runs
from rawrec.studies.settings import load

TITLE = "Large multi-modal encoders for recommendation"


@checked(jobs=COUNT)
def study_lmm(
    data: Dataset | str | Path,
    out: str | Path,
    models: Words | None = None,
    encoders: Words | None = None,
    paradigms: Words | None = None,
    modalities: Words | None = None,
    seeds: int | None = None,
    jobs: int = 1,
    protocol: str | None = None,
    train: str | None = None,
    encoder_lrs: Sequence[float] | None = None,
    search: Mapping[str, Sequence[Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    finetune: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    observer: Callable[..., None] | None = None,
) -> Study:
    """Make the runs of a part of the study's grid that are missing, and the tables of all that the folder holds.

    models, encoders, paradigms, modalities, seeds: the part, see `Part`; its other settings are `StudyConfig`'s. The
    same call goes on with a study that was stopped; another part is added to it. jobs: runs at the same time.
    overwrite: begin anew where a study stands. observer: told of notes and of every run's end. Raises UserError for a
    mistake, before anything runs. A run that fails is reported, and the others go on.

    >>> rawrec.study_lmm("data/ml", "studies/lmm", models=["vbpr"], encoders=["efficientnet_lite0+minilm"], seeds=1)
    """
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    observe = observer or (lambda event, **values: None)
    part = {"models": models, "encoders": encoders, "paradigms": paradigms, "modalities": modalities, "seeds": seeds}
    given = {"protocol": protocol, "train": train, "encoder_lrs": encoder_lrs, "search": search}
    given |= {"settings": settings, "finetune": finetune, "data": data.path.absolute()}
    tree = {key: value for key, value in given.items() if value is not None}
    cfg = study_config(tree | {"grid": [{key: value for key, value in part.items() if value is not None}]})
    path = Path(out).absolute()
    cfg = _in_full(cfg, data)
    points = list(Grid(cfg, data, path).planned)
    if (path / SETTINGS).is_file() and not overwrite:
        cfg = joined(study_config(load(path / SETTINGS), str(path / SETTINGS)), cfg, path)
    grid = Grid(cfg, data, path)
    planned = [grid.planned[point] for point in points]
    there = Runs(data, path, planned, jobs, observe)
    grid.check([p for p in points if overwrite or there.standing(grid.planned[p]).state == "unfinished"])
    notes = _notes(grid)
    with begun(path, cfg, notes, overwrite, observe):
        runs = Runs(data, path, planned, jobs, observe)
        defined = sum(point.undefined is None for point in points)
        observe("note", text=f"points: {defined}; runs: {runs.total}, of which {runs.done} are done")
        runs.make()
        return _written(grid, runs, notes)


def _in_full(cfg: StudyConfig, data: Dataset) -> StudyConfig:
    """Folders of encoders and files of models by their whole paths: the study may be gone on with from elsewhere."""
    parts = []
    for part in cfg.grid:
        encoders = [encoder.name for encoder in parse(part.encoders, data.fields)]
        models = [str(Path(model).absolute()) if Path(model).is_file() else model for model in part.models]
        parts.append(part.model_copy(update={"encoders": encoders, "models": models}))
    return cfg.model_copy(update={"grid": parts})


def _notes(grid: Grid) -> list[str]:
    """What the reader of the tables should know of the data and the settings."""
    data, cfg = grid.data, grid.cfg
    said = []
    if data.meta.generated:
        said.append(printing.GENERATED)
    split = cfg.settings.get("data.split", "default")
    kind = data.meta.splits[split]["kind"]
    if cfg.protocol == "mmrec" and kind not in ("random_user", "column"):
        said.append(
            f"The paper divides each user's rows at random, 8:1:1; the split {split} is {kind}. For the paper's: "
            f"rawrec split {data.path} --name random --by random_user, and data.split=random."
        )
    if grid.unused:
        said.append(f"Settings without effect in these runs: {', '.join(grid.unused)}.")
    return said


def _written(grid: Grid, runs: Runs, notes: list[str]) -> Study:
    """The results of all points, in all forms."""
    results = gather(grid, runs)
    made = tables(results)
    papers, said = published.of(grid.data)
    notes = [*notes, *([said] if said else []), *_standing(results)]
    found = {
        "study": "lmm",
        "data": about(grid.data),
        "settings": grid.cfg.model_dump(mode="json", exclude={"grid", "study", "data"}),
        "grid": [part.model_dump(mode="json") for part in grid.cfg.grid],
        "encoders": [_encoder(grid, runs, encoder) for encoder in grid.encoders],
        "points": [result.dump(grid) for result in results.values()],
        "tables": {f"table {table.number}": table.dump() for table in made},
        "published": {f"table {number}": paper.dump() for number, paper in papers.items()},
        "notes": notes,
    }
    return write(grid.out, f"{TITLE}: {grid.data.path.name}", made, papers, notes, found)


def _encoder(grid: Grid, runs: Runs, encoder: StudyEncoder) -> dict[str, Any]:
    folder = grid.tuned_folder(encoder)
    tuned = folder.is_dir() and runs.finished(folder)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8")) if tuned else {}
    return {
        "name": encoder.name,
        "label": encoder.label,
        "kind": encoder.kind,
        "tuned": str(folder.relative_to(runs.out)) if tuned else None,
        "held_out_pairs": {part: metrics[part] for part in ("before", "valid") if part in metrics},
    }


def _standing(results: Mapping[Point, Result]) -> list[str]:
    """Which points there are, and which are missing and why."""
    states = [result.standing.state for result in results.values()]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("finished", "failed", "unfinished") if s in states)
    undefined = f", {states.count('undefined')} not defined" if "undefined" in states else ""
    said = [f"Points: {counts or 'none'}{undefined}."]
    for result in results.values():
        if result.standing.state == "failed":
            said.append(f"Failed: {result.point.words}: {result.standing.reason}")
        said += [f"Failed: {result.point.words}, candidate {lost}" for lost in result.standing.lost]
    reasons = dict.fromkeys(
        f"Not defined: {r.point.encoder.label} {r.point.paradigm}: {r.standing.reason}"
        for r in results.values()
        if r.standing.state == "undefined" and r.point.encoder is not None
    )
    return [*said, *reasons]
