"""What counting costs: the signals worker without metrics, with ours, and with those of prometheus_client.

One process, interleaved rounds, processor time. The bus takes everything at once: what a real one adds makes every
ratio smaller. `python benchmarks/metrics.py [--rounds 15] [--events 20000]`
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from botplatform.bus.memory import InMemoryLog
from botplatform.core.event_bus import Delivery, Right
from botplatform.core.events import Event
from botplatform.core.seam import Clock, SystemClock
from botplatform.engines.signals.engine import SignalsEngine
from botplatform.runtime.checkpoint import MemoryCheckpoints
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import Settings
from botplatform.telemetry.metrics import LATENCY_S, PROCESSING_S, EngineMeter
from botplatform.testing import market

SYMBOLS = [f"SYM{number}USDT" for number in range(16)]


class Nothing(EngineMeter):
    """Counts nothing."""

    def handled(self, event: Event, begun_ns: int, *, traced: bool = False) -> None:
        """Do nothing."""

    def sent(self, events: Iterable[Event]) -> None:
        """Do nothing."""


class Library(EngineMeter):
    """Counts the same with the objects of prometheus_client; children are looked up once."""

    def __init__(self, engine: str, clock: Clock) -> None:
        super().__init__(engine, clock)
        self._time = clock
        names, registry = ["engine", "type"], CollectorRegistry()
        self._in = Counter("events_in", "In.", names, registry=registry)
        self._out = Counter("events_out", "Out.", names, registry=registry)
        self._processing = Histogram("processing", "Time.", names, registry=registry, buckets=PROCESSING_S)
        self._latency = Histogram("latency", "Age.", names, registry=registry, buckets=LATENCY_S)
        self._children: dict[str, tuple[Counter, Histogram, Histogram]] = {}
        self._sent: dict[str, Counter] = {}

    def handled(self, event: Event, begun_ns: int, *, traced: bool = False) -> None:  # noqa: ARG002  # as its base has it
        """Count an event."""
        found = self._children.get(event.type)
        if found is None:
            labels = (self.engine, event.type)
            found = self._in.labels(*labels), self._processing.labels(*labels), self._latency.labels(*labels)
            self._children[event.type] = found
        counter, processing, latency = found
        took_s = (self._time.monotonic_ns() - begun_ns) / 1e9
        late_s = max(0.0, (self._time.now_ns() - event.timestamp_ns) / 1e9)
        counter.inc()
        processing.observe(took_s)
        latency.observe(late_s)

    def sent(self, events: Iterable[Event]) -> None:
        """Count what was published."""
        for event in events:
            child = self._sent.get(event.type)
            if child is None:
                child = self._sent[event.type] = self._out.labels(self.engine, event.type)
            child.inc()


class Quiet(InMemoryLog):
    """A bus that takes everything at once, and gives nothing back."""

    def __init__(self) -> None:
        super().__init__({})

    async def publish_all(self, events: Iterable[Event], *, right: Right | None = None) -> None:
        """Do nothing."""


async def handle(meter: EngineMeter, events: list[Event], worker: EngineWorker) -> float:
    """Let a worker handle events; return the microseconds of processor that each took."""
    worker.meter = meter
    deliveries = [Delivery(event, worker.sequence + number + 1) for number, event in enumerate(events)]
    begun = time.process_time()
    for delivery in deliveries:
        await worker._on_delivery(delivery)
    return (time.process_time() - begun) / len(events) * 1e6


def count(meter: EngineMeter, event: Event, clock: Clock, times: int = 200_000) -> float:
    """Return the microseconds that one event costs to count, in and out, with the clock that this needs."""
    begun = time.process_time()
    for _ in range(times):
        meter.handled(event, clock.monotonic_ns())
        meter.sent((event,))
    return (time.process_time() - begun) / times * 1e6


async def main(rounds: int, events: int) -> None:
    """Measure, and print."""
    clock, settings = SystemClock(), Settings()
    makers: dict[str, Callable[[], EngineMeter]] = {
        "nothing": lambda: Nothing("signals", clock),
        "ours": lambda: EngineMeter("signals", clock),
        "prometheus_client": lambda: Library("signals", clock),
    }
    steps: dict[str, list[float]] = {name: [] for name in makers}
    counts: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(rounds):
        start_ns = clock.now_ns()
        ticks = [
            market(SYMBOLS[index % len(SYMBOLS)], timestamp_ns=start_ns + index, id=f"{number}-{index}")
            for index in range(events)
        ]
        for name, make in makers.items():
            worker = EngineWorker(
                lambda: SignalsEngine(signal_sets=settings.signals),
                Quiet(),
                clock,
                MemoryCheckpoints(),
                checkpoint_every=10**9,
            )
            steps[name].append(await handle(make(), ticks, worker))
            counts[name].append(count(make(), ticks[0], clock))
    print("| | µs a tick of the signals worker, median | times without | µs to count one event, in and out |")
    print("| --- | ---: | ---: | ---: |")
    for name, found in steps.items():
        ratios = [mine / bare for mine, bare in zip(found, steps["nothing"], strict=True)]
        cost = statistics.median(counts[name]) - statistics.median(counts["nothing"])
        print(f"| {name} | {statistics.median(found):.2f} | {statistics.median(ratios):.3f} | {cost:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What counting costs.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--events", type=int, default=20_000)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.events))
