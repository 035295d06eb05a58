"""Pictures under paths that a column of the items names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_image_names import counts, fill

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError

PATHS = {"a": ["pics/1.jpg", "pics/sub/2.png"], "b": ["pics/3.jpg"], "c": []}


def table(folder: Path, kind: str) -> Path:
    """Items and their paths: text, JSON lines, Parquet of lists and of structs."""
    file = folder / f"items.{'parquet' if kind == 'struct' else kind}"
    if kind == "csv":
        file.write_text("item,photos\n" + "".join(f"{item},{'|'.join(some)}\n" for item, some in PATHS.items()))
    elif kind == "jsonl":
        file.write_text("".join(json.dumps({"item": item, "photos": some}) + "\n" for item, some in PATHS.items()))
    elif kind == "parquet":
        pl.DataFrame({"item": list(PATHS), "photos": list(PATHS.values())}).write_parquet(file)
    else:
        some = [None if not paths else {"bytes": None, "path": "|".join(paths)} for paths in PATHS.values()]
        pq.write_table(pa.table({"item": list(PATHS), "photos": some}), file)
    return file


def take(folder: Path, items: Any, *paths: str, **options: Any) -> Dataset:
    (folder / "clicks.csv").write_text("user,item\nu,a\nu,b\n")
    settings = {"items": items, "image_path": list(paths) or ["photos"], "progress": False} | options
    return rawrec.import_table(folder / "clicks.csv", "user", "item", out=folder / "data", **settings)


def found(data: Dataset, names: dict[bytes, str], field: str = "photos") -> dict[str, list[str]]:
    ids, pictures = data.item_ids.tolist(), data.images(field, range(data.n_items))
    return {str(item): [names[one] for one in some] for item, some in zip(ids, pictures, strict=True)}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "struct"])
def test_paths_of_every_kind_of_table(tmp_path: Path, kind: str) -> None:
    names = fill(tmp_path, "pics/1.jpg", "pics/sub/2.png", "pics/3.jpg", "pics/left.jpg", "pics/no.txt", "other/x.jpg")
    data = take(tmp_path, table(tmp_path, kind))
    assert data.fields.image == ["photos"] and found(data, names) == PATHS
    assert counts(data) == {"picture beside those named that no item names": 1}
    assert data.report.read["images"] == data.report.kept["images"] == 3


def test_a_folder_a_field_and_several_columns(tmp_path: Path) -> None:
    names = fill(tmp_path / "media", "1.jpg", "2.jpg", "3.jpg")
    frame = pl.DataFrame({
        "item": [f"i{n}" for n in range(40)],
        "front": ["1.jpg", *["./2.jpg"] * 39],
        "more": [[str(tmp_path / "media" / "3.jpg"), "1.jpg"], *[[]] * 39],
    })  # fmt: skip
    data = take(tmp_path, frame, "front=cover", "more", image_dir=tmp_path / "media")
    assert data.fields.image == ["cover", "more"]
    assert found(data, names, "cover") | {"a": [], "b": []} == {
        "i0": ["1.jpg"], **{f"i{n}": ["2.jpg"] for n in range(1, 40)}, "a": [], "b": [],
    }  # fmt: skip
    assert found(data, names, "more")["i0"] == ["3.jpg", "1.jpg"]
    assert "2 files of the image folder are pictures of several items" in " ".join(data.report.notes)


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    fill(tmp_path, "secret.jpg", "media/ok.jpg")
    (tmp_path / "media" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "media" / "up").symlink_to(tmp_path)
    bad = ["../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "up/secret.jpg", "x/../../secret.jpg"]
    frame = pl.DataFrame({"item": ["a"], "photos": [[*bad, "ok.jpg", "gone.jpg", "http://x.org/1.jpg", "."]]})
    data = take(tmp_path, frame, image_dir=tmp_path / "media")
    assert counts(data) == {
        "image: unsafe name (leads out of the image folder)": 5,
        f"image: no such file in {tmp_path / 'media'}": 1,
        "image: an address in a column of paths (use image_url)": 1,
        "image: is a folder, not a file": 1,
        "picture beside those named that no item names": 1,
    }
    assert len(data.images("photos", [0])[0]) == 1
    wider = rawrec.append(
        data.path, items=frame, item_id="item", image_path=["photos"], image_dir="/", update=True, progress=False
    )
    assert len(wider.images("photos", [0])[0]) == 1  # a folder above all allows what is absolute, and no ..


def test_an_append_names_its_column(tmp_path: Path) -> None:
    names = fill(tmp_path, "pics/1.jpg", "pics/sub/2.png", "pics/3.jpg", "new.jpg")
    data = take(tmp_path, table(tmp_path, "csv"))
    (tmp_path / "more.csv").write_text("item,where\nd,new.jpg\n")
    newer = rawrec.append(
        data.path, items=tmp_path / "more.csv", item_id="item", image_path=["where=photos"], progress=False
    )
    assert found(newer, names) == PATHS | {"d": ["new.jpg"]}
    with pytest.raises(UserError, match="image_path 'where': the dataset's image field 'where' does not exist"):
        rawrec.append(data.path, items=tmp_path / "more.csv", item_id="item", image_path=["where"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_path": ["photo"]}, "image_path: .*no column 'photo'; did you mean 'photos'"),
        ({"items": None}, "'photos' describes items: name the table"),
        ({"image_name": "{item}.png"}, "leave image_name, image_field and frames out"),
        ({"image_dir": "absent"}, "image folder absent does not exist"),
        ({"items": pl.DataFrame({"item": ["a"], "photos": ["x"]})}, "a table in memory: name the folder"),
        ({"image_path": [], "image_column": ["photos"]}, r"of paths of pictures name .* image_path \(--image-path\)"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        take(tmp_path, **{"items": table(tmp_path, "csv"), **options})
