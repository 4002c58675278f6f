"""Stores with limits, and events of any age to write to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from botplatform.core.events import (
    ActionIntent,
    ActionSide,
    ActionType,
    Event,
    MarketEvent,
    OrderEvent,
    OrderStatus,
    PositionSide,
    Side,
    SignalEvent,
    StrategyEvent,
    SystemEvent,
)
from botplatform.store.event_store import EventStore
from botplatform.store.retention import Retention
from botplatform.store.schema import MEMORY
from botplatform.store.sqlite import SqliteEventStore

S = 10**9
DAY = 86_400
T0 = 1_700_000_000
D = Decimal


@dataclass
class At:
    """A clock that stands still."""

    second: int = T0 + 1_000 * DAY

    def now_ns(self) -> int:
        return self.second * S

    def monotonic_ns(self) -> int:
        return self.now_ns()

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def tick(second: int, chain: str = "", *, name: str = "") -> Event:
    own = name or f"tick-{second}{chain}"
    payload = MarketEvent("BTCUSDT", 100.0)
    return Event("market.snapshot", payload, "feed", timestamp_ns=(T0 + second) * S, correlation_id=chain, id=own)


def signal(second: int, chain: str) -> Event:
    payload = SignalEvent("BTCUSDT", "default", {"rsi": 50.0})
    moment = (T0 + second) * S
    return Event("signal.snapshot", payload, "signals", timestamp_ns=moment, correlation_id=chain, id=f"signal-{chain}")


def decision(second: int, chain: str) -> Event:
    payload = StrategyEvent("hedge", "BTCUSDT", (ActionIntent(ActionType.OPEN, ActionSide.LONG, D(1)),))
    moment = (T0 + second) * S
    return Event("strategy.decision", payload, "strategy", timestamp_ns=moment, correlation_id=chain, id=f"do-{chain}")


def order(second: int, chain: str, status: OrderStatus, *, cause: str = "", **fields: Any) -> Event:
    payload = OrderEvent(
        *(f"o-{chain}", "BTCUSDT", Side.BUY, D(1), status),
        **{"venue": "paper", "strategy": "hedge", "position_side": PositionSide.LONG, **fields},
    )
    return Event(
        f"order.{status.value.lower()}",
        payload,
        "paper",
        timestamp_ns=(T0 + second) * S,
        correlation_id=chain,
        causation_id=cause,
        id=f"{status.value}-{chain}",
    )


def filled(second: int, chain: str, *, cause: str = "") -> Event:
    fields = {"trade_id": f"t-{chain}", "last_qty": D(1), "last_px": D(100)}
    return order(second, chain, OrderStatus.FILLED, cause=cause, **fields)


def warning(second: int) -> Event:
    payload = SystemEvent("test", "later")
    return Event("system.warning", payload, "test", timestamp_ns=(T0 + second) * S, id=f"warning-{second}")


def opened(path: Path | str = MEMORY, clock: At | None = None, **limits: int) -> SqliteEventStore:
    return SqliteEventStore(path, retention=retention(clock, **limits))


def retention(clock: At | None = None, **limits: int) -> tuple[Retention, At]:
    return Retention(*(limits.get(name, 0) for name in Retention._fields)), clock or At()


Opening: TypeAlias = Callable[..., EventStore]


def ids(store: EventStore) -> list[str]:
    return [item.event.id for item in store.read()]


def write(store: EventStore, *events: Event) -> None:
    after = store.last_sequence()
    store.append([(event, after + number) for number, event in enumerate(events, 1)])
