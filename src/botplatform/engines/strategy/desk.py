"""Everything about one symbol: its snapshots, its signals, and the strategies that trade it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import msgspec

from botplatform.core.events import Event, MarketEvent, SignalEvent
from botplatform.engines.strategy.slot import SavedSlot, Slot
from botplatform.events.rules import EMPTY
from botplatform.trading.positions import exact

__all__ = ["MAX_WAITING", "Desk", "SavedDesk"]

MAX_WAITING: Final = 4096
"""Snapshots of a symbol that wait for their signals at most; of more, the oldest are forgotten."""


class SavedDesk(msgspec.Struct):
    """The state of a desk, as it is serialised."""

    waiting: list[tuple[str, int, MarketEvent]]
    latest: dict[str, tuple[str, dict[str, float]]]
    slots: dict[str, SavedSlot]


class Desk:
    """Combines the snapshot, the signals and the strategies of one symbol.

    The log may hold newer snapshots than the one that a signal was computed from. A strategy must not see them:
    each signal is combined with the snapshot that caused it, or else with the newest one that is not after it.
    """

    __slots__ = ("latest", "running", "signals", "slots", "symbol", "waiting")

    def __init__(self, symbol: str, slots: Iterable[Slot]) -> None:
        self.symbol = symbol
        self.slots = {slot.name: slot for slot in slots}
        self.running: list[Slot] = []
        self.waiting: deque[tuple[str, int, MarketEvent]] = deque(maxlen=MAX_WAITING)
        """Id, time and snapshot, oldest first; the first one is that of the last signal."""
        self.latest: dict[str, tuple[str, Mapping[str, float]]] = {}
        """Event id and values of the last signal, by signal set."""
        self.signals: Mapping[str, float] = EMPTY
        """Values by name, over all signal sets."""
        self.renew()

    def renew(self) -> None:
        """Work out anew which strategies run."""
        self.running = [slot for slot in self.slots.values() if not slot.stopped_reason]

    def take_market(self, event: Event, snapshot: MarketEvent) -> None:
        """Keep a snapshot until its signals come."""
        self.waiting.append((event.id, event.timestamp_ns, snapshot))

    def take_signal(self, event: Event, signal: SignalEvent) -> MarketEvent | None:
        """Take a signal in; return the snapshot that it was computed from, or None where nothing can be decided.

        That is so when the same event came before, and when the snapshot is not known (any more).
        """
        before = self.latest.get(signal.signal_name)
        if before is not None and before[0] == event.id:
            return None
        market = self._match(event)
        if market is None:
            return None
        self.latest[signal.signal_name] = (event.id, signal.values)
        self.signals = signal.values if len(self.latest) == 1 else self._merged()
        return market

    def _match(self, event: Event) -> MarketEvent | None:
        waiting, cause, place = self.waiting, event.causation_id, -1
        for index, (known, timestamp_ns, _) in enumerate(waiting):
            if known == cause:
                place = index
                break
            if timestamp_ns <= event.timestamp_ns:
                place = index
        for _ in range(place):
            waiting.popleft()
        return waiting[0][2] if place >= 0 else None

    def _merged(self) -> Mapping[str, float]:
        merged: dict[str, float] = {}
        for name in sorted(self.latest):
            merged.update(self.latest[name][1])
        return MappingProxyType(merged)

    def mark(self) -> Decimal | None:
        """Return the price to mark positions at: that of the last signal's snapshot; None before the first."""
        if not self.waiting:
            return None
        market = self.waiting[0][2]
        return exact(market.price if market.mark_price is None else market.mark_price)

    def save(self) -> SavedDesk:
        """Return the state, for serialising."""
        latest = {name: (event_id, dict(values)) for name, (event_id, values) in self.latest.items()}
        return SavedDesk(list(self.waiting), latest, {name: slot.save() for name, slot in self.slots.items()})

    def load(self, saved: SavedDesk) -> None:
        """Take the state back; strategies that the settings do not have any more are left out."""
        self.waiting.clear()
        self.waiting.extend(saved.waiting)
        self.latest = {name: (event_id, MappingProxyType(values)) for name, (event_id, values) in saved.latest.items()}
        self.signals = self._merged()
        for name, slot in saved.slots.items():
            if name in self.slots:
                self.slots[name].load(slot)
        self.renew()
