"""A loss beside the ranker's own: a user's vector and that of the item taken are drawn together, against the others of
the batch; items of the same session are no negatives, for they may well have been taken for the same reason."""

from pydantic import Field

import rawrec
from rawrec.config.ranking import DotMlpConfig
from rawrec.models.losses import info_nce
from rawrec.models.ranking.dot_mlp import DotMlp


class SessionConfig(DotMlpConfig):
    """The head dot_mlp, with a contrast of users and items that leaves out the same session."""

    name: str = "session"
    masked_by: str = Field(default="session", description="column of the interactions that tells sessions apart")
    contrast: float = Field(default=0.1, ge=0, description="weight of the contrast")

    def reads_interactions(self):
        return (self.masked_by,)


@rawrec.register_model("session", SessionConfig)
class Session(DotMlp):
    @property
    def loss_weights(self):
        return {"contrast": self.cfg.contrast}

    def losses(self, tokens, batch, labels):
        taken = labels[:, 0] > 0
        user, item = (tokens.values[taken, 0, tokens.names.index(name)] for name in ("user", "item"))
        session, rows = batch.keys[self.cfg.masked_by][taken], batch.items[taken, 0]
        apart = (session[:, None] != session) & (rows[:, None] != rows)
        return {"contrast": info_nce(user, item, temperature=0.1, negatives=apart) * len(user)} if len(user) else {}
