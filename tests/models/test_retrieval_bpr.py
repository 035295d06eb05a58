from id_tables_mixin import IdTablesMixin

from rawrec.models.retrieval.configs import BPRConfig


class TestBPR(IdTablesMixin):
    config = BPRConfig
    modalities = ()
