from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from botplatform.core.events import MarketEvent
from botplatform.core.seam import SimulatedClock, SystemClock
from botplatform.errors import FeedError, SettingsError
from botplatform.feeds import Pace, paced
from botplatform.feeds.synthetic import SyntheticMarket

S = 10**9
START_NS = 1_700_000_000 * S


def snapshots(*offsets_s: float) -> list[MarketEvent]:
    return [MarketEvent("BTCUSDT", 1.0, timestamp_ns=START_NS + round(offset * S)) for offset in offsets_s]


class SlowClock(SimulatedClock):
    """A clock on which every wait takes a little longer than asked for."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + 0.001 if seconds else 0)


async def due(pace: Pace, clock: SimulatedClock, speed: float, *offsets_s: float) -> list[float]:
    """Return the second, on the clock, at which each snapshot came."""
    begin_ns = clock.now_ns()
    return [
        (clock.now_ns() - begin_ns) / S async for _ in paced(snapshots(*offsets_s), clock=clock, pace=pace, speed=speed)
    ]


async def test_real_keeps_the_recorded_distances() -> None:
    assert await due("real", SimulatedClock(5 * S), 1.0, 0, 1, 1, 3.5) == [0, 1, 1, 3.5]


async def test_a_market_that_begins_now_is_never_ahead_of_the_clock() -> None:
    """Or whoever takes it over from another process would go back behind what that published already."""
    clock = SimulatedClock(START_NS)
    market = SyntheticMarket(("A", "B"), seed=1, rate=0.5, start_ns=START_NS, limit=20)
    async for snapshot in paced(market, clock=clock, begin_ns=START_NS):
        assert clock.now_ns() >= snapshot.timestamp_ns
        clock.advance_to(clock.now_ns() + S // 100)
    assert clock.now_ns() > START_NS + 9 * 2 * S


async def test_real_is_as_many_times_faster_as_asked() -> None:
    assert await due("real", SimulatedClock(5 * S), 10.0, 0, 1, 3.5) == [0, 0.1, 0.35]


async def test_delays_do_not_add_up() -> None:
    came = await due("real", SlowClock(S), 1.0, *range(500))
    assert came[-1] == pytest.approx(499, abs=0.0011)


async def test_after_a_short_delay_it_catches_up() -> None:
    clock = SimulatedClock(S)
    came: list[float] = []
    async for snapshot in paced(snapshots(0, 1, 1.2, 1.4, 5), clock=clock):
        came.append((clock.now_ns() - S) / S)
        if snapshot.timestamp_ns == START_NS + S:
            clock.advance_to(clock.now_ns() + S // 2)
    assert came == pytest.approx([0, 1, 1.5, 1.5, 5])


async def test_after_a_long_delay_only_a_second_is_made_up_for() -> None:
    clock = SimulatedClock(S)
    came: list[float] = []
    async for snapshot in paced(snapshots(*range(10)), clock=clock):
        came.append((clock.now_ns() - S) / S)
        if snapshot.timestamp_ns == START_NS + 2 * S:
            clock.advance_to(clock.now_ns() + 100 * S)
    assert came == pytest.approx([0, 1, 2, 102, 102, 103, 104, 105, 106, 107])


async def test_flat_out_does_not_wait() -> None:
    assert await due("flat", SimulatedClock(S), 1.0, 0, 1, 3.5) == [0, 0, 0]


@pytest.mark.parametrize("pace", ["flat", "real"])
async def test_other_tasks_get_a_turn_even_when_nothing_waits(pace: Pace) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async for _ in paced(snapshots(*[0.0] * 1000), clock=SystemClock(), pace=pace):
        pass
    task.cancel()
    assert turns >= 10


async def test_settled_waits_for_the_chain_before_the_next_snapshot() -> None:
    story: list[str] = []

    def source() -> Iterator[MarketEvent]:
        for number, snapshot in enumerate(snapshots(0, 1)):
            story.append(f"read {number}")
            yield snapshot

    async def settled() -> None:
        story.append("settled")

    async for snapshot in paced(source(), clock=SimulatedClock(S), pace="settled", settled=settled):
        story.append(f"publish {(snapshot.timestamp_ns - START_NS) // S}")  # noqa: PERF401  # others write in it too
    assert story == ["read 0", "publish 0", "settled", "read 1", "publish 1", "settled"]


async def test_cancelling_closes_the_recording() -> None:
    closed: list[bool] = []

    def endless() -> Iterator[MarketEvent]:
        try:
            while True:
                yield from snapshots(0, 3600)
        finally:
            closed.append(True)

    async def consume() -> None:
        async for _ in paced(endless(), clock=SystemClock()):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


async def test_what_came_before_a_broken_line_is_handed_out() -> None:
    def breaks() -> Iterator[MarketEvent]:
        yield from snapshots(0, 1)
        raise FeedError("file.csv:4: the line is broken")

    seen: list[MarketEvent] = []

    async def consume() -> None:
        async for snapshot in paced(breaks(), clock=SimulatedClock(S)):
            seen.append(snapshot)  # noqa: PERF401  # what was seen before the error counts

    with pytest.raises(FeedError, match=r"file\.csv:4"):
        await consume()
    assert len(seen) == 2


async def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"feed\.pace=settled"):
        await anext(paced(snapshots(0), clock=SimulatedClock(S), pace="settled"))
    with pytest.raises(SettingsError, match=r"feed\.speed is 0"):
        await anext(paced(snapshots(0), clock=SimulatedClock(S), speed=0))
