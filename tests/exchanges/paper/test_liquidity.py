"""What one snapshot offers: taken once, best price first, and never more than is there."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.events import MarketEvent, OrderBook, Side
from botplatform.exchanges.paper.liquidity import Liquidity
from botplatform.settings import InstrumentSettings
from botplatform.trading.instruments import Instrument

INSTRUMENT = Instrument.of("BTCUSDT", InstrumentSettings(tick_size=Decimal("0.01"), lot_step=Decimal("0.001")))
HALF = Decimal("0.001")

levels = st.lists(st.tuples(st.floats(0.001, 3), st.floats(0, 5)), max_size=6)


@st.composite
def snapshots(draw: st.DrawFn) -> MarketEvent:
    price = round(draw(st.floats(90, 110)), draw(st.integers(0, 4)))
    sides = []
    for sign in (-1, 1):
        prices, at = [], price
        sizes = []
        for distance, size in draw(levels):
            at += sign * distance
            prices.append(at)
            sizes.append(size)
        sides += [tuple(prices), tuple(sizes)]
    book = OrderBook(*sides) if draw(st.booleans()) else None
    candle = draw(st.booleans())
    low, high = (price - draw(st.floats(0, 5)), price + draw(st.floats(0, 5))) if candle else (None, None)
    return MarketEvent("BTCUSDT", price, timestamp_ns=1, orderbook=book, low=low, high=high)


quantities = st.decimals("0.001", 9, places=3)
limits = st.decimals(85, 115, places=2)


@given(snapshots(), st.sampled_from(Side), quantities, limits)
def test_the_quick_look_never_hides_a_fill(
    snapshot: MarketEvent, side: Side, quantity: Decimal, limit: Decimal
) -> None:
    quick = Liquidity(snapshot, INSTRUMENT, HALF).out_of_reach(side, limit)
    filled = Liquidity(snapshot, INSTRUMENT, HALF).take_resting(side, quantity, limit)
    assert not (quick and filled)


@given(snapshots(), st.sampled_from(Side), st.lists(st.tuples(quantities, limits | st.none()), max_size=6))
def test_rule_22_what_is_taken_together_is_never_more_than_the_book_has(
    snapshot: MarketEvent, side: Side, wanted: list[tuple[Decimal, Decimal | None]]
) -> None:
    liquidity = Liquidity(snapshot, INSTRUMENT, HALF)
    taken = Decimal(0)
    for quantity, limit in wanted:
        whole = liquidity.holds(side, quantity, limit)
        takes = liquidity.take(side, quantity, limit)
        got = sum((take.quantity for take in takes), Decimal(0))
        assert got == quantity if whole else got < quantity
        prices = [take.price for take in takes]
        assert prices == sorted(prices, reverse=side is Side.SELL)
        assert limit is None or all(price <= limit if side is Side.BUY else price >= limit for price in prices)
        taken += got
    book = snapshot.orderbook
    if book is not None:
        sizes = book.ask_sizes if side is Side.BUY else book.bid_sizes
        assert taken <= sum((Decimal(repr(size)) for size in sizes), Decimal(0))
