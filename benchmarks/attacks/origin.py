"""What is attacked: a generated shop, runs of it that are finished or were stopped, a folder of an encoder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

QUICK: dict[str, Any] = {
    "train.epochs": 2, "train.threads": 1, "train.device": "cpu", "eval.topk": [5], "train.checkpoint_share": 1,
    "train.checkpoint_every": 2, "train.batch_size": 64,
}  # fmt: skip
SMALL: dict[str, Any] = QUICK | {
    "model.dim": 8, "model.hidden": [16], "content.dim": 16, "content.image.encoder": "random:conv", "data.history": 5,
    "content.image.size": 32, "content.text.encoder": "random:bert", "content.text.max_length": 12,
    "train.warmup_steps": 0, "train.precision": "fp32",
}  # fmt: skip
FROZEN = {"paradigm": "hybrid", "content.image.train": "none", "content.text.train": "none"}
LIVE = {"content.image.train": "top:1", "content.text.train": "top:1"}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "id": ("id", QUICK | {"eval.full_ranking": True}),
    "em3": ("em3", SMALL | FROZEN | {"eval.full_ranking": True}),
    "live": ("em3", SMALL | LIVE),
    "lightgcn": ("lightgcn", QUICK | {"train.metric": "recall@5"}),
}
"""Name, preset and settings of the runs; of each there is one that is done and one that was stopped."""


class Origin:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def made(self) -> bool:
        """Whether it is there. SystemExit where another version of rawrec made it: what is right is another then."""
        if not (self.path / "known.json").is_file():
            return False
        if self.known.get("source") != source():
            raise SystemExit(f"{self.path} was made by another version of rawrec: give another --work")
        return True

    @property
    def known(self) -> dict[str, Any]:
        """What digests and sizes are right."""
        return json.loads((self.path / "known.json").read_text())

    def make(self) -> None:
        """Once, in a process of its own."""
        import rawrec
        from rawrec.data.dataset import Dataset
        from rawrec.data.splits import SplitSpec
        from rawrec.sources.synthetic import import_synthetic

        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        shop = self.path / "shop"
        import_synthetic(shop, items=30, users=20, impressions=500, size=32, progress=False)
        Dataset.open(shop).add_split("again", SplitSpec(kind="random_user"))
        known: dict[str, Any] = {}
        for name, (preset, settings) in RUNS.items():
            done = rawrec.train(preset, shop, self.path / f"{name}-done", settings)
            known[name] = outcome(done.path)
            with contextlib.suppress(_Enough):
                rawrec.train(preset, shop, self.path / f"{name}-stopped", settings, observer=_stop)
        encoder(self.path / "words")
        known["shop"] = digest(shop)
        known["source"] = source()
        (self.path / "known.json").write_text(json.dumps(known))


class _Enough(Exception):
    pass


def _stop(event: str, **_: Any) -> None:
    if event == "validated":
        raise _Enough


def encoder(folder: Path) -> None:
    """A small encoder of texts, as transformers keeps one."""
    import torch
    import transformers

    from weight_samples import words_of_clip

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=60,
        max_position_embeddings=16,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    words_of_clip(folder)


def source() -> str:
    """Of all modules of rawrec."""
    import rawrec

    folder = Path(rawrec.__file__).parent
    return hashlib.sha256("".join(_sha(path) for path in sorted(folder.rglob("*.py"))).encode()).hexdigest()


def outcome(run: Path) -> dict[str, Any]:
    """Of a finished run: what it computed, and which files it has."""
    from identity import hashes

    from rawrec.training.runs import RunFolder

    found = hashes(RunFolder.open(run))
    more = {name: _sha(run / name) for name in ("scores.parquet", "topk.parquet") if (run / name).is_file()}
    return found | more | {"files": sorted(path.name for path in run.iterdir() if path.name != "tensorboard")}


def digest(data: Path) -> str:
    """Of all that a dataset says."""
    from test_damage import content

    said = [one for place, one in enumerate(content(data)) if place != 2]  # its fingerprint is of this import alone
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
