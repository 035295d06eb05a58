"""Modules that take long to import and are rarely asked for: who loads a run to serve it waits for none of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Lazily:
    """Stands for a module, which is imported when something of it is first asked for.

    >>> if TYPE_CHECKING:
    ...     import polars as pl
    ... else:
    ...     pl = Lazily("polars")
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)
