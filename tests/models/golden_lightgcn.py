from golden import GoldenModel, Tensors
from rawrec.config.retrieval import LightGCNConfig
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.lightgcn import LightGCN


class GoldenLightGCN(GoldenModel):
    config = LightGCNConfig

    def convert(self, tensors: Tensors) -> Tensors:
        return {
            name.replace("embedding_dict.", "").replace("_emb", "_embedding.weight"): t for name, t in tensors.items()
        }

    def graphs(self, model: RetrievalModel) -> Tensors:
        assert isinstance(model, LightGCN)
        return {"norm_adj": model.adjacency.to_dense()}


CHECKS = {"lightgcn": GoldenLightGCN()}
