"""Names of pictures made from ids: globs, parts of the id, other suffixes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.sources.media.names import ImageName, matching
from rawrec.sources.table import import_table


def picture(shade: int) -> bytes:
    buffer = BytesIO()
    Image.new("L", (4, 4), shade).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, *names: str) -> dict[bytes, str]:
    """A picture of its own under each name; which is which."""
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(shade))
    return {picture(shade): name for shade, name in enumerate(names)}


def take(folder: Path, items: list[str], name: str, **options: Any) -> Dataset:
    (folder / "clicks.csv").write_text("user,item\n" + "".join(f"u,{item}\n" for item in items))
    settings = {"image_dir": folder / "pictures", "image_name": name, "progress": False} | options
    return import_table(folder / "clicks.csv", "user", "item", out=folder / "data", **settings)


def found(data: Dataset, names: dict[bytes, str]) -> dict[str, list[str]]:
    ids, pictures = data.item_ids.tolist(), data.images("image", range(data.n_items))
    return {str(item): [names[one] for one in some] for item, some in zip(ids, pictures, strict=True)}


def counts(data: Dataset) -> dict[str, int]:
    return {reason: entry.count for reason, entry in data.report.skipped.items()}


def test_a_folder_of_each_item(tmp_path: Path) -> None:
    names = fill(
        tmp_path / "pictures", "a/10.jpg", "a/2.jpg", "a/x.txt", "a/.hid.jpg", "b[1]/1.JPG", "b1/0.jpg", "c/1.jpg"
    )
    (tmp_path / "pictures" / "c" / "2.jpg").write_text("no picture")
    data = take(tmp_path, ["a", "b[1]", "c", "d"], "{item}/*.jpg")
    assert found(data, names) == {"a": ["a/2.jpg", "a/10.jpg"], "b[1]": ["b[1]/1.JPG"], "c": ["c/1.jpg"], "d": []}
    assert counts(data) == {
        "image: not a picture of a known format": 1,
        "file of the image folder that no item names": 3,
    }
    assert data.report.read["images"] == 5 and data.report.kept["images"] == 4


def test_several_of_one_folder_and_folders_in_between(tmp_path: Path) -> None:
    names = fill(tmp_path / "pictures", "x/p_1.png", "y/p_2.png", "x/q_1.png", "x/pp_1.png")
    assert found(take(tmp_path, ["p", "q"], "?/{item}_[0-9].png"), names) == {
        "p": ["x/p_1.png", "y/p_2.png"],
        "q": ["x/q_1.png"],
    }


def test_parts_of_the_id(tmp_path: Path) -> None:
    names = fill(tmp_path / "pictures", "010/0108775015.jpg", "ab/ab.jpg")
    data = take(tmp_path, ["0108775015", "ab"], "{item:.3}/{item}.jpg")
    assert found(data, names) == {"0108775015": ["010/0108775015.jpg"], "ab": ["ab/ab.jpg"]}
    assert ImageName("{item:0>10}.jpg").of("108775015") == "0108775015.jpg"


def test_other_suffixes_where_the_name_has_no_file(tmp_path: Path) -> None:
    names = fill(tmp_path / "pictures", "a.jpg", "a.png", "b.JPG", "c.jpeg", "d.Png", "e.gif", "e.webp", "f.txt")
    data = take(tmp_path, list("abcdef"), "{item}.jpg")
    assert found(data, names) == {
        "a": ["a.jpg"], "b": ["b.JPG"], "c": ["c.jpeg"], "d": ["d.Png"], "e": ["e.webp"], "f": [],
    }  # fmt: skip
    assert counts(data) == {"file of the image folder that no item names": 3}
    assert "pictures with another suffix than .jpg of the image name: .jpeg 1, .png 1, .webp 1" in data.report.notes


def test_a_file_of_several_items_is_told(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", "1.jpg", "12.jpg")
    data = take(tmp_path, ["1", "12"], "{item}*.jpg")
    assert "1 files of the image folder are pictures of several items, as 12.jpg" in data.report.notes


@pytest.mark.parametrize("item", ["..", "../secret", "out", "a/../../secret"])
def test_no_pattern_leads_out_of_the_folder(tmp_path: Path, item: str) -> None:
    fill(tmp_path, "secret/x.jpg", "pictures/ok/x.jpg")
    (tmp_path / "pictures" / "out").symlink_to(tmp_path / "secret")
    data = take(tmp_path, [item, "ok"], "{item}/*.jpg")
    assert dict(zip(data.item_ids.tolist(), data.present("image").tolist(), strict=True)) == {item: False, "ok": True}
    assert counts(data)["image: unsafe name (leads out of the image folder)"] == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.jpg", "must hold {item}"),
        ("{item}{x}.jpg", "in braces that is not known"),
        ("{item:010}.jpg", "in braces that is not known"),
        ("{item:s}.jpg", "in braces that is not known"),
        ("{item:/<9}.jpg", "in braces that is not known"),
        ("**/{item}.jpg", r"\*\* is not known"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match=said):
        take(tmp_path, ["a"], name)
    with pytest.raises(UserError, match=r"with frames it names one folder"):
        take(tmp_path, ["a"], "{item}/*", frames=2)


def test_many_files_are_not_gone_through_for_each_item() -> None:
    names = sorted(f"{i}_{k}.jpg" for i in range(2000) for k in range(2))
    assert [matching(f"{i}_*.jpg", names) for i in range(2000)] == [[f"{i}_0.jpg", f"{i}_1.jpg"] for i in range(2000)]
