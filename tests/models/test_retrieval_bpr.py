from id_tables_mixin import IdTablesMixin

from rawrec.config.retrieval import BPRConfig


class TestBPR(IdTablesMixin):
    config = BPRConfig
    modalities = ()
