"""The pairs of a catalogue: what they are made of, which are held out, which are alike."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.pairs import Pairs, alike, catalogue_pairs, content_numbers, id_shares, pair_fields
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def catalogue(out: Path, pictures: list[list[bytes]], titles: list[list[str]], more: list[list[str]]) -> Dataset:
    fields = Fields(image=["front"], text=["title", "more"])
    with DatasetWriter(out, fields=fields, source="test", labels=[], has_time=True) as writer:
        ids = [f"i{k}" for k in range(len(pictures))]
        writer.add_items({"item_id": ids, "front": pictures, "title": titles, "more": more})
        writer.add_interactions({"user_id": ["u"] * 3, "item_id": ids[:3], "timestamp": [1, 2, 3]})
        return writer.finish(SplitSpec(kind="time_global"), ImportReport(source="test"))


def pairs(data: Dataset, usable: list[int], tokens: list[int], held_out: float = 0.5, max_images: int = 4) -> Pairs:
    given = torch.tensor(usable), torch.tensor(tokens)
    return catalogue_pairs(data, ["front"], ["title", "more"], *given, max_images, held_out)


N = 12
PICTURES = [[png(k)] for k in range(N)]
TITLES = [[f"thing {k}"] for k in range(N)]
NONE: list[list[str]] = [[] for _ in range(N)]


def test_a_pair_has_a_picture_and_a_text(tmp_path: Path) -> None:
    data = catalogue(tmp_path / "d", PICTURES, TITLES, NONE)
    found = pairs(data, [1, 0, *[1] * 10], [3, 3, 0, *[3] * 9])
    assert found.rows.tolist() == [0, *range(3, N)]
    assert sorted([*found.train.tolist(), *found.valid.tolist()]) == found.rows.tolist()
    assert found.notes() == [f"pairs: {len(found.train)} to train on, {len(found.valid)} held out"]


def test_what_is_held_out_depends_on_the_item_alone() -> None:
    ids = [f"item {k}" for k in range(2000)]
    shares = id_shares(ids)
    assert (id_shares(ids[500:]) == shares[500:]).all()
    assert shares.min() >= 0 and shares.max() < 1
    assert abs((shares < 0.1).mean() - 0.1) < 0.02
    assert set(np.flatnonzero(shares < 0.1)) < set(np.flatnonzero(shares < 0.2))


def test_equal_content_has_equal_numbers(tmp_path: Path) -> None:
    pictures = [[png(1), png(2)], [png(2)], [], [png(1), b"broken"], [png(1)], *[[png(k)] for k in range(5, N)]]
    titles = [["red"], ["blue"], ["red", "shoe"], [" red "], ["red"], *TITLES[5:]]
    more = [[], [], [], [], ["shoe"], *NONE[5:]]
    data = catalogue(tmp_path / "d", pictures, titles, more)
    usable = torch.tensor([2, 1, 0, 1, 1, *[1] * 7])
    seen, said = content_numbers(data, ["front"], ["title", "more"], usable, 4)
    assert seen.lengths.tolist() == usable.tolist()
    a, b = seen.values[:2].tolist()
    assert a != b and seen.values[[2, 4]].tolist() == [b, a]
    assert (seen.values == seen.values[3]).sum() == 1 and seen.values[3] < 0, "which of two it is, is not known"
    assert said[0] == said[3] and said[2] == said[4], "texts as the encoder joins them"
    assert len(set(said[[0, 1, 2]].tolist())) == 3


def test_what_is_alike() -> None:
    found = alike(torch.tensor([1, 2, 1, 3, 4]), torch.tensor([5, 6, 7, 6, 8]))
    assert found.nonzero().tolist() == [[0, 2], [1, 3], [2, 0], [3, 1]]


def test_held_out_pairs_that_training_has_seen_are_told(tmp_path: Path) -> None:
    data = catalogue(tmp_path / "d", PICTURES, TITLES, NONE)
    split = pairs(data, [1] * N, [3] * N)
    known = TITLES.copy()
    known[int(split.valid[0])] = known[int(split.train[0])]
    found = pairs(catalogue(tmp_path / "e", PICTURES, known, NONE), [1] * N, [3] * N)
    assert found.notes()[1] == "held-out pairs with the text or the first picture of a training pair: 1"


def test_mistakes_are_named(tmp_path: Path) -> None:
    data = catalogue(tmp_path / "d", PICTURES, TITLES, NONE)
    with pytest.raises(UserError, match=r"of 12 items 1 have a picture \(front\), 12 a text.*1 have both: .*two pairs"):
        pairs(data, [1, *[0] * 11], [3] * N)
    with pytest.raises(UserError, match=r"held_out=0.0001: 0 of 12 pairs are held out, two are needed; raise it"):
        pairs(data, [1] * N, [3] * N, held_out=0.0001)
    with pytest.raises(UserError, match=r"are trained on, two are needed; lower it"):
        pairs(data, [1] * N, [3] * N, held_out=0.9999)
    same = catalogue(tmp_path / "same", PICTURES, [["a thing"]] * N, NONE)
    with pytest.raises(UserError, match=r"all 12 pairs have the same text.*--text-field"):
        pairs(same, [1] * N, [3] * N)
    one = catalogue(tmp_path / "one", [[png(0)]] * N, TITLES, NONE)
    with pytest.raises(UserError, match=r"all 12 pairs have the same picture.*--image-field"):
        pairs(one, [1] * N, [3] * N)


def test_fields() -> None:
    fields = Fields(image=["front", "back"], text=["title", "plot"])
    assert pair_fields(fields) == (["front", "back"], ["title", "plot"])
    assert pair_fields(fields, ["back"], ["plot", "title"]) == (["back"], ["title", "plot"])
    with pytest.raises(UserError, match=r"image_fields: .* no picture field 'title'. Known: front, back"):
        pair_fields(fields, ["title"])
    with pytest.raises(UserError, match="the dataset has no text field"):
        pair_fields(Fields(image=["front"]))
