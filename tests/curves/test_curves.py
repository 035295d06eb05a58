"""What every model and preset learns in a tiny run is what it learned when its curve was recorded."""

from pathlib import Path
from typing import Any

import pytest
import record
import torch


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which data are generated once."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("curves")


@pytest.mark.parametrize("name", record.names())
def test_curve(name: str, work: Path) -> None:
    told = record.differences(name, record.read(name), record.curve(name, work))
    assert not told, "\n".join([*told, f"where it is meant: python tests/curves/record.py {name}"])


def test_every_file_is_of_a_model() -> None:
    assert sorted(file.stem for file in record.HERE.glob("*.json")) == record.names()


def stored(loss: float = 0.7012, auc: float = 0.61) -> dict[str, Any]:
    return {"epochs": [{"loss": 0.75}, {"loss": loss, "valid/auc": auc}], "test": {"auc": 0.6}}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (stored(0.7018, 0.62), []),
        (stored(0.6931), ["freedom, epoch 2: loss 0.6931, stored 0.7012"]),
        (stored(auc=0.58), ["freedom, epoch 2: valid/auc 0.58, stored 0.61"]),
        (stored() | {"test": {}}, ["freedom, test: auc none, stored 0.6"]),
        (stored() | {"epochs": [{"loss": 0.75}]}, ["freedom: 1 epochs, stored 2"]),
    ],
)
def test_differences_are_told(found: dict[str, Any], told: list[str]) -> None:
    assert record.differences("freedom", stored(), found) == told


def test_a_setting_is_seen(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance is below what a change of a preset does."""
    monkeypatch.setitem(record.WANTED, "retrieval", record.WANTED["retrieval"] | {"model.dropout": 0.79})
    told = record.differences("freedom", record.read("freedom"), record.curve("freedom", work))
    assert [line for line in told if line.startswith("freedom, epoch 3: loss ")]
