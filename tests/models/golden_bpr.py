from golden import GoldenModel
from rawrec.models.retrieval.configs import BPRConfig


class GoldenBPR(GoldenModel):
    config = BPRConfig


CHECKS = {"bpr": GoldenBPR()}
