"""Encoding by the workers of a Ray cluster: `rawrec encode --on ray`.

Ray Data hands out chunks of items to actors that hold the encoders, and gives back what they made in the order of the
items. This process alone writes; what was written before a kill is not asked for again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load, save
from torch import Tensor

from rawrec.config import Config, validate
from rawrec.content.building import build_item_model
from rawrec.content.caches import Cache
from rawrec.content.columns import Elsewhere, chunk_rows
from rawrec.content.item_model import ItemModel
from rawrec.content.units import Unit, content_units
from rawrec.data.dataset import Dataset
from rawrec.data.ragged import Ragged
from rawrec.errors import RunStopped, UserError, in_a_line, refused_by_system
from rawrec.randomness import drawing
from rawrec.ray_cluster import cluster
from rawrec.threads import computing
from rawrec.threads import count as cores
from rawrec.training.device import choose_device, choose_precision


@contextmanager
def encoders(cfg: Config, data: Dataset, workers: int, address: str | None) -> Iterator[Elsewhere]:
    """Inside, so many workers of Ray encode; see `static_columns`. Raises UserError as `cluster` does, and what a
    worker has to tell."""
    with cluster(address, workers) as ray:

        def made(name: str, starts: range) -> Iterator[tuple[Ragged, dict[str, Tensor], Tensor]]:
            if not len(starts):
                return
            from ray.data import ActorPoolStrategy, DataContext  # pyright: ignore[reportMissingImports]

            context = DataContext.get_current()
            context.execution_options.preserve_order = True
            context.enable_progress_bars = False
            about = {
                "settings": cfg.dump(),
                "data": str(data.path.absolute()),
                "version": data.version,
                "name": name,
                "folder": str(Path.cwd()),
                "threads": max(1, cores() // workers),
            }
            chunks = ray.data.from_items([{"start": start} for start in starts], override_num_blocks=len(starts))
            rows = chunks.map_batches(
                Encoding,
                fn_constructor_args=(about,),
                batch_size=1,
                num_cpus=1,
                compute=ActorPoolStrategy(size=min(workers, len(starts))),
            )
            try:
                for row in rows.iter_rows():
                    yield _opened(row["kind"], row["made"])
            except (ray.exceptions.RayError, ray.data.exceptions.UserCodeException) as error:
                raise RunStopped(
                    f"Ray has given up encoding {name}: {in_a_line(error)}. The same command goes on"
                ) from None

        yield made


def _packed(rows: Ragged, lost: dict[str, Tensor], digests: Tensor) -> bytes:
    parts = {"values": rows.values, "ptr": rows.ptr, "digests": digests}
    return save(
        {name: part.contiguous() for name, part in {**parts, **{f"lost/{n}": v for n, v in lost.items()}}.items()}
    )


def _opened(kind: str, made: bytes) -> tuple[Ragged, dict[str, Tensor], Tensor]:
    """What a worker has made of a chunk. UserError, RunStopped: what it had to tell instead."""
    if kind != "made":
        raise {"refused": UserError, "stopped": RunStopped}[kind](made.decode())
    parts = load(made)
    lost = {name.removeprefix("lost/"): part for name, part in parts.items() if name.startswith("lost/")}
    return Ragged(parts["values"], parts["ptr"]), lost, parts["digests"]


def encoding_model(cfg: Config, data: Dataset, units: Mapping[str, Unit]) -> ItemModel:
    """The encoders of a dataset's fields, on the device that the settings name."""
    device = choose_device(cfg.train.device)
    with drawing():
        model = build_item_model(cfg, data.fields.model_copy(update={"feature": {}}), units).to(device)
    model.autocast = choose_precision(cfg.train.precision, device)
    return model


class Encoding:
    """An actor of Ray Data's: holds the encoders, and makes the rows of chunks of items."""

    def __init__(self, about: dict[str, Any]) -> None:
        with suppress(OSError):
            os.chdir(about["folder"])
        self._about = about
        self._why: tuple[str, bytes] | None = None
        try:
            data = Dataset.open(about["data"], version=about["version"])
            cfg = validate(about["settings"])
            model = encoding_model(cfg, data, content_units(cfg, data.fields))
            self._make = chunk_rows(model, data, Cache(data.path / "cache"), about["name"])
        except UserError as error:
            self._why = ("refused", str(error).encode())

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        found = [self._made(int(start)) for start in batch["start"]]
        return {"kind": [kind for kind, _ in found], "made": [made for _, made in found]}

    def _made(self, start: int) -> tuple[str, bytes]:
        if self._why is not None:
            return self._why
        try:
            with computing(self._about["threads"]):
                return "made", _packed(*self._make(start))
        except UserError as error:
            return "refused", str(error).encode()
        except (OSError, MemoryError) as error:
            return "stopped", (refused_by_system(error) or in_a_line(error)).encode()
