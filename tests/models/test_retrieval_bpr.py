from retrieval_mixin import RetrievalMixin

from rawrec.config.retrieval import BPRConfig


class TestBPR(RetrievalMixin):
    config = BPRConfig
    modalities = ()
