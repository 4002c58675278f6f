"""Whole chains of the latest decisions, with the ticks and signals that led to them; bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from botplatform.core.events import Event

__all__ = ["Chains"]

MAX_CHAINS: Final = 128
MAX_EVENTS: Final = 256
MAX_RECENT: Final = 2_048
MAX_ROOTS: Final = 8


class Chains:
    """Events by correlation id: every event of a chain with a decision or an order in it, oldest first.

    Ticks and signals only wait in `recent` (the latest 2,048) until a decision names one of them as its cause.
    The latest 128 chains are kept, the one of the last trade always, of each chain its first 256 events.
    """

    def __init__(self) -> None:
        self.recent: deque[Event] = deque(maxlen=MAX_RECENT)
        """Ticks and signals that a decision may yet come of."""
        self._chains: OrderedDict[str, dict[str, Event]] = OrderedDict()
        """By correlation id, the events of a chain by their ids, oldest first."""
        self._last = ""
        self._last_trade = ""

    @property
    def latest_id(self) -> str:
        """The correlation id of the last trade, or of the last decision while there was no trade; or empty."""
        return self._last_trade or self._last

    def latest(self) -> list[Event]:
        """Return the chain of `latest_id`."""
        return self.of(self.latest_id)

    def of(self, correlation_id: str) -> list[Event]:
        """Return the events of a chain, as they came; none when it is unknown or forgotten."""
        return list(self._chains.get(correlation_id, {}).values())

    def begin(self, event: Event, *, trade: bool = False) -> None:
        """Keep an event of a decision or an order, and the chain that it belongs to; `trade` marks a fill."""
        name = event.correlation_id
        if not name:
            return
        chain = self._chains.get(name)
        if chain is None:
            chain = self._chains[name] = {cause.id: cause for cause in self._causes(event)}
        self._chains.move_to_end(name)
        self._last = name
        if trade:
            self._last_trade = name
        self._add(chain, event)
        if len(self._chains) > MAX_CHAINS:
            self._evict()

    def follow(self, event: Event) -> None:
        """Keep an event when its chain is kept."""
        chain = self._chains.get(event.correlation_id)
        if chain is not None:
            self._add(chain, event)

    def _add(self, chain: dict[str, Event], event: Event) -> None:
        if len(chain) < MAX_EVENTS:
            chain.setdefault(event.id, event)

    def _causes(self, event: Event) -> list[Event]:
        """Find what led to an event among the recent ticks and signals, oldest first."""
        found: list[Event] = []
        wanted = event.causation_id
        for candidate in reversed(self.recent):
            if candidate.id == wanted:
                found.append(candidate)
                wanted = candidate.causation_id
                if not wanted or len(found) == MAX_ROOTS:
                    break
        return found[::-1]

    def _evict(self) -> None:
        oldest = next(name for name in self._chains if name != self._last_trade)
        del self._chains[oldest]
