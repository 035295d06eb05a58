"""The page of all settings, and the descriptions that it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel
from settled import records

from rawrec.config import Config, FieldConfig, describe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


@pytest.mark.parametrize("record", [*records(), FieldConfig], ids=lambda r: r.__name__)
def test_every_setting_is_described(record: type[BaseModel]) -> None:
    assert record.__doc__
    for name, field in record.model_fields.items():
        assert field.description, f"{record.__name__}.{name}"


def test_settings_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert page.strip() == describe().strip(), "run: python -m rawrec.config > docs/settings.md"
    assert "| `content.<field>.train` |" in page and f"| `train.lr` | number, > 0 | `{Config().train.lr}` |" in page
