"""`rawrec study lemur`: "LEMUR: Large scale End-to-end MUltimodal Recommendation" on a dataset of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rawrec.arguments import COUNT, checked
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.studies import printing
from rawrec.studies.folder import SETTINGS, Study, Words, about, begun, write
from rawrec.studies.lemur import published
from rawrec.studies.lemur.arms import Arm, Arms
from rawrec.studies.lemur.encoders import first_stage_encoders
from rawrec.studies.lemur.masked import read_in_part
from rawrec.studies.lemur.results import gather
from rawrec.studies.lemur.settings import joined, study_config
from rawrec.studies.lemur.tables import tables
from rawrec.studies.running import Standing, make_row, make_rows, told
from rawrec.studies.settings import load

TITLE = "LEMUR: content learned end to end with the ranker"
PUBLISHED = (
    "The paper's data and its ranker's sizes are confidential, and its text was not at hand: its figures are what "
    "several readings of it agree on. They stand beside ours for their signs and sizes."
)
ONLINE = (
    "The paper's online result, how often users type another query, has no counterpart in a log of what another ranker "
    "showed: no row stands for it."
)


@checked(jobs=COUNT)
def study_lemur(
    data: Dataset | str | Path,
    out: str | Path,
    tables: Sequence[int | str] | Words | None = None,
    seeds: int | None = None,
    jobs: int = 1,
    head: str | None = None,
    baseline: str | None = None,
    images: str | None = None,
    search: Mapping[str, Sequence[Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    observer: Callable[..., None] | None = None,
) -> Study:
    """Make the runs of the tables that are missing, and the tables of all that the folder holds.

    All but data, out, jobs, overwrite and observer are settings of `LemurStudyConfig`. The same call goes on with a
    study that was stopped; further tables and more seeds are added to it. jobs: runs at the same time. overwrite: begin
    anew where a study stands. observer: told of notes and of every run's end. Raises UserError for a mistake, before
    anything runs. A run that fails is reported, and the others go on.

    >>> rawrec.study_lemur("data/search", "studies/lemur", tables=["cumulative", "training"], seeds=3)
    """
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    observe = observer or (lambda event, **values: None)
    given = {
        "tables": tables, "seeds": seeds, "head": head, "baseline": baseline, "images": images, "search": search,
        "settings": settings, "data": data.path.absolute(),
    }  # fmt: skip
    cfg = study_config({key: value for key, value in given.items() if value is not None})
    path = Path(out).absolute()
    if (path / SETTINGS).is_file() and not overwrite:
        cfg = joined(study_config(load(path / SETTINGS), str(path / SETTINGS)), cfg, path)
    arms = Arms(cfg, data, path)
    notes = _notes(arms)
    with begun(path, cfg, notes, overwrite, observe):
        standings = _made(arms, jobs, observe)
        return _written(arms, standings, notes, observe)


def _made(arms: Arms, jobs: int, observe: Callable[..., None]) -> dict[str, Standing]:
    """How far the runs of every arm are, after all that are missing were made."""
    standings = make_rows(arms.data, arms.out, arms.planned, jobs, observe)
    for arm in arms.arms():
        if arm.after is not None and arm.trained not in standings:
            standings[arm.trained] = _second_stage(arms, arm, standings[arm.after.trained], jobs, observe)
    return standings


def _second_stage(arms: Arms, arm: Arm, first: Standing, jobs: int, observe: Callable[..., None]) -> Standing:
    """The same of an arm that reads the encoders which another arm's runs trained."""
    if first.state != "finished":
        return Standing("failed", f"the first stage is not finished ({first.reason or first.state})")
    try:
        planned = arms.plan_frozen(arm, first_stage_encoders(arms.data, first.runs, arms.out / "encoders"))
    except UserError as error:
        return Standing("failed", str(error))
    return make_row(arms.data, arms.out, planned, jobs, observe)


def _notes(arms: Arms) -> list[str]:
    """What the reader of the tables should know of the data and the settings."""
    said = [printing.GENERATED] if arms.data.meta.generated else []
    said += [PUBLISHED, ONLINE]
    if arms.unused:
        said.append(f"Settings without effect in these runs: {', '.join(arms.unused)}.")
    return said


def _written(arms: Arms, standings: Mapping[str, Standing], notes: list[str], observe: Callable[..., None]) -> Study:
    """The results of all arms, in all forms."""
    results = gather(arms, standings, read_in_part(arms, standings, observe))
    made = tables(arms, results)
    papers = published.of(table.number for table in made)
    notes = [*notes, *told(arms.planned, standings)]
    found = {
        "study": "lemur",
        "data": about(arms.data),
        "settings": arms.cfg.model_dump(mode="json", exclude={"study", "data"}),
        "points": [result.dump(arms) for result in results.values()],
        "tables": {f"table {table.number}": table.dump() for table in made},
        "published": {f"table {number}": paper.dump() for number, paper in papers.items()},
        "notes": notes,
    }
    return write(arms.out, f"{TITLE}: {arms.data.path.name}", made, papers, notes, found)
