"""The event store as the rest of the platform sees it: append, look up, replay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import NamedTuple, Protocol, Self, runtime_checkable

from botplatform.core.events import Event, LiquiditySide, PositionSide, Side
from botplatform.store.retention import StoreMeter
from botplatform.trading.orders import OrderRecord

__all__ = ["EventStore", "StoredEvent", "StoredFill"]


class StoredEvent(NamedTuple):
    """An event as the store holds it."""

    event: Event
    sequence: int | None
    """Place in the log that it came from; None where there was no log, as in a backtest."""
    position: int
    """Place in the store, from 1: the order in which the events were written, and in which they replay."""


class StoredFill(NamedTuple):
    """One execution of the trade journal."""

    venue: str
    symbol: str
    trade_id: str
    """The venue's id; counted once per venue and symbol."""
    order_id: str
    account_id: str
    strategy: str
    side: Side
    position_side: PositionSide
    quantity: Decimal
    """In units of the base currency."""
    price: Decimal
    commission: Decimal
    """The fee; negative for a rebate."""
    commission_currency: str
    liquidity_side: LiquiditySide | None
    timestamp_ns: int
    """When it happened: nanoseconds since the UNIX epoch, UTC."""
    event_id: str
    correlation_id: str


@runtime_checkable
class EventStore(Protocol):
    """Keeps events and finds them again. Every method raises `StoreError` when the store cannot be read or written.

    It raises `StoreBusy` where another process is in the way, and `StoreAway` where the database is away: the same call
    may succeed later, and a batch of events may be given again, whether or not it was written.
    """

    @property
    def where(self) -> str:
        """Where it is, for people: a file, or the address of a database without what is secret."""

    @property
    def meter(self) -> StoreMeter | None:
        """What was counted for the retention; None for a store that keeps everything."""

    def __enter__(self) -> Self:
        """Return the store, which is closed on leaving."""

    def __exit__(self, *_: object) -> None:
        """Close the store."""

    def connect(self) -> None:
        """Connect to it now, where it is not a file, and make its tables where there are none."""

    def append(self, events: Iterable[tuple[Event, int | None]]) -> int:
        """Keep events with their sequence in the log, all or none; return how many were new.

        An event whose id is there already counts once: the first one stays.
        """

    def read(
        self, patterns: Iterable[str] = ("*",), *, after: int = 0, until: int | None = None, limit: int | None = None
    ) -> Iterator[StoredEvent]:
        """Replay the events of the patterns behind position `after`, up to and with `until`, `limit` at most.

        They come in the order of their positions, in bounded memory however many there are. What is written
        meanwhile is seen too, unless `until` says where to stop.
        """

    def by_id(self, event_id: str) -> StoredEvent | None:
        """Find an event; None when it is not there."""

    def by_correlation_id(self, correlation_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find all events of a chain, first to last, `limit` at most."""

    def by_order_id(self, order_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find the life of an order, first to last, `limit` at most."""

    def by_trade_id(self, trade_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find the events that report an execution, first to last, `limit` at most."""

    def by_trace_id(self, trace_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find all events whose chain has that OpenTelemetry trace id, first to last, `limit` at most."""

    def by_causation_id(self, event_id: str, *, limit: int = 10_000) -> list[StoredEvent]:
        """Find what came of an event directly, in whatever chain, first to last, `limit` at most."""

    def beginning_with(self, start: str, *, limit: int = 10) -> list[StoredEvent]:
        """Find events of which the id, the correlation id, the order id or the trade id begins with a text.

        One event for each such id, `limit` of each kind at most; for those who paste a part of an id.
        """

    def last_position(self) -> int:
        """Return the position of the newest event; 0 when there is none."""

    def last_sequence(self) -> int:
        """Return the largest sequence in the log that was written; 0 when there is none."""

    def order(self, order_id: str) -> OrderRecord | None:
        """Return an order as it stands; None when it is not in the journal."""

    def orders(self, *, symbol: str | None = None, open_only: bool = False) -> Iterator[OrderRecord]:
        """List the journal of orders as they stand, oldest first."""

    def fills(self, *, symbol: str | None = None, order_id: str | None = None) -> Iterator[StoredFill]:
        """List the trade journal, in the order in which the executions were counted."""

    def close(self) -> None:
        """Let go of the store; more than once is fine."""
