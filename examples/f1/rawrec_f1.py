"""Two metrics: F1 of the lists, and the Brier score of click probabilities."""

import rawrec


@rawrec.register_metric("f1", of="lists")
def f1(lists):
    """[users]: hits against the mean of what was asked for and what was shown, the harmonic mean of both shares."""
    return 2 * lists.hits.sum(1) / (lists.positives + lists.hits.shape[1])


@rawrec.register_metric("brier", of="impressions", lower=True)
def brier(labels, probabilities, users):
    """The mean squared distance of probability and label."""
    return ((probabilities - labels) ** 2).mean()
