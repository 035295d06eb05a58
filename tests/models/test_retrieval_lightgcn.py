from retrieval_mixin import RetrievalMixin

from rawrec.config.retrieval import LightGCNConfig


class TestLightGCN(RetrievalMixin):
    config = LightGCNConfig
    modalities = ()
