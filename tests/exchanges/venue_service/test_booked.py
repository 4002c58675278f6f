from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.events import MarketEvent, OrderStatus, OrderType, PositionSide, Side
from botplatform.errors import DuplicateOrder, RequestExpired
from botplatform.exchanges.exchange import OrderRequest
from botplatform.exchanges.venue_service.book import Book
from botplatform.exchanges.venue_service.booked import BookedVenue
from botplatform.exchanges.venue_service.protocol import Numbered
from botplatform.settings import ExchangeSettings
from botplatform.trading.instruments import Instruments

START = 1_700_000_000_000_000_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MEMORY = ":memory:"


def booked(book: Book, **exchange: Any) -> BookedVenue:
    return BookedVenue(book, ExchangeSettings(**({"partial_fill_share": 0} | exchange)), Instruments(), SYMBOLS)


def book_at(path: Path | str = MEMORY) -> Book:
    return Book(path, name="paper", account_id="paper", balance=Decimal(1000))


def buy(name: str = "order-1", **fields: Any) -> OrderRequest:
    known: dict[str, Any] = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": Decimal(1)}
    return OrderRequest(client_order_id=name, **(known | fields))


def limit(name: str = "order-1", price: int = 50, **fields: Any) -> OrderRequest:
    return buy(name, order_type=OrderType.LIMIT, price=Decimal(price), **fields)


class Market:
    """Shows a venue one snapshot a second."""

    def __init__(self) -> None:
        self.now = START

    def show(self, venue: BookedVenue, price: float = 100.0, symbol: str = "BTCUSDT") -> list[Numbered]:
        self.now += 10**9
        return venue.on_market(MarketEvent(symbol, price, timestamp_ns=self.now))


def test_an_id_is_taken_again_once_its_order_has_finished_and_that_is_counted() -> None:
    with book_at() as book:
        venue, market = booked(book), Market()
        venue.submit(buy(), START)
        with pytest.raises(DuplicateOrder):
            venue.submit(buy(), START)
        assert book.audit("order-1").orders == 1
        first = market.show(venue)[-1].report
        assert first.status is OrderStatus.FILLED
        venue.submit(buy(), START)
        second = market.show(venue)[-1].report
        assert book.audit("order-1").orders == 2
        assert second.venue_order_id != first.venue_order_id
        assert second.trade_id != first.trade_id
        assert venue.fills("order-1", "BTCUSDT") == [second]
        assert venue.positions() == {("BTCUSDT", PositionSide.LONG): Decimal(2)}


def test_an_order_finished_long_ago_is_still_known_and_its_id_makes_new_trade_ids() -> None:
    with book_at() as book:
        venue, market = booked(book), Market()
        venue.submit(buy("old"), START)
        old = market.show(venue)[-1].report
        for n in range(100):
            venue.submit(buy(f"order-{n}"), START)
            market.show(venue)
        assert venue.order("old", "BTCUSDT") == old
        venue.submit(buy("old"), START)
        assert market.show(venue)[-1].report.trade_id != old.trade_id


def test_an_order_that_arrives_after_its_end_is_not_taken_then_or_later() -> None:
    with book_at() as book:
        venue, market = booked(book), Market()
        with pytest.raises(RequestExpired, match=r"1\.500 s after"):
            venue.submit(buy("late", valid_until_ns=START), START + 1_500_000_000)
        assert market.show(venue) == []
        assert venue.order("late", "BTCUSDT") is None
        assert book.audit().orders == 0
        venue.submit(buy("in-time", valid_until_ns=START), START)
        assert market.show(venue)[-1].report.status is OrderStatus.FILLED


def test_an_order_that_was_taken_in_time_works_on_after_its_end() -> None:
    with book_at() as book:
        venue, market = booked(book), Market()
        venue.submit(limit(valid_until_ns=START), START)
        market.show(venue)
        market.show(venue)
        assert [report.status for report in venue.open_orders()] == [OrderStatus.ACCEPTED]


def test_markets_of_unknown_symbols_change_nothing() -> None:
    with book_at() as book:
        venue, market = booked(book), Market()
        assert market.show(venue, symbol="DOGEUSDT") == []
        assert not venue.trades("DOGEUSDT")
        assert set(venue.market_ns) == set(SYMBOLS)


def test_a_symbol_of_the_book_that_is_not_configured_any_more_keeps_its_orders(tmp_path: Path) -> None:
    with book_at(tmp_path / "book") as book:
        booked(book).submit(limit(), START)
    with book_at(tmp_path / "book") as book:
        venue = BookedVenue(book, ExchangeSettings(), Instruments(), ("ETHUSDT",))
        assert [report.client_order_id for report in venue.open_orders()] == ["order-1"]


def everything(venue: BookedVenue) -> Any:
    return (
        venue.open_orders(),
        venue.positions(),
        venue.book.balances(),
        venue.book.reports_since(0, 10_000),
        venue.book.audit(),
        venue.book.markets(),
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.sampled_from(SYMBOLS), st.integers(90, 110)),
        st.tuples(st.just("buy"), st.sampled_from(SYMBOLS), st.integers(0, 3)),
        st.tuples(st.just("limit"), st.sampled_from(SYMBOLS), st.integers(0, 3)),
        st.tuples(st.just("close"), st.sampled_from(SYMBOLS), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.sampled_from(SYMBOLS), st.integers(0, 3)),
    ),
    max_size=40,
)


def take(venue: BookedVenue, market: Market, step: tuple[str, str, int]) -> None:
    what, symbol, n = step
    name = f"{what}-{n}"
    try:
        if what == "tick":
            market.show(venue, float(n), symbol)
        elif what == "buy":
            venue.submit(buy(name, symbol=symbol), START)
        elif what == "limit":
            venue.submit(limit(name, 95 + n, symbol=symbol), START)
        elif what == "close":
            venue.submit(buy(name, symbol=symbol, side=Side.SELL, reduce_only=True), START)
        else:
            venue.cancel(f"limit-{n}", symbol)
    except DuplicateOrder:
        pass


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, restarts=st.sets(st.integers(0, 40), max_size=4), share=st.sampled_from([0.0, 0.5]))
def test_a_venue_that_is_made_again_over_its_book_goes_on_as_if_nothing_had_been(
    steps: list[tuple[str, str, int]], restarts: set[int], share: float
) -> None:
    with book_at() as one, book_at() as other:
        steady, market = booked(one, partial_fill_share=share, reject_share=0.1), Market()
        restarted, same = booked(other, partial_fill_share=share, reject_share=0.1), Market()
        for n, step in enumerate([*steps, ("tick", "BTCUSDT", 100), ("tick", "ETHUSDT", 100)]):
            # A tick that changes nothing is not in the book: so the market's time is the same only once it ticks.
            if n in restarts:
                market.show(steady, 100.0, "BTCUSDT")
                market.show(steady, 100.0, "ETHUSDT")
                restarted = booked(other, partial_fill_share=share, reject_share=0.1)
                same.show(restarted, 100.0, "BTCUSDT")
                same.show(restarted, 100.0, "ETHUSDT")
            take(steady, market, step)
            take(restarted, same, step)
        assert everything(restarted) == everything(steady)
