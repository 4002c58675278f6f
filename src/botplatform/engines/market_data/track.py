"""What is remembered of one symbol's feed, and the sentences about its gaps and silences."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from botplatform.core.events import Severity, SystemEvent

__all__ = ["GAP", "MEMORY", "STALE", "TIME_BACKWARDS", "Track", "notice"]

GAP: Final = "FEED_GAP"
"""Code of the warning that a recording jumps, or a live feed paused."""
STALE: Final = "FEED_STALE"
"""Code of the warning that a symbol is silent, and of the recovery when it is back."""
TIME_BACKWARDS: Final = "FEED_TIME_BACKWARDS"
"""Code of the warning that snapshots older than the last one are dropped, and of the recovery."""

USUAL_TIMES: Final = 10
"""A distance of more than this many usual ones is a gap."""
WARM_UP: Final = 20
"""Distances until the usual distance is known well enough."""
SHORTEST_GAP_NS: Final = 1_000_000_000
"""With an estimated limit, shorter distances are never gaps: trades come in bursts."""
MEMORY: Final = 128
"""Distances that the estimate is the mean of, newer ones counting more."""


class Track(Struct):
    """One symbol's feed: changes with every snapshot."""

    symbol: str
    sequence: int = 0
    """Number of the last snapshot."""
    last_ns: int = 0
    """Time of the last snapshot."""
    first_seen_ns: int = 0
    """When the first snapshot came, on the runtime's clock."""
    seen_ns: int = 0
    """When the last snapshot came, or the wait for the first one began, on the runtime's clock."""
    usual_ns: int = 0
    """Running estimate of the distance between two snapshots of different times."""
    distances: int = 0
    """Distances that the estimate is made of, counted up to `MEMORY`."""
    stale: bool = False
    """The silence has been reported, and not its end."""
    silences: int = 0
    """Silences reported so far: part of the ids of these reports."""
    backwards: int = 0
    """Snapshots dropped since time went backwards; 0 when it runs."""

    def gap_ns(self) -> int:
        """Return the distance above which there is a gap; 0 while the usual distance is not known."""
        return max(SHORTEST_GAP_NS, USUAL_TIMES * self.usual_ns) if self.distances >= WARM_UP else 0

    def learn(self, distance_ns: int, limit_ns: int) -> None:
        """Take a distance into the estimate, a gap as no more than the limit (0: none).

        One that is exactly as usual changes nothing once `distances` is `MEMORY`, and need not be given.
        """
        if self.distances < MEMORY:
            self.distances += 1
        counted_ns = min(distance_ns, limit_ns) if limit_ns else distance_ns
        self.usual_ns += (counted_ns - self.usual_ns) // self.distances

    def silence_limit_ns(self, stale_after_ns: int) -> int:
        """Return how long the symbol may be silent: three times its usual distance where that is longer."""
        if self.sequence < 2:
            return stale_after_ns
        return max(stale_after_ns, 3 * (self.seen_ns - self.first_seen_ns) // (self.sequence - 1))


def notice(symbol: str, code: str, message: str, event_id: str = "", *, warning: bool = True) -> SystemEvent:
    """Make the payload of a `system.warning` or `system.recovery` about a symbol."""
    severity = Severity.WARNING if warning else Severity.INFO
    return SystemEvent("market_data", message, severity, code, symbol=symbol, event_id=event_id)
