"""Plots as inline SVG: small, sharp, no script, no file beside the page."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rawrec.evaluation.ctr import Reliability
from rawrec.evaluation.significance import Interval
from rawrec.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#1f2733", "#6b7482", "#d9dde3"
RUN, BASELINE = "#2b5f8f", "#a3a9b3"
SERIES = [RUN, "#c77b30", "#4b8b6f", "#8a5a96", "#8c8c3c"]
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "sans-serif", "DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff2",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
}

THEMED = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    RUN: "run",
    BASELINE: "baseline",
    **{colour: f"series-{place}" for place, colour in enumerate(SERIES[1:], 1)},
    "#eceff2": "grid",
    "#ffffff": "paper",
    "#2f7d5b": "up",
    "#b3503a": "down",
}
"""Colours that a page may have other values for, as variables of its style sheet: in the dark, for example."""

Line = tuple[Sequence[float], Sequence[float]]
"""x and y of the points that exist."""


def loaded() -> Any:
    """matplotlib. Raises UserError where it is not installed: asked before the work that ends in a page."""
    return need("matplotlib", "pages draw with matplotlib")


def lines(
    name: str,
    series: Mapping[str, Line],
    xlabel: str,
    dashed: Mapping[str, Line] | None = None,
    mark: tuple[float, float, str] | None = None,
    share: bool = False,
    whole: bool = True,
) -> Markup:
    """Curves over epochs, or over something that is not counted (`whole` false).

    series: legend -> line; dashed: lines of the baseline; mark: a point (x, y) and its text; share: y is in 0 .. 1.
    """
    with _style(name):
        from matplotlib.ticker import MaxNLocator

        figure, axes = _figure(4.6, 2.7)
        for (label, (x, y)), colour in zip(series.items(), _colours(len(series)), strict=True):
            axes.plot(x, y, color=colour, label=label, marker="o", markersize=3.5)
        for label, (x, y) in (dashed or {}).items():
            axes.plot(x, y, color=BASELINE, label=label, linestyle=(0, (3, 2)), marker="o", markersize=2.5)
        if mark:
            x, y, text = mark
            axes.plot([x], [y], color=INK, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=INK)
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            at = {"textcoords": "offset points", "ha": "center", "color": INK, "fontsize": 8}
            axes.annotate(text, (x, y), (0, -16), bbox=box, **at)
            axes.margins(y=0.18)
        if share:
            axes.set_ylim(-0.03, 1.05)
        axes.set_xlabel(xlabel)
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="x", visible=False)
        if len(series) + len(dashed or {}) > 1:
            axes.legend(loc="best", fontsize=8)
        return _svg(figure, f"{name}: {', '.join(series)} by {xlabel}")


def bars(name: str, groups: Mapping[str, Mapping[str, float]], series: Sequence[str]) -> Markup:
    """Horizontal bars: a group of them per label, in it one per series that it has, and what it is worth."""
    colours = dict(zip(series, _colours(len(series)), strict=True))
    with _style(name):
        count = sum(len(group) for group in groups.values())
        figure, axes = _figure(9.4, 0.7 + 0.2 * count + 0.14 * len(groups))
        ticks, at = [], 0.0
        for group in groups.values():
            for place, (key, value) in enumerate(group.items()):
                axes.barh(at + place, value, height=0.8, color=colours[key])
                axes.annotate(f"{value:.4f}", (value, at + place), (3, 0), textcoords="offset points", va="center")
            ticks.append(at + (len(group) - 1) / 2)
            at += len(group) + 0.7
        for key, colour in colours.items():
            axes.barh([0], [0], color=colour, label=key)
        axes.set_yticks(ticks, list(groups))
        axes.invert_yaxis()
        axes.set_xlabel(name)
        axes.margins(x=0.1)
        axes.grid(axis="y", visible=False)
        if len(series) > 1:
            figure.legend(loc="outside right upper", fontsize=8)
        return _svg(figure, f"{name}: {', '.join(series)} of {', '.join(groups)}")


def histogram(
    name: str,
    edges: Sequence[float],
    series: Mapping[str, Sequence[int]],
    xlabel: str,
    labels: Sequence[str] | None = None,
    dates: Sequence[str] | None = None,
) -> Markup:
    """Counts of each series between the edges, one on the other. labels: of the bins, which are then drawn equally
    wide; dates: of the edges."""
    with _style(name):
        from matplotlib.ticker import MaxNLocator

        figure, axes = _figure(4.6, 2.7)
        count = len(edges) - 1
        at = list(range(count)) if labels else list(edges[:-1])
        width = [0.86] * count if labels else [high - low for low, high in itertools.pairwise(edges)]
        below = [0] * count
        for (label, values), colour in zip(series.items(), _colours(len(series)), strict=True):
            align = "center" if labels else "edge"
            axes.bar(at, values, width, below, color=colour, label=label, align=align, linewidth=0)
            below = [a + b for a, b in zip(below, values, strict=True)]
        if labels:
            step = -(-count // 8)
            axes.set_xticks(
                at[::step], list(labels)[::step], rotation=30 if count > 5 else 0, ha="right" if count > 5 else "center"
            )
        if dates:
            places = [0, count // 2, count]
            axes.set_xticks([edges[k] for k in places], [dates[k] for k in places])
        axes.set_xlabel(xlabel)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        if len(series) > 1:
            figure.legend(loc="outside upper right", ncols=len(series), fontsize=8)
        return _svg(figure, f"{name}: {', '.join(series)}")


def reliability_plot(curves: Mapping[str, Reliability]) -> Markup:
    """Mean label against mean prediction in bins of equal mass; the first curve is the run, others the baseline."""
    with _style("reliability"):
        figure, axes = _figure(4.6, 3.6)
        top = max((float(max(c.prediction.max(), c.label.max())) for c in curves.values()), default=1.0)
        top = min(1.0, top * 1.08) or 1.0
        axes.plot([0, top], [0, top], color=MUTED, linewidth=1, linestyle=(0, (2, 3)), label="perfect")
        colours = [RUN] + [BASELINE] * (len(curves) - 1)
        for (label, curve), colour in reversed(list(zip(curves.items(), colours, strict=True))):
            axes.plot(curve.prediction, curve.label, color=colour, marker="o", markersize=4, label=label)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("mean prediction")
        axes.set_ylabel("share of positive labels")
        axes.legend(loc="upper left", fontsize=8)
        return _svg(figure, "Reliability: share of positive labels by mean prediction")


def interval_bar(interval: Interval, reach: float, good: bool | None) -> Markup:
    """A difference and its interval on the scale -reach .. reach, as a strip of 200 x 16; an arrow where it goes on.

    good: the difference is for the better (True), for the worse (False) or undecided (None).
    """

    def at(value: float) -> float:
        return round(100 + 92 * max(-1.0, min(1.0, value / reach)), 1)

    beyond = {"4,8 10,4 10,12": interval.low < -reach, "196,8 190,4 190,12": interval.high > reach}
    return Markup(
        '<svg class="bar" viewBox="0 0 200 16" width="200" height="16" aria-hidden="true" style="fill: {colour}">'
        '<line x1="100" x2="100" y1="0" y2="16" style="stroke: var(--baseline, #a3a9b3)"/>'
        '<line x1="{low}" x2="{high}" y1="8" y2="8" style="stroke: {colour}" stroke-width="2.2"'
        ' stroke-linecap="round"/>'
        '<circle cx="{value}" cy="8" r="3.6"/>{arrows}</svg>'
    ).format(
        colour=_themed({True: "#2f7d5b", False: "#b3503a", None: MUTED}[good]),
        low=at(interval.low),
        high=at(interval.high),
        value=at(interval.value),
        arrows=Markup("").join(
            Markup('<polygon points="{}"/>').format(points) for points, shown in beyond.items() if shown
        ),
    )


def _style(salt: str) -> AbstractContextManager[None]:
    """The look of all plots; `salt` keeps the ids inside one drawing apart from those of the others on the page."""
    return loaded().rc_context({**STYLE, "svg.hashsalt": salt})


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _colours(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]


def _themed(drawing: str) -> str:
    """Colours as variables of the page, with the colour itself where the page has none."""
    pattern = re.compile("|".join(map(re.escape, THEMED)))
    return pattern.sub(lambda found: f"var(--{THEMED[found[0]]}, {found[0]})", drawing)


def _svg(figure: Figure, description: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    return Markup('<div class="plot" role="img" aria-label="{}">{}</div>').format(description, Markup(_themed(drawing)))
