"""The paper venue with its book: every change is in the book before anybody hears of it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from botplatform.core.events import MarketEvent, PositionSide
from botplatform.errors import RequestExpired
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.paper.venue import PaperVenue
from botplatform.exchanges.venue_service.book import Book
from botplatform.exchanges.venue_service.crash import CrashPoint
from botplatform.exchanges.venue_service.protocol import Numbered
from botplatform.settings import ExchangeSettings
from botplatform.trading.instruments import Instruments

__all__ = ["BookedVenue"]


class BookedVenue:
    """A `PaperVenue` per symbol, so that a change writes one symbol's state only, over a `Book`.

    After an error that is not an `ExchangeError` it must be thrown away, because memory may be ahead of the book;
    made again over the same book it is what it was when it last said something.
    """

    def __init__(
        self,
        book: Book,
        settings: ExchangeSettings,
        instruments: Instruments,
        symbols: Iterable[str],
        crash: CrashPoint | None = None,
    ) -> None:
        self.book = book
        self._crash = crash or CrashPoint()
        self._venues = {}
        states = book.markets()
        for symbol in {**dict.fromkeys(symbols), **dict.fromkeys(states)}:
            venue = PaperVenue(settings, instruments, finished_kept=0)  # the book knows the finished ones
            if symbol in states:
                venue.restore(states[symbol])
            self._venues[symbol] = venue
        self._market_ns = dict.fromkeys(self._venues, 0)

    @property
    def market_ns(self) -> dict[str, int]:
        """The time of the latest snapshot that this process saw, by symbol; 0 before the first."""
        return dict(self._market_ns)

    def trades(self, symbol: str) -> bool:
        """Tell whether the venue knows a symbol."""
        return symbol in self._venues

    def submit(self, request: OrderRequest, now_ns: int) -> None:
        """Take an order at a time of the venue's clock.

        Raises `RequestExpired` after the order's `valid_until_ns`, and `DuplicateOrder` while one with its id is open.
        """
        self._crash.reach("submit.received")
        if request.valid_until_ns and now_ns > request.valid_until_ns:
            raise RequestExpired(
                f"the order {request.client_order_id} arrived {(now_ns - request.valid_until_ns) / 1e9:.3f} s after "
                "the end of its validity, and was not taken"
            )
        venue, symbol = self._venues[request.symbol], request.symbol
        venue.submit(request, used_before=self.book.times_taken(request.client_order_id, symbol))
        self._crash.reach("submit.applied")
        self.book.commit(
            symbol, venue.snapshot(), order=(request, now_ns), written=lambda: self._crash.reach("submit.written")
        )
        self._crash.reach("submit.committed")

    def cancel(self, client_order_id: str, symbol: str) -> None:
        """Take a request to cancel; nothing happens to an order that is finished or was never taken."""
        self._crash.reach("cancel.received")
        venue = self._venues[symbol]
        venue.cancel(client_order_id, symbol)
        self._crash.reach("cancel.applied")
        self.book.commit(symbol, venue.snapshot(), written=lambda: self._crash.reach("cancel.written"))
        self._crash.reach("cancel.committed")

    def on_market(self, snapshot: MarketEvent) -> list[Numbered]:
        """Show the market; return what is reported, which is in the book by then. Other symbols change nothing."""
        symbol = snapshot.symbol
        venue = self._venues.get(symbol)
        if venue is None:
            return []
        self._crash.reach("market.received")
        reports = venue.on_market(snapshot)
        self._market_ns[symbol] = max(self._market_ns[symbol], snapshot.timestamp_ns)
        if not reports:
            return []
        self._crash.reach("market.applied")
        numbered = self.book.commit(
            symbol, venue.snapshot(), reports=reports, written=lambda: self._crash.reach("market.written")
        )
        self._crash.reach("market.committed")
        return numbered

    def order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        """Return the latest report about the order that last had this id; None when none ever had it."""
        working = self._venues[symbol].fetch_order(client_order_id, symbol)
        return working if working is not None else self.book.latest(client_order_id, symbol)

    def fills(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        """Return the executions of the order that last had this id, oldest first."""
        order = self.order(client_order_id, symbol)
        return [] if order is None else self.book.fills(client_order_id, symbol, order.venue_order_id)

    def open_orders(self, symbol: str | None = None) -> list[ExchangeReport]:
        """Return the latest report about each open order."""
        venues = self._venues.values() if symbol is None else [self._venues[symbol]]
        return [report for venue in venues for report in venue.open_orders()]

    def positions(self) -> dict[tuple[str, PositionSide], Decimal]:
        """Return what the account holds, by symbol and leg, without legs that are flat."""
        return {leg: quantity for venue in self._venues.values() for leg, quantity in venue.positions().items()}
