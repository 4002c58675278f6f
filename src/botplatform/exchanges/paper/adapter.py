"""The paper venue as an exchange adapter: the same calls and reports as of a venue on the network."""

from __future__ import annotations

from decimal import Decimal

from botplatform.core.events import MarketEvent, PositionSide
from botplatform.errors import ExchangeError
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest, ReportHandler
from botplatform.exchanges.paper.venue import PaperVenue

__all__ = ["PaperExchange"]


class PaperExchange:
    """An `Exchange` over a `PaperVenue`. Whoever has market data shows it by `on_market`; nothing moves otherwise."""

    def __init__(self, simulated: PaperVenue) -> None:
        self.simulated = simulated
        self.venue = simulated.venue
        self.account_id = simulated.account_id
        self._on_report: ReportHandler | None = None

    async def connect(self, on_report: ReportHandler) -> None:
        """Send every report from now on to `on_report`."""
        self._on_report = on_report

    async def close(self) -> None:
        """Send no report any more; the venue stops where it is, and orders stay as they are."""
        self._on_report = None

    def on_market(self, snapshot: MarketEvent) -> None:
        """Show the venue the market, and pass on what it reports. Does nothing while not connected."""
        if self._on_report is not None:
            self._push(self.simulated.on_market(snapshot))

    async def submit(self, request: OrderRequest) -> None:
        """Send an order; raises `DuplicateOrder` while one with its id is open, `ExchangeError` when not connected."""
        self._connected()
        self._push(self.simulated.submit(request))

    async def cancel(self, client_order_id: str, symbol: str) -> None:
        """Ask for an order to be cancelled; nothing happens to one that is finished."""
        self._connected()
        self._push(self.simulated.cancel(client_order_id, symbol))

    async def fetch_order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        """Return the latest report about an order; None when the venue never had it."""
        self._connected()
        return self.simulated.fetch_order(client_order_id, symbol)

    async def fetch_fills(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        """Return the executions of an order, oldest first; none of an order that the venue does not know."""
        self._connected()
        return self.simulated.fetch_fills(client_order_id, symbol)

    async def fetch_open_orders(self, symbol: str | None = None) -> list[ExchangeReport]:
        """Return the latest report about each open order."""
        self._connected()
        return self.simulated.open_orders(symbol)

    async def fetch_positions(self) -> dict[tuple[str, PositionSide], Decimal]:
        """Return what the account holds, by symbol and leg."""
        self._connected()
        return self.simulated.positions()

    def _connected(self) -> ReportHandler:
        if self._on_report is None:
            raise ExchangeError(f"the exchange {self.venue} is not connected: connect it before calling it")
        return self._on_report

    def _push(self, reports: list[ExchangeReport]) -> None:
        handler = self._on_report
        if handler is not None:
            for report in reports:
                handler(report)
