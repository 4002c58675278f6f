"""From a request to its answer: reads it, asks the venue, and writes what it says. No network, no waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Raw

from botplatform.core.seam import Clock
from botplatform.errors import DuplicateOrder, InvalidEvent, RequestExpired
from botplatform.exchanges.exchange import OrderRequest
from botplatform.exchanges.venue_service.booked import BookedVenue
from botplatform.exchanges.venue_service.protocol import (
    PAGE,
    Ask,
    AuditAsk,
    Code,
    ListAsk,
    OrderAsk,
    PositionRow,
    Refusal,
    Reply,
    Reports,
    ReportsAsk,
    Status,
    Verb,
    check_request,
    decode,
    encode,
)

__all__ = ["Answers"]

MAX_FILLS: Final = 1_000
"""Executions in one answer at most."""
MAX_ARRIVALS: Final = 10_000
"""Orders of which it is remembered how often they were sent."""


class Answers:
    """Answers requests for a `BookedVenue`. What cannot be read is refused; what the book cannot keep is raised."""

    def __init__(self, venue: BookedVenue, clock: Clock) -> None:
        self._venue = venue
        self._clock = clock
        self._arrivals: dict[str, int] = {}
        self._of: Final[dict[Verb, Callable[[Raw], object]]] = {
            Verb.SUBMIT: self._submit,
            Verb.CANCEL: self._cancel,
            Verb.ORDER: self._order,
            Verb.FILLS: self._fills,
            Verb.OPEN_ORDERS: self._open_orders,
            Verb.REPORTS_SINCE: self._reports_since,
            Verb.POSITIONS: self._positions,
            Verb.BALANCES: self._balances,
            Verb.STATUS: self._status,
            Verb.AUDIT: self._audit,
        }

    def fault_key(self, verb: Verb, ask: Ask) -> str:
        """Return what the faults of a request are drawn by: for a submit its order's id, and how often it came before."""
        if verb is not Verb.SUBMIT:
            return f"{verb.value}/{ask.request_id}"
        try:
            request = decode(ask.body, OrderRequest)
        except InvalidEvent:
            return ask.request_id
        order = f"{request.client_order_id}/{request.symbol}"
        before = self._arrivals.pop(order, None)
        if before is None:
            before = self._venue.book.times_taken(request.client_order_id, request.symbol)
        self._arrivals[order] = before + 1
        if len(self._arrivals) > MAX_ARRIVALS:
            del self._arrivals[next(iter(self._arrivals))]
        return f"submit/{order}/{before}"

    def answer(self, verb: Verb, ask: Ask) -> bytes:
        """Do what is asked, and return the answer; raises only what the process cannot go on after."""
        try:
            return encode(Reply(body=Raw(encode(self._of[verb](ask.body)))))
        except DuplicateOrder as e:
            return refusal(Code.DUPLICATE_ORDER, str(e))
        except RequestExpired as e:
            return refusal(Code.EXPIRED, str(e))
        except InvalidEvent as e:
            return refusal(Code.BAD_REQUEST, str(e))
        except LookupError as e:
            if not isinstance(e, _UnknownSymbol):
                raise
            return refusal(Code.UNKNOWN_SYMBOL, str(e.args[0]))

    def _submit(self, body: Raw) -> None:
        request = decode(body, OrderRequest)
        check_request(request)
        self._check_symbol(request.symbol)
        self._venue.submit(request, self._clock.now_ns())

    def _cancel(self, body: Raw) -> None:
        ask = self._about(body)
        self._venue.cancel(ask.client_order_id, ask.symbol)

    def _order(self, body: Raw) -> object:
        ask = self._about(body)
        return self._venue.order(ask.client_order_id, ask.symbol)

    def _fills(self, body: Raw) -> object:
        ask = self._about(body)
        return self._venue.fills(ask.client_order_id, ask.symbol)[:MAX_FILLS]

    def _open_orders(self, body: Raw) -> object:
        ask = decode(body, ListAsk)
        if ask.symbol is not None:
            self._check_symbol(ask.symbol)
        return self._venue.open_orders(ask.symbol)[max(ask.offset, 0) :][:PAGE]

    def _reports_since(self, body: Raw) -> object:
        book = self._venue.book
        after = min(decode(body, ReportsAsk).after, book.sequence)  # SQLite takes no number that is larger than its own
        return Reports(book.book_id, book.sequence, book.reports_since(max(after, 0), PAGE))

    def _positions(self, _: Raw) -> object:
        return [PositionRow(symbol, side, quantity) for (symbol, side), quantity in self._venue.positions().items()]

    def _balances(self, _: Raw) -> object:
        return self._venue.book.balances()

    def _status(self, _: Raw) -> object:
        book = self._venue.book
        return Status(
            name=book.name,
            account_id=book.account_id,
            book_id=book.book_id,
            sequence=book.sequence,
            now_ns=self._clock.now_ns(),
            market_ns=self._venue.market_ns,
        )

    def _audit(self, body: Raw) -> object:
        return self._venue.book.audit(decode(body, AuditAsk).client_order_id)

    def _about(self, body: Raw) -> OrderAsk:
        ask = decode(body, OrderAsk)
        self._check_symbol(ask.symbol)
        return ask

    def _check_symbol(self, symbol: str) -> None:
        if not self._venue.trades(symbol):
            raise _UnknownSymbol(f"the venue does not trade {symbol}: add it to its `symbols`")


class _UnknownSymbol(LookupError):
    """The venue does not trade it."""


def refusal(code: Code, text: str) -> bytes:
    """Write a refusal."""
    return encode(Reply(Refusal(code, text)))
