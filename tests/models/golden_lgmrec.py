import re
from collections.abc import Mapping
from typing import Any

import torch

from golden import Arrays, GoldenModel, Tensors, assert_close, section
from rawrec.config.retrieval import LGMRecConfig
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.lgmrec import LGMRec

MODALITIES = {"v": "image", "t": "text"}


class GoldenLGMRec(GoldenModel):
    config = LGMRecConfig

    def parameters(self, arrays: Arrays) -> Tensors:
        return {**super().parameters(arrays), **self.epoch_draws(arrays)}

    def convert(self, tensors: Tensors) -> Tensors:
        """`v_hyper` -> `image_hyper`; the features are not among our parameters."""
        return {
            re.sub(r"^(v|t)_hyper", lambda m: f"{MODALITIES[m[1]]}_hyper", name): value
            for name, value in tensors.items()
            if not name.endswith(("image_embedding.weight", "text_embedding.weight"))
        }

    def epoch_draws(self, arrays: Arrays) -> Tensors:
        """The noise of evaluation."""
        return {k.removesuffix("_eval"): v for k, v in section(arrays, "rand").items() if k.endswith("_eval")}

    def draws(self, arrays: Arrays) -> Tensors:
        return {k.removesuffix("_train"): v for k, v in section(arrays, "rand").items() if not k.endswith("_eval")}

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, LGMRec)
        return {"norm_adj": model.norm_adj.to_dense()}

    def more(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """The global representations, with the noise of training, and the degrees of users."""
        model = self.build(about, arrays)
        assert isinstance(model, LGMRec)
        with torch.no_grad():
            users, items, globals_ = model._represent(self.draws(arrays))
        assert_close(users, arrays["out/train_user_embeddings"], "users in training")
        assert_close(items, arrays["out/train_item_embeddings"], "items in training")
        for name, pair in zip(model.modalities, globals_, strict=True):
            for kind, rows in zip(("user", "item"), pair, strict=True):
                assert_close(rows, arrays[f"out/hyper_{kind}_{name}"], f"global {kind}s of {name}")
        inverse = model.get_buffer("inverse_degree")[:, :1]
        assert_close(inverse, arrays["graph/inverse_degree"][: model.n_users], "inverse degree")


CHECKS = {"lgmrec": GoldenLGMRec()}
