"""The paper venue: fills against the market it sees, seeded, without looking ahead."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.events import (
    LiquiditySide,
    MarketEvent,
    OrderBook,
    OrderStatus,
    OrderType,
    PositionSide,
    Side,
    TimeInForce,
)
from botplatform.errors import DuplicateOrder, StateError
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest, SimulatedExchange
from botplatform.exchanges.paper.venue import FINISHED_KEPT, PaperVenue
from botplatform.settings import ExchangeSettings, InstrumentSettings
from botplatform.trading.instruments import Instruments

S = OrderStatus
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
BOOK = OrderBook((99.0, 98.0, 97.0), (1.0, 2.0, 4.0), (101.0, 102.0, 103.0), (1.0, 2.0, 4.0))


def venue(**changed: Any) -> PaperVenue:
    plain: dict[str, Any] = {"latency_ms": 100, "latency_jitter_ms": 0, "partial_fill_share": 0, "spread_bps": 100}
    lots = InstrumentSettings(tick_size=Decimal("0.01"), lot_step=Decimal("0.01"))
    return PaperVenue(ExchangeSettings(**(plain | changed)), Instruments({"BTCUSDT": lots}))


def at(seconds: float, price: float = 100.0, **fields: Any) -> MarketEvent:
    return MarketEvent(fields.pop("symbol", "BTCUSDT"), price, timestamp_ns=START + round(seconds * SECOND), **fields)


def buy(name: str = "a", quantity: str = "1", **fields: Any) -> OrderRequest:
    known: dict[str, Any] = {"symbol": "BTCUSDT", "side": Side.BUY} | fields
    return OrderRequest(client_order_id=name, quantity=Decimal(quantity), **known)


def limit(name: str = "a", price: str = "100", quantity: str = "1", **fields: Any) -> OrderRequest:
    return buy(name, quantity, order_type=OrderType.LIMIT, price=Decimal(price), **fields)


def close(name: str = "c", quantity: str = "1", **fields: Any) -> OrderRequest:
    return buy(name, quantity, side=Side.SELL, reduce_only=True, **fields)


def told(reports: list[ExchangeReport]) -> list[tuple[str, OrderStatus]]:
    return [(report.client_order_id, report.status) for report in reports]


def fills(reports: list[ExchangeReport]) -> list[tuple[str, str]]:
    return [(str(report.last_qty), str(report.last_px)) for report in reports if report.trade_id]


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


def test_a_cancel_is_a_request_that_a_fill_may_outrun() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(limit("rests", "90"))
    paper.submit(limit("fills", "98"))
    paper.on_market(at(1))
    assert paper.cancel("rests", "BTCUSDT") == []
    assert told(paper.on_market(at(1.05, 97.0))) == [("fills", S.FILLED)]
    (cancelled,) = paper.on_market(at(2))
    assert told([cancelled]) == [("rests", S.CANCELLED)]
    assert cancelled.reason_code == "REQUESTED"
    assert paper.cancel("fills", "BTCUSDT") == paper.cancel("never seen", "BTCUSDT") == []
    assert paper.on_market(at(3)) == []


def test_rule_5_a_repeated_id_is_refused_only_while_the_first_order_is_open() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(buy())
    with pytest.raises(DuplicateOrder, match="ask for it instead"):
        paper.submit(buy())
    first = paper.on_market(at(1))
    assert told(first) == [("a", S.ACCEPTED), ("a", S.FILLED)]
    paper.submit(buy())
    again = paper.on_market(at(2))
    assert told(again) == [("a", S.ACCEPTED), ("a", S.FILLED)]
    assert {report.venue_order_id for report in first}.isdisjoint(report.venue_order_id for report in again)
    assert first[-1].trade_id != again[-1].trade_id


def test_rule_23_a_long_and_a_short_leg_are_held_at_once_and_closed_apart() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(buy("long", "2"))
    paper.submit(buy("short", "3", side=Side.SELL, position_side=PositionSide.SHORT))
    paper.on_market(at(1))
    paper.submit(buy("cut", "1", side=Side.BUY, position_side=PositionSide.SHORT, reduce_only=True))
    paper.on_market(at(2))
    assert paper.positions() == {
        ("BTCUSDT", PositionSide.LONG): Decimal(2),
        ("BTCUSDT", PositionSide.SHORT): Decimal(2),
    }


def test_rule_23_closing_never_flips_a_leg() -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(close("nothing"))
    paper.submit(buy("open", "2"))
    paper.submit(close("more", "5"))
    reports = paper.on_market(at(1))
    assert told(reports[:1]) == [("nothing", S.REJECTED)]
    assert told(reports[-2:]) == [("more", S.PARTIALLY_FILLED), ("more", S.CANCELLED)]
    assert {reports[0].reason_code, reports[-1].reason_code} == {"REDUCE_ONLY"}
    assert reports[-1].filled_qty == 2
    assert paper.positions() == {}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (limit(price="100.001"), "INVALID_PRICE"),
        (limit(price="0"), "INVALID_PRICE"),
        (buy(quantity="1.001"), "BELOW_MIN_QUANTITY"),
        (buy(quantity="0"), "BELOW_MIN_QUANTITY"),
        (buy(reduce_only=True), "REDUCE_ONLY"),
        (buy(post_only=True), "WOULD_TAKE"),
    ],
)
def test_rule_27_the_venue_refuses_what_its_instrument_does_not_allow(request_: OrderRequest, reason: str) -> None:
    paper = venue()
    paper.on_market(at(0))
    paper.submit(request_)
    (refused,) = paper.on_market(at(1))
    assert (refused.status, refused.reason_code) == (S.REJECTED, reason)


def test_seeded_rejections_come_in_the_share_that_is_asked_for() -> None:
    paper = venue(reject_share=0.3)
    paper.on_market(at(0))
    for n in range(400):
        paper.submit(buy(f"o{n}"))
    reports = paper.on_market(at(1))
    refused = [report for report in reports if report.status is S.REJECTED]
    assert 80 < len(refused) < 160
    assert {report.reason_code for report in refused} == {"VENUE_REFUSED"}


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


def test_an_order_can_be_asked_for_from_the_moment_it_was_sent() -> None:
    paper = venue()
    assert paper.fetch_order("a", "BTCUSDT") is None
    paper.on_market(at(0))
    paper.submit(limit(price="90"))
    on_its_way = paper.fetch_order("a", "BTCUSDT")
    assert on_its_way is not None
    assert (on_its_way.status, on_its_way.version) == (S.ACCEPTED, 0)
    assert paper.open_orders() == [on_its_way]
    (accepted,) = paper.on_market(at(1))
    assert paper.fetch_order("a", "BTCUSDT") == accepted
    (filled,) = paper.on_market(at(2, 50.0))
    assert paper.fetch_order("a", "BTCUSDT") == filled
    assert paper.open_orders("BTCUSDT") == []


def test_rule_20_finished_orders_are_bounded() -> None:
    paper = venue()
    paper.on_market(at(0))
    for n in range(FINISHED_KEPT + 10):
        paper.submit(buy(f"o{n}"))
        paper.on_market(at(n + 1))
    assert paper.fetch_order("o9", "BTCUSDT") is None
    assert paper.fetch_order("o10", "BTCUSDT") is not None
    assert len(paper.snapshot()) < 100_000


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff\xfe", b'[{"symbol": 1}]'])
def test_garbage_is_no_state(garbage: bytes) -> None:
    with pytest.raises(StateError, match="cannot be restored"):
        venue().restore(garbage)


requests = st.builds(
    lambda name, quantity, side, leg, price, lifetime, post, reduce: OrderRequest(
        client_order_id=name,
        symbol="BTCUSDT",
        side=side,
        quantity=quantity,
        position_side=leg,
        order_type=OrderType.MARKET if price is None else OrderType.LIMIT,
        price=price,
        time_in_force=lifetime,
        post_only=post,
        reduce_only=reduce,
    ),
    st.sampled_from([f"order-{n}" for n in range(12)]),
    st.decimals("0.01", 9, places=2),
    st.sampled_from(Side),
    st.sampled_from(PositionSide),
    st.none() | st.decimals(95, 105, places=2),
    st.sampled_from([TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK]),
    st.booleans(),
    st.booleans(),
)
snapshots = st.tuples(st.floats(94, 106), st.booleans(), st.integers(0, 400))
steps = st.lists(requests | snapshots | st.sampled_from(["order-0", "order-1"]), max_size=60)


def run(paper: PaperVenue, todo: list[Any], restore_at: int | None = None) -> list[ExchangeReport]:
    reports, now = [], 0.0
    for index, item in enumerate(todo):
        if index == restore_at:
            data = paper.snapshot()
            paper = venue(latency_jitter_ms=90, partial_fill_share=0.5, reject_share=0.1)
            paper.restore(data)
            assert paper.snapshot() == data
        if isinstance(item, OrderRequest):
            try:
                reports += paper.submit(item)
            except DuplicateOrder:
                continue
        elif isinstance(item, str):
            reports += paper.cancel(item, "BTCUSDT")
        else:
            price, with_book, later_ms = item
            now += later_ms / 1000
            book = OrderBook((price - 1,), (3.0,), (price + 1,), (3.0,)) if with_book else None
            reports += paper.on_market(at(now, price, orderbook=book))
    return reports


@settings(max_examples=200)
@given(steps, st.integers(0, 60))
def test_any_orders_and_markets_give_sound_reports_and_survive_a_restore(todo: list[Any], restore_at: int) -> None:
    paper = venue(latency_jitter_ms=90, partial_fill_share=0.5, reject_share=0.1)
    reports = run(paper, todo)
    again = run(venue(latency_jitter_ms=90, partial_fill_share=0.5, reject_share=0.1), todo, restore_at)
    assert again == reports
    last: dict[str, ExchangeReport] = {}
    for report in reports:
        before = last.get(report.venue_order_id)
        assert report.version == (before.version + 1 if before else 1)
        assert before is None or before.status not in {S.FILLED, S.CANCELLED, S.REJECTED}
        if report.last_qty is not None:
            assert report.last_qty > 0
            done = before.filled_qty if before else Decimal(0)
            assert report.filled_qty == done + report.last_qty <= report.quantity
            if report.price is not None and report.last_px is not None:
                better = report.last_px <= report.price if report.side is Side.BUY else report.last_px >= report.price
                assert better
        last[report.venue_order_id] = report
    trades = [report.trade_id for report in reports if report.trade_id]
    assert len(set(trades)) == len(trades)
    assert all(quantity > 0 for quantity in paper.positions().values())
