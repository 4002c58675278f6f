"""The pace at which snapshots come: at their own speed, flat out, or each after all that came of the last."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from typing import Final, Literal, TypeAlias

from botplatform.core.events import MarketEvent
from botplatform.core.seam import Clock
from botplatform.errors import SettingsError

__all__ = ["MAX_CATCH_UP_S", "Pace", "paced"]

Pace: TypeAlias = Literal["real", "flat", "settled"]

MAX_CATCH_UP_S: Final = 1.0
"""Seconds of delay that are made up for by going faster; the rest of a longer delay is given up."""
_TURN_EVERY: Final = 64  # snapshots between two turns of the event loop


async def paced(
    snapshots: Iterable[MarketEvent],
    *,
    clock: Clock,
    pace: Pace = "real",
    speed: float = 1.0,
    settled: Callable[[], Awaitable[object]] | None = None,
    begin_ns: int = 0,
) -> AsyncGenerator[MarketEvent]:
    """Hand out snapshots at a pace.

    `real`: at the distances of their timestamps, `speed` times faster, by a schedule that does not drift;
    the first one at once, or as long after `begin_ns` as its timestamp says: a live market's is never handed out
    before its time. After a stop of the machine at most `MAX_CATCH_UP_S` are made up for. `flat`: flat out, with a turn for
    other tasks every so often. `settled`: each one after `settled()` has returned for the one before.
    Raises what reading the snapshots raises, and `SettingsError` for `settled` without its callback. Closing
    or cancelling it closes the recording as well.
    """
    if pace == "settled" and settled is None:
        raise SettingsError("feed.pace=settled needs a bus that can tell when a chain has ended: use real or flat")
    schedule = _Schedule(clock, speed, begin_ns) if pace == "real" else None
    iterator = iter(snapshots)
    try:
        for count, snapshot in enumerate(iterator, 1):
            if schedule is not None:
                await schedule.wait(snapshot.timestamp_ns, turn=count % _TURN_EVERY == 0)
            elif count % _TURN_EVERY == 0:
                await clock.sleep(0)
            yield snapshot
            if pace == "settled" and settled is not None:
                await settled()
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


class _Schedule:
    """When each snapshot is due, counted from the beginning, 0 for the first one: delays do not add up."""

    def __init__(self, clock: Clock, speed: float, begin_ns: int) -> None:
        if not speed > 0:
            raise SettingsError(f"feed.speed is {speed}: it has to be more than 0")
        self._clock = clock
        self._speed = speed
        self._first_ns = begin_ns
        self._origin_ns = clock.monotonic_ns() if begin_ns else 0

    async def wait(self, timestamp_ns: int, *, turn: bool) -> None:
        """Wait until the snapshot of that time is due; give other tasks a turn even when it is late."""
        now_ns = self._clock.monotonic_ns()
        if not self._first_ns:
            self._first_ns, self._origin_ns = timestamp_ns, now_ns
        due_ns = self._origin_ns + int((timestamp_ns - self._first_ns) / self._speed)
        late_ns = now_ns - due_ns
        if late_ns < 0:
            await self._clock.sleep(-late_ns / 1e9)
            return
        if late_ns > MAX_CATCH_UP_S * 1e9:
            self._origin_ns += late_ns - int(MAX_CATCH_UP_S * 1e9)
        if turn:
            await self._clock.sleep(0)
