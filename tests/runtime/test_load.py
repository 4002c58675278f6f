"""The schedule of a load, on a clock that only moves when it is told to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from botplatform.bus.memory import InMemoryLog
from botplatform.core.event_bus import Right
from botplatform.core.events import Event, MarketEvent
from botplatform.core.seam import SimulatedClock
from botplatform.errors import BusError
from botplatform.runtime.load import BATCH, Load
from botplatform.testing import START_NS, market


class SlowLog(InMemoryLog):
    """A log that takes a while to store, once, and notes when it got what."""

    def __init__(self, clock: SimulatedClock, stall_at: int = -1, stall_s: float = 0.0) -> None:
        super().__init__({})
        self.clock = clock
        self.stall_at = stall_at
        self.stall_s = stall_s
        self.calls: list[tuple[float, int]] = []

    async def publish_all(self, events: Iterable[Event], *, right: Right | None = None) -> None:
        given = list(events)
        self.calls.append(((self.clock.now_ns() - START_NS) / 1e9, len(given)))
        if len(self.calls) == self.stall_at:
            self.clock.advance_to(self.clock.now_ns() + round(self.stall_s * 1e9))
        await super().publish_all(given)


def snapshots(limit: int | None = None) -> Iterator[MarketEvent]:
    number = 0
    while limit is None or number < limit:
        number += 1
        yield MarketEvent("A", 1.0, timestamp_ns=number)


def load(log: InMemoryLog, clock: SimulatedClock, rate: float, limit: int | None = None) -> Load:
    return Load(log, clock, snapshots(limit), lambda each: [market(id=str(each.timestamp_ns))], rate)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START_NS)


async def test_each_snapshot_is_published_when_it_is_due(clock: SimulatedClock) -> None:
    log = SlowLog(clock)
    report = await load(log, clock, rate=50).run(count=101)
    assert [at_s for at_s, _ in log.calls] == pytest.approx([number * 0.02 for number in range(101)], abs=1e-6)
    assert {size for _, size in log.calls} == {1}
    assert (report.published, report.rate, report.late) == (101, 50.0, 0)
    assert await log.last_sequence() == 101
    await log.close()


async def test_a_high_rate_is_published_in_batches_and_does_not_drift(clock: SimulatedClock) -> None:
    log = SlowLog(clock)
    report = await load(log, clock, rate=10_000).run(count=20_000)
    assert max(size for _, size in log.calls) == pytest.approx(50, abs=1)
    assert log.calls[-1][0] == pytest.approx(2.0, abs=0.006)
    assert (report.published, report.late) == (20_000, 0)
    assert report.worst_handover_ms <= 5.1
    await log.close()


async def test_what_a_pause_of_the_log_delays_is_made_up_for_and_counted(clock: SimulatedClock) -> None:
    log = SlowLog(clock, stall_at=100, stall_s=1.0)
    report = await load(log, clock, rate=1_000).run(count=3_000)
    assert report.published == 3_000
    assert log.calls[-1][0] == pytest.approx(3.0, abs=0.01), "the schedule is that of the beginning"
    assert report.late == pytest.approx(900, abs=20)
    assert report.worst_handover_ms == pytest.approx(1_000, abs=20)
    assert report.worst_stored_ms == pytest.approx(1_000, abs=20)
    assert max(size for _, size in log.calls) <= BATCH
    await log.close()


async def test_it_ends_with_its_feed(clock: SimulatedClock) -> None:
    log = SlowLog(clock)
    assert (await load(log, clock, rate=100, limit=7).run()).published == 7
    await log.close()


async def test_it_ends_when_it_is_stopped_and_reports_what_is_stored(clock: SimulatedClock) -> None:
    log = SlowLog(clock)
    running = load(log, clock, rate=100)
    running.stop()
    assert (await running.run()).published == 0
    await log.close()


async def test_what_the_log_refuses_ends_it(clock: SimulatedClock) -> None:
    class Full(SlowLog):
        async def publish_all(self, events: Iterable[Event], *, right: Right | None = None) -> None:
            raise BusError("the log is full")

    log = Full(clock)
    with pytest.raises(BusError, match="full"):
        await load(log, clock, rate=100).run(count=5)
    await log.close()
