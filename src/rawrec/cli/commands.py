"""All commands: importing their modules registers them."""

from rawrec.cli import converting, datasets, encoding, importing, sources, streaming, studying, training, use  # noqa: F401
from rawrec.cli.common import app

__all__ = ["app"]
