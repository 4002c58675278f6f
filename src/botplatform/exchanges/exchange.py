"""The exchange interface: what execution needs from a venue, and what a venue reports.

An adapter translates between a venue and these types, and nothing more: it keeps no positions, makes no
decisions and publishes no events itself. Every failure after a request may have left is `OutcomeUnknown`.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Protocol, runtime_checkable

from msgspec import Struct

from botplatform.core.events import MarketEvent, OrderType, PositionSide, Side, TimeInForce
from botplatform.trading.venue_report import ExchangeReport

__all__ = ["Exchange", "ExchangeReport", "OrderRequest", "Reconnects", "ReportHandler", "SimulatedExchange"]


class OrderRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order as the venue gets it."""

    client_order_id: str
    """Our id: at most 36 characters of `A-Z a-z 0-9 . : / _ -`; the venue refuses it while one is open under it."""
    symbol: str
    side: Side
    quantity: Decimal
    """In units of the base currency, a multiple of the lot step."""
    order_type: OrderType = OrderType.MARKET
    price: Decimal | None = None
    """The limit price of a LIMIT order, a multiple of the tick size."""
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    position_side: PositionSide = PositionSide.LONG
    valid_until_ns: int = 0
    """After this time of its own clock the venue does not take the order any more: nanoseconds since the UNIX epoch,
    0 for no end. It bounds how long a request can be under way; it does not end an order that was taken."""


ReportHandler = Callable[[ExchangeReport], None]


@runtime_checkable
class Exchange(Protocol):
    """An exchange adapter. All calls may raise `ExchangeError` (nothing happened) or `OutcomeUnknown`."""

    venue: str
    """Its name, for example `paper` or `binance`."""
    account_id: str

    async def connect(self, on_report: ReportHandler) -> None:
        """Open connections; from now on every report of the venue goes to `on_report`, in order per order."""

    async def close(self) -> None:
        """Close connections; no report comes afterwards."""

    async def submit(self, request: OrderRequest) -> None:
        """Send an order. Returns when the venue has it; what becomes of it comes as reports.

        The venue must not take it after its `valid_until_ns`, because a later owner of the symbol may send it again
        from then on; raise `RequestExpired` when it states that it came too late, and it is sent again from here.
        """

    async def cancel(self, client_order_id: str, symbol: str) -> None:
        """Ask for an order to be cancelled; what becomes of it comes as a report."""

    async def fetch_order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        """Ask for one order by our id; None only when the venue states that it never had it."""

    async def fetch_fills(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        """List the executions of one order, oldest first: each PARTIALLY_FILLED or FILLED, with its `trade_id`.

        Their `trade_id`, `last_qty` and `last_px` are those of the reports that were pushed. An empty list proves
        nothing: what counts is that the quantities add up to the `filled_qty` of `fetch_order`.
        """

    async def fetch_open_orders(self, symbol: str | None = None) -> list[ExchangeReport]:
        """List the working orders. Absence from the list proves nothing."""

    async def fetch_positions(self) -> dict[tuple[str, PositionSide], Decimal]:
        """Return quantity by (symbol, leg), for legs that are not flat."""


@runtime_checkable
class Reconnects(Protocol):
    """An exchange adapter that can tell when its connection is lost and back; those that cannot leave this out."""

    def watch_connection(self, on_change: Callable[[bool], None]) -> None:
        """Call `on_change(False)` when reports may be missing from now on, and `on_change(True)` when they are not."""


@runtime_checkable
class SimulatedExchange(Protocol):
    """A venue that lives inside the process and fills against the market it is shown, synchronously.

    The backtest drives it directly; elsewhere an `Exchange` adapter wraps it.
    """

    venue: str
    account_id: str

    def on_market(self, snapshot: MarketEvent) -> list[ExchangeReport]:
        """Show the venue the market; time, latencies and resting orders move on; return what it reports."""

    def submit(self, request: OrderRequest) -> list[ExchangeReport]:
        """Take an order; most reports come later, from `on_market`."""

    def cancel(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        """Take a request to cancel."""

    def fetch_order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        """Return the latest report about an order, or None when it was never seen."""

    def snapshot(self) -> bytes:
        """Return the whole state."""

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned."""
