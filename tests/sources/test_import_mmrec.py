"""`import mmrec`: parts by x_label, features by row, pickles left alone, and the real data where it is."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.mmrec import import_mmrec

INTER = "userID\titemID\tx_label\n0\t0\t0\n0\t3\t1\n1\t1\t0\n1\t3\t2\n"


class Bomb:
    """Unpickling this fails the test."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise AssertionError('a pickle was read')",)


def reasons(folder: Path) -> dict[str, list[str]]:
    return {reason: entry.examples for reason, entry in ImportReport.load(folder / "import.json").skipped.items()}


def test_parts_and_features(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(INTER)
    image = np.arange(8, dtype=np.float16).reshape(4, 2)
    image[2] = np.nan
    np.save(tmp_path / "image_feat.npy", image)
    np.save(tmp_path / "text_feat.npy", np.ones((3, 5)))
    np.save(tmp_path / "audio_feat.npy", np.ones((6, 1), dtype=np.float32))
    data = import_mmrec(tmp_path, out=tmp_path / "out", progress=False)
    assert data.item_ids.tolist() == ["0", "1", "2", "3"]
    assert data.positive_only
    assert data.split().tolist() == [0, 1, 0, 2]
    assert list(data.fields.feature.items()) == [("image", 2), ("text", 5), ("audio", 1)]
    values, valid = data.feature("image")
    assert valid.tolist() == [True, True, False, True]
    np.testing.assert_array_equal(values[3], [6, 7])
    assert data.feature("text")[1].tolist() == [True, True, True, False]
    assert reasons(tmp_path / "out") == {
        "feature audio: row beyond the largest itemID": ["audio_feat.npy:4"],
        "feature image: row is absent or not finite": ["image_feat.npy:2"],
        "feature text: row is absent or not finite": ["text_feat.npy:3"],
    }


def test_features_beside_image_and_text_are_ordered_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(INTER)
    for name in ("zoom", "audio", "text", "image2"):
        np.save(tmp_path / f"{name}_feat.npy", np.ones((4, 1)))
    data = import_mmrec(tmp_path, out=tmp_path / "out", progress=False)
    assert list(data.fields.feature) == ["text", "audio", "image2", "zoom"]


def test_pickles_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(INTER)
    np.save(tmp_path / "user_graph_dict.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "image_feat.npy", np.array([[Bomb()]] * 4, dtype=object), allow_pickle=True)
    (tmp_path / "text_feat.npy").write_bytes(pickle.dumps(Bomb()))
    np.save(tmp_path / "flat_feat.npy", np.ones(4))
    (tmp_path / "cut_feat.npy").write_bytes((tmp_path / "flat_feat.npy").read_bytes()[:-20])
    data = import_mmrec(tmp_path, out=tmp_path / "out", progress=False)
    assert data.fields.feature == {}
    assert reasons(tmp_path / "out") == {
        "file is not an array of plain numbers (pickled objects are never read)": [
            "cut_feat.npy",
            "image_feat.npy",
            "text_feat.npy",
        ],
        "file is not an array [items, width] of numbers": ["flat_feat.npy float64 (4,)"],
        "file is no feature (not named <field>_feat.npy); not read": ["user_graph_dict.npy"],
    }


def test_bad_ids_are_counted_and_full_columns_kept(tmp_path: Path) -> None:
    rows = "userID\titemID\trating\ttimestamp\tx_label\n"
    rows += "0\t0\t5.0\t10\t0\n0\t-1\t1\t1\t0\nx\t1\t1\t1\t0\n1\t007\t3.5\t20\t2\n"
    (tmp_path / "x.inter").write_text(rows)
    data = import_mmrec(tmp_path, out=tmp_path / "out", progress=False)
    assert data.n_items == 8
    assert data.items.tolist() == [0, 7]
    assert data.timestamps is not None
    assert data.timestamps.tolist() == [10, 20]
    assert data.column("rating").tolist() == [5.0, 3.5]
    assert reasons(tmp_path / "out") == {
        "itemID is no whole number from 0 to 100,000,000": ["x.inter:3 '-1'"],
        "userID is no whole number from 0 to 100,000,000": ["x.inter:4 'x'"],
    }
    assert ImportReport.load(tmp_path / "out" / "import.json").read["interactions"] == 4


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        import_mmrec(tmp_path / "absent", out=tmp_path / "out")
    with pytest.raises(UserError, match=r"one \.inter file; found: nothing"):
        import_mmrec(tmp_path, out=tmp_path / "out")
    (tmp_path / "x.inter").write_text("user\titemID\n0\t0\n")
    with pytest.raises(UserError, match="'userID'"):
        import_mmrec(tmp_path, out=tmp_path / "out")


def test_features_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(INTER)
    np.save(tmp_path / "large_feat.npy", np.array([[1e300, 1], [1, 2], [3, 4], [5, 6]]))
    np.save(tmp_path / "wide_feat.npy", np.zeros((0, 10**12), np.float32))
    np.save(tmp_path / "image_feat.npy", np.ones((4, 2)))
    head = (tmp_path / "image_feat.npy").read_bytes()
    (tmp_path / "image_feat.npy").write_bytes(head.replace(b"(4, 2)", b"(4, 2 "))
    data = import_mmrec(tmp_path, out=tmp_path / "out", progress=False)
    assert data.fields.feature == {"large": 2}
    assert data.feature("large")[1].tolist() == [False, True, True, True]
    assert sorted(examples[0].split()[0] for examples in reasons(tmp_path / "out").values()) == [
        "image_feat.npy",
        "large_feat.npy:0",
        "wide_feat.npy",
    ]


@pytest.mark.parametrize(
    ("name", "sizes", "features"),
    [
        ("tiktok", (9308, 6710, 59_541, 3051, 6130), {"image": 128, "audio": 128}),
        ("amazon-baby", (19_445, 7050, 118_551, 21_682, 20_559), {}),
    ],
)
def test_the_real_data(
    name: str, sizes: tuple[int, ...], features: dict[str, int], real_data: Path, tmp_path: Path
) -> None:
    data = import_mmrec(real_data / name, out=tmp_path / "out", progress=False)
    assert (data.n_users, data.n_items, *np.bincount(data.split()).tolist()) == sizes
    assert list(data.fields.feature.items()) == list(features.items())
    for field in features:
        values, valid = data.feature(field)
        assert valid.all()
        np.testing.assert_array_equal(values, np.load(real_data / name / f"{field}_feat.npy").astype(np.float32))
