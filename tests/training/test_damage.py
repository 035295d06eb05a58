"""One bit of a file is another: a message names the file, or nothing that is read is another."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rawrec import Recommender, UserError, evaluate, resume, train
from rawrec.content import column_files
from rawrec.content.building import build_item_model
from rawrec.content.columns import static_columns
from rawrec.content.units import content_units
from rawrec.data.dataset import Dataset
from rawrec.data.ragged import Ragged
from rawrec.data.splits import SplitSpec
from rawrec.data.validate import validate
from rawrec.report.run import Run
from rawrec.sources.synthetic import import_synthetic
from rawrec.training import state as checkpoint
from rawrec.training.runs import RunFolder
from systems import config

FLIPS = 8  # of each file
QUICK: dict[str, Any] = {"train.epochs": 2, "train.threads": 1, "eval.topk": [5], "train.checkpoint_share": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, shop: Path) -> Path:
    out = tmp_path_factory.mktemp("data") / "shop"
    shutil.copytree(shop, out, ignore=shutil.ignore_patterns("cache"))
    Dataset.open(out).add_split("again", SplitSpec(kind="random_user"))
    return out


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quick = {
        "train.epochs": 2,
        "train.threads": 1,
        "train.device": "cpu",
        "eval.topk": [5],
        "train.checkpoint_share": 1,
    }
    return train("id", data, tmp_path_factory.mktemp("run") / "id", quick).path


def flips(path: Path, seed: int) -> Iterator[tuple[int, int]]:
    """Changes one bit of a file after the other, and gives its place: some anywhere, some near both ends."""
    whole, draw = path.read_bytes(), random.Random(f"{seed} {path.name.split('-')[0]}")
    ends = [draw.randrange(min(64, len(whole))), len(whole) - 1 - draw.randrange(min(64, len(whole)))]
    for at in [*ends, *(draw.randrange(len(whole)) for _ in range(FLIPS - 2))]:
        bit = draw.randrange(8)
        changed = bytearray(whole)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        try:
            yield at, bit
        finally:
            path.write_bytes(whole)


def content(path: Path) -> list[Any]:
    """All that a dataset says."""
    data = Dataset.open(path)
    rows = np.arange(data.n_items)
    said: list[Any] = [data.item_ids.tolist(), data.user_ids.tolist(), data.fingerprint(), data.fields.model_dump()]
    said += [data.column(name).tolist() for name in ("user", "item", "timestamp", *data.meta.labels, *data.meta.extra)]
    said += [data.split(name).tolist() for name in data.meta.splits]
    said += [data.images(name, rows) for name in data.fields.image] + [data.texts(n, rows) for n in data.fields.text]
    said += [[part.tolist() for part in data.categorical(name)[:2]] for name in data.fields.categorical]
    said += [np.nan_to_num(data.numeric(name)).tolist() for name in data.fields.numeric]
    return [*said, *(batch.to_pydict() for batch in data.interaction_batches(["user_id", "item_id", "split"]))]


def files(folder: Path, *patterns: str) -> list[Path]:
    return sorted(file for pattern in patterns for file in folder.glob(pattern))


def check(path: Path, read: Callable[[], Any], where: Path) -> dict[str, int]:
    """Counts what becomes of flips in the file `path`; whatever is refused names something in the folder `where`."""
    whole, found = read(), {"refused": 0, "harmless": 0}
    for at, bit in flips(path, 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert read() == whole, f"bit {bit} of byte {at} of {path} changes what is read, without a word"
            found["harmless"] += 1
        except UserError as error:
            assert str(where) in str(error) and "\n" not in str(error).strip(), str(error)
            found["refused"] += 1
    assert read() == whole
    return found


def test_a_bit_of_a_dataset(data: Path) -> None:
    patterns = ("*.yaml", "*.parquet", "splits/*", "items.lance/data/*", "items.lance/_versions/*.manifest")
    for path in files(data, *patterns):
        found = check(path, lambda: content(data), data)
        assert found["refused"] >= 1 and (path.suffix not in (".lance", ".manifest", ".yaml") or not found["harmless"])


def test_a_bit_of_a_run(data: Path, run: Path) -> None:
    user = str(Dataset.open(data).user_ids[0])

    def read() -> Any:
        said = Run(run)
        lists = None if said.topk is None else said.topk.to_dict(as_series=False)
        asked = Recommender.load(run).recommend(user, k=5)
        return asked, said.metrics, said.epochs, said.test.to_dict(as_series=False), lists, said.config.dump()

    names = ("config.yaml", "metrics.json", "metrics.jsonl", "model.safetensors", "scores.parquet", "topk.parquet")
    for path in files(run, *names):
        assert check(path, read, run) == {"refused": FLIPS, "harmless": 0}
    assert (
        check(run / "run.json", read, run.parent.parent)["refused"] >= FLIPS - 1
    )  # a space between values is harmless


def test_a_bit_of_a_checkpoint(run: Path) -> None:
    path = run / "checkpoint" / "last.safetensors"

    def read() -> Any:
        tensors, state = checkpoint.load(path)
        return {name: tensor.tolist() for name, tensor in tensors.items()}, state

    assert check(path, read, path)["harmless"] == 0
    for _ in flips(path, 2):
        with pytest.raises(UserError, match=r"last.safetensors"):
            resume(run, overrides={"train.epochs": 3})


def test_a_bit_of_the_name_of_the_sum(run: Path) -> None:
    """It is no file of an earlier version, which had none."""
    path = run / "checkpoint" / "last.safetensors"
    whole = path.read_bytes()
    for name in (b"sum", b"state"):
        at = whole.index(name)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
        with pytest.raises(UserError, match=r"last\.safetensors is damaged"):
            checkpoint.load(path)
    path.write_bytes(whole)


def test_without_the_damaged_checkpoint_a_run_begins_anew(data: Path, tmp_path: Path) -> None:
    """As the message says."""

    def stop(event: str, **values: Any) -> None:
        if event == "validated":
            raise KeyboardInterrupt

    expected = train("id", data, tmp_path / "whole", QUICK).path
    with pytest.raises(KeyboardInterrupt):
        train("id", data, tmp_path / "run", QUICK, observer=stop)
    path = tmp_path / "run" / "checkpoint" / "last.safetensors"
    for _ in flips(path, 3):
        with pytest.raises(UserError, match=r"last.safetensors is damaged"):
            resume(tmp_path / "run")
        break
    path.unlink()
    resume(tmp_path / "run")
    name = "model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (expected / name).read_bytes()


def test_a_bit_of_a_cache(data: Path, tmp_path: Path) -> None:
    """It is told, and the column made anew."""
    opened, cfg = Dataset.open(data), config()
    cache = tmp_path / "cache"
    model = build_item_model(cfg, opened.fields, content_units(cfg, opened.fields))
    whole, _ = static_columns(model, opened, cache)
    for path in files(cache, "*"):
        for _ in flips(path, 4):
            with pytest.warns(UserWarning, match=f"{path.name} is damaged, or nothing that rawrec wrote"):
                again, _ = static_columns(model, opened, cache)
            for name, column in whole.items():
                assert torch.equal(column.values, again[name].values) and torch.equal(column.ptr, again[name].ptr)


def test_of_a_large_column_a_part_is_compared_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_files, "BLOCK", 256)
    rows = Ragged.from_lengths(torch.arange(4096.0)[:, None], torch.ones(4096, dtype=torch.int64))
    shards = column_files.Shards(tmp_path / "column.safetensors")
    shards.add(rows, {}, torch.zeros(4096, 16, dtype=torch.uint8))
    shards.join()
    shards.close()
    path = tmp_path / "column.safetensors"
    changed = bytearray(path.read_bytes())
    changed[column_files.HEAD + 1000] ^= 1
    path.write_bytes(changed)
    with pytest.warns(UserWarning, match="is damaged"):
        assert column_files.read(path) is None
    monkeypatch.setattr(column_files, "CHECKED", 64 * 256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = [column_files.read(path) is None for _ in range(60)]
    assert any(seen) and not all(seen)


def test_validate_finds_files_that_changed(data: Path) -> None:
    for path in files(data, "*.parquet", "items.lance/data/*"):
        for _ in flips(path, 5):
            assert not validate(data, progress=False).sound, path
    assert validate(data, progress=False).sound


def test_what_was_written_without_sums_is_taken(data: Path, run: Path, tmp_path: Path) -> None:
    """Datasets and runs of earlier versions."""
    shutil.copytree(data, tmp_path / "shop")
    path = tmp_path / "shop" / "dataset.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("#")))
    assert content(tmp_path / "shop") == content(data)
    Dataset.open(tmp_path / "shop").add_split("more", SplitSpec(kind="random_user"))
    assert "# sum of this text" in path.read_text() and "# sum of splits" not in path.read_text()
    shutil.copytree(run, tmp_path / "id")
    RunFolder(tmp_path / "id").write_info(files={})
    assert evaluate(tmp_path / "id", data=data) == evaluate(run)


# ------------------------------------------------------------------------------------------- replaced while it is open
def test_a_dataset_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    def make(seed: int) -> None:
        import_synthetic(
            tmp_path / "shop", items=20, users=10, impressions=300, seed=seed, progress=False, overwrite=True
        )

    make(1)
    opened = Dataset.open(tmp_path / "shop")
    ids = opened.item_ids.tolist()
    make(2)
    reads: list[Callable[[], Any]] = [
        opened.fingerprint, lambda: opened.users, lambda: opened.split(), lambda: opened.images("image", [0]),
        lambda: opened.texts("title", [0]), lambda: list(opened.interaction_batches(["user"])),
        lambda: train("id", opened, tmp_path / "run", {"train.epochs": 1}),
    ]  # fmt: skip
    for read in reads:
        with pytest.raises(UserError, match=rf"{tmp_path}/shop was replaced, or removed, since it was opened: open it"):
            read()
    assert opened.item_ids.tolist() == ids and not (tmp_path / "run").exists()
    assert train("id", Dataset.open(tmp_path / "shop"), tmp_path / "run", QUICK)
    shutil.rmtree(tmp_path / "shop")
    with pytest.raises(UserError, match="removed"):
        opened.label()
