"""All commands: importing their modules registers them."""

from rawrec.cli import (  # noqa: F401
    browsing,
    converting,
    datasets,
    encoding,
    importing,
    publishing,
    serving,
    sources,
    streaming,
    studying,
    training,
    use,
)
from rawrec.cli.common import app

__all__ = ["app"]
