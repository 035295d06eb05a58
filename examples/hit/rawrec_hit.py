"""Two metrics: the share of users with a hit in their list, and the Brier score of click probabilities."""

import rawrec


@rawrec.register_metric("hit", of="lists")
def hit(lists):
    """[users]: whether any of the k items is a positive."""
    return lists.hits.any(1)


@rawrec.register_metric("brier", of="impressions", lower=True)
def brier(labels, probabilities, users):
    """The mean squared distance of probability and label."""
    return ((probabilities - labels) ** 2).mean()
