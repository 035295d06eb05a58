from golden import GoldenModel
from rawrec.config.retrieval import VBPRConfig


class GoldenVBPR(GoldenModel):
    config = VBPRConfig
    features = {"text": "t_feat", "image": "v_feat"}  # noqa: RUF012  # the order in which the reference joins them


CHECKS = {"vbpr": GoldenVBPR()}
