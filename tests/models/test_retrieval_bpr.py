from retrieval_mixin import RetrievalMixin

from rawrec.models.retrieval.configs import BPRConfig


class TestBPR(RetrievalMixin):
    config = BPRConfig
    modalities = ()
