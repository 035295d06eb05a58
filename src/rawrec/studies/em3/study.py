"""`rawrec study em3`: "End-to-end training of Multimodal Model and ranking Model" on a dataset of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rawrec.arguments import COUNT, checked
from rawrec.content.encoders import known_or_whole
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.studies import printing
from rawrec.studies.em3 import published
from rawrec.studies.em3.arms import Arm, Arms
from rawrec.studies.em3.content_data import content_dataset
from rawrec.studies.em3.lists import Lists
from rawrec.studies.em3.neighbours import neighbour_tables
from rawrec.studies.em3.results import gather
from rawrec.studies.em3.settings import LISTS, joined, study_config
from rawrec.studies.em3.tables import tables
from rawrec.studies.folder import SETTINGS, Study, Words, about, begun, write
from rawrec.studies.running import Runs, Standing, make_row, make_rows, told
from rawrec.studies.settings import load

TITLE = "End-to-end training of a multimodal model and a ranker"
BASELINES = (
    "The paper's baselines and data are confidential. Baselines here are rankers of open papers on this dataset; the "
    "paper's figures stand beside them for their signs and sizes."
)


@checked(jobs=COUNT)
def study_em3(
    data: Dataset | str | Path,
    out: str | Path,
    tables: Sequence[int] | Words | None = None,
    seeds: int | None = None,
    jobs: int = 1,
    heads: Words | None = None,
    labels: Words | None = None,
    paradigm: str | None = None,
    lengths: Sequence[int] | Words | None = None,
    handover: str | None = None,
    encoder: str | None = None,
    rivals: Words | None = None,
    search: Mapping[str, Sequence[Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    finetune: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    observer: Callable[..., None] | None = None,
) -> Study:
    """Make the runs of the paper's tables that are missing, and the tables of all that the folder holds.

    All but data, out, jobs, overwrite and observer are settings of `Em3StudyConfig`. The same call goes on with a study
    that was stopped; further tables and more seeds are added to it. jobs: runs at the same time. overwrite: begin anew
    where a study stands. observer: told of notes and of every run's end. Raises UserError for a mistake, before
    anything runs. A run that fails is reported, and the others go on.

    >>> rawrec.study_em3("data/shop", "studies/em3", tables=[1, 2], seeds=3)
    """
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    observe = observer or (lambda event, **values: None)
    given = {
        "tables": tables, "seeds": seeds, "heads": heads, "labels": labels, "paradigm": paradigm, "lengths": lengths,
        "handover": handover, "encoder": encoder, "rivals": rivals, "search": search, "settings": settings,
        "finetune": finetune, "data": data.path.absolute(),
    }  # fmt: skip
    cfg = study_config({key: value for key, value in given.items() if value is not None})
    cfg = cfg.model_copy(update={"encoder": known_or_whole(cfg.encoder)})  # it may be gone on with from elsewhere
    path = Path(out).absolute()
    if (path / SETTINGS).is_file() and not overwrite:
        cfg = joined(study_config(load(path / SETTINGS), str(path / SETTINGS)), cfg, path)
    arms = Lists(cfg, data, path) if cfg.tables == [LISTS] else Arms(cfg, data, path)
    if isinstance(arms, Arms):
        arms.check()
    notes = _notes(arms)
    with begun(path, cfg, notes, overwrite, observe):
        if isinstance(arms, Lists):
            return _lists(arms, jobs, observe, notes)
        return _written(arms, _made(arms, jobs, observe), notes)


def _made(arms: Arms, jobs: int, observe: Callable[..., None]) -> dict[str, Standing]:
    """How far every arm is, by key, after all runs that are missing were made."""
    standings = make_rows(arms.data, arms.out, arms.planned, jobs, observe)
    for arm in arms.arms():
        if arm.frozen is not None and arm.key not in standings:
            standings[arm.key] = _frozen(arms, arm, standings[arm.frozen.key], jobs, observe)
    return standings


def _frozen(arms: Arms, arm: Arm, source: Standing, jobs: int, observe: Callable[..., None]) -> Standing:
    """The same of an arm that reads the content of another arm's first run."""
    if source.state != "finished":
        return Standing("failed", f"the run whose content it reads is not finished ({source.reason})")
    run = source.runs[0]
    try:
        data = content_dataset(arms.data, run, arms.out / "data" / run.name)
        planned = arms.plan_frozen(arm, data)
    except UserError as error:
        return Standing("failed", str(error))
    return make_row(data, arms.out, planned, jobs, observe)


def _notes(arms: Arms | Lists) -> list[str]:
    """What the reader of the tables should know of the data and the settings."""
    said = [printing.GENERATED] if arms.data.meta.generated else []
    if isinstance(arms, Arms):
        said.append(BASELINES)
    if arms.unused:
        said.append(f"Settings without effect in these runs: {', '.join(arms.unused)}.")
    return said


def _written(arms: Arms, standings: Mapping[str, Standing], notes: list[str]) -> Study:
    """The results of all arms, in all forms."""
    results = gather(arms, standings)
    found_near, pictures = neighbour_tables(arms, results)
    made = [*tables(arms, results), *found_near]
    papers = published.of(table.number for table in made)
    notes = [*notes, *told(arms.planned, standings)]
    found = {
        "study": "em3",
        "data": about(arms.data),
        "settings": arms.cfg.model_dump(mode="json", exclude={"study", "data"}),
        "points": [result.dump(arms) for result in results.values()],
        "tables": {f"table {table.number}": table.dump() for table in made},
        "published": {f"table {number}": paper.dump() for number, paper in papers.items()},
        "notes": notes,
    }
    return write(arms.out, f"{TITLE}: {arms.data.path.name}", made, papers, notes, found, pictures)


def _lists(arms: Lists, jobs: int, observe: Callable[..., None], notes: list[str]) -> Study:
    """Table 10: its runs and what they came to."""
    runs = Runs(arms.data, arms.out, list(arms.planned.values()), jobs, observe)
    observe("note", text=f"rows: {len(arms.planned)}; runs: {runs.total}, of which {runs.done} are done")
    runs.make()
    standings = {model: runs.standing(planned) for model, planned in arms.planned.items()}
    table = arms.table(runs, standings)
    papers = published.of_lists(arms.data)
    notes = [*notes, *told(arms.planned, standings)]
    found = {
        "study": "em3",
        "data": about(arms.data),
        "settings": arms.cfg.model_dump(mode="json", exclude={"study", "data"}),
        "points": [arms.dump(model, standing) for model, standing in standings.items()],
        "tables": {f"table {table.number}": table.dump()},
        "published": {f"table {number}": paper.dump() for number, paper in papers.items()},
        "notes": notes,
    }
    return write(arms.out, f"{TITLE}: {arms.data.path.name}", [table], papers, notes, found)
