"""The one place that time, ids and randomness come from, so that a run can be repeated exactly.

Nothing else in the platform may ask the machine for the time, an id or a random number; a lint rule bans it.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from hashlib import blake2b
from typing import Final, Protocol, runtime_checkable

_RUNS_IN_SUSPEND: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""The clock of Linux that counts while the machine sleeps; that of macOS has the other name, and does so too."""


@runtime_checkable
class Clock(Protocol):
    """Where time comes from."""

    def now_ns(self) -> int:
        """Return the time in nanoseconds since the UNIX epoch, UTC."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds on a clock that never goes back, for measuring durations only, a sleep of the machine included."""

    async def sleep(self, seconds: float) -> None:
        """Wait; at once on a simulated clock."""


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        """Return the machine's time."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return the machine's monotonic time; it runs on while the machine sleeps, as the leases of others do."""
        return time.monotonic_ns() if _RUNS_IN_SUSPEND is None else time.clock_gettime_ns(_RUNS_IN_SUSPEND)

    async def sleep(self, seconds: float) -> None:
        """Wait for that long."""
        await asyncio.sleep(seconds)


class SimulatedClock:
    """A clock that stands still until it is told the time: that of a backtest, a replay or a test."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Return the time it was last told."""
        return self._now_ns

    def monotonic_ns(self) -> int:
        """Return the same time: it never goes back."""
        return self._now_ns

    def advance_to(self, now_ns: int) -> None:
        """Move on to a later time; an earlier one changes nothing."""
        self._now_ns = max(self._now_ns, now_ns)

    async def sleep(self, seconds: float) -> None:
        """Move on by that long and give other tasks a turn."""
        self._now_ns += round(seconds * 1e9)
        await asyncio.sleep(0)


def derive_id(*parts: object) -> str:
    """Make an id that is a pure function of its parts: 32 hexadecimal digits (128 bits of BLAKE2b)."""
    return id_of("\x1f".join(map(str, parts)))


def id_of(text: str) -> str:
    """Make the id of parts that were joined already, by the character 0x1F: `derive_id` where it has to be fast."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def random_id() -> str:
    """Make an id that never comes again: 32 hexadecimal digits. For roots that nothing can be derived from."""
    return uuid.uuid4().hex


def seeded(*parts: object) -> random.Random:
    """Make a source of randomness that is a pure function of its parts, for simulations."""
    return random.Random(int(derive_id("random", *parts), 16))


def jitter() -> float:
    """Return a random share from 0 to 1, for spreading retries; it never decides what happens, only when."""
    return random.random()
