"""Metrics by name: of impressions or of lists, and whether less of it is better. Own ones stand beside ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from rawrec import plugins
from rawrec.arguments import shown
from rawrec.config.wording import unknown
from rawrec.errors import UserError

Of = Literal["impressions", "lists"]
BUCKET_NAMES = ("cold", "rare", "medium", "warm")
SHOWN_WORD = re.compile(r"^(?:([^/]+)/)?shown/(mrr|ndcg@([1-9][0-9]*))$")
WORD = re.compile(r"^((cold|rare|medium|warm)/)?([A-Za-z][\w-]*)(@([1-9][0-9]*))?$")


def of_label(name: str) -> tuple[str, str]:
    """`buy/auc` -> the prefix of its label, `buy/` ("": the main one), and its name alone, as `auc` or `shown/mrr`."""
    if shown := SHOWN_WORD.match(name):
        return name[: shown.start(2) - len("shown/")], f"shown/{shown[2]}"
    label, slash, bare = name.rpartition("/")
    return label + slash, bare


def of_sessions(name: str) -> bool:
    """Whether a name, without a label, is of what sessions showed: `shown/mrr`."""
    return SHOWN_WORD.match(name) is not None


def of_all_lists(name: str) -> bool:
    """Whether a metric is of the lists as a whole, as `coverage@20`, `cold/coverage@20`."""
    found = WORD.match(name)
    return found is not None and found[5] is not None and found[3] in OF_ALL_LISTS


@dataclass(frozen=True)
class MetricEntry(plugins.Entry):
    """of: what it measures. lower: less of it is better. followed: `train.metric` may name it."""

    of: Of
    lower: bool = False
    followed: bool = True


def _ours(of: Of, *names: str, lower: bool = False, followed: bool = True) -> dict[str, MetricEntry]:
    """Ours are computed together, by `evaluation/`: there is no function to call for one of them."""
    return {name: MetricEntry("rawrec", of, lower, followed) for name in names}


METRICS: dict[str, MetricEntry] = {
    **_ours("impressions", "auc", "gauc", "qauc"),
    **_ours("impressions", "logloss", "ece", lower=True),
    **_ours("impressions", "share", "qauc_share"),
    **_ours("lists", "recall", "ndcg", "precision", "map", "hit", "mrr"),
    **_ours("impressions", "shown/ndcg", "shown/mrr"),
    **_ours("impressions", "pcoc", "auc_best", "qauc_best", "gauc_skipped_users", followed=False),
    **_ours("impressions", "qauc_skipped_queries", "qauc_without_query", "impressions", "sampled", followed=False),
    **_ours("lists", "recall2", "topk_users", followed=False),
    **_ours("lists", "coverage", "exposure", "entropy", "personalisation", followed=False),
    **_ours("lists", "novelty", "tail", "diversity", followed=False),
    **_ours("lists", "gini", "commonest", "popularity", lower=True, followed=False),
}
OF_ALL_LISTS = ("coverage", "gini", "entropy", "personalisation", "commonest", "exposure")
"""Metrics of the lists as a whole: they are no means over users, so no user has a value."""
F = TypeVar("F", bound=Callable[..., Any])


def register_metric(name: str, of: Of, function: Any = None, *, lower: bool = False) -> Any:
    """Enter a metric of your own, for `train.metric` and `eval.metrics`; lower: less of it is better.

    of="lists": `function(lists)` is called at every cut-off with `evaluation.topk.Lists` and gives a value per user,
    `[users]`; it is called `name@k`. of="impressions": `function(labels, probabilities, users)` gives one number, nan
    where it is undefined; it is called `name`. Without `function` this is a decorator; it may also be where the
    function is, as "module:function". Raises UserError for a name that is taken.

    >>> @rawrec.register_metric("f1", of="lists")
    ... def f1(lists):
    ...     return 2 * lists.hits.sum(1) / (lists.positives + lists.hits.shape[1])
    """
    if of not in ("impressions", "lists"):
        raise UserError(f"metric {name!r}: of={shown(of)}; use impressions or lists")

    def enter(function: F) -> F:
        plugins.register("metrics", METRICS, name, MetricEntry(function, of, lower))
        return function

    return enter if function is None else enter(function)


def _bring(name: str, found: Any) -> None:
    raise UserError("its module must call rawrec.register_metric, which says what it measures")


def metric_entry(name: str) -> MetricEntry | None:
    """The entry of a metric's name, loaded from the installed package that brings it; None for an unknown one."""
    return plugins.find("metrics", METRICS, name, _bring)


class Followed(NamedTuple):
    """A metric as `train.metric` names it; cut: of its lists, None for impressions; label: None, the main one; shown:
    the cut-off of what a session showed."""

    name: str
    cut: int | None
    entry: MetricEntry
    label: str | None = None
    shown: int | None = None


def followed(word: str) -> Followed:
    """Such as auc, cold/auc, buy/auc, shown/ndcg@10, recall@20. Raises ValueError, in words, where it is none that can
    be followed."""
    if shown := SHOWN_WORD.match(word):
        name = f"shown/{shown[2].partition('@')[0]}"
        return Followed(name, None, METRICS[name], shown[1], int(shown[3]) if shown[3] else None)
    first, slash, rest = word.partition("/")
    label = first if slash and first not in BUCKET_NAMES else None
    found = WORD.match(rest if label else word)
    entry = metric_entry(found[3]) if found else None
    of = None if found is None else "impressions" if found[5] is None else "lists"
    known = [n for n in plugins.names("metrics", METRICS) if n not in METRICS or METRICS[n].followed]
    if found is None or entry is None or not entry.followed or entry.of != of or (label and of == "lists"):
        own = "".join(f", {name}" for name in known if name not in METRICS or not METRICS[name].ours)
        raise ValueError(
            "use auc, gauc, logloss, ece or share, with queries qauc, with sessions shown/ndcg@10 or shown/mrr, "
            f"of lists recall@20 or the like{own}, or one of them in a bucket, for example cold/auc, or of "
            "another label, for example buy/auc"
        )
    return Followed(found[3], int(found[5]) if found[5] else None, entry, label)


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better, as logloss, cold/logloss, recall@20."""
    entry = METRICS.get(metric.rpartition("/")[2].partition("@")[0])
    return entry is not None and entry.lower


def own_metric(name: str) -> MetricEntry:
    """A metric that is not ours. Raises ValueError, in words, for one of ours or an unknown one."""
    entry = metric_entry(name)
    if entry is None:
        own = [n for n in plugins.names("metrics", METRICS) if n not in METRICS or not METRICS[n].ours]
        raise ValueError(unknown(f"metric {name}", name, own) if own else f"{name!r} is no metric of your own")
    if entry.ours:
        raise ValueError(f"{name} is measured anyway; give metrics of your own only")
    return entry


def functions(names: Iterable[str], of: Of) -> dict[str, Callable[..., Any]]:
    """The functions of those of these own metrics that measure impressions, or lists."""
    entries = {name: own_metric(name) for name in names}
    return {name: entry.load() for name, entry in entries.items() if entry.of == of}
