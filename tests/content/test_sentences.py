"""Folders of sentence-transformers: their vectors are those of the library, whatever its modules are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from test_two_towers import TOWER, make, save

from rawrec.errors import UserError

TEXTS = [["film robot"], ["a"], [], ["a robot romance a film"]]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A folder with a small BERT and a tokenizer, without modules."""
    save(tmp_path / "model", "clip")
    config = transformers.BertConfig(vocab_size=9, max_position_embeddings=12, **TOWER)
    transformers.BertModel(config).save_pretrained(tmp_path / "model")
    for file in ("preprocessor_config.json", "processor_config.json"):
        (tmp_path / "model" / file).unlink(missing_ok=True)
    return tmp_path / "model"


def saved(bert: Path, out: Path, pooling: Any, *after: Any) -> tuple[Path, Any]:
    modules = pytest.importorskip("sentence_transformers.models", reason="sentence-transformers is not installed")
    library = pytest.importorskip("sentence_transformers")
    first = modules.Transformer(str(bert), max_seq_length=12)
    made = [part(modules, width) for part, width in after]
    model = library.SentenceTransformer(modules=[first, modules.Pooling(32, pooling_mode=pooling), *made], device="cpu")
    model.save(str(out), create_model_card=False)
    return out, model


def dense(out: int, **more: Any) -> Any:
    return lambda modules, width: modules.Dense(width, out, **more)


def normalize(modules: Any, width: int) -> Any:
    return modules.Normalize()


CASES = {
    "mean": ("mean", ()),
    "normalized": ("cls", ((normalize, 0),)),
    "several": (("cls", "weightedmean", "mean_sqrt_len_tokens"), ()),
    "dense": (("max", "lasttoken"), ((dense(8), 64), (dense(5, activation_function=torch.nn.ReLU(), bias=False), 8))),
    "all": ("mean", ((dense(16, activation_function=None), 32), (normalize, 0))),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_vectors_are_those_of_the_library(bert: Path, tmp_path: Path, case: str) -> None:
    pooling, after = CASES[case]
    folder, model = saved(bert, tmp_path / "sentences", pooling, *after)
    encoder = make(folder, "text")
    found = encoder.encode(TEXTS)
    expected = model.encode([t[0] for t in TEXTS if t], convert_to_tensor=True)
    torch.testing.assert_close(found[[0, 1, 3]], expected, rtol=1e-4, atol=1e-4)
    assert encoder.width == expected.shape[1]
    for train in ("top:1", "all", "side:2"):
        trained = make(folder, "text", train)
        torch.testing.assert_close(trained.encode(TEXTS), found, rtol=1e-4, atol=1e-4)
        names = {name.split(".")[0] for name in trained.trained_state()}
        assert ("head" in names) == (any(part is not normalize for part, _ in after) and train != "side:2")


def test_modules_that_are_not_known(bert: Path) -> None:
    (bert / "2_Dense").mkdir()
    (bert / "1_Pooling").mkdir()
    about = {"in_features": 32, "out_features": 4, "activation_function": "os.system"}
    pooling, layer = {"pooling_mode_mean_tokens": True}, {"type": "x.Dense", "path": "2_Dense"}
    pool = {"type": "x.Pooling", "path": "1_Pooling"}
    for modules, pooled, config, message in (
        ([{"type": "sentence_transformers.models.LSTM"}], pooling, about, "a part LSTM, which is not known"),
        ([layer, pool], pooling, about, "Dense before Pooling"),
        ([pool], {"pooling_mode": "median"}, about, "pools by median; known are cls, max"),
        ([pool, layer], pooling, about, "activation os.system, which is not known"),
        ([pool, layer], pooling, {"in_features": 32}, "does not say in_features and out_features"),
        ([pool, layer], pooling, {"in_features": 32, "out_features": 4}, "model.safetensors does not exist"),
        ({}, pooling, about, "a list of modules is expected"),
    ):
        (bert / "modules.json").write_text(json.dumps(modules))
        (bert / "1_Pooling" / "config.json").write_text(json.dumps(pooled))
        (bert / "2_Dense" / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=message):
            make(bert, "text")
