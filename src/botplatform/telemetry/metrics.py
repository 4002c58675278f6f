"""What an engine's events are counted and timed in: plain integers, which become Prometheus metrics when asked for.

An event handled and one published cost 0.5 to 0.9 µs together, with the looks at the clock that this takes, and 0.5 µs
more where its chain may become an exemplar; with prometheus_client's own objects, 2.7 to 3.1 µs without exemplars: see
`benchmarks/metrics.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from botplatform.core.events import Event, OrderEvent
from botplatform.core.seam import Clock
from botplatform.telemetry.sampling import FREQUENT

__all__ = ["LATENCY_S", "MAX_REASONS", "PROCESSING_S", "EngineMeter", "Exemplar", "Histogram", "Tally"]

PROCESSING_S: Final = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005),
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
)
"""Upper bounds of processing time, in seconds: most events take less than one millisecond."""
LATENCY_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds of the age of events when they are handled, in seconds."""
_BY_CODE: Final = "system.warning"
"""Traced or not by what it warns of."""
_DENIED: Final = "order.denied"
MAX_REASONS: Final = 64
"""Reasons of denied orders that are counted apart; what comes beyond is `OTHER`. There are fewer in the catalogue."""
_PROCESSING_NS: Final = tuple(round(bound * 1e9) for bound in PROCESSING_S)
_LATENCY_NS: Final = tuple(round(bound * 1e9) for bound in LATENCY_S)


class Exemplar(NamedTuple):
    """One event of a bucket, to look at."""

    value_ns: int
    correlation_id: str
    time_ns: int
    """When it was handled."""


class Histogram:
    """How many values were at most each bound; one bucket more has those above the last."""

    __slots__ = ("counts", "exemplars", "sum_ns")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        """By bucket, not summed up."""
        self.sum_ns = 0
        self.exemplars: list[Exemplar | None] = [None] * (bounds + 1)
        """The newest event of each bucket whose chain is traced."""


class Tally:
    """What one engine did with one type of event."""

    __slots__ = ("latency", "processing", "reasons", "traced")

    def __init__(self, event_type: str) -> None:
        self.processing = Histogram(len(PROCESSING_S))
        """From the delivery until all that came of the event is in the log."""
        self.latency = Histogram(len(LATENCY_S))
        """From the event's own timestamp until then."""
        self.traced = event_type not in FREQUENT and event_type != _BY_CODE
        self.reasons: dict[str, int] | None = {} if event_type == _DENIED else None
        """Denied orders by reason; None for other types."""

    @property
    def count(self) -> int:
        """Events handled."""
        return sum(self.processing.counts)


class EngineMeter:
    """Counts for one engine, in all partitions that this process has of it or ever had."""

    __slots__ = ("_clock", "by_type", "dead_letters", "engine", "published", "redelivered", "skewed")

    def __init__(self, engine: str, clock: Clock) -> None:
        self.engine = engine
        self.by_type: dict[str, Tally] = {}
        """What was handled."""
        self.published: defaultdict[str, int] = defaultdict(int)
        """What was published: events by type."""
        self.redelivered = 0
        """Deliveries of events that had been delivered before."""
        self.dead_letters = 0
        """Events put aside because the engine raised on them."""
        self.skewed = 0
        """Events handled before their own timestamp, by the clocks: their latency counts as 0."""
        self._clock = clock

    def handled(self, event: Event, begun_ns: int, *, traced: bool = False) -> None:
        """Count an event whose handling began at `begun_ns` of the monotonic clock, and has ended now.

        `traced` is told of one that is not always traced, such as a tick.
        """
        clock = self._clock
        took_ns = clock.monotonic_ns() - begun_ns
        now_ns = clock.now_ns()
        late_ns = now_ns - event.timestamp_ns
        if late_ns < 0:
            self.skewed += 1
            late_ns = 0
        event_type = event.type
        tally = self.by_type.get(event_type)
        if tally is None:
            tally = self.by_type[event_type] = Tally(event_type)
        processing, latency = tally.processing, tally.latency
        took = bisect_left(_PROCESSING_NS, took_ns)
        processing.counts[took] += 1
        processing.sum_ns += took_ns
        late = bisect_left(_LATENCY_NS, late_ns)
        latency.counts[late] += 1
        latency.sum_ns += late_ns
        if tally.reasons is not None and type(event.payload) is OrderEvent:
            _count_reason(tally.reasons, event.payload.reason_code)
        if traced or tally.traced:
            chain = event.correlation_id or event.id
            processing.exemplars[took] = Exemplar(took_ns, chain, now_ns)
            latency.exemplars[late] = Exemplar(late_ns, chain, now_ns)

    def sent(self, events: Iterable[Event]) -> None:
        """Count what was published."""
        published = self.published
        for event in events:
            published[event.type] += 1

    @property
    def denied(self) -> dict[str, int]:
        """Denied orders that were heard of, by reason."""
        tally = self.by_type.get(_DENIED)
        return tally.reasons or {} if tally is not None else {}


def _count_reason(reasons: dict[str, int], code: str) -> None:
    known = code if code in reasons or len(reasons) < MAX_REASONS else "OTHER"
    reasons[known] = reasons.get(known, 0) + 1
