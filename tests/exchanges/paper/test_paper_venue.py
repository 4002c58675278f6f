"""The paper venue: fills against the market it sees, seeded, without looking ahead."""

from __future__ import annotations

from decimal import Decimal

import pytest

from benches.paper import BOOK, SECOND, START, S, at, buy, close, fills, limit, told, venue
from botplatform.core.events import LiquiditySide, OrderBook, OrderStatus, PositionSide, Side, TimeInForce
from botplatform.exchanges.exchange import SimulatedExchange


def test_it_is_a_simulated_exchange() -> None:
    assert isinstance(venue(), SimulatedExchange)


def test_a_market_order_is_acknowledged_and_filled_half_a_spread_away() -> None:
    paper = venue()
    paper.on_market(at(0))
    assert paper.submit(buy()) == []
    accepted, filled = paper.on_market(at(1, 200.0))
    assert told([accepted, filled]) == [("a", S.ACCEPTED), ("a", S.FILLED)]
    assert filled.last_px == Decimal(201)
    assert filled.commission == Decimal(201) * Decimal("0.0005")
    assert (filled.commission_currency, filled.liquidity_side) == ("USDT", LiquiditySide.TAKER)
    assert (filled.version, filled.timestamp_ns, filled.leaves_qty) == (2, START + SECOND, Decimal(0))
    assert paper.positions() == {("BTCUSDT", PositionSide.LONG): Decimal(1)}


def test_rule_21_an_order_never_fills_on_the_snapshot_that_it_was_sent_on() -> None:
    paper = venue(latency_ms=0)
    paper.on_market(at(0, 100.0))
    paper.submit(buy())
    assert paper.on_market(at(0, 100.0, feed_sequence=0)) != []
    later = venue(latency_ms=1_500)
    later.on_market(at(0))
    later.submit(buy())
    assert later.on_market(at(1)) == []
    assert told(later.on_market(at(2))) == [("a", S.ACCEPTED), ("a", S.FILLED)]


def test_a_snapshot_that_comes_again_or_late_moves_nothing() -> None:
    paper = venue()
    paper.on_market(at(0, feed_sequence=1))
    paper.submit(buy())
    assert paper.on_market(at(0, feed_sequence=1)) == []
    assert told(paper.on_market(at(1, feed_sequence=2))) == [("a", S.ACCEPTED), ("a", S.FILLED)]
    paper.submit(buy("b"))
    assert paper.on_market(at(0.5, feed_sequence=3)) == []
    assert paper.on_market(at(1, feed_sequence=2)) == []


def test_a_snapshot_from_the_past_fills_nothing() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(limit(price="90"))
    paper.on_market(at(2))
    assert paper.on_market(at(1, 50.0)) == []
    assert told(paper.on_market(at(3, 50.0))) == [("a", S.FILLED)]


@pytest.mark.parametrize(("side", "paid"), [(Side.BUY, "100.34"), (Side.SELL, "99.66")])
def test_a_price_around_the_market_is_rounded_to_the_tick_against_the_taker(side: Side, paid: str) -> None:
    paper = venue(spread_bps=66.6)
    paper.on_market(at(0))
    leg = PositionSide.LONG if side is Side.BUY else PositionSide.SHORT
    paper.submit(buy(side=side, position_side=leg))
    assert fills(paper.on_market(at(1, 100.001))) == [("1", paid)]


def test_a_tick_that_is_coarser_than_half_the_spread_does_not_move_the_price() -> None:
    paper = venue(spread_bps=1)
    paper.on_market(at(0, 0.1))
    paper.submit(buy())
    assert fills(paper.on_market(at(1, 0.1))) == [("1", "0.100005")]


def test_a_market_order_walks_the_book_and_each_level_is_an_execution() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(buy(quantity="2.5"))
    reports = paper.on_market(at(1, orderbook=BOOK))
    assert fills(reports) == [("1.00", "101.0"), ("1.50", "102.0")]
    assert reports[-1].status is S.FILLED
    assert reports[-1].avg_px == Decimal("101.6")
    assert len({report.trade_id for report in reports if report.trade_id}) == 2


def test_rule_22_liquidity_of_one_snapshot_is_consumed_once() -> None:
    paper = venue()
    paper.on_market(at(0))
    for name in ("a", "b"):
        paper.submit(buy(name, "2"))
    reports = paper.on_market(at(1, orderbook=BOOK))
    assert fills(reports) == [("1.00", "101.0"), ("1.00", "102.0"), ("1.00", "102.0"), ("1.00", "103.0")]
    paper.submit(buy("c", "9"))
    first = paper.on_market(at(2, orderbook=BOOK))
    assert sum(Decimal(quantity) for quantity, _ in fills(first)) == 7
    assert fills(paper.on_market(at(3, orderbook=BOOK))) == [("1.00", "101.0"), ("1.00", "102.0")]


def test_a_sell_takes_the_bids() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(buy("s", "2", side=Side.SELL, position_side=PositionSide.SHORT))
    assert fills(paper.on_market(at(1, orderbook=BOOK))) == [("1.00", "99.0"), ("1.00", "98.0")]
    assert paper.positions() == {("BTCUSDT", PositionSide.SHORT): Decimal(2)}


