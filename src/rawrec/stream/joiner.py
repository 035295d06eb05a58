"""From events to labelled samples: what was shown and what was done about it, joined by the id of the request.

An impression waits for its label, with the features as they were when it was shown, until the stream's time has passed
`online.wait` seconds behind it. The stream's time is that of its events, never of a clock here, so that the same log
gives the same samples however fast, and however often, it is read.

When an impression is trained, and with which weights, the strategy for late labels says (`online.late`):

- `wait`: when its label is final.
- `fake_negative`: at once as a negative, and once more as a positive when it becomes one. Ktena et al. 2019,
  "Addressing Delayed Feedback for Continuous Training with Neural Networks in CTR Prediction" (RecSys), the fake
  negative weighted loss: with f the model's probability, a positive weighs 1 + f and a negative (1 - f) (1 + f).
- `elapsed`: after `online.elapsed` seconds with what was done by then, and once more when it becomes a positive later.
  Yang et al. 2021, "Capturing Delayed Feedback in Conversion Rate Prediction via Elapsed-Time Sampling" (AAAI): with d
  the probability of a positive that comes late, a positive weighs 1 + d and a negative (1 + d) (1 - f) / (1 - f + d).
  There d is a network of its own; ours is r f, r being the share of positives that came late so far. With r = 1 these
  are the weights of `fake_negative`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

from rawrec.config.online import OnlineConfig
from rawrec.stream.events import MOST_ITEMS, Acted, Shown
from rawrec.stream.past import Past
from rawrec.stream.tables import Row

AGREE = 10
"""So many events in a row beyond `online.ahead` are believed."""
WAIT, ELAPSED = 1, 0
"""What is due: the label is final, or the sample is trained before that."""


@dataclass(slots=True)
class Impression:
    """A request as it was answered, and what has become of it. number: in the order of their coming; labels: 0 or 1 of
    each item so far; predicted: by the model as it was then, None until that is known."""

    number: int
    request: str
    time: float
    items: list[str]
    history: list[str]
    labels: list[float]
    user: str | None = None
    query: str | None = None
    session: str | None = None
    version: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    served: list[float] | None = None
    predicted: list[float] | None = None
    trained: bool = False


@dataclass(slots=True)
class Sample:
    """An item of an impression as it is trained. late: 0, or the share r of positives that come late, by which it is
    weighted, see above."""

    user: str | None
    item: str
    history: list[str]
    time: float
    label: float
    late: float = 0.0
    context: dict[str, Any] = field(default_factory=dict)
    query: str | None = None
    session: str | None = None


class Joiner:
    """Takes events in the order of the log; `ready` are the samples to train, `closed` the impressions whose labels are
    final, and `new` those without a prediction. Who reads them takes them out.

    counts: of what was not as it should be: `repeated_request`, `repeated_action`, `unknown_request` (an action whose
    impression never came), `unknown_item` (one of an item that was not shown), `late` (after the window),
    `early` (before its impression: it counts), `future` (times beyond online.ahead), `crowded` (final early since
    more than online.pending waited), `other_action` (not of online.actions, or no value above 0).
    """

    def __init__(self, cfg: OnlineConfig, past: Past) -> None:
        self.cfg, self.past = cfg, past
        self.ready: deque[Sample] = deque()
        self.closed: list[Impression] = []
        self.new: list[Impression] = []
        self.counts: Counter[str] = Counter()
        self.watermark: float | None = None
        self.trusting = False  # times are known to be in order: none is ahead
        self._pending: dict[str, Impression] = {}
        self._latest: dict[tuple[str | None, str], str] = {}  # user and item -> request
        self._orphans: dict[str, list[tuple[str, float]]] = {}  # request -> items acted on before it came, and when
        self._due: list[tuple[float, int, int, str]] = []  # when, number, what, request
        self._lost: deque[tuple[float, str]] = deque()  # when requests of orphans are given up
        self._number = self._ahead = 0
        self._positives = [0, 0]  # on time, late

    # ---------------------------------------------------------------------------------------------------------- events
    def shown(self, event: Shown | Row) -> None:
        """An impression begins to wait."""
        self.advance(event.time)
        request, user = event.request, event.user
        if request in self._pending:
            self.counts["repeated_request"] += 1
            return
        time = self._time(event.time)
        history = self.past.at(user, time) if event.history is None else list(event.history)
        labels = [0.0] * len(event.items) if event.labels is None else [float(label > 0) for label in event.labels]
        found = Impression(
            self._number, request, time, list(event.items), history, labels, user, event.query,
            event.session, event.version, dict(event.context), event.scores,
        )  # fmt: skip
        self._number += 1
        self.new.append(found)
        if event.labels is not None:
            for item, label in zip(found.items, labels, strict=True):
                if label and user is not None:
                    self.past.add(user, item, time)
            self._train(found, range(len(found.items)))
            self.closed.append(found)
            return
        self._pending[request] = found
        if user is not None:
            for item in found.items:
                self._latest[user, item] = request
        heappush(self._due, (time + self.cfg.wait, found.number, WAIT, request))
        if self.cfg.late == "fake_negative":
            self._train(found, range(len(found.items)))
        elif self.cfg.late == "elapsed":
            heappush(self._due, (time + self.cfg.elapsed, found.number, ELAPSED, request))
        for item, at in self._orphans.pop(request, ()):
            self.counts["early"] += 1
            self._act(found, item, at)
        if len(self._pending) > self.cfg.pending:
            self.counts["crowded"] += 1
        while len(self._pending) > self.cfg.pending:
            self._become_due()
        self._settle()  # of one that comes after its own window

    def acted(self, event: Acted) -> None:
        """What somebody did with an item that was shown, or will have been."""
        self.advance(event.time)
        if event.value <= 0 or (self.cfg.actions and event.action not in self.cfg.actions):
            self.counts["other_action"] += 1
            return
        request = event.request
        if request is None:
            assert event.user is not None
            request = self._latest.get((event.user, event.item))
        found = None if request is None else self._pending.get(request)
        user = event.user if event.user is not None else found.user if found is not None else None
        if user is not None:
            self.past.add(user, event.item, self._time(event.time))
        if found is not None:
            self._act(found, event.item, self._time(event.time))
        elif event.request is not None:
            if event.request not in self._orphans:
                self._lost.append((self._now + self.cfg.wait, event.request))
            kept = self._orphans.setdefault(event.request, [])
            kept.append((event.item, self._time(event.time)))
            if len(kept) > MOST_ITEMS:  # more than any request shows
                kept.pop(0)
                self.counts["unknown_request"] += 1
            while len(self._orphans) > self.cfg.pending:
                self._give_up()
        else:
            self.counts["unknown_request"] += 1

    def _act(self, found: Impression, item: str, time: float) -> None:
        if item not in found.items:
            self.counts["unknown_item"] += 1
            return
        at = found.items.index(item)
        if found.labels[at]:
            self.counts["repeated_action"] += 1
        elif time > found.time + self.cfg.wait:
            self.counts["late"] += 1
        else:
            found.labels[at] = 1.0
            self._positives[found.trained] += 1
            if found.trained:
                self._train(found, [at])

    # ------------------------------------------------------------------------------------------------------------ time
    @property
    def _now(self) -> float:
        return self.watermark or 0.0

    def _time(self, time: float) -> float:
        """An event's time, as far as it is believed."""
        return min(time, self._now)

    def advance(self, time: float) -> None:
        """The stream has come to this time: what is due by then is trained, or final."""
        if self.watermark is None:
            self.watermark = time
        elif time > self.watermark + self.cfg.ahead and not self.trusting:
            self.counts["future"] += 1
            self._ahead += 1
            if self._ahead < AGREE:
                return
            self.watermark = time
        elif time > self.watermark:
            self.watermark = time
        self._ahead = 0
        self._settle()

    def _settle(self) -> None:
        """What is due by now is trained, or final."""
        now = self.watermark or 0.0
        while self._due and self._due[0][0] < now:
            self._become_due()
        while self._lost and self._lost[0][0] < now:
            self._give_up()

    def _give_up(self) -> None:
        """The request of the oldest orphans does not come."""
        _, request = self._lost.popleft()
        self.counts["unknown_request"] += len(self._orphans.pop(request, ()))

    def finish(self) -> None:
        """Nothing comes any more: all that waits is final."""
        while self._due:
            self._become_due()
        self.counts["unknown_request"] += sum(map(len, self._orphans.values()))
        self._orphans, self._lost = {}, deque()

    def _become_due(self) -> None:
        _, number, what, request = heappop(self._due)
        found = self._pending.get(request)
        assert found is not None and found.number == number
        if what == ELAPSED:  # which comes before its other time, so that nothing is due of what is final
            self._train(found, range(len(found.items)))
        else:
            self._close(found)

    def _close(self, found: Impression) -> None:
        if not found.trained:
            self._train(found, range(len(found.items)))
        del self._pending[found.request]
        for item in found.items if found.user is not None else ():
            if self._latest.get((found.user, item)) == found.request:
                del self._latest[found.user, item]
        self.closed.append(found)

    # --------------------------------------------------------------------------------------------------------- samples
    def _train(self, found: Impression, places: Iterable[int]) -> None:
        late = self.late_share if self._pending.get(found.request) is found else 0.0
        found.trained = True
        self.ready += [
            Sample(
                found.user, found.items[at], found.history, found.time, found.labels[at], late,
                found.context, found.query, found.session,
            )
            for at in places
        ]  # fmt: skip

    @property
    def late_share(self) -> float:
        """Of positives that come when their impression has been trained: r of the weights."""
        if self.cfg.late == "wait":
            return 0.0
        on_time, late = self._positives
        return 1.0 if self.cfg.late == "fake_negative" else (late + 1) / (on_time + late + 2)

    @property
    def waiting(self) -> int:
        """Impressions without a final label."""
        return len(self._pending)

    # ----------------------------------------------------------------------------------------------------------- state
    def state(self) -> dict[str, Any]:
        """All that it knows, as plain values."""
        return {
            "pending": [_plain(found) for found in self._pending.values()],
            "closed": [_plain(found) for found in self.closed],
            "new": [found.number for found in self.new],
            "ready": [_plain(sample) for sample in self.ready],
            "orphans": [[request, found] for request, found in self._orphans.items()],
            "lost": list(self._lost),
            "watermark": self.watermark,
            "numbers": [self._number, self._ahead, *self._positives],
            "counts": dict(sorted(self.counts.items())),
        }

    @classmethod
    def of(cls, cfg: OnlineConfig, past: Past, state: dict[str, Any]) -> Joiner:
        """The reverse of `state`. Raises KeyError, TypeError, ValueError where it is none."""
        made = cls(cfg, past)
        made.closed = [Impression(**values) for values in state["closed"]]
        for values in state["pending"]:
            found = Impression(**values)
            made._pending[found.request] = found
            made._latest |= {(found.user, item): found.request for item in found.items if found.user is not None}
            made._due += made._dues(found)
        known = {found.number: found for found in (*made._pending.values(), *made.closed)}
        made.new = [known[number] for number in state["new"]]
        heapify(made._due)
        made.ready.extend(Sample(**values) for values in state["ready"])
        made._orphans = {request: [(item, time) for item, time in found] for request, found in state["orphans"]}
        made._lost = deque((time, request) for time, request in state["lost"])
        made.watermark = state["watermark"]
        made._number, made._ahead, *made._positives = state["numbers"]
        made.counts = Counter(state["counts"])
        return made

    def _dues(self, found: Impression) -> Iterator[tuple[float, int, int, str]]:
        yield found.time + self.cfg.wait, found.number, WAIT, found.request
        if self.cfg.late == "elapsed" and not found.trained:
            yield found.time + self.cfg.elapsed, found.number, ELAPSED, found.request


def _plain(record: Impression | Sample) -> dict[str, Any]:
    """Its fields by name. What they hold is not copied: it is written down before anything is changed."""
    return {name: getattr(record, name) for name in record.__slots__}
