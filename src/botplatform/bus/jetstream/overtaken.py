"""Which ticks are left out: those that a newer one of the same symbol has overtaken while a group is behind."""

from __future__ import annotations

from collections import Counter
from typing import Final

from botplatform.core.event_bus import Conflation

__all__ = ["Overtaken"]

TICKS: Final = "market.snapshot."
"""What may be left out."""


class Overtaken:
    """Counts the ticks that wait, and keeps what was left out until the newer one is handled; None: leaves none out."""

    def __init__(self, conflation: Conflation | None) -> None:
        self._conflation = conflation
        self._ticks: Counter[str] = Counter()
        self._left_out: dict[str, list[int]] = {}

    def clear(self) -> None:
        """Forget what waits."""
        self._ticks.clear()

    def arrived(self, subject: str) -> None:
        """Count an event that waits now."""
        if self._conflation is not None and subject.startswith(TICKS):
            self._ticks[subject] += 1

    def leaves_out(self, subject: str, sequence: int, *, handled: int, waiting: int) -> bool:
        """Tell whether an event that waits no more is left out: too many wait, a newer tick of its symbol among them."""
        if self._conflation is None or not subject.startswith(TICKS):
            return False
        self._ticks[subject] -= 1
        behind = waiting >= self._conflation.waiting and self._ticks[subject] > 0
        if not behind or sequence <= max(self._conflation.exact_until, handled):
            return False
        self._left_out.setdefault(subject, []).append(sequence)
        return True

    def by(self, subject: str) -> tuple[int, ...]:
        """Return, once, what was left out for an event."""
        return tuple(self._left_out.pop(subject, ())) if self._left_out else ()
