"""What time it is, by when events were made, without believing a single event that says something else."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["APART_NS", "Now"]

APART_NS: Final = 60 * 1_000_000_000
"""How far an event may be from the time that is known and still be believed at once."""
IN_A_ROW: Final = 8
"""So many events that are further away are believed, whoever they are from, when no other came between them."""


class Now(msgspec.Struct):
    """The time, as far as the events say.

    An event that was made more than a minute after the newest one, or before, moves the time only when the very next
    one, of another source, agrees with it, or when eight in a row are away: after a night without events the second
    one is believed, while one that is dated in the future does not blind anybody until that time has come.
    """

    time_ns: int = 0
    """When the newest event was made that is believed; 0 before the first."""
    doubted_ns: int = 0
    doubted_source: str = ""
    doubts: int = 0
    """Events in a row that were not believed."""

    def doubt(self, created_ns: int, source: str) -> bool:
        """Take an event that is further away; tell whether the time is what it says."""
        agreed = abs(created_ns - self.doubted_ns) <= APART_NS and source != self.doubted_source and self.doubts
        self.doubts += 1
        if agreed or self.doubts >= IN_A_ROW or not self.time_ns:
            self.time_ns, self.doubts = created_ns, 0
            return True
        self.doubted_ns, self.doubted_source = created_ns, source
        return False
