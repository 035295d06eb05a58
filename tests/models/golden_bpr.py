from golden import GoldenModel
from rawrec.config.retrieval import BPRConfig


class GoldenBPR(GoldenModel):
    config = BPRConfig


CHECKS = {"bpr": GoldenBPR()}
