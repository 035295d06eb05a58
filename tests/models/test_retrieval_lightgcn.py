from retrieval_mixin import RetrievalMixin

from rawrec.models.retrieval.configs import LightGCNConfig


class TestLightGCN(RetrievalMixin):
    config = LightGCNConfig
    modalities = ()
