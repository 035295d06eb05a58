"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Told:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rawrec_requests", "Requests that were answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "rawrec_request_seconds",
            "From a request to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "rawrec_batch_requests", "Requests answered at once.", buckets=SIZES, registry=self.registry
        )
        self.waiting = Gauge("rawrec_waiting_requests", "Requests that wait for the model.", registry=self.registry)
        self.items = Gauge("rawrec_items", "Items of the catalogue.", registry=self.registry)
        self.hidden = Gauge("rawrec_hidden_items", "Items that no list may hold.", registry=self.registry)
        self.events = Counter("rawrec_events", "Events that were written into the log.", registry=self.registry)
        self.unwritten = Gauge("rawrec_unwritten_events", "Events that wait for the log.", registry=self.registry)
        self.age = Gauge("rawrec_watermark_age_seconds", "Since the latest event it knows.", registry=self.registry)
        self.version = Gauge("rawrec_version_info", "The version that answers.", ["version"], registry=self.registry)
        self.refused = Counter("rawrec_versions_refused", "Versions not served.", registry=self.registry)
        self.swaps = Counter("rawrec_version_swaps", "Versions that took another's place.", registry=self.registry)

    def answered(self, route: str, status: int, started: float) -> None:
        """A request was answered; started: of `time.perf_counter`."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(time.perf_counter() - started)

    def total(self, name: str) -> float:
        """The sum of a counter over all its labels."""
        return sum(one.value for family in self.registry.collect() for one in family.samples if one.name == name)

    def text(self) -> bytes:
        """All of it, in Prometheus' form."""
        return generate_latest(self.registry)