def test_a_limit_order_rests_and_fills_at_its_limit_as_maker_when_the_market_comes() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(limit(price="98"))
    assert told(paper.on_market(at(1, 100.0))) == [("a", S.ACCEPTED)]
    assert paper.on_market(at(2, 98.0)) == []
    (filled,) = paper.on_market(at(3, 97.0))
    assert (filled.status, filled.last_px, filled.liquidity_side) == (S.FILLED, Decimal(98), LiquiditySide.MAKER)
    assert filled.commission == Decimal(98) * Decimal("0.0002")


def test_a_limit_order_that_crosses_on_arrival_takes_at_the_better_price() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(limit(price="102", quantity="5"))
    reports = paper.on_market(at(1, orderbook=BOOK))
    assert fills(reports) == [("1.00", "101.0"), ("2.00", "102.0")]
    assert reports[-1].leaves_qty == 2
    (rest,) = paper.on_market(at(2, orderbook=BOOK))
    assert (rest.last_qty, rest.last_px, rest.liquidity_side) == (Decimal(2), Decimal(102), LiquiditySide.MAKER)


def test_a_resting_order_sees_the_range_of_the_candle_but_not_of_the_one_that_it_arrived_in() -> None:
    paper = venue(spread_bps=0)
    paper.on_market(at(0))
    paper.submit(limit(price="95"))
    assert told(paper.on_market(at(60, 100.0, low=90.0, high=101.0))) == [("a", S.ACCEPTED)]
    assert fills(paper.on_market(at(120, 100.0, low=94.0, high=101.0))) == [("1", "95")]


@pytest.mark.parametrize(("book", "status"), [(BOOK, S.REJECTED), (None, S.ACCEPTED)])
def test_post_only_is_rejected_where_it_would_take(book: OrderBook | None, status: OrderStatus) -> None:
    paper = venue(spread_bps=400)
    paper.on_market(at(0))
    paper.submit(limit(price="101", post_only=True))
    reports = paper.on_market(at(1, orderbook=book))
    assert told(reports) == [("a", status)]
    assert reports[0].reason_code == ("WOULD_TAKE" if status is S.REJECTED else "")


def test_the_rest_of_an_ioc_order_is_cancelled() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(limit(price="101", quantity="3", time_in_force=TimeInForce.IOC))
    reports = paper.on_market(at(1, orderbook=BOOK))
    assert told(reports) == [("a", S.ACCEPTED), ("a", S.PARTIALLY_FILLED), ("a", S.CANCELLED)]
    assert (reports[-1].filled_qty, reports[-1].reason_code) == (Decimal(1), "IOC_REMAINDER")


@pytest.mark.parametrize(("quantity", "last"), [("3", S.FILLED), ("3.01", S.CANCELLED)])
def test_fok_is_all_or_nothing(quantity: str, last: OrderStatus) -> None:
    paper = venue(partial_fill_share=1)
    paper.on_market(at(0))
    paper.submit(limit(price="102", quantity=quantity, time_in_force=TimeInForce.FOK))
    reports = paper.on_market(at(1, orderbook=BOOK))
    assert reports[-1].status is last
    assert reports[-1].filled_qty == (Decimal(3) if last is S.FILLED else 0)


def test_a_fok_order_that_closes_more_than_the_leg_holds_is_not_filled() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(buy("open", "2"))
    paper.on_market(at(1))
    paper.submit(close("more", "3", time_in_force=TimeInForce.FOK))
    assert told(paper.on_market(at(2))) == [("more", S.ACCEPTED), ("more", S.CANCELLED)]
    assert paper.positions() == {("BTCUSDT", PositionSide.LONG): Decimal(2)}


def test_partial_fills_are_several_executions_over_successive_snapshots() -> None:
    paper = venue(partial_fill_share=1)
    paper.on_market(at(0))
    paper.submit(buy(quantity="2"))
    per_snapshot = [fills(paper.on_market(at(n))) for n in range(1, 6)]
    executions = [len(found) for found in per_snapshot if found]
    assert 2 <= len(executions) <= 4
    assert set(executions) == {1}
    assert sum(Decimal(quantity) for found in per_snapshot for quantity, _ in found) == 2


def test_chance_depends_on_seed_and_order_not_on_what_else_goes_on() -> None:
    def arrivals(seed: int, *noise: str) -> list[tuple[str, OrderStatus, int, str]]:
        paper = venue(seed=seed, latency_ms=500, latency_jitter_ms=400, reject_share=0.2, partial_fill_share=0.5)
        paper.on_market(at(0))
        seen = []
        for n in range(20):
            for name in noise:
                paper.submit(buy(f"{name}{n}"))
            paper.submit(buy(f"mine{n}"))
        for n in range(200):
            paper.on_market(at(n / 100 + 0.01, symbol="ETHUSDT"))
            seen += [
                (report.client_order_id, report.status, report.timestamp_ns, report.trade_id)
                for report in paper.on_market(at(n / 100))
                if report.client_order_id.startswith("mine")
            ]
        return seen

    assert arrivals(7) == arrivals(7, "other", "another")
    assert arrivals(7) != arrivals(8)
